/* GGUF's block formats, in plain C that compilers vectorize: gguf_scalar.c compiles it for any processor, gguf_avx2.c
 * and gguf_avx512.c for theirs. The values are the same to the bit, as no product before the last sum rounds. */
#ifndef NB_KERNELS_CPU_GGUF_TARGET_H
#define NB_KERNELS_CPU_GGUF_TARGET_H

#include <string.h>

#include "kernels/cpu/target.h"
#include "kernels/gguf_blocks.h"
#include "kernels/gguf_parts.h"

enum { BLOCK = 32, SUPER = 256 };

typedef void (*block_fn)(const uint8_t *restrict block, float *restrict out);

/* The two halves of a byte are 16 weights apart: byte j holds weights j and j + 16. */

/* d f16, 16 bytes of codes */
static void q4_0(const uint8_t *restrict block, float *restrict out) {
  float d = nb_half_at(block);
  for (int j = 0; j < 16; j++) {
    out[j] = d * (float)((block[2 + j] & 15) - 8);
    out[j + 16] = d * (float)((block[2 + j] >> 4) - 8);
  }
}

/* d f16, m f16, 16 bytes of codes */
static void q4_1(const uint8_t *restrict block, float *restrict out) {
  float d = nb_half_at(block), m = nb_half_at(block + 2);
  for (int j = 0; j < 16; j++) {
    out[j] = d * (float)(block[4 + j] & 15) + m;
    out[j + 16] = d * (float)(block[4 + j] >> 4) + m;
  }
}

/* The fifth bits of all 32 weights: bit j of a little-endian word is weight j's. */
static uint32_t fifth_bits(const uint8_t *at) {
  return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* d f16, fifth bits u32, 16 bytes of codes */
static void q5_0(const uint8_t *restrict block, float *restrict out) {
  float d = nb_half_at(block);
  uint32_t high = fifth_bits(block + 2);
  for (int j = 0; j < 16; j++) {
    out[j] = d * (float)((int)((block[6 + j] & 15u) | (high >> j & 1u) << 4) - 16);
    out[j + 16] = d * (float)((int)(block[6 + j] >> 4 | (high >> (j + 16) & 1u) << 4) - 16);
  }
}

/* d f16, m f16, fifth bits u32, 16 bytes of codes */
static void q5_1(const uint8_t *restrict block, float *restrict out) {
  float d = nb_half_at(block), m = nb_half_at(block + 2);
  uint32_t high = fifth_bits(block + 4);
  for (int j = 0; j < 16; j++) {
    out[j] = d * (float)(int)((block[8 + j] & 15u) | (high >> j & 1u) << 4) + m;
    out[j + 16] = d * (float)(int)(block[8 + j] >> 4 | (high >> (j + 16) & 1u) << 4) + m;
  }
}

/* d f16, 32 signed codes */
static void q8_0(const uint8_t *restrict block, float *restrict out) {
  float d = nb_half_at(block);
  for (int j = 0; j < BLOCK; j++) out[j] = d * (float)(int8_t)block[2 + j];
}

/* K-quants: 256 weights, scales and minima of their parts quantized themselves. A byte of 2-bit codes holds weights
 * that are 32 apart, so half h (128 weights), shift s and byte l name weight 128h + 32s + l. */

/* scales[16] (scale low half, minimum high half, a byte for 16 weights), codes[64], d f16, dmin f16 */
static void q2_k(const uint8_t *restrict block, float *restrict out) {
  const uint8_t *scales = block, *codes = block + 16;
  float d = nb_half_at(block + 80), dmin = nb_half_at(block + 82);
  for (int part = 0; part < 16; part++) {
    const uint8_t *at = codes + part / 8 * 32 + part % 2 * 16;
    int shift = part % 8 / 2 * 2;
    float scale = d * (float)(scales[part] & 15), minimum = dmin * (float)(scales[part] >> 4);
    for (int l = 0; l < 16; l++) out[part * 16 + l] = scale * (float)(at[l] >> shift & 3) - minimum;
  }
}

/* third bits[32], codes[64], scales[12], d f16. Scale k's low four bits are a half of byte k % 8, its high two lie in
 * byte 8 + k % 4. A third bit that is set means: do not take 4 off. */
static void q3_k(const uint8_t *restrict block, float *restrict out) {
  const uint8_t *high = block, *codes = block + 32, *scales = block + 96;
  float d = nb_half_at(block + 108);
  for (int part = 0; part < 16; part++) {
    const uint8_t *at = codes + part / 8 * 32 + part % 2 * 16, *high_at = high + part % 2 * 16;
    int shift = part % 8 / 2 * 2, bit = part / 2;
    int low4 = scales[part % 8] >> part / 8 * 4 & 15, high2 = scales[8 + part % 4] >> part / 4 * 2 & 3;
    float scale = d * (float)((low4 | high2 << 4) - 32);
    for (int l = 0; l < 16; l++) {
      int code = (at[l] >> shift & 3) + (high_at[l] >> bit & 1) * 4 - 4;
      out[part * 16 + l] = scale * (float)code;
    }
  }
}

/* d f16, dmin f16, scales and minima[12], codes[128]: byte l of a run of 32 holds weights l and l + 32 */
static void q4_k(const uint8_t *restrict block, float *restrict out) {
  float d = nb_half_at(block), dmin = nb_half_at(block + 2);
  for (int part = 0; part < 8; part++) {
    const uint8_t *at = block + 16 + part / 2 * 32;
    int scale, minimum, shift = part % 2 * 4;
    nb_scale_and_minimum(block + 4, part, &scale, &minimum);
    float s = d * (float)scale, m = dmin * (float)minimum;
    for (int l = 0; l < 32; l++) out[part * 32 + l] = s * (float)(at[l] >> shift & 15) - m;
  }
}

/* As Q4_K with fifth bits[32] before the codes: bit k of byte l belongs to weight 32k + l. */
static void q5_k(const uint8_t *restrict block, float *restrict out) {
  const uint8_t *high = block + 16;
  float d = nb_half_at(block), dmin = nb_half_at(block + 2);
  for (int part = 0; part < 8; part++) {
    const uint8_t *at = block + 48 + part / 2 * 32;
    int scale, minimum, shift = part % 2 * 4;
    nb_scale_and_minimum(block + 4, part, &scale, &minimum);
    float s = d * (float)scale, m = dmin * (float)minimum;
    for (int l = 0; l < 32; l++) {
      int code = (at[l] >> shift & 15) | (high[l] >> part & 1) << 4;
      out[part * 32 + l] = s * (float)code - m;
    }
  }
}

/* low four bits[128], high two bits[64], signed scales[16], d f16. In each half (128 weights), the low bits of weights
 * l and l + 64 share a byte, the high bits of l, l + 32, l + 64, l + 96 another. */
static void q6_k(const uint8_t *restrict block, float *restrict out) {
  const uint8_t *scales = block + 192;
  float d = nb_half_at(block + 208);
  for (int part = 0; part < 16; part++) {
    int half = part / 8, quarter = part % 8 / 2, begin = part % 2 * 16;
    const uint8_t *low = block + half * 64 + quarter % 2 * 32 + begin, *high = block + 128 + half * 32 + begin;
    float scale = d * (float)(int8_t)scales[part];
    for (int l = 0; l < 16; l++) {
      int code = (low[l] >> quarter / 2 * 4 & 15) | (high[l] >> quarter * 2 & 3) << 4;
      out[part * 16 + l] = scale * (float)(code - 32);
    }
  }
}

static const block_fn blocks_of[NB_FORMAT_COUNT] = {
    [NB_FORMAT_Q4_0] = q4_0, [NB_FORMAT_Q4_1] = q4_1, [NB_FORMAT_Q5_0] = q5_0, [NB_FORMAT_Q5_1] = q5_1,
    [NB_FORMAT_Q8_0] = q8_0, [NB_FORMAT_Q2_K] = q2_k, [NB_FORMAT_Q3_K] = q3_k, [NB_FORMAT_Q4_K] = q4_k,
    [NB_FORMAT_Q5_K] = q5_k, [NB_FORMAT_Q6_K] = q6_k,
};

void NB_OF_TARGET(nb_gguf_dequantize)(nb_tile t, float *out, int64_t stride) {
  const nb_packed *m = t.packed;
  const nb_format_row *info = nb_format_info(m->format);
  int64_t n = info->block.weights, row_bytes = m->cols / n * info->block.bytes;
  block_fn dequantize = blocks_of[m->format];
  float edge[SUPER];
  for (int64_t r = 0; r < t.rows; r++) {
    const uint8_t *blocks = (const uint8_t *)m->codes + (t.row + r) * row_bytes;
    float *to = out + r * stride;
    for (int64_t c = t.col, end = t.col + t.cols; c < end;) {
      int64_t b = c / n, inside = c % n, whole = (end - c) / n;
      if (inside == 0 && whole > 0) {
        for (c += whole * n; whole > 0; whole--, b++, to += n) dequantize(blocks + b * info->block.bytes, to);
        continue;
      }
      int64_t take = n - inside < end - c ? n - inside : end - c;
      dequantize(blocks + b * info->block.bytes, edge);
      memcpy(to, edge + inside, (size_t)take * sizeof *to);
      to += take;
      c += take;
    }
  }
}

#endif
