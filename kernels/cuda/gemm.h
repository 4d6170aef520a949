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

/* c [n, m], rows ldc apart, = factor * a [n, k] b [m, k]^T, plus c if `accumulate`; bfloat16 or float16 with float32
 * sums, or float32 throughout (c is float32 always). False if cuBLAS refuses. */
bool nb_gemm_run(nb_gemm *gemm, nb_x_dtype dtype, const void *a, const void *b, int64_t n, int64_t m, int64_t k,
                 float factor, float *c, int64_t ldc, bool accumulate);

/* Elements of scratch memory for a panel: all of a weight, or one of equal parts. At most `most`, but never less than
 * 32 rows. */
int64_t nb_gemm_panel_elements(const nb_device_matrix *w, int64_t most);

/* One layer with any number of rows of float32 or 16-bit activations. narrow: room for n * col_tiles * 64 elements;
 * panel: room for `panel_elements`, at least 32 rows. Float32 weights are multiplied as they are. May be recorded. */
bool nb_product_gemm(nb_gemm *gemm, const nb_workspace *ws, const nb_device_layer *layer, const void *x,
                     nb_x_dtype dtype, int64_t ldx, int64_t n, uint16_t *narrow, uint16_t *panel,
                     int64_t panel_elements);

#endif
