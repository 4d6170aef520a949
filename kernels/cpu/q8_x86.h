/* Blocks of 32 weights to 32 bytes, for q8_body.h on AVX2 and, two at a time, on AVX-512. The including file has
 * included q8_body.h and defined vi_join(blocks), vf_join(first, second), vi_lookup(map, codes) and vi_high_low(at):
 * Q_COLS / 2 bytes, the high halves of 16 before the low ones. */
#include "kernels/gguf_parts.h"

typedef struct q8_block {
  __m256i codes;         /* plus the format's bias */
  __m256 scale, minimum; /* in the 8 lanes that the block's sums take; minimum is subtracted once, not 8 times */
} q8_block;

typedef q8_block (*q8_block_fn)(const nb_packed *w, int64_t row, int64_t block, const uint8_t *at);

static inline __m256i low_nibbles(__m256i v) { return _mm256_and_si256(v, _mm256_set1_epi8(15)); }

/* 16 bytes twice: their low halves, then their high ones. */
static inline __m256i nibbles(const uint8_t *at) {
  __m256i both = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)at));
  return low_nibbles(_mm256_blend_epi32(both, _mm256_srli_epi16(both, 4), 0xf0));
}

static inline __m256i above_zero(__m256i v) { return _mm256_xor_si256(v, _mm256_set1_epi8(INT8_MIN)); }

static inline q8_block block_int8(const nb_packed *w, int64_t row, int64_t block, const uint8_t *at) {
  return (q8_block){.codes = above_zero(_mm256_loadu_si256((const __m256i *)(at + block * NB_Q8_BLOCK))),
                    .scale = _mm256_set1_ps(w->absmax[row] / 127.0f)};
}

static inline q8_block block_q8_0(const nb_packed *w, int64_t row, int64_t block, const uint8_t *at) {
  (void)w, (void)row;
  at += block * 34;
  return (q8_block){.codes = above_zero(_mm256_loadu_si256((const __m256i *)(at + 2))),
                    .scale = _mm256_set1_ps(nb_half_at(at))};
}

static inline q8_block block_q4_0(const nb_packed *w, int64_t row, int64_t block, const uint8_t *at) {
  (void)w, (void)row;
  at += block * 18;
  return (q8_block){.codes = nibbles(at + 2), .scale = _mm256_set1_ps(nb_half_at(at))};
}

static inline q8_block block_q4_k(const nb_packed *w, int64_t row, int64_t block, const uint8_t *at) {
  (void)w, (void)row;
  int part = (int)(block % 8), scale, minimum;
  at += block / 8 * 144;
  nb_scale_and_minimum(at + 4, part, &scale, &minimum);
  __m256i v = _mm256_loadu_si256((const __m256i *)(at + 16 + part / 2 * 32));
  return (q8_block){.codes = low_nibbles(part % 2 ? _mm256_srli_epi16(v, 4) : v),
                    .scale = _mm256_set1_ps(nb_half_at(at) * (float)scale),
                    .minimum = _mm256_set1_ps(nb_half_at(at + 2) * (float)minimum * -0.125f)};
}

static inline q8_block block_q6_k(const nb_packed *w, int64_t row, int64_t block, const uint8_t *at) {
  (void)w, (void)row;
  int part = (int)(block % 8), half = part / 4, quarter = part % 4;
  at += block / 8 * 210;
  __m256i low = _mm256_loadu_si256((const __m256i *)(at + half * 64 + quarter % 2 * 32));
  __m256i high = _mm256_loadu_si256((const __m256i *)(at + 128 + half * 32));
  low = low_nibbles(quarter / 2 ? _mm256_srli_epi16(low, 4) : low);
  high = _mm256_srl_epi16(high, _mm_cvtsi32_si128(quarter * 2));
  high = _mm256_slli_epi16(_mm256_and_si256(high, _mm256_set1_epi8(3)), 4);
  float d = nb_half_at(at + 208);
  __m128 first = _mm_set1_ps(d * (float)(int8_t)at[192 + part * 2]);
  __m128 second = _mm_set1_ps(d * (float)(int8_t)at[193 + part * 2]);
  return (q8_block){.codes = _mm256_or_si256(low, high), .scale = _mm256_set_m128(second, first)};
}

static inline __attribute__((always_inline)) void unpack(q8_block_fn fn, const nb_packed *w, int64_t row, int64_t step,
                                                         int64_t block_weights, int64_t block_bytes, vi *codes,
                                                         vf *scale, vf *minimum) {
  const uint8_t *at = q8_at(w, row, step, block_weights, block_bytes);
  q8_block blocks[Q_BLOCKS];
  for (int b = 0; b < Q_BLOCKS; b++) blocks[b] = fn(w, row, step * Q_BLOCKS + b, at);
  *codes = vi_join(blocks);
  *scale = vf_join(blocks[0].scale, blocks[Q_BLOCKS - 1].scale);
  *minimum = vf_join(blocks[0].minimum, blocks[Q_BLOCKS - 1].minimum);
}

static inline void unpack_4bit(const nb_packed *w, const q8_tables *t, int64_t row, int64_t step, vi *codes, vf *scale,
                               vf *minimum) {
  int64_t flat = row * w->cols + step * Q_COLS;
  const uint8_t *at = (const uint8_t *)w->codes + flat / 2;
  __builtin_prefetch(at + NB_AHEAD);
  *codes = vi_lookup(t->map, vi_high_low(at));
  *scale = vf_set1(nb_block_absmax(w, flat >> t->block_shift) * (1 / nb_q8_steps(w->format)));
  *minimum = vf_zero();
}
static inline void unpack_int8(const nb_packed *w, const q8_tables *t, int64_t row, int64_t step, vi *codes, vf *scale,
                               vf *minimum) {
  (void)t;
  unpack(block_int8, w, row, step, 1, 1, codes, scale, minimum);
}
static inline void unpack_q8_0(const nb_packed *w, const q8_tables *t, int64_t row, int64_t step, vi *codes, vf *scale,
                               vf *minimum) {
  (void)t;
  unpack(block_q8_0, w, row, step, 32, 34, codes, scale, minimum);
}
static inline void unpack_q4_0(const nb_packed *w, const q8_tables *t, int64_t row, int64_t step, vi *codes, vf *scale,
                               vf *minimum) {
  (void)t;
  unpack(block_q4_0, w, row, step, 32, 18, codes, scale, minimum);
}
static inline void unpack_q4_k(const nb_packed *w, const q8_tables *t, int64_t row, int64_t step, vi *codes, vf *scale,
                               vf *minimum) {
  (void)t;
  unpack(block_q4_k, w, row, step, 256, 144, codes, scale, minimum);
}
static inline void unpack_q6_k(const nb_packed *w, const q8_tables *t, int64_t row, int64_t step, vi *codes, vf *scale,
                               vf *minimum) {
  (void)t;
  unpack(block_q6_k, w, row, step, 256, 210, codes, scale, minimum);
}

static void dot_4bit(const nb_packed *w, int64_t begin, int64_t end, const nb_q8_x *x, int64_t n, float *out,
                     int64_t ldout) {
  q8_dot((q8_format){unpack_4bit, 128, 4, true, false}, w, begin, end, x, n, out, ldout);
}
static void dot_int8(const nb_packed *w, int64_t begin, int64_t end, const nb_q8_x *x, int64_t n, float *out,
                     int64_t ldout) {
  q8_dot((q8_format){unpack_int8, 128, 4, true, false}, w, begin, end, x, n, out, ldout);
}
static void dot_q8_0(const nb_packed *w, int64_t begin, int64_t end, const nb_q8_x *x, int64_t n, float *out,
                     int64_t ldout) {
  q8_dot((q8_format){unpack_q8_0, 128, 4, true, false}, w, begin, end, x, n, out, ldout);
}
static void dot_q4_0(const nb_packed *w, int64_t begin, int64_t end, const nb_q8_x *x, int64_t n, float *out,
                     int64_t ldout) {
  q8_dot((q8_format){unpack_q4_0, 8, 4, false, false}, w, begin, end, x, n, out, ldout);
}
static void dot_q4_k(const nb_packed *w, int64_t begin, int64_t end, const nb_q8_x *x, int64_t n, float *out,
                     int64_t ldout) {
  q8_dot((q8_format){unpack_q4_k, 0, 2, false, true}, w, begin, end, x, n, out, ldout);
}
static void dot_q6_k(const nb_packed *w, int64_t begin, int64_t end, const nb_q8_x *x, int64_t n, float *out,
                     int64_t ldout) {
  q8_dot((q8_format){unpack_q6_k, 32, 2, false, false}, w, begin, end, x, n, out, ldout);
}
