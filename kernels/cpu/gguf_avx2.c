#define NB_TARGET_AVX2
#include "kernels/cpu/gguf_target.h"
