/* The quantizers of kernels/quantize.h where nibble_set_device wants them: on the CPU, or on a GPU, which gives the
 * same bits. There, every thread has a stream and page-locked memory of its own, for a band of weights at a time. */
#ifndef NB_QUANT_QUANTIZERS_H
#define NB_QUANT_QUANTIZERS_H

#include "kernels/cuda/module.h"

typedef struct nb_quantizers {
  const nb_cuda_module *gpu;   /* NULL: the CPU */
  nb_cuda_quantizer **threads; /* made when a thread first needs its own */
  int thread_count;
} nb_quantizers;

/* NIBBLE_SYSTEM if the GPU was asked for and there is none. */
nibble_status nb_quantizers_open(int threads, nb_quantizers *out, nibble_error *err);
void nb_quantizers_close(nb_quantizers *quantizers);

/* As nb_quantize_4bit and nb_quantize_int8; what those return is *bad. `thread` is the caller's own number. */
nibble_status nb_quantizers_4bit(nb_quantizers *quantizers, int thread, nb_format format, nb_dtype dtype,
                                 const void *src, int64_t n, int64_t block_size, bool nested, uint8_t *codes,
                                 float *absmax, nb_block_sums *sums, int64_t *bad, nibble_error *err);
nibble_status nb_quantizers_int8(nb_quantizers *quantizers, int thread, nb_dtype dtype, const void *src, int64_t rows,
                                 int64_t cols, int8_t *codes, float *scb, nb_block_sums *sums, int64_t *bad,
                                 nibble_error *err);

#endif
