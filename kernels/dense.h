/* Products of plain float32 matrices, where neither is a packed weight: what calibration adds up and solves with. All
 * are row-major, ld* counts floats from row to row, and no operand overlaps another. Sums are cut in one and the same
 * way whatever the number of threads. */
#ifndef NB_KERNELS_DENSE_H
#define NB_KERNELS_DENSE_H

#include <stdint.h>

/* c [m, n] += a [m, k] b [k, n], on the calling thread alone: for use inside a band. */
void nb_dense_add(int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, const float *b, int64_t ldb, float *c,
                  int64_t ldc);

/* Floats of working memory that nb_dense_gram wants for n columns. */
int64_t nb_dense_gram_work(int64_t n);

/* sum [n, n] += x^T x for x [rows, n], the upper triangle; what is below the diagonal is undefined afterwards. `work`
 * is on a 64-byte boundary. In parallel. */
void nb_dense_gram(const float *x, int64_t rows, int64_t ldx, int64_t n, float *work, float *sum);

#endif
