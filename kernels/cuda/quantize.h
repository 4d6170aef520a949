/* The quantizers of kernels/quantize.h on the GPU: the same arguments, in host memory, and the same bits, the sums of
 * errors included. What the weights are scaled by is found and applied by 16 threads of a block of weights (of a row
 * for int8), which are the 16 lanes in which the scalar version adds. */
#ifndef NB_KERNELS_CUDA_QUANTIZE_H
#define NB_KERNELS_CUDA_QUANTIZE_H

#ifdef __cplusplus
extern "C" {
#endif
#include "kernels/backend.h"
#include "kernels/quantize.h"

/* A stream with page-locked memory on its host side and room on the device for the largest run it has seen. One thread
 * at a time uses it; several, of several threads, keep the bus busy in both directions. NIBBLE_SYSTEM without a device.
 */
typedef struct nb_cuda_quantizer nb_cuda_quantizer;
nibble_status nb_cuda_quantizer_create(nb_cuda_quantizer **out, nibble_error *err);
void nb_cuda_quantizer_free(nb_cuda_quantizer *quantizer); /* NULL is fine */

/* *bad: -1, or the first weight that is not finite. NIBBLE_SYSTEM without device memory, or if CUDA fails. */
nibble_status nb_cuda_quantize_4bit(nb_cuda_quantizer *q, nb_format format, nb_dtype dtype, const void *src, int64_t n,
                                    int64_t block_size, bool nested, uint8_t *codes, float *absmax, nb_block_sums *sums,
                                    int64_t *bad, nibble_error *err);
nibble_status nb_cuda_quantize_int8(nb_cuda_quantizer *q, nb_dtype dtype, const void *src, int64_t rows, int64_t cols,
                                    int8_t *codes, float *scb, nb_block_sums *sums, int64_t *bad, nibble_error *err);

#ifdef __cplusplus
}
#endif
#endif
