/* Codes of 4 bits to floats, AVX2: the names of lookup4_scalar.h. */
#ifndef NB_KERNELS_CPU_LOOKUP4_AVX2_H
#define NB_KERNELS_CPU_LOOKUP4_AVX2_H

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/vec_avx2.h"

/* The 16 values of a 4-bit format as four planes of bytes: a byte shuffle looks 32 codes up in one plane, and 4
 * shuffles with the interleaving after them are fewer than the permutes of 8 values and blends that whole floats would
 * take. Exact: all four bytes are there. */
typedef struct tables4 {
  __m256i byte[4]; /* byte[0] holds the lowest bytes; both halves alike */
} tables4;

static tables4 make_tables4(const float *map) {
  tables4 p;
  for (int b = 0; b < 4; b++) {
    uint8_t bytes[16];
    for (int i = 0; i < 16; i++) bytes[i] = (uint8_t)(nb_f32_to_bits(map[i]) >> (8 * b));
    p.byte[b] = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)bytes));
  }
  return p;
}

/* 32 codes, one a byte, to 4 vectors of floats: bytes are interleaved to the upper (h) and lower (l) halves of floats,
 * and those to floats. Interleaving works in each half of a register, so that lane j of out[i] is code
 * 16 * (j / 4) + 4 * i + j % 4. */
static inline void lookup_32(__m256i codes, const tables4 *p, vf *out) {
  __m256i b0 = _mm256_shuffle_epi8(p->byte[0], codes), b1 = _mm256_shuffle_epi8(p->byte[1], codes);
  __m256i b2 = _mm256_shuffle_epi8(p->byte[2], codes), b3 = _mm256_shuffle_epi8(p->byte[3], codes);
  __m256i h[2] = {_mm256_unpacklo_epi8(b2, b3), _mm256_unpackhi_epi8(b2, b3)};
  __m256i l[2] = {_mm256_unpacklo_epi8(b0, b1), _mm256_unpackhi_epi8(b0, b1)};
  for (int half = 0; half < 2; half++) {
    out[2 * half] = _mm256_castsi256_ps(_mm256_unpacklo_epi16(l[half], h[half]));
    out[2 * half + 1] = _mm256_castsi256_ps(_mm256_unpackhi_epi16(l[half], h[half]));
  }
}

/* A group of 64 weights: out[0..3] from the high halves of its bytes (even weights), out[4..7] from the low ones. */
static inline void unpack_group(const uint8_t *codes, const tables4 *p, vf *out) {
  __m256i v = _mm256_loadu_si256((const __m256i *)codes), low = _mm256_set1_epi8(15);
  lookup_32(_mm256_and_si256(_mm256_srli_epi16(v, 4), low), p, out);
  lookup_32(_mm256_and_si256(v, low), p, out + 4);
}

/* x in the order of unpack_group and lookup_32. */
static void prepare_4bit(const float *x, int64_t cols, float *out) {
  for (int64_t group = 0; group < cols; group += NB_GROUP4, x += NB_GROUP4, out += NB_GROUP4) {
#pragma GCC unroll 64 /* leaves loads and stores at fixed places */
    for (int i = 0; i < NB_GROUP4; i++) {
      int low = i / 32, vector = i / 8 % 4, j = i % 8;
      out[i] = x[2 * (16 * (j / 4) + 4 * vector + j % 4) + low];
    }
  }
}

/* In natural order: byte pairs are put back beside each other first, then groups of four are dealt to the two halves
 * (0 2 4 6 | 1 3 5 7), so that each of the interleavings below ends in 8 weights that follow each other. */
static inline void unpack_32(const uint8_t *codes, const tables4 *p, float scale, float *out) {
  __m256i v = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)codes)), low = _mm256_set1_epi8(15);
  __m256i even = _mm256_and_si256(_mm256_srli_epi16(v, 4), low), odd = _mm256_and_si256(v, low);
  __m256i c = _mm256_blend_epi32(_mm256_unpacklo_epi8(even, odd), _mm256_unpackhi_epi8(even, odd), 0xf0);
  c = _mm256_permutevar8x32_epi32(c, _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7));
  vf weight[4], s = vf_set1(scale);
  lookup_32(c, p, weight);
  for (int i = 0; i < 4; i++) vf_store(out + i * VF, vf_mul(weight[i], s));
}

#endif
