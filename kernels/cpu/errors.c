/* The build's own instruction set: the specification, and what vectors it has (NEON). */
#include <stddef.h>

#include "kernels/cpu/errors_body.h"

const nb_cpu_errors nb_cpu_errors_scalar = {
    .units = units, .run = run, .range = range, .grid = grid, .search = search, .exp_sums = exp_sums};

static const nb_cpu_errors *const tables[NB_ISA_COUNT] = {
    [NB_ISA_SCALAR] = &nb_cpu_errors_scalar,
#if defined(__x86_64__)
    [NB_ISA_AVX2] = &nb_cpu_errors_avx2,
    [NB_ISA_AVX512] = &nb_cpu_errors_avx512,
#endif
};

const nb_cpu_errors *nb_cpu_errors_now(void) {
  nb_isa isa = nb_isa_current();
  while (!tables[isa]) isa = nb_isa_fallback(isa);
  return tables[isa];
}
