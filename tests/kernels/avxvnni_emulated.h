// AVX-VNNI's two instructions in plain C, and a processor that says it has them where it has AVX2: included before all
// else by the sources of avxvnni_tests, which are compiled for AVX2.
#ifndef NB_TESTS_AVXVNNI_EMULATED_H
#define NB_TESTS_AVXVNNI_EMULATED_H

#include <cpuid.h>
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

// Adds to each 32-bit sum the products of four unsigned bytes of w with four signed ones of x, without saturation.
__attribute__((target("avx2"))) static inline __m256i emulated_dpbusd(__m256i sum, __m256i w, __m256i x) {
  uint32_t sums[8];
  uint8_t unsigned_bytes[32];
  int8_t signed_bytes[32];
  memcpy(sums, &sum, 32);
  memcpy(unsigned_bytes, &w, 32);
  memcpy(signed_bytes, &x, 32);
  for (int i = 0; i < 32; i++) sums[i / 4] += (uint32_t)(unsigned_bytes[i] * signed_bytes[i]);
  memcpy(&sum, sums, 32);
  return sum;
}

// The same with two pairs of signed 16-bit numbers.
__attribute__((target("avx2"))) static inline __m256i emulated_dpwssd(__m256i sum, __m256i a, __m256i b) {
  uint32_t sums[8];
  int16_t first[16], second[16];
  memcpy(sums, &sum, 32);
  memcpy(first, &a, 32);
  memcpy(second, &b, 32);
  for (int i = 0; i < 16; i++) sums[i / 2] += (uint32_t)(first[i] * second[i]);
  memcpy(&sum, sums, 32);
  return sum;
}

static inline int emulated_cpuid(unsigned leaf, unsigned subleaf, unsigned *a, unsigned *b, unsigned *c, unsigned *d) {
  *a = *b = *c = *d = 0;
  if (leaf != 7 || subleaf > 1) return 0;
  *a = subleaf == 0 ? 1 : 1u << 4;  // the last subleaf; AVX-VNNI
  return 1;
}

#undef _mm256_dpbusd_avx_epi32
#undef _mm256_dpwssd_avx_epi32
#define _mm256_dpbusd_avx_epi32 emulated_dpbusd
#define _mm256_dpwssd_avx_epi32 emulated_dpwssd
#define __get_cpuid_count emulated_cpuid

#endif
