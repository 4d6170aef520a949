#include "kernels/cpu/vec_avx2.h"

#include "kernels/cpu/gemm_body.h"

const nb_cpu_gemm nb_cpu_gemm_avx2 = {
    .lanes = GEMM_VECTORS * VF,
    .narrow = VF,
    .pack = gemm_pack,
    .multiply = gemm_multiply,
    .unpack = gemm_unpack,
    .dot = gemm_dot,
    .peak = gemm_peak,
};
