/* Vectors of integers, AVX-512: the names of vi_scalar.h, and those of q8_x86.h. */
#ifndef NB_KERNELS_CPU_VI_AVX512_H
#define NB_KERNELS_CPU_VI_AVX512_H

#include <stdbool.h>

#include "kernels/cpu/vec_avx512.h"

typedef __m512i vi;

enum { WIDE_LESS = 0 }; /* vpdpbusd sums in 32 bits */

enum { Q_ROWS = 4 };

static inline vi vi_zero(void) { return _mm512_setzero_si512(); }
static inline vi vi_set1(int8_t byte) { return _mm512_set1_epi8(byte); }
static inline vi vi_load(const void *p) { return _mm512_loadu_si512(p); }
static inline void vi_store(void *p, vi v) { _mm512_storeu_si512(p, v); }
static inline vi vi_words(const int8_t *p) {
  int32_t word;
  __builtin_memcpy(&word, p, sizeof word);
  return _mm512_set1_epi32(word);
}
static inline vi vi_map(const float *map, float steps) {
  vi whole = _mm512_cvtps_epi32(vf_mul(vf_clamp(vf_load(map), -1, 1), vf_set1(steps)));
  __m128i bytes = _mm512_cvtepi32_epi8(whole);
  return _mm512_broadcast_i32x4(_mm_add_epi8(bytes, _mm_set1_epi8(INT8_MIN)));
}
static inline vi vi_minus(vi v) { return _mm512_sub_epi32(_mm512_setzero_si512(), v); }
static inline vf vi_to_f32(vi v) { return _mm512_cvtepi32_ps(v); }
static inline vi vi_lookup(vi map, vi codes) { return _mm512_shuffle_epi8(map, codes); }
static inline vi vi_high_low(const uint8_t *at) {
  __m256i first = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)at));
  __m256i second = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(at + 16)));
  vi both = _mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1);
  both = _mm512_srlv_epi32(both, _mm512_setr_epi32(4, 4, 4, 4, 0, 0, 0, 0, 4, 4, 4, 4, 0, 0, 0, 0));
  return _mm512_and_si512(both, _mm512_set1_epi8(15));
}
static inline vi vi_dot(vi sum, vi w, vi x, bool wide) {
  (void)wide;
  return _mm512_dpbusd_epi32(sum, w, x);
}
typedef vi vi_table; /* a byte for each code, plus 128 */

static inline vi_table vi_table_of(vi map) { return map; }
static inline vi vi_table_start(vi x) { return vi_minus(_mm512_dpbusd_epi32(vi_zero(), vi_set1(INT8_MIN), x)); }
static inline vi vi_table_dot(vi start, vi_table t, vi codes, vi x) {
  return _mm512_dpbusd_epi32(start, vi_lookup(t, codes), x);
}
static inline vi vi_join(__m256i first, __m256i second) {
  return _mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1);
}
static inline vf vf_join(__m256 first, __m256 second) {
  return _mm512_insertf32x8(_mm512_castps256_ps512(first), second, 1);
}
static inline vf vf_lanes(const float *p) { return vf_join(_mm256_set1_ps(p[0]), _mm256_set1_ps(p[1])); }

enum { PANEL_TOGETHER = 4 };

static inline vi vi_add(vi a, vi b) { return _mm512_add_epi32(a, b); }
static inline vi panel_codes(vi codes, bool wide) {
  (void)wide;
  return codes;
}
static inline vi panel_dot(vi sum, vi w, vi x, bool wide) { return vi_dot(sum, w, x, wide); }
static inline vi panel_sum(vi sum, bool wide) {
  (void)wide;
  return sum;
}

#endif
