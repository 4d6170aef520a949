#define NB_TARGET_AVX2
#include "kernels/cpu/q8_panel_x86.h"
#include "kernels/cpu/q8_round_target.h"

const nb_cpu_q8 nb_cpu_q8_avx2 = {
    .round = round_row,
    .multiply = multiply_panel,
    .formats = formats,
};
