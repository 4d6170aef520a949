#define NB_TARGET_NEON
#include "kernels/cpu/ops_target.h"
