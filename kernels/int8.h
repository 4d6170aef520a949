/* LLM.int8's product (Dettmers et al. 2022, arXiv:2208.07339), as bitsandbytes 0.50 computes it on a CPU: a row of
 * activations is quantized to int8 by its largest magnitude, the product is exact in int32, and columns in which any
 * row of the sequence holds an outlier are left out of it and multiplied in float32.
 *
 * The steps that decide the result: activations are rounded to float16 before anything else; outliers are found on
 * those (|x| >= threshold) and do not count towards a row's largest magnitude; quantized = round(x16 * (127 * (1 /
 * absmax))), halves to even; result = int32 * (absmax * SCB) * 6.200124e-05; outlier columns come from the float32
 * activations and the dequantized weight. */
#ifndef NB_KERNELS_INT8_H
#define NB_KERNELS_INT8_H

#include "kernels/matmul.h"

/* A product with an int8 weight. Its n rows are those of one sequence. False if there is no memory (about n * w->cols
 * bytes). */
bool nb_int8_matmul(const nb_product *product, int64_t n, float threshold);

#endif
