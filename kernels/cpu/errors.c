/* The build's own instruction set: the specification, and what vectors it has (NEON). */
#define NB_TARGET_SCALAR
#include "kernels/cpu/errors_target.h"

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
