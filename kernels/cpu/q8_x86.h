/* Integer dot kernels for AVX2 and AVX-512, of the formats whose rows lie one after the other. 32 weights take 8 lanes,
 * so that a vector holds one block (AVX2) or two (AVX-512). Codes are unsigned, the weight's plus a constant `bias`:
 * each sum begins at -bias times the sum of x, which is common to all rows of weights. Beside the names of vi_scalar.h
 * they are written in these, which vi_avx2.h and vi_avx512.h have:
 *
 *   vi_set1(byte), vi_load(p), vi_minus(v)
 *   vi_lookup(map, codes)      bytes of vi_map by codes
 *   vi_high_low(at)            Q_COLS / 2 bytes at `at`, as Q_COLS codes of 4 bits: of each 16, the high halves first
 *   vi_join(first, second)     a vector of one block (the second is ignored) or two; vf_join for floats
 *   vf_lanes(p)                *p in the lanes of the first block, p[1] in those of the second, if there is one */
#ifndef NB_KERNELS_CPU_Q8_X86_H
#define NB_KERNELS_CPU_Q8_X86_H

#include "kernels/cpu/blocks_x86.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/q8_cpu.h"
#include "kernels/cpu/q8_target.h"
#include "kernels/cpu/vec.h"
#include "kernels/cpu/vi.h"

enum { Q_COLS = 4 * VF, Q_BLOCKS = Q_COLS / NB_Q8_BLOCK };

/* Q_COLS weights from column `step` * Q_COLS of a row on. */
typedef void (*q8_unpack_fn)(const nb_packed *w, const q8_tables *t, int64_t row, int64_t step, vi *codes, vf *scale,
                             vf *minimum);

typedef struct q8_format {
  q8_unpack_fn unpack;
  int bias, rows; /* rows of weights that are worked on together for one row of x */
  bool wide, has_minimum;
} q8_format;

/* n rows of x against `rows` rows of weights, constants both. */
static inline __attribute__((always_inline)) void q8_rows(const q8_format f, int n, int rows, const nb_packed *w,
                                                          const q8_tables *t, int64_t row, const nb_q8_x *x, float *out,
                                                          int64_t ldout) {
  const int bias = f.wide ? f.bias - WIDE_LESS : f.bias;
  vf sum[4][NB_Q8_ROWS];
  for (int r = 0; r < rows; r++) {
    for (int i = 0; i < n; i++) sum[r][i] = vf_zero();
  }
  for (int64_t step = 0; step < w->cols / Q_COLS; step++) {
    vi codes[NB_Q8_ROWS], start[NB_Q8_ROWS];
    vf scale_x[NB_Q8_ROWS], sum_x[NB_Q8_ROWS];
    for (int i = 0; i < n; i++) {
      codes[i] = vi_load(x->codes + i * x->cols + step * Q_COLS);
      start[i] = bias ? vi_minus(vi_dot(vi_zero(), vi_set1((int8_t)bias), codes[i], false)) : vi_zero();
      scale_x[i] = vf_lanes(x->scales + i * x->blocks + step * Q_BLOCKS);
      if (f.has_minimum) sum_x[i] = vf_lanes(x->sums + i * x->blocks + step * Q_BLOCKS);
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
      vi weights;
      vf scale, minimum;
      f.unpack(w, t, row + r, step, &weights, &scale, &minimum);
#pragma GCC unroll 4
      for (int i = 0; i < n; i++) {
        vf dot = vi_to_f32(vi_dot(start[i], weights, codes[i], f.wide));
        sum[r][i] = vf_fma(dot, vf_mul(scale, scale_x[i]), sum[r][i]);
        if (f.has_minimum) sum[r][i] = vf_fma(minimum, sum_x[i], sum[r][i]);
      }
    }
  }
  for (int r = 0; r < rows; r++) {
    for (int i = 0; i < n; i++) out[i * ldout + r] = vf_sum(sum[r][i]);
  }
}

static inline __attribute__((always_inline)) void q8_n(const q8_format f, int n, const nb_packed *w, const q8_tables *t,
                                                       int64_t begin, int64_t end, const nb_q8_x *x, float *out,
                                                       int64_t ldout) {
  const int together = n == 1 ? f.rows : (f.rows + 1) / 2;
  int64_t r = begin;
  for (; r + together <= end; r += together) q8_rows(f, n, together, w, t, r, x, out + r - begin, ldout);
  for (; r < end; r++) q8_rows(f, n, 1, w, t, r, x, out + r - begin, ldout);
}

static inline __attribute__((always_inline)) void q8_dot(const q8_format f, const nb_packed *w, int64_t begin,
                                                         int64_t end, const nb_q8_x *x, int64_t n, float *out,
                                                         int64_t ldout) {
  q8_tables t = make_tables(w);
  switch (n) {
    case 1: q8_n(f, 1, w, &t, begin, end, x, out, ldout); break;
    case 2: q8_n(f, 2, w, &t, begin, end, x, out, ldout); break;
    case 3: q8_n(f, 3, w, &t, begin, end, x, out, ldout); break;
    default: q8_n(f, 4, w, &t, begin, end, x, out, ldout); break;
  }
}

/* The row's first byte, and the start of loading what comes NB_AHEAD bytes later. */
static inline const uint8_t *q8_at(const nb_packed *w, int64_t row, int64_t step, int64_t block_weights,
                                   int64_t block_bytes) {
  const uint8_t *at = (const uint8_t *)w->codes + row * (w->cols / block_weights * block_bytes);
  __builtin_prefetch(at + step * Q_COLS * block_bytes / block_weights + NB_AHEAD);
  return at;
}

static inline __attribute__((always_inline)) void unpack(block32_fn fn, bool two_scales, const nb_packed *w,
                                                         int64_t row, int64_t step, int64_t block_weights,
                                                         int64_t block_bytes, vi *codes, vf *scale, vf *minimum) {
  const uint8_t *at = q8_at(w, row, step, block_weights, block_bytes);
  __m256i halves[2];
  __m256 scales[2], minima[2];
  for (int b = 0; b < Q_BLOCKS; b++) {
    block32 block = fn(w, row, step * Q_BLOCKS + b, at);
    halves[b] = block.codes;
    scales[b] = two_scales ? _mm256_set_m128(_mm_set1_ps(block.scales[1]), _mm_set1_ps(block.scales[0]))
                           : _mm256_set1_ps(block.scales[0]);
    /* In each of the 8 lanes that a block's sums take: an eighth. */
    minima[b] = _mm256_set1_ps(block.minimum * -0.125f);
  }
  *codes = vi_join(halves[0], halves[Q_BLOCKS - 1]);
  *scale = vf_join(scales[0], scales[Q_BLOCKS - 1]);
  *minimum = vf_join(minima[0], minima[Q_BLOCKS - 1]);
}

static inline void unpack_4bit(const nb_packed *w, const q8_tables *t, int64_t row, int64_t step, vi *codes, vf *scale,
                               vf *minimum) {
  int64_t flat = row * w->cols + step * Q_COLS;
  const uint8_t *at = (const uint8_t *)w->codes + flat / 2;
  __builtin_prefetch(at + NB_AHEAD);
  *codes = vi_lookup(t->map, vi_high_low(at));
  *scale = vf_set1(nb_block_scale(w, flat >> t->block_shift) * t->step);
  *minimum = vf_zero();
}
static inline void unpack_int8(const nb_packed *w, const q8_tables *t, int64_t row, int64_t step, vi *codes, vf *scale,
                               vf *minimum) {
  (void)t;
  unpack(block_int8, false, w, row, step, 1, 1, codes, scale, minimum);
}
static inline void unpack_q8_0(const nb_packed *w, const q8_tables *t, int64_t row, int64_t step, vi *codes, vf *scale,
                               vf *minimum) {
  (void)t;
  unpack(block_q8_0, false, w, row, step, 32, 34, codes, scale, minimum);
}
static inline void unpack_q4_0(const nb_packed *w, const q8_tables *t, int64_t row, int64_t step, vi *codes, vf *scale,
                               vf *minimum) {
  (void)t;
  unpack(block_q4_0, false, w, row, step, 32, 18, codes, scale, minimum);
}
static inline void unpack_q4_k(const nb_packed *w, const q8_tables *t, int64_t row, int64_t step, vi *codes, vf *scale,
                               vf *minimum) {
  (void)t;
  unpack(block_q4_k, false, w, row, step, 256, 144, codes, scale, minimum);
}
static inline void unpack_q6_k(const nb_packed *w, const q8_tables *t, int64_t row, int64_t step, vi *codes, vf *scale,
                               vf *minimum) {
  (void)t;
  unpack(block_q6_k, true, w, row, step, 256, 210, codes, scale, minimum);
}

static const q8_format format_4bit = {unpack_4bit, 128, 4, true, false};
static const q8_format format_int8 = {unpack_int8, 128, 4, true, false};
static const q8_format format_q8_0 = {unpack_q8_0, 128, 4, true, false};
static const q8_format format_q4_0 = {unpack_q4_0, 8, 4, false, false};
static const q8_format format_q4_k = {unpack_q4_k, 0, 2, false, true};
static const q8_format format_q6_k = {unpack_q6_k, 32, 2, false, false};

static void dot_4bit(const nb_packed *w, int64_t begin, int64_t end, const nb_q8_x *x, int64_t n, float *out,
                     int64_t ldout) {
  q8_dot(format_4bit, w, begin, end, x, n, out, ldout);
}
static void dot_int8(const nb_packed *w, int64_t begin, int64_t end, const nb_q8_x *x, int64_t n, float *out,
                     int64_t ldout) {
  q8_dot(format_int8, w, begin, end, x, n, out, ldout);
}
static void dot_q8_0(const nb_packed *w, int64_t begin, int64_t end, const nb_q8_x *x, int64_t n, float *out,
                     int64_t ldout) {
  q8_dot(format_q8_0, w, begin, end, x, n, out, ldout);
}
static void dot_q4_0(const nb_packed *w, int64_t begin, int64_t end, const nb_q8_x *x, int64_t n, float *out,
                     int64_t ldout) {
  q8_dot(format_q4_0, w, begin, end, x, n, out, ldout);
}
static void dot_q4_k(const nb_packed *w, int64_t begin, int64_t end, const nb_q8_x *x, int64_t n, float *out,
                     int64_t ldout) {
  q8_dot(format_q4_k, w, begin, end, x, n, out, ldout);
}
static void dot_q6_k(const nb_packed *w, int64_t begin, int64_t end, const nb_q8_x *x, int64_t n, float *out,
                     int64_t ldout) {
  q8_dot(format_q6_k, w, begin, end, x, n, out, ldout);
}

#endif
