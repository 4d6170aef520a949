/* The two ways to compute a set of products, behind nb_matmul_many: decode for a few rows of x, where reading the
 * weights is the work, and prefill for many, where multiplying is. */
#ifndef NB_KERNELS_CPU_PRODUCTS_H
#define NB_KERNELS_CPU_PRODUCTS_H

#include "kernels/cpu/gemm.h"

enum { NB_PRODUCTS_MAX = 8 }; /* of one call */

/* True if products a and b read the same x. */
static inline bool nb_same_x(const nb_product *a, const nb_product *b) {
  return a->x == b->x && a->ldx == b->ldx && a->w->cols == b->w->cols;
}

/* Copies 1 <= count <= NB_PRODUCTS_MAX products to `out`, with x [n, cols] picked to the order of those weights that
 * have one (nb_packed.order). Free *memory with free() after the products. False if there is none. */
bool nb_order_x(const nb_product *products, int count, int64_t n, nb_product *out, float **memory);

/* y = sum, + bias, + y. */
static inline void nb_finish(const nb_product *p, int64_t i, int64_t row, float sum) {
  float *y = &p->y[i * p->ldy + row];
  sum += p->bias ? p->bias[row] : 0;
  *y = p->accumulate ? sum + *y : sum;
}

/* Both take 1 <= count <= NB_PRODUCTS_MAX products and any n. */
void nb_decode(const nb_product *products, int count, int64_t n, const nb_cpu_gemm *gemm);

/* False if there is no memory to pack x in; nothing is done then. */
bool nb_prefill(const nb_product *products, int count, int64_t n, const nb_cpu_gemm *gemm);

#endif
