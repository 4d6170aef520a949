#include "kernels/formats.h"

#include <string.h>

#include "kernels/gguf_blocks.h"
#include "kernels/gptq.h"

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

static void dequantize_plain(const nb_packed *m, int64_t row, int64_t rows, int64_t col, int64_t cols, float *out,
                             int64_t stride) {
  nb_dtype dtype = nb_format_info(m->format)->plain;
  size_t size = nb_dtype_size(dtype);
  for (int64_t r = 0; r < rows; r++) {
    const char *at = (const char *)m->codes + (size_t)((row + r) * m->cols + col) * size;
    nb_to_f32(dtype, at, (size_t)cols, out + r * stride);
  }
}

static void dequantize_4bit(const nb_packed *m, int64_t row, int64_t rows, int64_t col, int64_t cols, float *out,
                            int64_t stride) {
  const uint8_t *codes = m->codes;
  for (int64_t r = 0; r < rows; r++) {
    int64_t at = (row + r) * m->cols + col, block = at / m->block_size;
    int64_t next_block = (block + 1) * m->block_size;
    float scale = nb_block_absmax(m, block);
    for (int64_t c = 0; c < cols; c++, at++) {
      if (at == next_block) {
        scale = nb_block_absmax(m, ++block);
        next_block += m->block_size;
      }
      int code = at & 1 ? codes[at >> 1] & 15 : codes[at >> 1] >> 4;
      out[r * stride + c] = m->quant_map[code] * scale;
    }
  }
}

static void dequantize_int8(const nb_packed *m, int64_t row, int64_t rows, int64_t col, int64_t cols, float *out,
                            int64_t stride) {
  for (int64_t r = 0; r < rows; r++) {
    const int8_t *codes = (const int8_t *)m->codes + (row + r) * m->cols + col;
    float scale = m->absmax[row + r] / 127.0f;
    for (int64_t c = 0; c < cols; c++) out[r * stride + c] = (float)codes[c] * scale;
  }
}

static const nb_format_row formats[NB_FORMAT_COUNT] = {
    [NB_FORMAT_F32] = {"f32", 32, NB_F32, false, dequantize_plain, 0, 0},
    [NB_FORMAT_F16] = {"f16", 16, NB_F16, false, dequantize_plain, 0, 0},
    [NB_FORMAT_BF16] = {"bf16", 16, NB_BF16, false, dequantize_plain, 0, 0},
    [NB_FORMAT_NF4] = {"nf4", 4, NB_U8, true, dequantize_4bit, 0, 0},
    [NB_FORMAT_FP4] = {"fp4", 4, NB_U8, true, dequantize_4bit, 0, 0},
    [NB_FORMAT_INT8] = {"int8", 8, NB_I8, true, dequantize_int8, 0, 0},
    [NB_FORMAT_Q4_0] = {"q4_0", 4, NB_U8, true, nb_gguf_dequantize, 32, 18},
    [NB_FORMAT_Q4_1] = {"q4_1", 4, NB_U8, true, nb_gguf_dequantize, 32, 20},
    [NB_FORMAT_Q5_0] = {"q5_0", 5, NB_U8, true, nb_gguf_dequantize, 32, 22},
    [NB_FORMAT_Q5_1] = {"q5_1", 5, NB_U8, true, nb_gguf_dequantize, 32, 24},
    [NB_FORMAT_Q8_0] = {"q8_0", 8, NB_U8, true, nb_gguf_dequantize, 32, 34},
    [NB_FORMAT_Q2_K] = {"q2_k", 2, NB_U8, true, nb_gguf_dequantize, 256, 84},
    [NB_FORMAT_Q3_K] = {"q3_k", 3, NB_U8, true, nb_gguf_dequantize, 256, 110},
    [NB_FORMAT_Q4_K] = {"q4_k", 4, NB_U8, true, nb_gguf_dequantize, 256, 144},
    [NB_FORMAT_Q5_K] = {"q5_k", 5, NB_U8, true, nb_gguf_dequantize, 256, 176},
    [NB_FORMAT_Q6_K] = {"q6_k", 6, NB_U8, true, nb_gguf_dequantize, 256, 210},
    [NB_FORMAT_GPTQ2] = {"gptq2", 2, NB_I32, true, nb_gptq_dequantize, 0, 0},
    [NB_FORMAT_GPTQ3] = {"gptq3", 3, NB_I32, true, nb_gptq_dequantize, 0, 0},
    [NB_FORMAT_GPTQ4] = {"gptq4", 4, NB_I32, true, nb_gptq_dequantize, 0, 0},
    [NB_FORMAT_GPTQ8] = {"gptq8", 8, NB_I32, true, nb_gptq_dequantize, 0, 0},
};

const nb_format_row *nb_format_info(nb_format format) { return &formats[format]; }

bool nb_format_of_dtype(nb_dtype dtype, nb_format *out) {
  for (int i = 0; i < NB_FORMAT_COUNT; i++) {
    if (!formats[i].is_packed && formats[i].plain == dtype) {
      *out = (nb_format)i;
      return true;
    }
  }
  return false;
}

int64_t nb_packed_bytes(const nb_packed *m) {
  int64_t count = m->rows * m->cols;
  if (!formats[m->format].is_packed) return count * (int64_t)nb_dtype_size(formats[m->format].plain);
  if (formats[m->format].block_weights)
    return count / formats[m->format].block_weights * formats[m->format].block_bytes;
  if (m->format == NB_FORMAT_INT8) return count + m->rows * 4;
  int bits = nb_gptq_bits(m->format);
  if (bits) {
    int64_t group_words = nb_gptq_words(m->rows, bits) * 4 + m->rows * (int64_t)nb_dtype_size(m->scale_dtype);
    return nb_gptq_words(m->cols, bits) * m->rows * 4 + m->groups * group_words + m->cols * 4;
  }
  int64_t blocks = (count + m->block_size - 1) / m->block_size, bytes = (count + 1) / 2 + 16 * 4;
  if (!m->nested_block_size) return bytes + blocks * 4;
  return bytes + blocks + (blocks + m->nested_block_size - 1) / m->nested_block_size * 4 + 256 * 4 + 4;
}
