#define NB_TARGET_NEON
#include "kernels/cpu/gemm_target.h"
