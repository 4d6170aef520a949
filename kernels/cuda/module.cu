#include "kernels/cuda/module.h"

extern "C" {
#include "nibble.h"
}

extern "C" const nb_cuda_module *nibble_cuda_module(int threads) {
  static const nb_cuda_module module = {sizeof(nb_cuda_module), NIBBLE_VERSION, nb_backend_cuda,
                                        nb_backend_cuda_free_bytes};
  nibble_set_threads(threads);
  return &module;
}
