/* Vectors of floats in plain C, lane by lane: what every name of the vocabulary means. vec_avx2.h, vec_avx512.h and
 * vec_neon.h say the same in their instructions; the tests hold them against this. No product of the program uses it:
 * without vectors, plain loops are the better C. */
#ifndef NB_KERNELS_CPU_VEC_SCALAR_H
#define NB_KERNELS_CPU_VEC_SCALAR_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "base/dtype.h"

enum {
  VF = 4,           /* floats in a vector */
  GEMM_VECTORS = 2, /* vectors of x, and */
  GEMM_ROWS = 6,    /* rows of weights, whose sums a block product holds in registers */
  DOT_ROWS = 1,     /* rows of weights that a dot kernel works on at a time */
};

typedef float vf __attribute__((vector_size(VF * sizeof(float)))); /* the compiler's own: v[lane], and as large as vu */

static inline vf vf_zero(void) { return (vf){0}; }
static inline vf vf_set1(float x) { return (vf){x, x, x, x}; }
static inline vf vf_load(const float *p) {
  vf v;
  memcpy(&v, p, sizeof v);
  return v;
}
static inline void vf_store(float *p, vf v) { memcpy(p, &v, sizeof v); }
static inline vf vf_add(vf a, vf b) { return a + b; }
static inline vf vf_sub(vf a, vf b) { return a - b; }
static inline vf vf_mul(vf a, vf b) { return a * b; }
static inline vf vf_div(vf a, vf b) { return a / b; }
/* a * b + c, rounded once. */
static inline vf vf_fma(vf a, vf b, vf c) {
  for (int i = 0; i < VF; i++) c[i] = fmaf(a[i], b[i], c[i]);
  return c;
}
/* Where one is NaN, either may come out. */
static inline vf vf_max(vf a, vf b) {
  for (int i = 0; i < VF; i++) a[i] = a[i] > b[i] ? a[i] : b[i];
  return a;
}

/* The first n < VF floats; the rest are 0 and their memory is not touched. */
static inline vf vf_load_part(const float *p, int64_t n) {
  vf v = {0};
  memcpy(&v, p, (size_t)n * sizeof *p);
  return v;
}
static inline void vf_store_part(float *p, vf v, int64_t n) { memcpy(p, &v, (size_t)n * sizeof *p); }

/* VF weights of a plain format, widened; they need not be aligned. */
static inline vf vf_load_as(nb_dtype dtype, const void *p) {
  float lanes[VF];
  nb_to_f32(dtype, p, VF, lanes);
  return vf_load(lanes);
}
static inline vf vf_load_f16(const void *p) { return vf_load_as(NB_F16, p); }
static inline vf vf_load_bf16(const void *p) { return vf_load_as(NB_BF16, p); }
static inline vf vf_load_i8(const void *p) {
  const int8_t *codes = p;
  return (vf){codes[0], codes[1], codes[2], codes[3]};
}

static inline float vf_first(vf v) { return v[0]; }
static inline float vf_sum(vf v) { return (v[0] + v[2]) + (v[1] + v[3]); } /* in any order */
static inline float vf_largest(vf v) { return fmaxf(fmaxf(v[0], v[2]), fmaxf(v[1], v[3])); }

/* The nearest whole number for |x| < 2^22, half to even, and p * 2^n for a whole n in [-126, 128]. */
static inline vf vf_round(vf x) {
  for (int i = 0; i < VF; i++) x[i] = rintf(x[i]);
  return x;
}
static inline vf vf_scale(vf p, vf n) {
  for (int i = 0; i < VF; i++) p[i] = ldexpf(p[i], (int)n[i]);
  return p;
}
/* v where x >= bound, else 0; NaN in x keeps v. */
static inline vf vf_zero_below(vf v, vf x, float bound) {
  for (int i = 0; i < VF; i++) v[i] = x[i] < bound ? 0 : v[i];
  return v;
}
/* x limited to [low, high]; NaN stays NaN. */
static inline vf vf_clamp(vf x, float low, float high) {
  for (int i = 0; i < VF; i++) x[i] = x[i] < low ? low : x[i] > high ? high : x[i];
  return x;
}

/* out[j * ldout + i] = in[i * ldin + j] for i, j < VF. */
static inline void vf_transpose(const float *in, int64_t ldin, float *out, int64_t ldout) {
  for (int i = 0; i < VF; i++) {
    for (int j = 0; j < VF; j++) out[j * ldout + i] = in[i * ldin + j];
  }
}

/* VF words of 32 bits. */
typedef uint32_t vu __attribute__((vector_size(VF * sizeof(uint32_t))));

static inline vu vu_load(const uint32_t *p) {
  vu v;
  memcpy(&v, p, sizeof v);
  return v;
}
static inline vu vu_load_u8(const uint8_t *p) { return (vu){p[0], p[1], p[2], p[3]}; }
static inline vu vu_shift_right(vu v, int n) { return v >> (uint32_t)n; }
static inline vu vu_shift_left(vu v, int n) { return v << (uint32_t)n; }
static inline vu vu_or(vu a, vu b) { return a | b; }
static inline vu vu_and(vu v, uint32_t mask) { return v & mask; }
static inline vf vu_to_f32(vu v) { return __builtin_convertvector(v, vf); } /* below 2^31 */
static inline vu vu_set1(uint32_t word) { return (vu){word, word, word, word}; }
static inline vf vu_as_f32(vu v) { return (vf)v; } /* the same bits */
/* The lowest `bits` bits less the middle of their range. */
static inline vf vu_centred(vu v, int bits) {
  return vf_sub(vu_to_f32(vu_and(v, (1u << bits) - 1)), vf_set1((float)(1 << (bits - 1))));
}

#endif
