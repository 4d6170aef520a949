#define NB_TARGET_NEON
#include "kernels/cpu/q8_neon.h"
