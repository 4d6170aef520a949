#define NB_TARGET_AVXVNNI
#include "kernels/cpu/int8_256_x86.h"

/* Rounding the activations is AVX2's. */
const nb_cpu_int8 nb_cpu_int8_avxvnni = {
    .absmax_row = nb_int8_absmax_row_avx2, .quantize_row = nb_int8_quantize_row_avx2, .dots = dots};
