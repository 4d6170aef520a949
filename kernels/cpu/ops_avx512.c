#define NB_TARGET_AVX512
#include "kernels/cpu/ops_target.h"
