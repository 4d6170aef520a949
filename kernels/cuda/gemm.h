/* Products with many rows of activations: a panel of the weight is widened to 16 bits in scratch memory, and cuBLAS
 * multiplies it. The library is opened when it is first wanted, so that a program starts without it; where it is not
 * installed, nb_gemm_create gives NULL and the products for few rows do the work, 64 at a time. */
#ifndef NB_KERNELS_CUDA_GEMM_H
#define NB_KERNELS_CUDA_GEMM_H

#include "kernels/cuda/product.h"

typedef struct nb_gemm nb_gemm;

/* NULL if there is no cuBLAS. */
nb_gemm *nb_gemm_create(cudaStream_t stream);
void nb_gemm_free(nb_gemm *gemm); /* NULL is fine */

/* c = factor * a b^T, plus c if `accumulate`. */
typedef struct nb_gemm_args {
  nb_x_dtype dtype; /* of a and b: bfloat16 or float16 with float32 sums, or float32 throughout */
  const void *a;    /* [n, k] */
  const void *b;    /* [m, k] */
  int64_t n, m, k;
  float factor;
  float *c;    /* [n, m] */
  int64_t ldc; /* floats from row to row of c */
  bool accumulate;
} nb_gemm_args;

/* False if cuBLAS refuses. */
bool nb_gemm_run(nb_gemm *gemm, const nb_gemm_args *args);

/* Elements of scratch memory for a panel: all of a weight, or one of equal parts. At most `most`, but never less than
 * 32 rows. */
int64_t nb_gemm_panel_elements(const nb_device_matrix *w, int64_t most);

/* Scratch memory of one layer. */
typedef struct nb_gemm_room {
  uint16_t *narrow;       /* [n, col_tiles * 64]: the activations */
  uint16_t *panel;        /* at least 32 rows of the weight */
  int64_t panel_elements; /* of panel */
} nb_gemm_room;

/* One layer with any number of rows of activations. Float32 weights are multiplied as they are. May be recorded. */
bool nb_product_gemm(nb_gemm *gemm, const nb_workspace *ws, const nb_device_layer *layer, nb_device_rows x,
                     const nb_gemm_room *room);

#endif
