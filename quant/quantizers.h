/* The quantizers of kernels/quantize.h where a context wants them: on the CPU, or on a GPU, which gives the
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
nibble_status nb_quantizers_open(const nibble_context *context, int threads, nb_quantizers *out, nibble_error *err);
void nb_quantizers_close(nb_quantizers *quantizers);

/* As nb_quantize; what that returns is *bad. `thread` is the caller's own number. */
nibble_status nb_quantizers_run(nb_quantizers *quantizers, int thread, const nb_packed *m, const nb_quantize_run *run,
                                int64_t *bad, nibble_error *err);

#endif
