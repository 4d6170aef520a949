#define NB_TARGET_AVX512
#include "kernels/cpu/errors_target.h"
