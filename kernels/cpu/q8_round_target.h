/* Rounding of activations, in plain C that compilers vectorize: q8.c includes it for any processor, q8_avx2.c for
 * AVX2. All give the same bits. */
#ifndef NB_KERNELS_CPU_Q8_ROUND_TARGET_H
#define NB_KERNELS_CPU_Q8_ROUND_TARGET_H

#include <math.h>

#include "base/dtype.h"
#include "kernels/q8.h"

static void round_block(const float *x, int64_t n, int8_t *codes, float *scale) {
  /* Without their sign, floats are ordered as their bits are, infinity and NaN last. */
  uint32_t bits = 0;
  for (int64_t i = 0; i < n; i++) {
    uint32_t size = nb_f32_to_bits(x[i]) & 0x7fffffffu;
    bits = size > bits ? size : bits;
  }
  const float smallest = 1e-30f; /* below, 127 / absmax may overflow */
  float absmax = nb_bits_to_f32(bits), inverse = absmax >= smallest && isfinite(absmax) ? 127.0f / absmax : 0;
  *scale = isfinite(absmax) ? (inverse > 0 ? absmax / 127.0f : 0) : NAN;
  for (int64_t i = 0; i < n; i++) {
    float code = inverse > 0 ? rintf(x[i] * inverse) : 0;
    codes[i] = (int8_t)(int32_t)code;
  }
}

static void round_row(const float *x, int64_t cols, int8_t *codes, float *scales) {
  for (int64_t c = 0; c < cols; c += NB_Q8_BLOCK) {
    if (c + NB_Q8_BLOCK <= cols) {
      round_block(x + c, NB_Q8_BLOCK, codes + c, &scales[c / NB_Q8_BLOCK]);
    } else {
      round_block(x + c, cols - c, codes + c, &scales[c / NB_Q8_BLOCK]);
    }
  }
}

#endif
