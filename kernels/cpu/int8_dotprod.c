#include <arm_neon.h>

#include "kernels/cpu/int8_cpu.h"

/* Sixteen columns a step: codes of x, which are within [-127, 127], are narrowed to bytes (the lower half of each pair:
 * uzp1) and sdot adds the products of four bytes to each of four 32-bit sums; acc[i][j] holds those of w[i] . x[j]. */
static void dots(const int8_t *const w[NB_INT8_W_ROWS], const int16_t *x, int64_t ldx, int64_t n,
                 int32_t out[NB_INT8_W_ROWS][NB_INT8_X_ROWS]) {
  int32x4_t acc[NB_INT8_W_ROWS][NB_INT8_X_ROWS];
  for (int i = 0; i < NB_INT8_W_ROWS; i++) {
    for (int j = 0; j < NB_INT8_X_ROWS; j++) acc[i][j] = vdupq_n_s32(0);
  }
  int64_t c = 0;
  for (; c + 16 <= n; c += 16) {
    int8x16_t weights[NB_INT8_W_ROWS];
    for (int i = 0; i < NB_INT8_W_ROWS; i++) weights[i] = vld1q_s8(w[i] + c);
    for (int j = 0; j < NB_INT8_X_ROWS; j++) {
      const int16_t *at = x + j * ldx + c;
      int8x16_t codes = vuzp1q_s8(vreinterpretq_s8_s16(vld1q_s16(at)), vreinterpretq_s8_s16(vld1q_s16(at + 8)));
      for (int i = 0; i < NB_INT8_W_ROWS; i++) acc[i][j] = vdotq_s32(acc[i][j], weights[i], codes);
    }
  }
  for (int i = 0; i < NB_INT8_W_ROWS; i++) {
    for (int j = 0; j < NB_INT8_X_ROWS; j++) {
      int32_t sum = vaddvq_s32(acc[i][j]);
      for (int64_t t = c; t < n; t++) sum += w[i][t] * x[j * ldx + t];
      out[i][j] += sum;
    }
  }
}

const nb_cpu_int8 nb_cpu_int8_dotprod = {
    .absmax_row = nb_int8_absmax_row_neon, .quantize_row = nb_int8_quantize_row_neon, .dots = dots};
