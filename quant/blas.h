/* The factorization that GPTQ needs, from OpenBLAS. The library is loaded when the first Hessian is made and not at
 * start: its constructor takes threads and 128 MiB of addresses, and waits for ever where `ulimit -v` has no room for
 * them, which no other command should pay for. Threads are ours: OpenBLAS is set to one, since results of its own would
 * depend on how many it has. Products of matrices are ours, too (kernels/dense.h). */
#ifndef NB_QUANT_BLAS_H
#define NB_QUANT_BLAS_H

#include <stdbool.h>

#include "base/status.h"

/* Any thread, any number of times; must have succeeded once before the functions below are called. NIBBLE_SYSTEM when
 * there is no OpenBLAS, or no room for it. */
nibble_status nb_blas_load(nibble_error *err);

/* Turns the symmetric a [n, n] into the inverse of its Cholesky factor L, where a = L L^T: LAPACK's lower triangle, its
 * columns following each other; the other triangle is left as it was. False: a is not positive definite. */
bool nb_invert_factor(double *a, int64_t n);

#endif
