/* The dense algebra that GPTQ needs, from OpenBLAS. The library is loaded when the first Hessian is made and not at
 * start: its constructor takes threads and 128 MiB of addresses, and waits for ever where `ulimit -v` has no room for
 * them, which no other command should pay for. Threads are ours: OpenBLAS is set to one, since results of its own would
 * depend on how many it has. Matrices of floats are row-major, ld* counts floats from
 * row to row, and no operand overlaps another. */
#ifndef NB_QUANT_BLAS_H
#define NB_QUANT_BLAS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

/* Any thread, any number of times; must have succeeded once before the functions below are called. NIBBLE_SYSTEM when
 * there is no OpenBLAS, or no room for it. */
nibble_status nb_blas_load(nibble_error *err);

/* An operand. */
typedef struct nb_dense {
  const float *data;
  int64_t ld;
} nb_dense;

/* c [m, n] += a [m, k] b [k, n]. */
typedef struct nb_dense_sum {
  int64_t m, n, k;
  nb_dense a, b;
  float *c;
  int64_t ldc;
} nb_dense_sum;

/* On the calling thread alone: for use inside a band. */
void nb_dense_add(const nb_dense_sum *sum);

/* sum [n, n] += x^T x for x [rows, n], the upper triangle; what is below the diagonal is undefined afterwards. In
 * parallel. */
void nb_dense_gram(const float *x, int64_t rows, int64_t ldx, int64_t n, float *sum);

/* Gets columns [begin, end) of a lower triangle [n, n] from row `begin` on, [end - begin, n - begin], column after
 * column. Called from any thread. */
typedef void nb_columns_fn(void *ctx, const double *columns, int64_t begin, int64_t end);

/* Hands out L^-1 for the symmetric a [n, n] = L L^T, whose lower triangle is read (columns following each other), a
 * block of columns at a time; `a` is used up. In parallel. Calls nothing where a is not positive definite. */
nibble_status nb_invert_factor(double *a, int64_t n, nb_columns_fn *emit, void *ctx, bool *is_definite,
                               nibble_error *err);

#endif
