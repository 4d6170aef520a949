#include "kernels/formats.h"

#include <string.h>

#include "base/checked.h"
#include "kernels/gguf_blocks.h"
#include "kernels/gptq.h"
#include "kernels/q8.h"
#include "kernels/quantize.h"

enum { CODES = 16, NESTED_CODES = 256 };

/* Quantiles of the normal distribution, 0 among them (arXiv:2305.14314, appendix E). */
const float nb_nf4_map[16] = {
    -1.0f,
    -0.6961928009986877f,
    -0.5250730514526367f,
    -0.39491748809814453f,
    -0.28444138169288635f,
    -0.18477343022823334f,
    -0.09105003625154495f,
    0.0f,
    0.07958029955625534f,
    0.16093020141124725f,
    0.24611230194568634f,
    0.33791524171829224f,
    0.44070982933044434f,
    0.5626170039176941f,
    0.7229568362236023f,
    1.0f,
};

/* Sign, two bits of exponent, one of mantissa, divided by the largest value, 12. */
const float nb_fp4_map[16] = {
    0.0f,
    0.0052083334885537624f,
    0.6666666865348816f,
    1.0f,
    0.3333333432674408f,
    0.5f,
    0.1666666716337204f,
    0.25f,
    0.0f,
    -0.0052083334885537624f,
    -0.6666666865348816f,
    -1.0f,
    -0.3333333432674408f,
    -0.5f,
    -0.1666666716337204f,
    -0.25f,
};

static void dequantize_plain(nb_tile t, float *out, int64_t stride) {
  nb_dtype dtype = nb_format_info(t.packed->format)->plain;
  size_t size = nb_dtype_size(dtype);
  for (int64_t r = 0; r < t.rows; r++) {
    const char *at = (const char *)t.packed->codes + (size_t)((t.row + r) * t.packed->cols + t.col) * size;
    nb_to_f32(dtype, at, (size_t)t.cols, out + r * stride);
  }
}

static void dequantize_4bit(nb_tile t, float *out, int64_t stride) {
  const nb_packed *m = t.packed;
  const uint8_t *codes = m->codes;
  for (int64_t r = 0; r < t.rows; r++) {
    int64_t at = (t.row + r) * m->cols + t.col, block = at / m->scale.block_cols;
    int64_t next_block = (block + 1) * m->scale.block_cols;
    float scale = nb_block_scale(m, block);
    for (int64_t c = 0; c < t.cols; c++, at++) {
      if (at == next_block) {
        scale = nb_block_scale(m, ++block);
        next_block += m->scale.block_cols;
      }
      int code = at & 1 ? codes[at >> 1] & 15 : codes[at >> 1] >> 4;
      out[r * stride + c] = m->codebook[code] * scale;
    }
  }
}

static void dequantize_int8(nb_tile t, float *out, int64_t stride) {
  for (int64_t r = 0; r < t.rows; r++) {
    const int8_t *codes = (const int8_t *)t.packed->codes + (t.row + r) * t.packed->cols + t.col;
    float scale = nb_row_scale(t.packed, t.row + r);
    for (int64_t c = 0; c < t.cols; c++) out[r * stride + c] = (float)codes[c] * scale;
  }
}

#define PLAIN(dtype) .scheme = NB_SCHEME_PLAIN, .plain = (dtype), .dequantize = dequantize_plain
#define CODEBOOK(map)                                                                                    \
  .scheme = NB_SCHEME_CODEBOOK, .bits = 4, .plain = NB_U8, .dequantize = dequantize_4bit,                \
  .quantize = nb_quantize_4bit, .codebook = (map), .peak = 1, .usual_block = 64, .tiled = NB_TILED_LUT4, \
  .q8 = &nb_q8_codebook
#define BLOCKS(...) \
  .scheme = NB_SCHEME_BLOCKS, .plain = NB_U8, .dequantize = nb_gguf_dequantize_scalar, .block = {__VA_ARGS__}
#define AFFINE .scheme = NB_SCHEME_AFFINE, .plain = NB_I32, .dequantize = nb_gptq_dequantize, .usual_block = 128

/* Limits, {KL divergence, increase of perplexity, same likeliest token}: what was measured of SmolLM2-135M ("Limits by
 * format" in docs/results.md), and a fifth to a half more. Of formats that were not measured, those in 5 and 6 bits:
 * one bit more halves the errors of weights, so the divergence falls to a quarter and other likeliest tokens to a half.
 * Two bits destroy a model of that size; what is asked there is the profile "loose". */
/* clang-format off */
#define LIMITS_OF_2_BITS {1.5, 2, 0.4}
#define LIMITS_OF_3_BITS {0.7, 0.75, 0.56}
#define LIMITS_OF_4_BITS {0.3, 0.25, 0.66}
#define LIMITS_OF_5_BITS {0.09, 0.08, 0.81}
#define LIMITS_OF_6_BITS {0.025, 0.03, 0.9}
#define LIMITS_OF_8_BITS {0.0025, 0.012, 0.96}
#define LIMITS_OF_16_BITS {0.0002, 0.002, 0.99}
/* clang-format on */

static const nb_format_row formats[NB_FORMAT_COUNT] = {
    [NB_FORMAT_F32] = {"f32", PLAIN(NB_F32), .bits = 32, .footprint = "f32", .limits = LIMITS_OF_16_BITS},
    [NB_FORMAT_F16] = {"f16", PLAIN(NB_F16), .bits = 16, .tiled = NB_TILED_F16, .footprint = "f16",
                       .limits = LIMITS_OF_16_BITS},
    [NB_FORMAT_BF16] = {"bf16", PLAIN(NB_BF16), .bits = 16, .tiled = NB_TILED_F16, .limits = LIMITS_OF_16_BITS},
    /* 16 values in whole steps: of all numbers of steps to 1 that a byte holds, the one that brings them closest,
     * nearly 0.2% of the largest. With 127 instead, nf4's small values are off by 2 to 4%, all of a code alike, and
     * perplexity rises by 1.3% instead of 0.15%. */
    [NB_FORMAT_NF4] = {"nf4", CODEBOOK(nb_nf4_map), .q8_is_cheap = true, .q8_steps = 112.03f, .footprint = "nf4",
                       .nested_footprint = "nf4-double-quant", .limits = LIMITS_OF_4_BITS},
    [NB_FORMAT_FP4] = {"fp4", CODEBOOK(nb_fp4_map), .q8_is_cheap = true, .q8_steps = 120, .limits = {0.55, 0.42, 0.59}},
    [NB_FORMAT_INT8] = {"int8", NB_SCHEME_SYMMETRIC, 8, NB_I8, dequantize_int8, nb_quantize_int8, .peak = 127,
                        .tiled = NB_TILED_INT8, .llm_int8 = true, .q8 = &nb_q8_int8, .q8_is_cheap = true,
                        .footprint = "int8", .limits = {0.004, 0.01, 0.95}, .llm_int8_limits = {0.025, 0.04, 0.89}},
    /* weights, bytes, weights a scale, where scale, minimum and codes lie, bytes of codes: ggml-common.h */
    [NB_FORMAT_Q4_0] = {"q4_0", BLOCKS(32, 18, 32, 0, -1, 2, 16), .bits = 4, .q8 = &nb_q8_q4_0, .q8_is_cheap = true,
                        .limits = LIMITS_OF_4_BITS},
    [NB_FORMAT_Q4_1] = {"q4_1", BLOCKS(32, 20, 32, 0, 2, 4, 16), .bits = 4, .limits = LIMITS_OF_4_BITS},
    [NB_FORMAT_Q5_0] = {"q5_0", BLOCKS(32, 22, 32, 0, -1, 6, 16), .bits = 5, .limits = LIMITS_OF_5_BITS},
    [NB_FORMAT_Q5_1] = {"q5_1", BLOCKS(32, 24, 32, 0, 2, 8, 16), .bits = 5, .limits = LIMITS_OF_5_BITS},
    [NB_FORMAT_Q8_0] = {"q8_0", BLOCKS(32, 34, 32, 0, -1, 2, 32), .bits = 8, .q8 = &nb_q8_q8_0, .q8_is_cheap = true,
                        .limits = LIMITS_OF_8_BITS},
    [NB_FORMAT_Q2_K] = {"q2_k", BLOCKS(256, 84, 16, 80, 82, 16, 64), .bits = 2, .limits = LIMITS_OF_2_BITS},
    [NB_FORMAT_Q3_K] = {"q3_k", BLOCKS(256, 110, 16, 108, -1, 32, 64), .bits = 3, .limits = LIMITS_OF_3_BITS},
    [NB_FORMAT_Q4_K] = {"q4_k", BLOCKS(256, 144, 32, 0, 2, 16, 128), .bits = 4, .q8 = &nb_q8_q4_k, .q8_is_cheap = true,
                        .limits = LIMITS_OF_4_BITS},
    [NB_FORMAT_Q5_K] = {"q5_k", BLOCKS(256, 176, 32, 0, 2, 48, 128), .bits = 5, .limits = LIMITS_OF_5_BITS},
    [NB_FORMAT_Q6_K] = {"q6_k", BLOCKS(256, 210, 16, 208, -1, 0, 128), .bits = 6, .q8 = &nb_q8_q6_k,
                        .limits = LIMITS_OF_6_BITS},
    [NB_FORMAT_GPTQ2] = {"gptq2", AFFINE, .bits = 2, .q8 = &nb_q8_gptq, .limits = LIMITS_OF_2_BITS},
    [NB_FORMAT_GPTQ3] = {"gptq3", AFFINE, .bits = 3, .limits = LIMITS_OF_2_BITS, .traded_limits = LIMITS_OF_3_BITS},
    [NB_FORMAT_GPTQ4] = {"gptq4", AFFINE, .bits = 4, .tiled = NB_TILED_GPTQ4, .q8 = &nb_q8_gptq, .q8_is_cheap = true,
                         .footprint = "gptq-4bit-g128", .limits = {0.7, 0.65, 0.57},
                         .traded_limits = {0.33, 0.37, 0.66}},
    [NB_FORMAT_GPTQ8] = {"gptq8", AFFINE, .bits = 8, .tiled = NB_TILED_GPTQ8, .q8 = &nb_q8_gptq, .q8_is_cheap = true,
                         .limits = {0.004, 0.012, 0.95}},
};

const nb_format_row *nb_format_info(nb_format format) { return &formats[format]; }

bool nb_format_of_dtype(nb_dtype dtype, nb_format *out) {
  for (int i = 0; i < NB_FORMAT_COUNT; i++) {
    if (formats[i].scheme != NB_SCHEME_PLAIN || formats[i].plain != dtype) continue;
    *out = (nb_format)i;
    return true;
  }
  return false;
}

bool nb_format_named(const char *name, nb_format *out) {
  for (int i = 0; i < NB_FORMAT_COUNT; i++) {
    if (strcmp(formats[i].name, name) != 0) continue;
    *out = (nb_format)i;
    return true;
  }
  return false;
}

/* ---- sizes ------------------------------------------------------------------------------------------------------- */

nb_packed nb_packed_usual(nb_format format, int64_t rows, int64_t cols, int64_t block, bool nested) {
  const nb_format_row *info = &formats[format];
  nb_packed m = {.format = format, .rows = rows, .cols = cols};
  if (block == 0) block = info->usual_block;
  if (info->scheme == NB_SCHEME_CODEBOOK) {
    m.codebook = info->codebook;
    m.scale = (nb_scales){.dtype = nested ? NB_U8 : NB_F32, .block_cols = block};
    if (nested) m.second = (nb_scales){.dtype = NB_F32, .block_cols = NB_NESTED_BLOCK_SIZE};
  } else if (info->scheme == NB_SCHEME_SYMMETRIC) {
    m.scale = (nb_scales){.dtype = NB_F32, .block_rows = 1, .block_cols = cols};
  } else if (info->scheme == NB_SCHEME_AFFINE) {
    m.scale = (nb_scales){.dtype = NB_F16, .block_rows = 1, .block_cols = block};
    m.groups = nb_ceil_div(cols, block);
  }
  return m;
}

int64_t nb_packed_unit(const nb_packed *m) { return m->scale.block_cols && !m->g_idx ? m->scale.block_cols : m->cols; }

int64_t nb_packed_code_bytes(const nb_packed *m) {
  const nb_format_row *info = &formats[m->format];
  int64_t count = m->rows * m->cols;
  switch (info->scheme) {
    case NB_SCHEME_BLOCKS: return count / info->block.weights * info->block.bytes;
    case NB_SCHEME_AFFINE: return nb_gptq_words(m->cols, info->bits) * m->rows * 4;
    case NB_SCHEME_CODEBOOK: return nb_ceil_div(count, 2);
    default: return count * (int64_t)nb_dtype_size(info->plain);
  }
}

int64_t nb_scale_count(const nb_packed *m) {
  const nb_scales *s = &m->scale;
  if (!s->block_cols) return 0;
  if (!s->block_rows) return nb_ceil_div(m->rows * m->cols, s->block_cols);
  return nb_ceil_div(m->rows, s->block_rows) * (m->groups ? m->groups : nb_ceil_div(m->cols, s->block_cols));
}

/* Zero points count as files have them, packed like codes; the map of what group a column is in counts too. */
int64_t nb_packed_bytes(const nb_packed *m) {
  const nb_format_row *info = &formats[m->format];
  int64_t scales = nb_scale_count(m), bytes = nb_packed_code_bytes(m) + scales * (int64_t)nb_dtype_size(m->scale.dtype);
  if (info->codebook) bytes += CODES * (int64_t)sizeof(float);
  if (m->second.block_cols)
    bytes += nb_ceil_div(scales, m->second.block_cols) * (int64_t)nb_dtype_size(m->second.dtype) +
             (NESTED_CODES + 1) * (int64_t)sizeof(float);
  if (m->groups)
    bytes +=
        m->groups * nb_gptq_words(m->rows, info->bits) * (int64_t)sizeof(uint32_t) + m->cols * (int64_t)sizeof(int32_t);
  return bytes;
}
