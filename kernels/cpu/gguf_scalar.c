#define NB_TARGET_SCALAR
#include "kernels/cpu/gguf_target.h"
