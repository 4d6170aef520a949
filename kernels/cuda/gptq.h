/* The heavy steps of GPTQ (quant/hessian.h, quant/gptq.h) on the GPU: sums of x x^T by cuBLAS in float32 (its default
 * arithmetic: no TF32), the factor by cuSOLVER's Cholesky and cuBLAS in double, and the rounding column by column by a
 * kernel, a warp a row, with the lazy updates between blocks of columns by cuBLAS. Grids, codes and what is done within
 * a block are the CPU's bits; sums of products are not, as libraries add in orders of their own. One Hessian at a time,
 * from one thread; all pointers are the host's, all matrices row-major. */
#ifndef NB_KERNELS_CUDA_GPTQ_H
#define NB_KERNELS_CUDA_GPTQ_H

#ifdef __cplusplus
extern "C" {
#endif
#include "base/status.h"

/* Begins a sum [n, n] of zeros on the device. NIBBLE_SYSTEM without a device, its libraries or memory. */
nibble_status nb_cuda_gptq_begin(int64_t n, nibble_error *err);

/* sum += x^T x for x [rows, n], `ldx` floats from row to row. */
nibble_status nb_cuda_gptq_add(const float *x, int64_t rows, int64_t ldx, nibble_error *err);

/* The upper triangle of the sum [n, n]; it stays on the device too, for nb_cuda_gptq_solve. */
nibble_status nb_cuda_gptq_sum(float *out, nibble_error *err);

/* Turns the symmetric a [n, n] = L L^T, of which the lower triangle is read (columns following each other), into L^-1,
 * in the same place. */
nibble_status nb_cuda_gptq_invert(double *a, int64_t n, bool *is_definite, nibble_error *err);

enum { NB_GPTQ_BLOCK = 128 /* columns between two lazy updates */, NB_GPTQ_SUMS = 5 };

/* One layer; the fields mean what they do in quant/gptq.c. */
typedef struct nb_cuda_gptq_layer {
  const float *w; /* [rows, n] */
  int64_t rows, n, groups, group_size;
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

nibble_status nb_cuda_gptq_solve(const nb_cuda_gptq_layer *layer, nibble_error *err);

#ifdef __cplusplus
}
#endif
#endif
