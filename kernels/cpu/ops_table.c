#include "kernels/cpu/ops_cpu.h"

static const nb_cpu_ops *const tables[NB_ISA_COUNT] = {
    [NB_ISA_SCALAR] = &nb_cpu_ops_scalar,
};

const nb_cpu_ops *nb_cpu_ops_for(nb_isa isa) {
  while (!tables[isa]) isa = nb_isa_fallback(isa);
  return tables[isa];
}
