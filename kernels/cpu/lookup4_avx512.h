/* Codes of 4 bits to floats, AVX-512: the names of lookup4_scalar.h. */
#ifndef NB_KERNELS_CPU_LOOKUP4_AVX512_H
#define NB_KERNELS_CPU_LOOKUP4_AVX512_H

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/vec_avx512.h"

typedef struct tables4 {
  vf map;
} tables4;

static tables4 make_tables4(const float *map) { return (tables4){vf_load(map)}; }

/* A group of 64 weights, 8 words of 8 codes. Both halves of a register hold the 8 words; each is shifted so that one
 * code is lowest, the upper half by 4 more, and one permute looks 16 codes up: it reads the lowest 4 bits alone. */
static inline void unpack_group(const uint8_t *codes, const tables4 *t, vf *out) {
  __m512i v = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)codes));
  v = _mm512_srlv_epi32(v, _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 4, 4, 4, 4, 4, 4, 4, 4));
  for (int byte = 0; byte < 4; byte++)
    out[byte] = _mm512_permutexvar_ps(_mm512_srli_epi32(v, (unsigned)byte * 8), t->map);
}

/* x in the order of unpack_group: lane j of out[byte] is the code in byte 4 * (j % 8) + byte, the high half of it (an
 * even weight) where j >= 8. */
static void prepare_4bit(const float *x, int64_t cols, float *out) {
  for (int64_t group = 0; group < cols; group += NB_GROUP4, x += NB_GROUP4, out += NB_GROUP4) {
#pragma GCC unroll 64 /* leaves loads and stores at fixed places */
    for (int i = 0; i < NB_GROUP4; i++) {
      int byte = i / 16, j = i % 16;
      out[i] = x[2 * (4 * (j % 8) + byte) + (j < 8)];
    }
  }
}

/* In natural order: the two codes of each byte side by side, then each widened to the lane it belongs in. */
static inline void unpack_32(const uint8_t *codes, const tables4 *t, float scale, float *out) {
  __m128i v = _mm_loadu_si128((const __m128i *)codes), high = _mm_srli_epi16(v, 4);
  vf s = vf_set1(scale);
  vf_store(out, vf_mul(_mm512_permutexvar_ps(_mm512_cvtepu8_epi32(_mm_unpacklo_epi8(high, v)), t->map), s));
  vf_store(out + VF, vf_mul(_mm512_permutexvar_ps(_mm512_cvtepu8_epi32(_mm_unpackhi_epi8(high, v)), t->map), s));
}

#endif
