#define NB_TARGET_AVX512
#include "kernels/cpu/gguf_target.h"
