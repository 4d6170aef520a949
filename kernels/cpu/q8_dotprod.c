#define NB_TARGET_DOTPROD
#include "kernels/cpu/q8_neon.h"
