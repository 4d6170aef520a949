/* Codes of 4 bits to floats, NEON: the names of lookup4_scalar.h. */
#ifndef NB_KERNELS_CPU_LOOKUP4_NEON_H
#define NB_KERNELS_CPU_LOOKUP4_NEON_H

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/vec_neon.h"

/* The 16 values of a 4-bit format as four planes of bytes, each a table that one tbl looks 16 codes up in. Exact: all
 * four bytes are there. */
typedef struct tables4 {
  uint8x16_t byte[4]; /* byte[0] holds the lowest bytes */
} tables4;

static tables4 make_tables4(const float *map) {
  uint8x16x4_t planes = vld4q_u8((const uint8_t *)map);
  return (tables4){{planes.val[0], planes.val[1], planes.val[2], planes.val[3]}};
}

/* 16 codes, one a byte, to 4 vectors of floats in the same order: bytes are interleaved to the upper (h) and lower (l)
 * halves of floats, and those to floats.
 *
 *   byte[1], byte[0]   b1 of codes 0..15, b0 of codes 0..15
 *   l                  b1b0 of codes 0..7 | 8..15              zip1, zip2
 *   out                b3b2b1b0 of codes 0..3 | 4..7 | ... */
static inline void lookup_16(uint8x16_t codes, const tables4 *t, vf *out) {
  uint8x16x2_t l = vzipq_u8(vqtbl1q_u8(t->byte[0], codes), vqtbl1q_u8(t->byte[1], codes));
  uint8x16x2_t h = vzipq_u8(vqtbl1q_u8(t->byte[2], codes), vqtbl1q_u8(t->byte[3], codes));
  for (int half = 0; half < 2; half++) {
    uint16x8x2_t v = vzipq_u16(vreinterpretq_u16_u8(l.val[half]), vreinterpretq_u16_u8(h.val[half]));
    out[2 * half] = vreinterpretq_f32_u16(v.val[0]);
    out[2 * half + 1] = vreinterpretq_f32_u16(v.val[1]);
  }
}

/* A group of 64 weights: of each 16 bytes, out[0..3] from the high halves (even weights), out[4..7] from the low. */
static inline void unpack_group(const uint8_t *codes, const tables4 *t, vf *out) {
  for (int part = 0; part < 2; part++, codes += 16, out += 8) {
    uint8x16_t v = vld1q_u8(codes);
    lookup_16(vshrq_n_u8(v, 4), t, out);
    lookup_16(vandq_u8(v, vdupq_n_u8(15)), t, out + 4);
  }
}

/* x in the order of unpack_group: of every 32, the even ones, then the odd ones. */
static void prepare_4bit(const float *x, int64_t cols, float *out) {
  for (int64_t part = 0; part < cols; part += 32, x += 32, out += 32) {
    for (int i = 0; i < 4; i++) {
      float32x4x2_t v = vld2q_f32(x + 8 * i);
      vf_store(out + VF * i, v.val[0]);
      vf_store(out + 16 + VF * i, v.val[1]);
    }
  }
}

/* In natural order: the two codes of each byte side by side first. */
static inline void unpack_32(const uint8_t *codes, const tables4 *t, float scale, float *out) {
  uint8x16_t v = vld1q_u8(codes);
  uint8x16x2_t c = vzipq_u8(vshrq_n_u8(v, 4), vandq_u8(v, vdupq_n_u8(15)));
  for (int half = 0; half < 2; half++) {
    vf weight[4];
    lookup_16(c.val[half], t, weight);
    for (int i = 0; i < 4; i++) vf_store(out + half * 16 + i * VF, vf_mul(weight[i], vf_set1(scale)));
  }
}

#endif
