/* Vectors of floats, NEON: the names of vec_scalar.h. */
#ifndef NB_KERNELS_CPU_VEC_NEON_H
#define NB_KERNELS_CPU_VEC_NEON_H

#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

typedef float32x4_t vf;

enum {
  VF = 4,
  GEMM_VECTORS = 4, /* 4 x 6 sums, 4 vectors of x and a broadcast weight are 29 of the 32 registers; 16 lanes also */
  DOT_ROWS = 2,     /* divide the driver's 256 rows */
  GEMM_ROWS = 6,
};

static inline vf vf_zero(void) { return vdupq_n_f32(0); }
static inline vf vf_set1(float x) { return vdupq_n_f32(x); }
static inline vf vf_load(const float *p) { return vld1q_f32(p); }
static inline void vf_store(float *p, vf v) { vst1q_f32(p, v); }
static inline vf vf_add(vf a, vf b) { return vaddq_f32(a, b); }
static inline vf vf_sub(vf a, vf b) { return vsubq_f32(a, b); }
static inline vf vf_mul(vf a, vf b) { return vmulq_f32(a, b); }
static inline vf vf_div(vf a, vf b) { return vdivq_f32(a, b); }
static inline vf vf_fma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
static inline vf vf_max(vf a, vf b) { return vmaxnmq_f32(a, b); } /* passes NaN over */

static inline vf vf_load_part(const float *p, int64_t n) {
  float lanes[4] = {0};
  memcpy(lanes, p, (size_t)n * sizeof *p);
  return vld1q_f32(lanes);
}
static inline void vf_store_part(float *p, vf v, int64_t n) {
  float lanes[4];
  vst1q_f32(lanes, v);
  memcpy(p, lanes, (size_t)n * sizeof *p);
}

/* Loads of bytes, as a file's weights need not be aligned. */
static inline vf vf_load_f16(const void *p) { return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p))); }
static inline vf vf_load_bf16(const void *p) {
  return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(p)), 16));
}
static inline vf vf_load_i8(const void *p) {
  uint32_t four;
  memcpy(&four, p, sizeof four);
  int8x8_t v = vreinterpret_s8_u32(vdup_n_u32(four));
  return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(v))));
}

static inline float vf_first(vf v) { return vgetq_lane_f32(v, 0); }
static inline float vf_sum(vf v) {
  float32x2_t x = vadd_f32(vget_low_f32(v), vget_high_f32(v));
  return vget_lane_f32(x, 0) + vget_lane_f32(x, 1);
}
static inline float vf_largest(vf v) { return vmaxnmvq_f32(v); }

static inline vf vf_round(vf x) { return vrndnq_f32(x); }
static inline vf vf_scale(vf p, vf n) {
  /* In two steps: 2^128 has no exponent of its own. */
  int32x4_t whole = vcvtq_s32_f32(n), half = vshrq_n_s32(whole, 1), bias = vdupq_n_s32(127);
  vf a = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(half, bias), 23));
  vf b = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vsubq_s32(whole, half), bias), 23));
  return vmulq_f32(vmulq_f32(p, a), b);
}
static inline vf vf_zero_below(vf v, vf x, float bound) {
  return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(v), vcltq_f32(x, vdupq_n_f32(bound))));
}
static inline vf vf_clamp(vf x, float low, float high) {
  return vminq_f32(vdupq_n_f32(high), vmaxq_f32(vdupq_n_f32(low), x));
}

static inline void vf_transpose(const float *in, int64_t ldin, float *out, int64_t ldout) {
  vf a = vf_load(in), b = vf_load(in + ldin), c = vf_load(in + 2 * ldin), d = vf_load(in + 3 * ldin);
  /* ab[0] = a0 b0 a2 b2, ab[1] = a1 b1 a3 b3 */
  float32x4x2_t ab = vtrnq_f32(a, b), cd = vtrnq_f32(c, d);
  for (int i = 0; i < 2; i++) {
    vf_store(out + i * ldout, vcombine_f32(vget_low_f32(ab.val[i]), vget_low_f32(cd.val[i])));
    vf_store(out + (i + 2) * ldout, vcombine_f32(vget_high_f32(ab.val[i]), vget_high_f32(cd.val[i])));
  }
}

/* VF words of 32 bits. */
typedef uint32x4_t vu;
static inline vu vu_load(const uint32_t *p) { return vld1q_u32(p); }
static inline vu vu_load_u8(const uint8_t *p) {
  uint32_t four;
  memcpy(&four, p, sizeof four);
  return vmovl_u16(vget_low_u16(vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(four)))));
}
static inline vu vu_shift_right(vu v, int n) { return vshlq_u32(v, vdupq_n_s32(-n)); }
static inline vu vu_shift_left(vu v, int n) { return vshlq_u32(v, vdupq_n_s32(n)); }
static inline vu vu_or(vu a, vu b) { return vorrq_u32(a, b); }
static inline vu vu_and(vu v, uint32_t mask) { return vandq_u32(v, vdupq_n_u32(mask)); }
static inline vf vu_to_f32(vu v) { return vcvtq_f32_u32(v); }
static inline vu vu_set1(uint32_t word) { return vdupq_n_u32(word); }
static inline vf vu_as_f32(vu v) { return vreinterpretq_f32_u32(v); }
/* They become a float as the lowest bits of 2^23. */
static inline vf vu_centred(vu v, int bits) {
  const uint32_t two_to_23 = 0x4b000000;
  vu whole = vu_or(vu_and(v, (1u << bits) - 1), vu_set1(two_to_23));
  return vf_sub(vu_as_f32(whole), vf_set1(0x1p23f + (float)(1 << (bits - 1))));
}

#endif
