/* Integer dot kernels for aarch64, without and with its dot product. GPTQ's are those of q8_target.h. The other formats
 * have signed codes here, unlike on x86: a block of 32 weights is two vectors of bytes, and no bias has to be taken off
 * again. */
#ifndef NB_KERNELS_CPU_Q8_NEON_H
#define NB_KERNELS_CPU_Q8_NEON_H

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/q8_cpu.h"
#include "kernels/cpu/q8_target.h"
#include "kernels/cpu/vec.h"
#include "kernels/cpu/vi.h"
#include "kernels/gguf_parts.h"

/* 32 weights of a row, as nb_q8_weights has them. */
typedef struct block32 {
  int8x16_t codes[2];
  float scales[2], minimum;
} block32;

typedef block32 (*block_fn)(const nb_packed *w, const q8_tables *t, int64_t row, int64_t block);

static inline const uint8_t *bytes_at(const nb_packed *w, int64_t at) {
  __builtin_prefetch((const uint8_t *)w->codes + at + NB_AHEAD);
  return (const uint8_t *)w->codes + at;
}

static inline int8x16_t high_half(uint8x16_t v) { return vreinterpretq_s8_u8(vshrq_n_u8(v, 4)); }
static inline int8x16_t low_half(uint8x16_t v) { return vreinterpretq_s8_u8(vandq_u8(v, vdupq_n_u8(15))); }

static inline block32 block_4bit(const nb_packed *w, const q8_tables *t, int64_t row, int64_t block) {
  int64_t flat = row * w->cols + block * NB_Q8_BLOCK;
  uint8x16_t v = vld1q_u8(bytes_at(w, flat / 2));
  int8x16_t map = vreinterpretq_s8_s32(t->map);
  float scale = nb_block_scale(w, flat >> t->block_shift) * t->step;
  return (block32){
      {vqtbl1q_s8(map, vshrq_n_u8(v, 4)), vqtbl1q_s8(map, vandq_u8(v, vdupq_n_u8(15)))}, {scale, scale}, 0};
}

static inline block32 plain_codes(const uint8_t *at, float scale) {
  const int8_t *codes = (const int8_t *)at;
  return (block32){{vld1q_s8(codes), vld1q_s8(codes + 16)}, {scale, scale}, 0};
}

static inline block32 block_int8(const nb_packed *w, const q8_tables *t, int64_t row, int64_t block) {
  (void)t;
  return plain_codes(bytes_at(w, row * w->cols + block * NB_Q8_BLOCK), nb_row_scale(w, row));
}

static inline block32 block_q8_0(const nb_packed *w, const q8_tables *t, int64_t row, int64_t block) {
  (void)t;
  const uint8_t *at = bytes_at(w, (row * (w->cols / 32) + block) * 34);
  return plain_codes(at + 2, nb_half_at(at));
}

static inline block32 block_q4_0(const nb_packed *w, const q8_tables *t, int64_t row, int64_t block) {
  (void)t;
  const uint8_t *at = bytes_at(w, (row * (w->cols / 32) + block) * 18);
  uint8x16_t v = vld1q_u8(at + 2);
  float scale = nb_half_at(at);
  int8x16_t bias = vdupq_n_s8(8);
  return (block32){{vsubq_s8(low_half(v), bias), vsubq_s8(high_half(v), bias)}, {scale, scale}, 0};
}

static inline block32 block_q4_k(const nb_packed *w, const q8_tables *t, int64_t row, int64_t block) {
  (void)t;
  const uint8_t *at = bytes_at(w, (row * (w->cols / 256) + block / 8) * 144);
  int part = (int)(block % 8), six, minimum;
  nb_scale_and_minimum(at + 4, part, &six, &minimum);
  uint8x16_t a = vld1q_u8(at + 16 + part / 2 * 32), b = vld1q_u8(at + 32 + part / 2 * 32);
  float scale = nb_half_at(at) * (float)six;
  block32 out = {{low_half(a), low_half(b)}, {scale, scale}, nb_half_at(at + 2) * (float)minimum};
  if (part % 2) out.codes[0] = high_half(a), out.codes[1] = high_half(b);
  return out;
}

static inline block32 block_q6_k(const nb_packed *w, const q8_tables *t, int64_t row, int64_t block) {
  (void)t;
  const uint8_t *at = bytes_at(w, (row * (w->cols / 256) + block / 8) * 210);
  int part = (int)(block % 8), half = part / 4, quarter = part % 4;
  float d = nb_half_at(at + 208);
  block32 out = {.scales = {d * (float)(int8_t)at[192 + part * 2], d * (float)(int8_t)at[193 + part * 2]}};
  for (int i = 0; i < 2; i++) {
    uint8x16_t low = vld1q_u8(at + half * 64 + quarter % 2 * 32 + 16 * i);
    uint8x16_t high = vshlq_u8(vld1q_u8(at + 128 + half * 32 + 16 * i), vdupq_n_s8((int8_t)(-2 * quarter)));
    uint8x16_t top = vshlq_n_u8(vandq_u8(high, vdupq_n_u8(3)), 4);
    int8x16_t four = quarter / 2 ? high_half(low) : low_half(low);
    out.codes[i] = vsubq_s8(vorrq_s8(four, vreinterpretq_s8_u8(top)), vdupq_n_s8(32));
  }
  return out;
}

typedef struct q8_format {
  block_fn block;
  bool halves, has_minimum; /* halves: two scales a block */
  int rows;                 /* of weights that are worked on together; set by dot_n */
} q8_format;

/* A weight to multiply with. */
typedef struct q8_weight {
  const nb_packed *packed;
  q8_tables tables;
} q8_weight;

/* n rows of x against f.rows rows of weights from `row` on; f and n are constants. */
static inline __attribute__((always_inline)) void dot_blocks(const q8_format f, int n, const q8_weight *w, int64_t row,
                                                             const nb_q8_x *x, nb_sums out) {
  const int rows = f.rows;
  enum { MOST_ROWS = 2 };
  vf sum[MOST_ROWS][NB_Q8_ROWS];
  float less[MOST_ROWS][NB_Q8_ROWS] = {{0}};
  for (int r = 0; r < rows; r++) {
    for (int i = 0; i < n; i++) sum[r][i] = vf_zero();
  }
  for (int64_t block = 0; block < x->blocks; block++) {
    block32 weights[MOST_ROWS];
    for (int r = 0; r < rows; r++) weights[r] = f.block(w->packed, &w->tables, row + r, block);
    for (int i = 0; i < n; i++) {
      const int8_t *codes = x->codes + i * x->cols + block * NB_Q8_BLOCK;
      int8x16_t first = vld1q_s8(codes), second = vld1q_s8(codes + 16);
      float scale_x = x->scales[i * x->blocks + block];
      for (int r = 0; r < rows; r++) {
        const block32 *b = &weights[r];
        vi dot = dot16(vi_zero(), b->codes[0], first);
        if (f.halves) {
          sum[r][i] = vf_fma(vi_to_f32(dot), vf_set1(b->scales[0] * scale_x), sum[r][i]);
          dot = vi_zero();
        }
        dot = dot16(dot, b->codes[1], second);
        sum[r][i] = vf_fma(vi_to_f32(dot), vf_set1(b->scales[1] * scale_x), sum[r][i]);
        if (f.has_minimum) less[r][i] += b->minimum * x->sums[i * x->blocks + block];
      }
    }
  }
  for (int r = 0; r < rows; r++) {
    for (int i = 0; i < n; i++) out.data[i * out.stride + r] = vf_sum(sum[r][i]) - less[r][i];
  }
}

/* The rows of weights that a call of a dot kernel is for. */
typedef struct q8_range {
  int64_t begin, end;
} q8_range;

static inline __attribute__((always_inline)) void dot_n(q8_format f, int n, const q8_weight *w, q8_range range,
                                                        const nb_q8_x *x, nb_sums out) {
  q8_format one = f;
  f.rows = 2;
  one.rows = 1;
  int64_t r = range.begin;
  for (; r + 2 <= range.end; r += 2, out.data += 2) dot_blocks(f, n, w, r, x, out);
  if (r < range.end) dot_blocks(one, n, w, r, x, out);
}

static inline __attribute__((always_inline)) void dot_any(const q8_format f, const nb_packed *packed, int64_t begin,
                                                          int64_t end, const nb_q8_x *x, nb_sums out) {
  const q8_weight w = {packed, make_tables(packed)};
  const q8_range range = {begin, end};
  switch (x->count) {
    case 1: dot_n(f, 1, &w, range, x, out); break;
    case 2: dot_n(f, 2, &w, range, x, out); break;
    case 3: dot_n(f, 3, &w, range, x, out); break;
    default: dot_n(f, 4, &w, range, x, out); break;
  }
}

static void dot_4bit(const nb_packed *w, int64_t begin, int64_t end, const nb_q8_x *x, nb_sums out) {
  dot_any((q8_format){block_4bit, false, false, 0}, w, begin, end, x, out);
}
static void dot_int8(const nb_packed *w, int64_t begin, int64_t end, const nb_q8_x *x, nb_sums out) {
  dot_any((q8_format){block_int8, false, false, 0}, w, begin, end, x, out);
}
static void dot_q8_0(const nb_packed *w, int64_t begin, int64_t end, const nb_q8_x *x, nb_sums out) {
  dot_any((q8_format){block_q8_0, false, false, 0}, w, begin, end, x, out);
}
static void dot_q4_0(const nb_packed *w, int64_t begin, int64_t end, const nb_q8_x *x, nb_sums out) {
  dot_any((q8_format){block_q4_0, false, false, 0}, w, begin, end, x, out);
}
static void dot_q4_k(const nb_packed *w, int64_t begin, int64_t end, const nb_q8_x *x, nb_sums out) {
  dot_any((q8_format){block_q4_k, false, true, 0}, w, begin, end, x, out);
}
static void dot_q6_k(const nb_packed *w, int64_t begin, int64_t end, const nb_q8_x *x, nb_sums out) {
  dot_any((q8_format){block_q6_k, true, false, 0}, w, begin, end, x, out);
}

static const nb_q8_kernel formats[NB_FORMAT_COUNT] = {
    [NB_FORMAT_NF4] = {nb_q8_evens_odds, dot_4bit},
    [NB_FORMAT_FP4] = {nb_q8_evens_odds, dot_4bit},
    [NB_FORMAT_INT8] = {NULL, dot_int8},
    [NB_FORMAT_Q4_0] = {NULL, dot_q4_0},
    [NB_FORMAT_Q8_0] = {NULL, dot_q8_0},
    [NB_FORMAT_Q4_K] = {NULL, dot_q4_k},
    [NB_FORMAT_Q6_K] = {NULL, dot_q6_k},
    [NB_FORMAT_GPTQ2] = {nb_q8_words2, gptq2_q8},
    [NB_FORMAT_GPTQ4] = {nb_q8_words4, gptq4_q8},
    [NB_FORMAT_GPTQ8] = {NULL, gptq8_q8},
};

const nb_cpu_q8 NB_OF_TARGET(nb_cpu_q8) = {
    .formats = formats,
};

#endif
