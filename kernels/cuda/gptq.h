/* The heavy steps of GPTQ (quant/hessian.h, quant/gptq.h) on the GPU: sums of x x^T by cuBLAS in float32 (its default
 * arithmetic: no TF32), the factor by cuSOLVER's Cholesky and cuBLAS in double, and the rounding column by column by a
 * kernel, a warp a row, with the lazy updates between blocks of columns by cuBLAS. Grids, codes and what is done within
 * a block are the CPU's bits; sums of products are not, as libraries add in orders of their own. Any number of Hessians
 * may live at once; all are used from one thread. All pointers are the host's, all matrices row-major.
 *
 *   nb_cuda_hessian_create(&h, n, err); nb_cuda_hessian_add(h, x, rows, ldx, err); ...
 *   nb_cuda_hessian_sum(h, sum, err); nb_cuda_hessian_factorize(h, a, &is_definite, err);
 *   nb_cuda_gptq_solve(h, &layer, err); ... nb_cuda_hessian_free(h); */
#ifndef NB_KERNELS_CUDA_GPTQ_H
#define NB_KERNELS_CUDA_GPTQ_H

#ifdef __cplusplus
extern "C" {
#endif
#include "base/status.h"

/* A sum [n, n] of x x^T on the device. */
typedef struct nb_cuda_hessian nb_cuda_hessian;

/* A sum of zeros. NIBBLE_SYSTEM, and *out NULL, without a device, its libraries or memory. */
nibble_status nb_cuda_hessian_create(nb_cuda_hessian **out, int64_t n, nibble_error *err);
void nb_cuda_hessian_free(nb_cuda_hessian *hessian); /* NULL is fine */

/* sum += x^T x for x [rows, n], `ldx` floats from row to row. */
nibble_status nb_cuda_hessian_add(nb_cuda_hessian *hessian, const float *x, int64_t rows, int64_t ldx,
                                  nibble_error *err);

/* The upper triangle of the sum [n, n]; it stays on the device too, for nb_cuda_gptq_solve. */
nibble_status nb_cuda_hessian_sum(const nb_cuda_hessian *hessian, float *out, nibble_error *err);

/* Turns the symmetric a [n, n] = L L^T, of which the lower triangle is read (columns following each other), into L^-1,
 * in the same place. The caller makes `a` of the sum: ordered, damped and turned end to end (quant/hessian.c). */
nibble_status nb_cuda_hessian_factorize(const nb_cuda_hessian *hessian, double *a, bool *is_definite,
                                        nibble_error *err);

enum { NB_GPTQ_BLOCK = 128 /* columns between two lazy updates */, NB_GPTQ_SUMS = 5 };

/* One layer whose inputs the Hessian has seen; the fields mean what they do in quant/gptq.c. */
typedef struct nb_cuda_gptq_layer {
  const float *w; /* [rows, n], n as the Hessian has it */
  int64_t rows, groups, group_size;
  int bits;
  bool sym, mse, bf16_scales;
  const int32_t *column, *group; /* [n] by place */
  const bool *dead;              /* [n] by column */
  const float *upper;            /* [n, n] */
  const float *importance;       /* [n] by place; NULL: all alike */
  uint8_t *codes;                /* out: [rows, n] by column */
  uint16_t *scales;              /* out: [groups, rows] */
  uint8_t *zeros;
  int64_t *mended; /* out: [rows] */
  double *sums;    /* out: [rows, NB_GPTQ_SUMS] */
} nb_cuda_gptq_layer;

nibble_status nb_cuda_gptq_solve(const nb_cuda_hessian *hessian, const nb_cuda_gptq_layer *layer, nibble_error *err);

#ifdef __cplusplus
}
#endif
#endif
