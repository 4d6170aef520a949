#include "kernels/cpu/vec_avx512.h"

#include "kernels/cpu/gptq_body.h"
#include "kernels/cpu/plain_body.h"
#include "kernels/gguf_blocks.h"

typedef struct tables4 {
  vf map;
} tables4;

static tables4 make_tables4(const float *map) { return (tables4){vf_load(map)}; }

/* A group of 64 weights, 8 words of 8 codes. Both halves of a register hold the 8 words; each is shifted so that one
 * code is lowest, the upper half by 4 more, and one permute looks 16 codes up: it reads the lowest 4 bits alone. */
static inline void unpack_group(const uint8_t *codes, const tables4 *t, vf *out) {
  __m512i v = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)codes));
  v = _mm512_srlv_epi32(v, _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 4, 4, 4, 4, 4, 4, 4, 4));
  for (int byte = 0; byte < 4; byte++)
    out[byte] = _mm512_permutexvar_ps(_mm512_srli_epi32(v, (unsigned)byte * 8), t->map);
}

/* x in the order of unpack_group: lane j of out[byte] is the code in byte 4 * (j % 8) + byte, the high half of it (an
 * even weight) where j >= 8. */
static void prepare_4bit(const float *x, int64_t cols, float *out) {
  for (int64_t group = 0; group < cols; group += NB_GROUP4, x += NB_GROUP4, out += NB_GROUP4) {
#pragma GCC unroll 64 /* leaves loads and stores at fixed places */
    for (int i = 0; i < NB_GROUP4; i++) {
      int byte = i / 16, j = i % 16;
      out[i] = x[2 * (4 * (j % 8) + byte) + (j < 8)];
    }
  }
}

/* In natural order: the two codes of each byte side by side, then each widened to the lane it belongs in. */
static inline void unpack_32(const uint8_t *codes, const tables4 *t, float scale, float *out) {
  __m128i v = _mm_loadu_si128((const __m128i *)codes), high = _mm_srli_epi16(v, 4);
  vf s = vf_set1(scale);
  vf_store(out, vf_mul(_mm512_permutexvar_ps(_mm512_cvtepu8_epi32(_mm_unpacklo_epi8(high, v)), t->map), s));
  vf_store(out + VF, vf_mul(_mm512_permutexvar_ps(_mm512_cvtepu8_epi32(_mm_unpackhi_epi8(high, v)), t->map), s));
}

#include "kernels/cpu/blocks4_body.h"
#include "kernels/cpu/gguf_dot_x86.h"

const nb_format_kernels nb_kernels_avx512[NB_FORMAT_COUNT] = {
    [NB_FORMAT_F32] = {.dot = dot_f32},
    [NB_FORMAT_F16] = {dequantize_f16, .dot = dot_f16},
    [NB_FORMAT_BF16] = {dequantize_bf16, .dot = dot_bf16},
    [NB_FORMAT_NF4] = {dequantize_4bit, fits_4bit, prepare_4bit, dot_4bit},
    [NB_FORMAT_FP4] = {dequantize_4bit, fits_4bit, prepare_4bit, dot_4bit},
    [NB_FORMAT_INT8] = {dequantize_int8, .dot = dot_int8},
    [NB_FORMAT_Q4_0] = {nb_gguf_dequantize_avx512, .dot = dot_q4_0},
    [NB_FORMAT_Q4_1] = {.dequantize = nb_gguf_dequantize_avx512},
    [NB_FORMAT_Q5_0] = {.dequantize = nb_gguf_dequantize_avx512},
    [NB_FORMAT_Q5_1] = {.dequantize = nb_gguf_dequantize_avx512},
    [NB_FORMAT_Q8_0] = {nb_gguf_dequantize_avx512, .dot = dot_q8_0},
    [NB_FORMAT_Q2_K] = {.dequantize = nb_gguf_dequantize_avx512},
    [NB_FORMAT_Q3_K] = {.dequantize = nb_gguf_dequantize_avx512},
    [NB_FORMAT_Q4_K] = {nb_gguf_dequantize_avx512, .dot = dot_q4_k},
    [NB_FORMAT_Q5_K] = {.dequantize = nb_gguf_dequantize_avx512},
    [NB_FORMAT_Q6_K] = {nb_gguf_dequantize_avx512, .dot = dot_q6_k},
    [NB_FORMAT_GPTQ2] = {dequantize_gptq2, fits_gptq, NULL, dot_gptq2, columns_gptq2},
    [NB_FORMAT_GPTQ3] = {dequantize_gptq3, fits_gptq, NULL, dot_gptq3, columns_gptq3},
    [NB_FORMAT_GPTQ4] = {dequantize_gptq4, fits_gptq, NULL, dot_gptq4, columns_gptq4},
    [NB_FORMAT_GPTQ8] = {dequantize_gptq8, fits_gptq, prepare_gptq8, dot_gptq8, columns_gptq8},
};
