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

/* As nb_quantize; what that returns is *bad. NIBBLE_SYSTEM without device memory, or if CUDA fails. */
nibble_status nb_cuda_quantize(nb_cuda_quantizer *q, const nb_packed *m, const nb_quantize_run *run, int64_t *bad,
                               nibble_error *err);

#ifdef __cplusplus
}
#endif
#endif
