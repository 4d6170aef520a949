/* What several readers of GGUF's blocks need: half precision scales and the six-bit scales of Q4_K and Q5_K. */
#ifndef NB_KERNELS_GGUF_PARTS_H
#define NB_KERNELS_GGUF_PARTS_H

#include <string.h>

#include "base/dtype.h"

#ifdef __F16C__
#include <immintrin.h>
#endif

static inline float nb_half_at(const uint8_t *at) {
  uint16_t bits = (uint16_t)(at[0] | at[1] << 8);
#ifdef __F16C__
  return _cvtsh_ss(bits);
#elif defined(__aarch64__)
  __fp16 half;
  memcpy(&half, &bits, sizeof half);
  return half;
#else
  return nb_f16_to_f32(bits);
#endif
}

/* Scale and minimum of 32 weights, six bits each: the first four pairs lie in the low bits of bytes 0-3 and 4-7; the
 * others have four bits in bytes 8-11 and their top two in the top of bytes 0-3 and 4-7. */
static inline void nb_scale_and_minimum(const uint8_t *at, int part, int *scale, int *minimum) {
  if (part < 4) {
    *scale = at[part] & 63;
    *minimum = at[part + 4] & 63;
  } else {
    *scale = (at[part + 4] & 15) | at[part - 4] >> 6 << 4;
    *minimum = at[part + 4] >> 4 | at[part] >> 6 << 4;
  }
}

#endif
