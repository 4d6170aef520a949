#define NB_TARGET_AVX2
#include "kernels/cpu/gemm_target.h"
