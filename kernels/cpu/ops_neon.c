#include "kernels/cpu/gemm.h"
#include "kernels/cpu/vec_neon.h"

static const nb_cpu_gemm *const gemm = &nb_cpu_gemm_neon;

#include "kernels/cpu/ops_body.h"

const nb_cpu_ops nb_cpu_ops_neon = {
    .rmsnorm_row = rmsnorm_row,
    .layernorm_row = layernorm_row,
    .silu_mul = silu_mul,
    .attention_tile = attention_tile,
    .argmax = argmax,
    .sum_exp = sum_exp,
};
