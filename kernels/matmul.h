/* y = x W^T for a packed W: the product every linear layer is. The weight is read as it lies; the kernel for this
 * processor (scalar, AVX2, AVX-512, NEON) is chosen once. Work is cut into bands of output features, so the result does
 * not depend on the number of threads. */
#ifndef NB_KERNELS_MATMUL_H
#define NB_KERNELS_MATMUL_H

#include "kernels/formats.h"

/* x [n, w->cols] with ldx floats a row, y [n, w->rows] with ldy floats a row; both float32. n >= 1. */
void nb_matmul(const nb_packed *w, const float *x, int64_t ldx, int64_t n, float *y, int64_t ldy);

#endif
