#define NB_TARGET_AVX2
#include "kernels/cpu/blocks4_target.h"
#include "kernels/cpu/gguf_dot_x86.h"
#include "kernels/cpu/gptq_target.h"
#include "kernels/cpu/plain_target.h"
#include "kernels/gguf_blocks.h"

const nb_format_kernels nb_kernels_avx2[NB_FORMAT_COUNT] = {
    [NB_FORMAT_F32] = {.dot = dot_f32},
    [NB_FORMAT_F16] = {dequantize_f16, .dot = dot_f16},
    [NB_FORMAT_BF16] = {dequantize_bf16, .dot = dot_bf16},
    [NB_FORMAT_NF4] = {dequantize_4bit, fits_4bit, prepare_4bit, dot_4bit},
    [NB_FORMAT_FP4] = {dequantize_4bit, fits_4bit, prepare_4bit, dot_4bit},
    [NB_FORMAT_INT8] = {dequantize_int8, .dot = dot_int8},
    [NB_FORMAT_Q4_0] = {nb_gguf_dequantize_avx2, .dot = dot_q4_0},
    [NB_FORMAT_Q4_1] = {.dequantize = nb_gguf_dequantize_avx2},
    [NB_FORMAT_Q5_0] = {.dequantize = nb_gguf_dequantize_avx2},
    [NB_FORMAT_Q5_1] = {.dequantize = nb_gguf_dequantize_avx2},
    [NB_FORMAT_Q8_0] = {nb_gguf_dequantize_avx2, .dot = dot_q8_0},
    [NB_FORMAT_Q3_K] = {.dequantize = nb_gguf_dequantize_avx2},
    [NB_FORMAT_Q4_K] = {nb_gguf_dequantize_avx2, .dot = dot_q4_k},
    [NB_FORMAT_Q5_K] = {.dequantize = nb_gguf_dequantize_avx2},
    [NB_FORMAT_Q6_K] = {nb_gguf_dequantize_avx2, .dot = dot_q6_k},
    [NB_FORMAT_GPTQ2] = {dequantize_gptq2, fits_gptq, prepare_gptq2, dot_gptq2, columns_gptq2},
    [NB_FORMAT_GPTQ3] = {dequantize_gptq3, fits_gptq, prepare_gptq3, dot_gptq3, columns_gptq3},
    [NB_FORMAT_GPTQ4] = {dequantize_gptq4, fits_gptq, prepare_gptq4, dot_gptq4, columns_gptq4, prefill_from_gptq},
    [NB_FORMAT_GPTQ8] = {dequantize_gptq8, fits_gptq, prepare_gptq8, dot_gptq8, columns_gptq8, prefill_from_gptq},
};
