#define NB_TARGET_AVX512
#include "kernels/cpu/gemm_target.h"
