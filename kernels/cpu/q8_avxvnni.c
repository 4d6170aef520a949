#define NB_TARGET_AVXVNNI
#include "kernels/cpu/q8_panel_x86.h"

const nb_cpu_q8 nb_cpu_q8_avxvnni = {
    .multiply = multiply_panel,
    .formats = formats,
};
