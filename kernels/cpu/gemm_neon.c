#include "kernels/cpu/vec_neon.h"

#include "kernels/cpu/gemm_body.h"

const nb_cpu_gemm nb_cpu_gemm_neon = {
    .lanes = GEMM_VECTORS * VF,
    .narrow = VF,
    .pack = gemm_pack,
    .multiply = gemm_multiply,
    .unpack = gemm_unpack,
    .dot = gemm_dot,
    .peak = gemm_peak,
};
