/* The integer products' formats for AVX2, a block of 32 at a time, and AVX-512, two. The including file has included
 * q8_body.h and defined vi_join(first, second), vf_join(first, second), vi_lookup(map, codes) and vi_high_low(at):
 * Q_COLS / 2 bytes, the high halves of 16 before the low ones. */
#include "kernels/cpu/blocks_x86.h"

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
