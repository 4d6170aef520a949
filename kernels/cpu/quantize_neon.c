/* As quantize_avx512.c, four pairs of weights at a time; four such make the sixteen lanes of the sums. A table of
 * floats is looked up by tbl, byte by byte. */
#include <arm_neon.h>
#include <string.h>

#include "kernels/cpu/quantize_cpu.h"

enum {
  PARTS = NB_SUM_LANES / 4,
  STEP = 2 * NB_SUM_LANES,
};

typedef struct acc {
  float32x4_t squares[PARTS], error[PARTS], cross[PARTS], code_squares[PARTS];
} acc;

typedef struct tables {
  float32x4_t root, left, right;
  uint8x16_t tree2;
  uint8x16x2_t tree3;
  uint8x16x4_t values, codes;
} tables;

/* Halves of the lanes are added to each other. */
static inline float sum_lanes(const float32x4_t v[PARTS]) {
  float32x4_t four = vaddq_f32(vaddq_f32(v[0], v[2]), vaddq_f32(v[1], v[3]));
  float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
  return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}

static inline nb_block_sums sums_of(const acc *a) {
  return (nb_block_sums){sum_lanes(a->squares), sum_lanes(a->error), sum_lanes(a->cross), sum_lanes(a->code_squares)};
}

/* Four weights at `src`, which need not be aligned. */
static inline float32x4_t load4(nb_dtype dtype, const char *src) {
  const uint8_t *at = (const uint8_t *)src;
  if (dtype == NB_F32) return vreinterpretq_f32_u8(vld1q_u8(at));
  if (dtype == NB_F16) return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(at)));
  return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(at)), 16));
}

static inline float absmax_of(nb_dtype dtype, const char *src, int64_t n) {
  if (dtype == NB_F32) {
    uint32x4_t most = vdupq_n_u32(0), magnitude = vdupq_n_u32(0x7fffffff);
    for (int64_t i = 0; i < n; i += 4) {
      uint32x4_t w = vreinterpretq_u32_u8(vld1q_u8((const uint8_t *)(src + 4 * i)));
      most = vmaxq_u32(most, vandq_u32(w, magnitude));
    }
    return nb_bits_to_f32(vmaxvq_u32(most));
  }
  uint16x8_t most = vdupq_n_u16(0), magnitude = vdupq_n_u16(0x7fff);
  for (int64_t i = 0; i < n; i += 8) {
    uint16x8_t w = vreinterpretq_u16_u8(vld1q_u8((const uint8_t *)(src + 2 * i)));
    most = vmaxq_u16(most, vandq_u16(w, magnitude));
  }
  uint16_t bits = vmaxvq_u16(most);
  return dtype == NB_BF16 ? nb_bf16_to_f32(bits) : nb_f16_to_f32(bits);
}

/* The bytes of the floats that `index` names in a table. */
static inline uint8x16_t bytes_of(uint32x4_t index) {
  return vreinterpretq_u8_u32(vaddq_u32(vmulq_n_u32(index, 0x04040404), vdupq_n_u32(0x03020100)));
}

/* Walks the tree. A comparison's -1 is subtracted to go right. */
static inline uint32x4_t step_down(uint32x4_t path, float32x4_t v, uint8x16_t threshold) {
  return vsubq_u32(vaddq_u32(path, path), vcgtq_f32(v, vreinterpretq_f32_u8(threshold)));
}

static inline uint32x4_t rank_of(const tables *t, float32x4_t v) {
  uint32x4_t right = vcgtq_f32(v, t->root), path = vsubq_u32(vdupq_n_u32(0), right);
  path = step_down(path, v, vreinterpretq_u8_f32(vbslq_f32(right, t->right, t->left)));
  path = step_down(path, v, vqtbl1q_u8(t->tree2, bytes_of(path)));
  return step_down(path, v, vqtbl2q_u8(t->tree3, bytes_of(path)));
}

static inline void add_sums(acc *a, int part, float32x4_t v, float32x4_t m, bool nested) {
  float32x4_t miss = vsubq_f32(v, m);
  a->squares[part] = vaddq_f32(a->squares[part], vmulq_f32(v, v));
  a->error[part] = vaddq_f32(a->error[part], vmulq_f32(miss, miss));
  if (!nested) return;
  a->cross[part] = vaddq_f32(a->cross[part], vmulq_f32(miss, m));
  a->code_squares[part] = vaddq_f32(a->code_squares[part], vmulq_f32(m, m));
}

static inline uint32x4_t encode(const tables *t, float32x4_t v, bool nested, bool sorted, acc *a, int part) {
  uint32x4_t rank = rank_of(t, v);
  uint8x16_t at = bytes_of(rank);
  add_sums(a, part, v, vreinterpretq_f32_u8(vqtbl4q_u8(t->values, at)), nested);
  return sorted ? rank : vreinterpretq_u32_u8(vqtbl4q_u8(t->codes, at));
}

static inline uint8x16x4_t load_table(const void *from) {
  const uint8_t *at = from;
  return (uint8x16x4_t){{vld1q_u8(at), vld1q_u8(at + 16), vld1q_u8(at + 32), vld1q_u8(at + 48)}};
}

static inline tables load_tables(const nb_levels *l) {
  const uint8_t *tree3 = (const uint8_t *)l->tree[3];
  return (tables){
      .root = vdupq_n_f32(l->tree[0][0]),
      .left = vdupq_n_f32(l->tree[1][0]),
      .right = vdupq_n_f32(l->tree[1][1]),
      .tree2 = vld1q_u8((const uint8_t *)l->tree[2]),
      .tree3 = {{vld1q_u8(tree3), vld1q_u8(tree3 + 16)}},
      .values = load_table(l->values),
      .codes = load_table(l->codes),
  };
}

/* Four pairs of weights. */
typedef struct pairs {
  float32x4_t even, odd;
} pairs;

static inline pairs load_pairs(nb_dtype dtype, const char *src, float factor) {
  const size_t size = dtype == NB_F32 ? 4 : 2;
  float32x4_t low = load4(dtype, src), high = load4(dtype, src + 4 * size);
  return (pairs){vmulq_n_f32(vuzp1q_f32(low, high), factor), vmulq_n_f32(vuzp2q_f32(low, high), factor)};
}

/* Their codes, even << 4 | odd, in the low bytes of the lanes. */
static inline uint32x4_t encode_pairs(const tables *t, pairs v, bool nested, bool sorted, acc *a, int part) {
  /* Each lane adds its even weight first. */
  uint32x4_t first = encode(t, v.even, nested, sorted, a, part);
  return vorrq_u32(vshlq_n_u32(first, 4), encode(t, v.odd, nested, sorted, a, part));
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
    float most = absmax_of(dtype, src, block_size);
    if (!(most <= 0x1.fffffep127f)) return b;
    absmax[b] = most;
    const float reciprocal = 1.0f / (most > NB_MIN_ABSMAX ? most : NB_MIN_ABSMAX);
    acc a = {0};
    for (int64_t i = 0; i < block_size; i += STEP) {
      uint16x4_t words[PARTS];
      for (int p = 0; p < PARTS; p++) {
        const char *at = src + (size_t)(i + 8 * p) * size;
        words[p] = vmovn_u32(encode_pairs(&t, load_pairs(dtype, at, reciprocal), nested, sorted, &a, p));
      }
      vst1_u8(codes + i / 2, vmovn_u16(vcombine_u16(words[0], words[1])));
      vst1_u8(codes + i / 2 + 8, vmovn_u16(vcombine_u16(words[2], words[3])));
    }
    sums[b] = sums_of(&a);
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

/* Four weights of an int8 row to 16 bits; v is x * scale unrounded, the code comes from the float16 rounding of x. */
static inline int16x4_t encode_row(float32x4_t x, float scale, acc *a, int part) {
  int32x4_t code = vcvtnq_s32_f32(vmulq_n_f32(vcvt_f32_f16(vcvt_f16_f32(x)), scale)); /* ties to even */
  add_sums(a, part, vmulq_n_f32(x, scale), vcvtq_f32_s32(code), false);
  return vqmovn_s32(code);
}

__attribute__((always_inline)) static inline bool row_of(nb_dtype dtype, const char *src, int64_t cols, int8_t *codes,
                                                         float *scb, nb_block_sums *sums) {
  const size_t size = dtype == NB_F32 ? 4 : 2;
  int64_t whole = cols / NB_SUM_LANES * NB_SUM_LANES;
  char last[64] = {0}; /* what does not fill 16 lanes, zeros after it */
  int8_t last_codes[NB_SUM_LANES];
  memcpy(last, src + (size_t)whole * size, (size_t)(cols - whole) * size);

  uint16x4_t most = vdup_n_u16(0), magnitude = vdup_n_u16(0x7fff);
  for (int64_t c = 0; c < cols; c += 4) {
    const char *at = c < whole ? src + (size_t)c * size : last + (size_t)(c - whole) * size;
    most = vmax_u16(most, vand_u16(vreinterpret_u16_f16(vcvt_f16_f32(load4(dtype, at))), magnitude));
  }
  uint16_t bits = vmaxv_u16(most);
  if (bits >= 0x7c00) return false;
  *scb = nb_f16_to_f32(bits);
  const float scale = *scb > 0 ? 1.0f / *scb * 127.0f : 0;
  acc a = {0};
  for (int64_t c = 0; c < cols; c += NB_SUM_LANES) {
    const char *at = c < whole ? src + (size_t)c * size : last;
    int8_t *to = c < whole ? codes + c : last_codes;
    int16x4_t words[PARTS];
    for (int p = 0; p < PARTS; p++) words[p] = encode_row(load4(dtype, at + (size_t)(4 * p) * size), scale, &a, p);
    vst1_s8(to, vqmovn_s16(vcombine_s16(words[0], words[1])));
    vst1_s8(to + 8, vqmovn_s16(vcombine_s16(words[2], words[3])));
  }
  memcpy(codes + whole, last_codes, (size_t)(cols - whole));
  *sums = sums_of(&a);
  return true;
}

static bool row_int8(nb_dtype dtype, const void *src, int64_t cols, int8_t *codes, float *scb, nb_block_sums *sums) {
  if (dtype == NB_BF16) return row_of(NB_BF16, src, cols, codes, scb, sums);
  if (dtype == NB_F16) return row_of(NB_F16, src, cols, codes, scb, sums);
  return row_of(NB_F32, src, cols, codes, scb, sums);
}

const nb_cpu_quantize nb_cpu_quantize_neon = {blocks_4bit, row_int8};
