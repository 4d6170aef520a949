/* Sixteen pairs of weights at a time: the even ones in one register, the odd ones in another, so that the two codes of
 * a byte meet in one lane and a lane is a lane of the sums.
 *
 *   bf16 in memory   w0 w1 | w2 w3 | ... | w30 w31      (32 bits a pair)
 *   even             w0    | w2    | ... | w30          float32, pair << 16
 *   odd              w1    | w3    | ... | w31          float32, pair & 0xffff0000
 *   codes            c0<<4 | c1, c2<<4 | c3, ...        narrowed to 16 bytes */
#include <immintrin.h>

#include "kernels/cpu/quantize_cpu.h"

enum { STEP = 32 };

typedef struct pairs {
  __m512 even, odd;
} pairs;

typedef struct acc {
  __m512 squares, error, cross, code_squares;
} acc;

typedef struct tables {
  __m512 tree[4], values;
  __m512i codes;
  __m512 root, left, right;
} tables;

static inline float sum_lanes(__m512 v) {
  __m256 a = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  b = _mm_add_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}

static inline pairs load_bf16(const void *src) {
  __m512i w = _mm512_loadu_si512(src);
  __m512i high = _mm512_set1_epi32((int)0xffff0000);
  return (pairs){_mm512_castsi512_ps(_mm512_slli_epi32(w, 16)), _mm512_castsi512_ps(_mm512_and_si512(w, high))};
}

static inline pairs load_f16(const void *src) {
  __m512i w = _mm512_loadu_si512(src);
  return (pairs){_mm512_cvtph_ps(_mm512_cvtepi32_epi16(w)),
                 _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(w, 16)))};
}

static inline pairs load_f32(const void *src) {
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  __m512 a = _mm512_loadu_ps(src), b = _mm512_loadu_ps((const float *)src + 16);
  return (pairs){_mm512_permutex2var_ps(a, even, b),
                 _mm512_permutex2var_ps(a, _mm512_add_epi32(even, _mm512_set1_epi32(1)), b)};
}

static inline pairs load(nb_dtype dtype, const char *src) {
  return dtype == NB_BF16 ? load_bf16(src) : dtype == NB_F16 ? load_f16(src) : load_f32(src);
}

/* Largest magnitude of a block, as a float32 (infinity or NaN if there is one: their bits are the largest). */
static inline float absmax_16bit(nb_dtype dtype, const char *src, int64_t n) {
  const __m512i magnitude = _mm512_set1_epi16(0x7fff);
  __m512i most = _mm512_setzero_si512();
  for (int64_t i = 0; i < n; i += STEP)
    most = _mm512_max_epu16(most, _mm512_and_si512(_mm512_loadu_si512(src + 2 * i), magnitude));
  /* Both halves of a lane, then the lanes. */
  most = _mm512_max_epu32(_mm512_srli_epi32(most, 16), _mm512_and_si512(most, _mm512_set1_epi32(0xffff)));
  uint16_t bits = (uint16_t)_mm512_reduce_max_epu32(most);
  return dtype == NB_BF16 ? nb_bf16_to_f32(bits) : nb_f16_to_f32(bits);
}

static inline float absmax_f32(const char *src, int64_t n) {
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  __m512i most = _mm512_setzero_si512();
  for (int64_t i = 0; i < n; i += 16)
    most = _mm512_max_epu32(most, _mm512_and_si512(_mm512_loadu_si512(src + 4 * i), magnitude));
  return nb_bits_to_f32(_mm512_reduce_max_epu32(most));
}

/* Walks the tree; the table of a level is looked up by the path so far. */
static inline __m512i rank_of(const tables *t, __m512 v) {
  const __m512i one = _mm512_set1_epi32(1);
  __mmask16 k = _mm512_cmp_ps_mask(v, t->root, _CMP_GT_OQ);
  __m512i path = _mm512_maskz_mov_epi32(k, one);
  k = _mm512_cmp_ps_mask(v, _mm512_mask_blend_ps(k, t->left, t->right), _CMP_GT_OQ);
  path = _mm512_add_epi32(path, path);
  path = _mm512_mask_add_epi32(path, k, path, one);
  k = _mm512_cmp_ps_mask(v, _mm512_permutexvar_ps(path, t->tree[2]), _CMP_GT_OQ);
  path = _mm512_add_epi32(path, path);
  path = _mm512_mask_add_epi32(path, k, path, one);
  k = _mm512_cmp_ps_mask(v, _mm512_permutexvar_ps(path, t->tree[3]), _CMP_GT_OQ);
  path = _mm512_add_epi32(path, path);
  return _mm512_mask_add_epi32(path, k, path, one);
}

static inline void add_sums(acc *a, __m512 v, __m512 m, bool nested) {
  __m512 miss = _mm512_sub_ps(v, m);
  a->squares = _mm512_add_ps(a->squares, _mm512_mul_ps(v, v));
  a->error = _mm512_add_ps(a->error, _mm512_mul_ps(miss, miss));
  if (!nested) return;
  a->cross = _mm512_add_ps(a->cross, _mm512_mul_ps(miss, m));
  a->code_squares = _mm512_add_ps(a->code_squares, _mm512_mul_ps(m, m));
}

static inline __m512i encode(const tables *t, __m512 v, bool nested, bool sorted, acc *a) {
  __m512i rank = rank_of(t, v);
  add_sums(a, v, _mm512_permutexvar_ps(rank, t->values), nested);
  return sorted ? rank : _mm512_permutexvar_epi32(rank, t->codes);
}

static inline tables load_tables(const nb_levels *l) {
  tables t = {.values = _mm512_loadu_ps(l->values), .codes = _mm512_loadu_si512(l->codes)};
  for (int i = 0; i < 4; i++) t.tree[i] = _mm512_castps256_ps512(_mm256_loadu_ps(l->tree[i]));
  t.root = _mm512_set1_ps(l->tree[0][0]);
  t.left = _mm512_set1_ps(l->tree[1][0]);
  t.right = _mm512_set1_ps(l->tree[1][1]);
  return t;
}

/* What blocks_of is inlined for. */
typedef struct blocks_kind {
  nb_dtype dtype; /* a constant; in the usual case the others are too */
  bool nested, sorted;
  int64_t block_size;
} blocks_kind;

__attribute__((always_inline)) static inline int64_t blocks_of(const nb_levels *levels, blocks_kind kind,
                                                               const nb_quantize_run *run) {
  const tables t = load_tables(levels);
  const nb_dtype dtype = kind.dtype;
  const bool nested = kind.nested, sorted = kind.sorted;
  const char *src = run->src;
  uint8_t *codes = run->codes;
  float *absmax = run->scales;
  nb_block_sums *sums = run->sums;
  const int64_t block_size = kind.block_size, blocks = run->count / block_size;
  const size_t size = dtype == NB_F32 ? 4 : 2;
  for (int64_t b = 0; b < blocks; b++) {
    float most = dtype == NB_F32 ? absmax_f32(src, block_size) : absmax_16bit(dtype, src, block_size);
    if (!(most <= 0x1.fffffep127f)) return b;
    absmax[b] = most;
    const __m512 reciprocal = _mm512_set1_ps(1.0f / (most > NB_MIN_ABSMAX ? most : NB_MIN_ABSMAX));
    acc a = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
    for (int64_t i = 0; i < block_size; i += STEP) {
      pairs p = load(dtype, src + (size_t)i * size);
      __m512i even = encode(&t, _mm512_mul_ps(p.even, reciprocal), nested, sorted, &a);
      __m512i odd = encode(&t, _mm512_mul_ps(p.odd, reciprocal), nested, sorted, &a);
      __m128i bytes = _mm512_cvtepi32_epi8(_mm512_or_si512(_mm512_slli_epi32(even, 4), odd));
      _mm_storeu_si128((__m128i *)(codes + i / 2), bytes);
    }
    sums[b] = (nb_block_sums){sum_lanes(a.squares), sum_lanes(a.error), nested ? sum_lanes(a.cross) : 0,
                              nested ? sum_lanes(a.code_squares) : 0};
    src += (size_t)block_size * size;
    codes += block_size / 2;
  }
  return -1;
}

static int64_t blocks_4bit(const nb_levels *levels, const nb_quantize_run *run, int64_t block_size) {
  bool sorted = levels->codes[0] == 0;
  if (run->dtype == NB_BF16 && block_size == 64 && sorted && !run->nested) /* the usual case, unrolled */
    return blocks_of(levels, (blocks_kind){NB_BF16, false, true, 64}, run);
  blocks_kind kind = {run->dtype, run->nested, sorted, block_size};
  switch (run->dtype) {
    case NB_BF16: kind.dtype = NB_BF16; return blocks_of(levels, kind, run);
    case NB_F16: kind.dtype = NB_F16; return blocks_of(levels, kind, run);
    default: kind.dtype = NB_F32; return blocks_of(levels, kind, run);
  }
}

/* Sixteen weights of an int8 row and their float16 roundings; lanes outside `mask` are zero. */
__attribute__((always_inline)) static inline __m512 load_row(nb_dtype dtype, const char *src, __mmask16 mask,
                                                             __m256i *half) {
  if (dtype == NB_F32) {
    __m512 x = _mm512_maskz_loadu_ps(mask, src);
    *half = _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    return x;
  }
  __m256i bits = _mm256_maskz_loadu_epi16(mask, src);
  if (dtype == NB_F16) {
    *half = bits;
    return _mm512_cvtph_ps(bits);
  }
  __m512 x = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  *half = _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  return x;
}

static inline __mmask16 rest(int64_t left) { return left >= 16 ? 0xffff : (__mmask16)((1u << left) - 1); }

__attribute__((always_inline)) static inline bool row_of(nb_dtype dtype, const char *src, int64_t cols, int8_t *codes,
                                                         float *scb, nb_block_sums *sums) {
  const size_t size = dtype == NB_F32 ? 4 : 2;
  __m256i most = _mm256_setzero_si256(), half;
  for (int64_t c = 0; c < cols; c += 16) {
    load_row(dtype, src + (size_t)c * size, rest(cols - c), &half);
    most = _mm256_max_epu16(most, _mm256_and_si256(half, _mm256_set1_epi16(0x7fff)));
  }
  uint16_t bits = (uint16_t)_mm512_reduce_max_epu32(_mm512_cvtepu16_epi32(most));
  if (bits >= 0x7c00) return false;
  *scb = nb_f16_to_f32(bits);
  const __m512 scale = _mm512_set1_ps(*scb > 0 ? 1.0f / *scb * 127.0f : 0);
  acc a = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
  for (int64_t c = 0; c < cols; c += 16) {
    __mmask16 mask = rest(cols - c);
    __m512 v = _mm512_mul_ps(load_row(dtype, src + (size_t)c * size, mask, &half), scale);
    __m512i code = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_cvtph_ps(half), scale)); /* ties to even */
    _mm512_mask_cvtepi32_storeu_epi8(codes + c, mask, code);
    add_sums(&a, v, _mm512_cvtepi32_ps(code), false);
  }
  *sums = (nb_block_sums){.squares = sum_lanes(a.squares), .error = sum_lanes(a.error)};
  return true;
}

static bool row_int8(nb_dtype dtype, const void *src, int64_t cols, int8_t *codes, float *scb, nb_block_sums *sums) {
  if (dtype == NB_BF16) return row_of(NB_BF16, src, cols, codes, scb, sums);
  if (dtype == NB_F16) return row_of(NB_F16, src, cols, codes, scb, sums);
  return row_of(NB_F32, src, cols, codes, scb, sums);
}

const nb_cpu_quantize nb_cpu_quantize_avx512 = {blocks_4bit, row_int8};
