/* The product of int8.c in 256 bits, for AVX2 and AVX-VNNI. */
#ifndef NB_KERNELS_CPU_INT8_256_X86_H
#define NB_KERNELS_CPU_INT8_256_X86_H

#include <immintrin.h>

#include "kernels/cpu/int8_cpu.h"
#include "kernels/cpu/target.h"

/* sum plus, in each of eight lanes, the products of two 16-bit numbers of a with two of b. */
static inline __m256i add_pairs(__m256i sum, __m256i a, __m256i b) {
#ifdef NB_TARGET_AVXVNNI
  return _mm256_dpwssd_avx_epi32(sum, a, b);
#else
  return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
#endif
}

static inline int32_t sum_lanes(__m256i v) {
  __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1));
  return _mm_cvtsi128_si32(s);
}

/* Sixteen columns a step: a register of 16-bit weights a row of w, multiplied pairwise with 16-bit codes of x into
 * eight 32-bit sums; acc[i][j] holds those of w[i] . x[j]. */
static inline void dots(const int8_t *const w[NB_INT8_W_ROWS], const int16_t *x, int64_t ldx, int64_t n,
                        int32_t out[NB_INT8_W_ROWS][NB_INT8_X_ROWS]) {
  __m256i acc[NB_INT8_W_ROWS][NB_INT8_X_ROWS];
  for (int i = 0; i < NB_INT8_W_ROWS; i++) {
    for (int j = 0; j < NB_INT8_X_ROWS; j++) acc[i][j] = _mm256_setzero_si256();
  }
  int64_t c = 0;
  for (; c + 16 <= n; c += 16) {
    __m256i wide[NB_INT8_W_ROWS];
    for (int i = 0; i < NB_INT8_W_ROWS; i++)
      wide[i] = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(w[i] + c)));
    for (int j = 0; j < NB_INT8_X_ROWS; j++) {
      __m256i codes = _mm256_loadu_si256((const __m256i *)(const void *)(x + j * ldx + c));
      for (int i = 0; i < NB_INT8_W_ROWS; i++) acc[i][j] = add_pairs(acc[i][j], wide[i], codes);
    }
  }
  for (int i = 0; i < NB_INT8_W_ROWS; i++) {
    for (int j = 0; j < NB_INT8_X_ROWS; j++) {
      int32_t sum = sum_lanes(acc[i][j]);
      for (int64_t t = c; t < n; t++) sum += w[i][t] * x[j * ldx + t];
      out[i][j] += sum;
    }
  }
}

#endif
