/* A weight on the GPU: its tiles (or, where it does not fit tiles, its buffers as they were) and the small tables
 * beside them, each a block of device memory. */
#ifndef NB_KERNELS_CUDA_MATRIX_H
#define NB_KERNELS_CUDA_MATRIX_H

extern "C" {
#include "kernels/backend.h"
}
#include "kernels/cuda/product.h"

enum { NB_MATRIX_PARTS = 10 };

struct nb_matrix {
  nb_device_matrix w;
  void *memory[NB_MATRIX_PARTS]; /* NULL: no such part */
  float nested_map[256];         /* the host's, with double quantization */
  /* What was multiplied after it the last time, together, unless a matrix has gone since (backend_cuda.cu). */
  const nb_matrix *followers[NB_PRODUCT_FUSED];
  int follower_count;
  int64_t followed_at;
};

/* Packs and copies a weight, some rows at a time. GGUF's blocks become float16. NIBBLE_SYSTEM if there is no memory.
 * Free with nb_matrix_free; NULL is fine. */
nibble_status nb_matrix_upload(const nb_packed *m, cudaStream_t stream, nb_matrix **out, nibble_error *err);
void nb_matrix_free(nb_matrix *matrix);

#endif
