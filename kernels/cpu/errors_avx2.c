#include "kernels/cpu/errors_body.h"

const nb_cpu_errors nb_cpu_errors_avx2 = {
    .units = units, .run = run, .range = range, .grid = grid, .search = search, .exp_sums = exp_sums};
