/* The CUDA backend of a build without CUDA. */
#include "kernels/backend.h"

nb_backend *nb_backend_cuda(nibble_error *err) {
  nb_fail(err, NIBBLE_SYSTEM, "no CUDA device: this build is without CUDA");
  return NULL;
}

uint64_t nb_backend_cuda_free_bytes(void) { return 0; }
