/* Vectors of integers, AVX-VNNI: AVX2 with vpdpbusd, which multiplies unsigned bytes with signed ones and adds up in 32
 * bits. The names of vi_scalar.h, and those of q8_x86.h. */
#ifndef NB_KERNELS_CPU_VI_AVXVNNI_H
#define NB_KERNELS_CPU_VI_AVXVNNI_H

#include <stdbool.h>

#include "kernels/cpu/vi_256_x86.h"

enum { WIDE_LESS = 0 };

/* As with AVX-512: what takes the bias off again is worked out once for these rows. */
enum { Q_ROWS = 4 };

static inline vi vi_dot(vi sum, vi w, vi x, bool wide) {
  (void)wide;
  return _mm256_dpbusd_avx_epi32(sum, w, x);
}
typedef vi vi_table; /* a byte for each code, plus 128 */

static inline vi_table vi_table_of(vi map) { return map; }
static inline vi vi_table_start(vi x) { return vi_minus(_mm256_dpbusd_avx_epi32(vi_zero(), vi_set1(INT8_MIN), x)); }
static inline vi vi_table_dot(vi start, vi_table t, vi codes, vi x) {
  return _mm256_dpbusd_avx_epi32(start, vi_lookup(t, codes), x);
}

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
