#define NB_TARGET_AVX2
#include "kernels/cpu/errors_target.h"
