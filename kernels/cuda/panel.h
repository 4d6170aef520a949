/* What is made for cuBLAS before it multiplies: panels, which are rows of a packed weight widened to 16 bits. Every
 * weight has the value that nb_dequantize gives it on the CPU, rounded once. */
#ifndef NB_KERNELS_CUDA_PANEL_H
#define NB_KERNELS_CUDA_PANEL_H

#include "kernels/cuda/product.h"

/* Rows [first, first + rows) of a tiled matrix as `dtype` (float16 or bfloat16): out [rows, col_tiles * 64], columns as
 * they are tiled. `first` is a multiple of 32; out has less than 2^31 elements and is 16-byte aligned. */
void nb_dequantize_panel(const nb_workspace *ws, const nb_device_matrix *w, nb_x_dtype dtype, int64_t first,
                         int64_t rows, uint16_t *out);

#endif
