/* The GPU's table: every product as a share of what the card can copy and cuBLAS can multiply, both measured in the
 * same run. Weights rotate among copies that together are several times the second-level cache, so that each product
 * reads its own from memory; a figure is the median of repeated runs of a graph that goes round all copies. */
#ifndef NB_KERNELS_CUDA_ALONE_BENCH_H
#define NB_KERNELS_CUDA_ALONE_BENCH_H

#ifdef __cplusplus
extern "C" {
#endif
#include "kernels/backend.h"

/* Prints the tables to stdout, of one format if `only` is not NULL. NIBBLE_SYSTEM if there is no device. */
nibble_status nb_bench_gpu(const char *only, nibble_error *err);

/* One plain launch of each product, for a profiler. */
nibble_status nb_profile_gpu(nibble_error *err);

/* Bytes a second, read and written, of a large copy on the device; measured once. 0 if it could not be. */
double nb_gpu_copy_rate(void);

/* Decoding with a made-up model of 7B parameters in nf4, one token at a time, on the backend's operations: as separate
 * launches and as one recorded graph. Prints both. */
nibble_status nb_bench_decode(nb_backend *cuda, nibble_error *err);

/* Quantizing, and GPTQ's steps for one layer. Prints a line each; `small`: for a checker of memory. */
nibble_status nb_bench_quantize(bool small, nibble_error *err);

#ifdef __cplusplus
}
#endif
#endif
