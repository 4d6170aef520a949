#include <immintrin.h>

#include "kernels/cpu/int8_cpu.h"

/* Thirty-two columns a step: a register of 16-bit weights a row of w, multiplied pairwise with 16-bit codes of x and
 * added to sixteen 32-bit sums by VNNI; acc[i][j] holds those of w[i] . x[j]. */
static void dots(const int8_t *const w[NB_INT8_W_ROWS], const int16_t *x, int64_t ldx, int64_t n,
                 int32_t out[NB_INT8_W_ROWS][NB_INT8_X_ROWS]) {
  __m512i acc[NB_INT8_W_ROWS][NB_INT8_X_ROWS];
  for (int i = 0; i < NB_INT8_W_ROWS; i++) {
    for (int j = 0; j < NB_INT8_X_ROWS; j++) acc[i][j] = _mm512_setzero_si512();
  }
  for (int64_t c = 0; c < n; c += 32) {
    __mmask32 mask = n - c >= 32 ? ~0u : (1u << (n - c)) - 1;
    __m512i wide[NB_INT8_W_ROWS];
    for (int i = 0; i < NB_INT8_W_ROWS; i++) wide[i] = _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(mask, w[i] + c));
    for (int j = 0; j < NB_INT8_X_ROWS; j++) {
      __m512i codes = _mm512_maskz_loadu_epi16(mask, x + j * ldx + c);
      for (int i = 0; i < NB_INT8_W_ROWS; i++) acc[i][j] = _mm512_dpwssd_epi32(acc[i][j], wide[i], codes);
    }
  }
  for (int i = 0; i < NB_INT8_W_ROWS; i++) {
    for (int j = 0; j < NB_INT8_X_ROWS; j++) out[i][j] += _mm512_reduce_add_epi32(acc[i][j]);
  }
}

/* Rounding the activations is bound by memory: AVX2's loops do. */
const nb_cpu_int8 nb_cpu_int8_avx512 = {
    .absmax_row = nb_int8_absmax_row_avx2, .quantize_row = nb_int8_quantize_row_avx2, .dots = dots};
