/* Vectors of integers, NEON without and with its dot product: the names of vi_scalar.h, and dot16. */
#ifndef NB_KERNELS_CPU_VI_NEON_H
#define NB_KERNELS_CPU_VI_NEON_H

#include <stdbool.h>

#include "kernels/cpu/target.h"
#include "kernels/cpu/vec_neon.h"

/* sum plus, in each of four lanes, the products of 4 signed bytes of w with 4 of x. */
static inline int32x4_t dot16(int32x4_t sum, int8x16_t w, int8x16_t x) {
#ifdef NB_TARGET_DOTPROD
  return vdotq_s32(sum, w, x);
#else /* products in 16 bits, then added to their neighbours twice */
  int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(w), vget_low_s8(x))), high = vpaddlq_s16(vmull_high_s8(w, x));
  return vaddq_s32(sum, vpaddq_s32(low, high));
#endif
}

typedef int32x4_t vi;

enum { WIDE_LESS = 128 }; /* bytes above 127 are taken less 128, to make them signed */

static inline vi vi_zero(void) { return vdupq_n_s32(0); }
static inline vi vi_words(const int8_t *p) {
  int32_t word;
  memcpy(&word, p, sizeof word);
  return vdupq_n_s32(word);
}
static inline vf vi_to_f32(vi v) { return vcvtq_f32_s32(v); }
static inline vi vi_dot(vi sum, vi w, vi x, bool wide) {
  int8x16_t bytes = vreinterpretq_s8_s32(w);
  if (wide) bytes = veorq_s8(bytes, vdupq_n_s8(INT8_MIN));
  return dot16(sum, bytes, vreinterpretq_s8_s32(x));
}
static inline vi vi_map(const float *map, float steps) {
  int16x4_t words[4];
  for (int i = 0; i < 4; i++) {
    vf value = vf_mul(vf_clamp(vf_load(map + 4 * i), -1, 1), vf_set1(steps));
    words[i] = vqmovn_s32(vcvtnq_s32_f32(value));
  }
  int8x8_t low = vqmovn_s16(vcombine_s16(words[0], words[1])), high = vqmovn_s16(vcombine_s16(words[2], words[3]));
  return vreinterpretq_s32_s8(vcombine_s8(low, high));
}

#endif
