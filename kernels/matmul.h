/* y = x W^T for a packed W: the product every linear layer is. The weight is read as it lies; the kernels for this
 * processor (scalar, AVX2, AVX-512, NEON) are chosen once. Work is cut by output features and in no other way that an
 * output could see, so the result does not depend on the number of threads. */
#ifndef NB_KERNELS_MATMUL_H
#define NB_KERNELS_MATMUL_H

#include "kernels/formats.h"

/* One linear layer: y [n, w->rows] = x [n, w->cols] W^T, plus bias, plus what y held before. float32 throughout. */
typedef struct nb_product {
  const nb_packed *w;
  const float *x;
  int64_t ldx; /* floats from row to row of x */
  float *y;    /* does not overlap x */
  int64_t ldy;
  const float *bias; /* [w->rows], or NULL */
  bool accumulate;   /* adds to y instead of replacing it: a residual connection */
} nb_product;

/* Computes `count` products of n >= 1 rows each, in any order: none reads what another writes. Those that share x (the
 * projections to q, k and v, or gate and up) go into one call: x is prepared once and the threads are started once. */
void nb_matmul_many(const nb_product *products, int count, int64_t n);

/* The same for one product without bias. */
void nb_matmul(const nb_packed *w, const float *x, int64_t ldx, int64_t n, float *y, int64_t ldy);

#endif
