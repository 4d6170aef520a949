/* CUDA modules of other builds: one whose table is as long as nibble expects and whose headers were others; and with
 * NB_OLDER, one whose table is shorter. */
#include "kernels/cuda/module.h"

const nb_cuda_module *nibble_cuda_module(int threads) {
#ifdef NB_OLDER
  static const nb_cuda_module module = {.bytes = 16};
#else
  static const nb_cuda_module module = {.bytes = sizeof module, .build = "of other headers"};
#endif
  (void)threads;
  return &module;
}
