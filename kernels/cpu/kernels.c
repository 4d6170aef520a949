#include "kernels/cpu/kernels.h"

#include <stddef.h>

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/ops_cpu.h"

static const struct {
  const nb_format_kernels *formats; /* [NB_FORMAT_COUNT] */
  const nb_cpu_gemm *gemm;
  const nb_cpu_ops *ops;
} tables[NB_ISA_COUNT] = {
    [NB_ISA_SCALAR] = {NULL, NULL, &nb_cpu_ops_scalar},
#if defined(__x86_64__)
    [NB_ISA_AVX2] = {nb_kernels_avx2, &nb_cpu_gemm_avx2, &nb_cpu_ops_avx2},
    [NB_ISA_AVXVNNI] = {nb_kernels_avx2, &nb_cpu_gemm_avx2, &nb_cpu_ops_avx2},
    [NB_ISA_AVX512] = {nb_kernels_avx512, &nb_cpu_gemm_avx512, &nb_cpu_ops_avx512},
#elif defined(__aarch64__)
    [NB_ISA_NEON] = {nb_kernels_neon, &nb_cpu_gemm_neon, &nb_cpu_ops_neon},
    [NB_ISA_DOTPROD] = {nb_kernels_neon, &nb_cpu_gemm_neon, &nb_cpu_ops_neon},
    [NB_ISA_I8MM] = {nb_kernels_neon, &nb_cpu_gemm_neon, &nb_cpu_ops_neon},
#endif
};

nb_dequantize_fn nb_dequantizer(nb_format format) {
  for (nb_isa isa = nb_isa_current(); tables[isa].formats; isa = nb_isa_fallback(isa)) {
    if (tables[isa].formats[format].dequantize) return tables[isa].formats[format].dequantize;
  }
  return nb_format_info(format)->dequantize;
}

const nb_format_kernels *nb_dot_kernels(const nb_packed *w) {
  for (nb_isa isa = nb_isa_current(); tables[isa].formats; isa = nb_isa_fallback(isa)) {
    const nb_format_kernels *row = &tables[isa].formats[w->format];
    if (row->dot && (!row->fits || row->fits(w))) return row;
  }
  return NULL;
}

const nb_cpu_gemm *nb_cpu_gemm_for(nb_isa isa) { return tables[isa].gemm; }

const nb_cpu_ops *nb_cpu_ops_for(nb_isa isa) {
  while (!tables[isa].ops) isa = nb_isa_fallback(isa);
  return tables[isa].ops;
}
