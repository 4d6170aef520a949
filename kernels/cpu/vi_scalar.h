/* Vectors of integers in plain C: what every name of the vocabulary means. vi_avx2.h, vi_avxvnni.h, vi_avx512.h and
 * vi_neon.h say the same in their instructions. A vector is as large as one of floats: VF sums of 32 bits, or 4 * VF
 * bytes. */
#ifndef NB_KERNELS_CPU_VI_SCALAR_H
#define NB_KERNELS_CPU_VI_SCALAR_H

#include <stdbool.h>
#include <string.h>

#include "kernels/cpu/vec_scalar.h"

typedef int32_t vi __attribute__((vector_size(VF * sizeof(int32_t))));

/* What vi_dot takes off bytes that may be above 127: 128 where its instruction would overflow, or has none but signed
 * bytes. */
enum { WIDE_LESS = 0 };

static inline vi vi_zero(void) { return (vi){0}; }
/* 4 bytes of memory in every lane. */
static inline vi vi_words(const int8_t *p) {
  int32_t word;
  memcpy(&word, p, sizeof word);
  return (vi){word, word, word, word};
}
static inline vf vi_to_f32(vi v) { return __builtin_convertvector(v, vf); }
/* sum plus, in each lane, the products of 4 unsigned bytes of w with 4 signed ones of x. `wide`, a constant, says that
 * bytes of w may be above 127; then what it adds is w - WIDE_LESS times x. */
static inline vi vi_dot(vi sum, vi w, vi x, bool wide) {
  uint8_t weights[4 * VF];
  int8_t codes[4 * VF];
  (void)wide;
  memcpy(weights, &w, sizeof weights);
  memcpy(codes, &x, sizeof codes);
  for (int i = 0; i < 4 * VF; i++) sum[i / 4] += weights[i] * codes[i];
  return sum;
}
/* 16 floats, limited to [-1, 1], in whole steps, as bytes in each 128 bits; on x86, whose products take unsigned ones,
 * plus 128. */
static inline vi vi_map(const float *map, float steps) {
  int8_t bytes[16];
  vi v;
  for (int i = 0; i < 16; i++) bytes[i] = (int8_t)rintf(fminf(fmaxf(map[i], -1), 1) * steps);
  memcpy(&v, bytes, sizeof v);
  return v;
}

#endif
