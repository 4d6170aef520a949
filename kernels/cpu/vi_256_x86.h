/* Vectors of integers in 256 bits: the names of vi_scalar.h and q8_x86.h that AVX2 and AVX-VNNI have in common. */
#ifndef NB_KERNELS_CPU_VI_256_X86_H
#define NB_KERNELS_CPU_VI_256_X86_H

#include "kernels/cpu/vec_avx2.h"

typedef __m256i vi;

enum { PANEL_TOGETHER = 2 };

static inline vi vi_zero(void) { return _mm256_setzero_si256(); }
static inline vi vi_set1(int8_t byte) { return _mm256_set1_epi8(byte); }
static inline vi vi_load(const void *p) { return _mm256_loadu_si256(p); }
static inline void vi_store(void *p, vi v) { _mm256_storeu_si256(p, v); }
static inline vi vi_words(const int8_t *p) {
  int32_t word;
  __builtin_memcpy(&word, p, sizeof word);
  return _mm256_set1_epi32(word);
}
static inline vi vi_map(const float *map, float steps) {
  vi low = _mm256_cvtps_epi32(vf_mul(vf_clamp(vf_load(map), -1, 1), vf_set1(steps)));
  vi high = _mm256_cvtps_epi32(vf_mul(vf_clamp(vf_load(map + 8), -1, 1), vf_set1(steps)));
  vi words = _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xd8);
  vi bytes = _mm256_permute4x64_epi64(_mm256_packs_epi16(words, words), 0x88);
  return _mm256_add_epi8(bytes, _mm256_set1_epi8(INT8_MIN));
}
static inline vi vi_minus(vi v) { return _mm256_sub_epi32(_mm256_setzero_si256(), v); }
static inline vi vi_add(vi a, vi b) { return _mm256_add_epi32(a, b); }
static inline vf vi_to_f32(vi v) { return _mm256_cvtepi32_ps(v); }
static inline vi vi_lookup(vi map, vi codes) { return _mm256_shuffle_epi8(map, codes); }
static inline vi vi_high_low(const uint8_t *at) {
  vi both = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)at));
  both = _mm256_srlv_epi32(both, _mm256_setr_epi32(4, 4, 4, 4, 0, 0, 0, 0));
  return _mm256_and_si256(both, _mm256_set1_epi8(15));
}
static inline vf vf_lanes(const float *p) { return _mm256_set1_ps(*p); }
static inline vi vi_join(vi first, vi second) {
  (void)second;
  return first;
}
static inline vf vf_join(vf first, vf second) {
  (void)second;
  return first;
}

#endif
