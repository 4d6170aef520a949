/* Vectors of integers, AVX2: the names of vi_scalar.h, and those of q8_x86.h. */
#ifndef NB_KERNELS_CPU_VI_AVX2_H
#define NB_KERNELS_CPU_VI_AVX2_H

#include <stdbool.h>

#include "kernels/cpu/vi_256_x86.h"

/* vpmaddubsw adds pairs of products in 16 bits, too few for an unsigned byte above 127 (254 * 127 * 2): such bytes are
 * taken less 128, and the sign of the difference is moved to x. */
enum { WIDE_LESS = 128 };

/* One after the other: of four side by side Zen 3 reads 6.5 GB/s from memory, not 10. */
enum { Q_ROWS = 1 };

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
