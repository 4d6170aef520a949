/* The dense algebra of GPTQ on the GPU: cuBLAS' and cuSOLVER's functions, opened when first wanted, under names that
 * say what they do. Matrices are row-major on the device; false where a library fails. */
#ifndef NB_KERNELS_CUDA_GPTQ_LIBRARIES_H
#define NB_KERNELS_CUDA_GPTQ_LIBRARIES_H

#include "kernels/cuda/device.h"

typedef struct nb_gptq_libraries {
  void *blas, *solver; /* handles; NULL: not open */
  cudaStream_t stream;
} nb_gptq_libraries;

/* Makes the handles and a stream, unless they are there. False if a library is not. */
bool nb_gptq_libraries_open(nb_gptq_libraries *l);

/* The upper triangle of sum [n, n] += x^T x, x [rows, n]. */
bool nb_gptq_add_gram(nb_gptq_libraries *l, const float *x, int64_t rows, int64_t ldx, int64_t n, float *sum);

/* product [rows, n] = d [rows, n] times the symmetric matrix whose upper triangle `sum` holds. */
bool nb_gptq_times_gram(nb_gptq_libraries *l, const float *sum, int64_t n, const float *d, int64_t rows,
                        float *product);

/* Columns [begin, end) of w were rounded; their errors go to those after them. */
typedef struct nb_gptq_rounded {
  int64_t rows, n, begin, end;
  const float *errors; /* [rows, end - begin] */
  int64_t block;       /* floats from row to row of errors */
  const float *upper;  /* [n, n] */
  float *w;            /* [rows, n] */
} nb_gptq_rounded;

/* w[:, end:] += errors upper[begin:end, end:]. */
bool nb_gptq_update(nb_gptq_libraries *l, const nb_gptq_rounded *r);

/* Doubles of scratch that nb_gptq_cholesky needs; -1 if the library fails. */
int64_t nb_gptq_cholesky_room(nb_gptq_libraries *l, double *a, int64_t n);

/* LAPACK's potrf on the lower triangle, columns following each other; *info, on the device, is 0 if it is definite. */
bool nb_gptq_cholesky(nb_gptq_libraries *l, double *a, int64_t n, double *work, int64_t room, int *info);

/* x [n, n] = L^-1 x, both in columns. */
bool nb_gptq_divide(nb_gptq_libraries *l, const double *factor, int64_t n, double *x);

#endif
