#include <arm_neon.h>

#include "kernels/cpu/int8_cpu.h"

_Static_assert(NB_INT8_W_ROWS == 2 && NB_INT8_X_ROWS % 2 == 0, "smmla multiplies two rows with two");

static inline int8x16_t pair(int8x8_t a, int8x8_t b) { return vcombine_s8(a, b); }

/* Eight columns of two rows of x, whose codes are within [-127, 127], as bytes. */
static inline int8x16_t load_pair(const int16_t *x, int64_t ldx) {
  return vuzp1q_s8(vreinterpretq_s8_s16(vld1q_s16(x)), vreinterpretq_s8_s16(vld1q_s16(x + ldx)));
}

/* Sixteen columns a step, in two halves. smmla takes eight columns of two rows each, [w0 | w1] and [x0 | x1], and adds
 * w0.x0, w0.x1, w1.x0 and w1.x1 to the four sums of acc[j / 2]. */
static void dots(const int8_t *const w[NB_INT8_W_ROWS], const int16_t *x, int64_t ldx, int64_t n,
                 int32_t out[NB_INT8_W_ROWS][NB_INT8_X_ROWS]) {
  int32x4_t acc[NB_INT8_X_ROWS / 2];
  for (int j = 0; j < NB_INT8_X_ROWS / 2; j++) acc[j] = vdupq_n_s32(0);
  int64_t c = 0;
  for (; c + 16 <= n; c += 16) {
    int8x16_t first = vld1q_s8(w[0] + c), second = vld1q_s8(w[1] + c);
    int8x16_t low = pair(vget_low_s8(first), vget_low_s8(second));
    int8x16_t high = pair(vget_high_s8(first), vget_high_s8(second));
    for (int j = 0; j < NB_INT8_X_ROWS / 2; j++) {
      const int16_t *at = x + 2 * j * ldx + c;
      acc[j] = vmmlaq_s32(acc[j], low, load_pair(at, ldx));
      acc[j] = vmmlaq_s32(acc[j], high, load_pair(at + 8, ldx));
    }
  }
  for (int j = 0; j < NB_INT8_X_ROWS; j++) {
    int32_t sums[4];
    vst1q_s32(sums, acc[j / 2]);
    for (int i = 0; i < NB_INT8_W_ROWS; i++) {
      int32_t sum = sums[2 * i + j % 2];
      for (int64_t t = c; t < n; t++) sum += w[i][t] * x[j * ldx + t];
      out[i][j] += sum;
    }
  }
}

const nb_cpu_int8 nb_cpu_int8_i8mm = {
    .absmax_row = nb_int8_absmax_row_neon, .quantize_row = nb_int8_quantize_row_neon, .dots = dots};
