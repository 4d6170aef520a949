/* GGUF's blocks and int8 rows, 32 weights at a time in 32 bytes, for the integer products (q8_x86.h) and the exact ones
 * (gguf_dot_x86.h) of AVX2 and AVX-512. */
#ifndef NB_KERNELS_CPU_BLOCKS_X86_H
#define NB_KERNELS_CPU_BLOCKS_X86_H

#include <immintrin.h>

#include "kernels/formats.h"
#include "kernels/gguf_parts.h"

/* weight[j] = scales[j / 16] * (codes[j] - bias) - minimum, the codes being bytes and the bias the format's. */
typedef struct block32 {
  __m256i codes;
  float scales[2], minimum;
} block32;

/* `at` is the row's first byte, `block` counts 32 columns. */
typedef block32 (*block32_fn)(const nb_packed *w, int64_t row, int64_t block, const uint8_t *at);

static inline __m256i low_nibbles(__m256i v) { return _mm256_and_si256(v, _mm256_set1_epi8(15)); }

/* 16 bytes twice: their low halves, then their high ones. */
static inline __m256i nibbles(const uint8_t *at) {
  __m256i both = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)at));
  return low_nibbles(_mm256_blend_epi32(both, _mm256_srli_epi16(both, 4), 0xf0));
}

static inline __m256i above_zero(__m256i v) { return _mm256_xor_si256(v, _mm256_set1_epi8(INT8_MIN)); }

static inline block32 block_int8(const nb_packed *w, int64_t row, int64_t block, const uint8_t *at) {
  float scale = nb_row_scale(w, row);
  return (block32){above_zero(_mm256_loadu_si256((const __m256i *)(at + block * 32))), {scale, scale}, 0};
}

static inline block32 block_q8_0(const nb_packed *w, int64_t row, int64_t block, const uint8_t *at) {
  (void)w, (void)row;
  at += block * 34;
  float d = nb_half_at(at);
  return (block32){above_zero(_mm256_loadu_si256((const __m256i *)(at + 2))), {d, d}, 0};
}

static inline block32 block_q4_0(const nb_packed *w, int64_t row, int64_t block, const uint8_t *at) {
  (void)w, (void)row;
  at += block * 18;
  float d = nb_half_at(at);
  return (block32){nibbles(at + 2), {d, d}, 0};
}

static inline block32 block_q4_k(const nb_packed *w, int64_t row, int64_t block, const uint8_t *at) {
  (void)w, (void)row;
  int part = (int)(block % 8), scale, minimum;
  at += block / 8 * 144;
  nb_scale_and_minimum(at + 4, part, &scale, &minimum);
  __m256i v = _mm256_loadu_si256((const __m256i *)(at + 16 + part / 2 * 32));
  v = low_nibbles(part % 2 ? _mm256_srli_epi16(v, 4) : v);
  float s = nb_half_at(at) * (float)scale;
  return (block32){v, {s, s}, nb_half_at(at + 2) * (float)minimum};
}

static inline block32 block_q6_k(const nb_packed *w, int64_t row, int64_t block, const uint8_t *at) {
  (void)w, (void)row;
  int part = (int)(block % 8), half = part / 4, quarter = part % 4;
  at += block / 8 * 210;
  __m256i low = _mm256_loadu_si256((const __m256i *)(at + half * 64 + quarter % 2 * 32));
  __m256i high = _mm256_loadu_si256((const __m256i *)(at + 128 + half * 32));
  low = low_nibbles(quarter / 2 ? _mm256_srli_epi16(low, 4) : low);
  high = _mm256_srl_epi16(high, _mm_cvtsi32_si128(quarter * 2));
  high = _mm256_slli_epi16(_mm256_and_si256(high, _mm256_set1_epi8(3)), 4);
  const int8_t *scales = (const int8_t *)at + 192 + part * 2;
  float d = nb_half_at(at + 208);
  return (block32){_mm256_or_si256(low, high), {d * (float)scales[0], d * (float)scales[1]}, 0};
}

#endif
