/* Vectors of integers, AVX2: the names of vi_scalar.h, and those of q8_x86.h. */
#ifndef NB_KERNELS_CPU_VI_AVX2_H
#define NB_KERNELS_CPU_VI_AVX2_H

#include <stdbool.h>

#include "kernels/cpu/vec_avx2.h"

typedef __m256i vi;

/* vpmaddubsw adds pairs of products in 16 bits, too few for an unsigned byte above 127 (254 * 127 * 2): such bytes are
 * taken less 128, and the sign of the difference is moved to x. */
enum { WIDE_LESS = 128 };

/* One after the other: of four side by side Zen 3 reads 6.5 GB/s from memory, not 10. */
enum { Q_ROWS = 1 };

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
static inline vf vi_to_f32(vi v) { return _mm256_cvtepi32_ps(v); }
static inline vi vi_lookup(vi map, vi codes) { return _mm256_shuffle_epi8(map, codes); }
static inline vi vi_high_low(const uint8_t *at) {
  vi both = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)at));
  both = _mm256_srlv_epi32(both, _mm256_setr_epi32(4, 4, 4, 4, 0, 0, 0, 0));
  return _mm256_and_si256(both, _mm256_set1_epi8(15));
}
static inline vi vi_dot(vi sum, vi w, vi x, bool wide) {
  if (wide) {
    w = _mm256_xor_si256(w, _mm256_set1_epi8(INT8_MIN));
    x = _mm256_sign_epi8(x, w);
    w = _mm256_abs_epi8(w);
  }
  return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), _mm256_set1_epi16(1)));
}
/* A signed byte for each code, and its magnitude. */
typedef struct vi_table {
  vi bytes, magnitudes;
} vi_table;

static inline vi_table vi_table_of(vi map) {
  vi bytes = _mm256_xor_si256(map, _mm256_set1_epi8(INT8_MIN));
  return (vi_table){bytes, _mm256_abs_epi8(bytes)};
}
static inline vi vi_table_start(vi x) {
  (void)x;
  return vi_zero();
}
static inline vi vi_table_dot(vi start, vi_table t, vi codes, vi x) {
  x = _mm256_sign_epi8(x, vi_lookup(t.bytes, codes));
  vi pairs = _mm256_maddubs_epi16(vi_lookup(t.magnitudes, codes), x);
  return _mm256_add_epi32(start, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
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

enum { PANEL_TOGETHER = 2 };

static inline vi vi_add(vi a, vi b) { return _mm256_add_epi32(a, b); }
/* Wide codes are signed here, and their magnitudes are multiplied. Eight products of others, 15 * 127 * 2 at most, add
 * up in 16 bits. */
static inline vi panel_codes(vi codes, bool wide) {
  return wide ? _mm256_xor_si256(codes, _mm256_set1_epi8(INT8_MIN)) : codes;
}
static inline vi panel_dot(vi sum, vi w, vi x, bool wide) {
  if (!wide) return _mm256_add_epi16(sum, _mm256_maddubs_epi16(w, x));
  vi pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
  return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
static inline vi panel_sum(vi sum, bool wide) { return wide ? sum : _mm256_madd_epi16(sum, _mm256_set1_epi16(1)); }

#endif
