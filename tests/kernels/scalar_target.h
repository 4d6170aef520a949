// The shared kernels in plain C, which no product of the program uses: what vec_scalar.h, lookup4_scalar.h and
// vi_scalar.h say that the names of their vocabularies mean, put to work.
#ifndef NB_TESTS_SCALAR_TARGET_H
#define NB_TESTS_SCALAR_TARGET_H

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/q8_cpu.h"

extern const nb_format_kernels nb_kernels_scalar[NB_FORMAT_COUNT];
extern const nb_q8_kernel nb_q8_scalar[NB_FORMAT_COUNT];  // GPTQ's that fill bytes
extern const nb_cpu_gemm nb_cpu_gemm_scalar;

#endif
