#define NB_TARGET_AVX2
#include "kernels/cpu/ops_target.h"
