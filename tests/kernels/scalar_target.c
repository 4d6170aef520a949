#define NB_TARGET_SCALAR
#include "tests/kernels/scalar_target.h"

#include "kernels/cpu/blocks4_target.h"
#include "kernels/cpu/gemm_target.h"
#include "kernels/cpu/gptq_target.h"
#include "kernels/cpu/plain_target.h"
#include "kernels/cpu/q8_target.h"

const nb_format_kernels nb_kernels_scalar[NB_FORMAT_COUNT] = {
    [NB_FORMAT_F32] = {.dot = dot_f32},
    [NB_FORMAT_F16] = {dequantize_f16, .dot = dot_f16},
    [NB_FORMAT_BF16] = {dequantize_bf16, .dot = dot_bf16},
    [NB_FORMAT_NF4] = {dequantize_4bit, fits_4bit, prepare_4bit, dot_4bit},
    [NB_FORMAT_FP4] = {dequantize_4bit, fits_4bit, prepare_4bit, dot_4bit},
    [NB_FORMAT_INT8] = {dequantize_int8, .dot = dot_int8},
    [NB_FORMAT_GPTQ2] = {dequantize_gptq2, fits_gptq, prepare_gptq2, dot_gptq2, columns_gptq2},
    [NB_FORMAT_GPTQ3] = {dequantize_gptq3, fits_gptq, prepare_gptq3, dot_gptq3, columns_gptq3},
    [NB_FORMAT_GPTQ4] = {dequantize_gptq4, fits_gptq, prepare_gptq4, dot_gptq4, columns_gptq4},
    [NB_FORMAT_GPTQ8] = {dequantize_gptq8, fits_gptq, prepare_gptq8, dot_gptq8, columns_gptq8},
};

const nb_q8_kernel nb_q8_scalar[NB_FORMAT_COUNT] = {
    [NB_FORMAT_GPTQ2] = {nb_q8_words2, gptq2_q8},
    [NB_FORMAT_GPTQ4] = {nb_q8_words4, gptq4_q8},
    [NB_FORMAT_GPTQ8] = {NULL, gptq8_q8},
};
