#define NB_TARGET_AVX512
#include "kernels/cpu/q8_panel_x86.h"

const nb_cpu_q8 nb_cpu_q8_avx512 = {
    .multiply = multiply_panel,
    .formats = formats,
};
