/* As quantize_avx512.c, eight pairs of weights at a time; two such make the sixteen lanes of the sums. A table of
 * sixteen is two of eight and a choice by the path's highest bit. */
#include <immintrin.h>
#include <string.h>

#include "kernels/cpu/quantize_cpu.h"

enum { STEP = 32 };

typedef struct pairs {
  __m256 even, odd;
} pairs;

typedef struct acc {
  __m256 squares, error, cross, code_squares;
} acc;

typedef struct tables {
  __m256 root, left, right, tree2, tree3, low_values, high_values;
  __m256i low_codes, high_codes;
} tables;

static inline float sum_lanes(__m256 low, __m256 high) {
  __m256 a = _mm256_add_ps(low, high);
  __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  b = _mm_add_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}

static inline pairs load_f32(const void *src) {
  __m256 a = _mm256_loadu_ps(src), b = _mm256_loadu_ps((const float *)src + 8);
  __m256 even = _mm256_shuffle_ps(a, b, 0x88), odd = _mm256_shuffle_ps(a, b, 0xdd); /* 0 1 4 5 2 3 6 7 in pairs */
  return (pairs){_mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(even), 0xd8)),
                 _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(odd), 0xd8))};
}

static inline pairs load_f16(const void *src) {
  __m256i w = _mm256_loadu_si256(src);
  float x[16];
  _mm256_storeu_ps(x, _mm256_cvtph_ps(_mm256_castsi256_si128(w)));
  _mm256_storeu_ps(x + 8, _mm256_cvtph_ps(_mm256_extracti128_si256(w, 1)));
  return load_f32(x);
}

static inline pairs load_bf16(const void *src) {
  __m256i w = _mm256_loadu_si256(src);
  __m256i high = _mm256_set1_epi32((int)0xffff0000);
  return (pairs){_mm256_castsi256_ps(_mm256_slli_epi32(w, 16)), _mm256_castsi256_ps(_mm256_and_si256(w, high))};
}

static inline pairs load(nb_dtype dtype, const char *src) {
  return dtype == NB_BF16 ? load_bf16(src) : dtype == NB_F16 ? load_f16(src) : load_f32(src);
}

static inline uint32_t max_u32(__m256i v) {
  __m128i a = _mm_max_epu32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  a = _mm_max_epu32(a, _mm_shuffle_epi32(a, 0x4e));
  a = _mm_max_epu32(a, _mm_shuffle_epi32(a, 0xb1));
  return (uint32_t)_mm_cvtsi128_si32(a);
}

static inline uint16_t max_u16(__m256i v) {
  return (uint16_t)max_u32(_mm256_max_epu32(_mm256_srli_epi32(v, 16), _mm256_and_si256(v, _mm256_set1_epi32(0xffff))));
}

static inline float absmax_16bit(nb_dtype dtype, const char *src, int64_t n) {
  const __m256i magnitude = _mm256_set1_epi16(0x7fff);
  __m256i most = _mm256_setzero_si256();
  for (int64_t i = 0; i < n; i += 16) {
    __m256i w = _mm256_loadu_si256((const __m256i *)(src + 2 * i));
    most = _mm256_max_epu16(most, _mm256_and_si256(w, magnitude));
  }
  return dtype == NB_BF16 ? nb_bf16_to_f32(max_u16(most)) : nb_f16_to_f32(max_u16(most));
}

static inline float absmax_f32(const char *src, int64_t n) {
  const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
  __m256i most = _mm256_setzero_si256();
  for (int64_t i = 0; i < n; i += 8) {
    __m256i w = _mm256_loadu_si256((const __m256i *)(src + 4 * i));
    most = _mm256_max_epu32(most, _mm256_and_si256(w, magnitude));
  }
  return nb_bits_to_f32(max_u32(most));
}

/* Walks the tree. A comparison's -1 is subtracted to go right. */
static inline __m256i step_down(__m256i path, __m256 v, __m256 threshold) {
  __m256i right = _mm256_castps_si256(_mm256_cmp_ps(v, threshold, _CMP_GT_OQ));
  return _mm256_sub_epi32(_mm256_add_epi32(path, path), right);
}

static inline __m256i rank_of(const tables *t, __m256 v) {
  __m256 right = _mm256_cmp_ps(v, t->root, _CMP_GT_OQ);
  __m256i path = _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_castps_si256(right));
  path = step_down(path, v, _mm256_blendv_ps(t->left, t->right, right));
  path = step_down(path, v, _mm256_permutevar8x32_ps(t->tree2, path));
  return step_down(path, v, _mm256_permutevar8x32_ps(t->tree3, path));
}

static inline void add_sums(acc *a, __m256 v, __m256 m, bool nested) {
  __m256 miss = _mm256_sub_ps(v, m);
  a->squares = _mm256_add_ps(a->squares, _mm256_mul_ps(v, v));
  a->error = _mm256_add_ps(a->error, _mm256_mul_ps(miss, miss));
  if (!nested) return;
  a->cross = _mm256_add_ps(a->cross, _mm256_mul_ps(miss, m));
  a->code_squares = _mm256_add_ps(a->code_squares, _mm256_mul_ps(m, m));
}

static inline __m256i encode(const tables *t, __m256 v, bool nested, bool sorted, acc *a) {
  __m256i rank = rank_of(t, v);
  __m256 high = _mm256_castsi256_ps(_mm256_slli_epi32(rank, 28)); /* bit 3 to the sign, which blendv looks at */
  __m256 m = _mm256_blendv_ps(_mm256_permutevar8x32_ps(t->low_values, rank),
                              _mm256_permutevar8x32_ps(t->high_values, rank), high);
  add_sums(a, v, m, nested);
  if (sorted) return rank;
  __m256i low_codes = _mm256_permutevar8x32_epi32(t->low_codes, rank);
  __m256i high_codes = _mm256_permutevar8x32_epi32(t->high_codes, rank);
  return _mm256_castps_si256(_mm256_blendv_ps(_mm256_castsi256_ps(low_codes), _mm256_castsi256_ps(high_codes), high));
}

static inline tables load_tables(const nb_levels *l) {
  return (tables){
      .root = _mm256_set1_ps(l->tree[0][0]),
      .left = _mm256_set1_ps(l->tree[1][0]),
      .right = _mm256_set1_ps(l->tree[1][1]),
      .tree2 = _mm256_loadu_ps(l->tree[2]),
      .tree3 = _mm256_loadu_ps(l->tree[3]),
      .low_values = _mm256_loadu_ps(l->values),
      .high_values = _mm256_loadu_ps(l->values + 8),
      .low_codes = _mm256_loadu_si256((const __m256i *)l->codes),
      .high_codes = _mm256_loadu_si256((const __m256i *)(l->codes + 8)),
  };
}

/* Eight lanes of bytes in the low bits of 32. */
static inline __m128i narrow(__m256i v) {
  __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  return _mm_packus_epi16(words, words);
}

static inline __m128i encode_pairs(const tables *t, pairs p, __m256 reciprocal, bool nested, bool sorted, acc *a) {
  __m256i even = encode(t, _mm256_mul_ps(p.even, reciprocal), nested, sorted, a);
  __m256i odd = encode(t, _mm256_mul_ps(p.odd, reciprocal), nested, sorted, a);
  return narrow(_mm256_or_si256(_mm256_slli_epi32(even, 4), odd));
}

static inline nb_block_sums sum_accs(const acc a[2]) {
  return (nb_block_sums){sum_lanes(a[0].squares, a[1].squares), sum_lanes(a[0].error, a[1].error),
                         sum_lanes(a[0].cross, a[1].cross), sum_lanes(a[0].code_squares, a[1].code_squares)};
}

static inline acc no_sums(void) {
  return (acc){_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps()};
}

/* Inlined with dtype as a constant. */
__attribute__((always_inline)) static inline int64_t blocks_of(const nb_levels *levels, nb_dtype dtype,
                                                               const nb_quantize_run *run, int64_t block_size) {
  const tables t = load_tables(levels);
  const char *src = run->src;
  const bool nested = run->nested;
  uint8_t *codes = run->codes;
  float *absmax = run->scales;
  nb_block_sums *sums = run->sums;
  const int64_t blocks = run->count / block_size;
  const bool sorted = levels->codes[0] == 0;
  const size_t size = dtype == NB_F32 ? 4 : 2;
  for (int64_t b = 0; b < blocks; b++) {
    float most = dtype == NB_F32 ? absmax_f32(src, block_size) : absmax_16bit(dtype, src, block_size);
    if (!(most <= 0x1.fffffep127f)) return b;
    absmax[b] = most;
    const __m256 reciprocal = _mm256_set1_ps(1.0f / (most > NB_MIN_ABSMAX ? most : NB_MIN_ABSMAX));
    acc a[2] = {no_sums(), no_sums()};
    for (int64_t i = 0; i < block_size; i += STEP) {
      const char *at = src + (size_t)i * size;
      __m128i low = encode_pairs(&t, load(dtype, at), reciprocal, nested, sorted, &a[0]);
      __m128i high = encode_pairs(&t, load(dtype, at + 16 * size), reciprocal, nested, sorted, &a[1]);
      _mm_storeu_si128((__m128i *)(codes + i / 2), _mm_unpacklo_epi64(low, high));
    }
    sums[b] = sum_accs(a);
    src += (size_t)block_size * size;
    codes += block_size / 2;
  }
  return -1;
}

static int64_t blocks_4bit(const nb_levels *levels, const nb_quantize_run *run, int64_t block_size) {
  if (run->dtype == NB_BF16) return blocks_of(levels, NB_BF16, run, block_size);
  if (run->dtype == NB_F16) return blocks_of(levels, NB_F16, run, block_size);
  return blocks_of(levels, NB_F32, run, block_size);
}

/* Eight weights of an int8 row and their float16 roundings. */
__attribute__((always_inline)) static inline __m256 load_row(nb_dtype dtype, const char *src, __m128i *half) {
  __m256 x;
  if (dtype == NB_F32) {
    x = _mm256_loadu_ps((const float *)src);
  } else {
    *half = _mm_loadu_si128((const __m128i *)src);
    if (dtype == NB_F16) return _mm256_cvtph_ps(*half);
    x = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(*half), 16));
  }
  *half = _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  return x;
}

static inline __m128i encode_row(__m256 x, __m128i half, __m256 scale, acc *a) {
  __m256i code = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_cvtph_ps(half), scale)); /* ties to even */
  add_sums(a, _mm256_mul_ps(x, scale), _mm256_cvtepi32_ps(code), false);
  __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(code), _mm256_extracti128_si256(code, 1));
  return _mm_packs_epi16(words, words);
}

__attribute__((always_inline)) static inline bool row_of(nb_dtype dtype, const char *src, int64_t cols, int8_t *codes,
                                                         float *scb, nb_block_sums *sums) {
  const size_t size = dtype == NB_F32 ? 4 : 2;
  const __m128i magnitude = _mm_set1_epi16(0x7fff);
  int64_t whole = cols / 16 * 16;
  char last[64] = {0}; /* what does not fill 16 lanes, zeros after it */
  int8_t last_codes[16];
  memcpy(last, src + (size_t)whole * size, (size_t)(cols - whole) * size);

  __m128i most = _mm_setzero_si128(), half;
  for (int64_t c = 0; c < cols; c += 8) {
    load_row(dtype, c < whole ? src + (size_t)c * size : last + (size_t)(c - whole) * size, &half);
    most = _mm_max_epu16(most, _mm_and_si128(half, magnitude));
  }
  uint16_t bits = max_u16(_mm256_zextsi128_si256(most));
  if (bits >= 0x7c00) return false;
  *scb = nb_f16_to_f32(bits);
  const __m256 scale = _mm256_set1_ps(*scb > 0 ? 1.0f / *scb * 127.0f : 0);
  acc a[2] = {no_sums(), no_sums()};
  for (int64_t c = 0; c < cols; c += 16) {
    const char *at = c < whole ? src + (size_t)c * size : last;
    int8_t *to = c < whole ? codes + c : last_codes;
    for (size_t h = 0; h < 2; h++) {
      __m256 x = load_row(dtype, at + h * 8 * size, &half);
      _mm_storel_epi64((__m128i *)(to + 8 * h), encode_row(x, half, scale, &a[h]));
    }
  }
  memcpy(codes + whole, last_codes, (size_t)(cols - whole));
  *sums = sum_accs(a);
  return true;
}

static bool row_int8(nb_dtype dtype, const void *src, int64_t cols, int8_t *codes, float *scb, nb_block_sums *sums) {
  if (dtype == NB_BF16) return row_of(NB_BF16, src, cols, codes, scb, sums);
  if (dtype == NB_F16) return row_of(NB_F16, src, cols, codes, scb, sums);
  return row_of(NB_F32, src, cols, codes, scb, sums);
}

const nb_cpu_quantize nb_cpu_quantize_avx2 = {blocks_4bit, row_int8};
