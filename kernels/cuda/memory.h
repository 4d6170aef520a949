/* Device memory for weights and buffers. cudaMalloc hands out 2 MiB at a time, which for a model of hundreds of
 * matrices of some megabytes wastes more than one byte in twenty; here matrices of one size share what is taken from
 * it. */
#ifndef NB_KERNELS_CUDA_MEMORY_H
#define NB_KERNELS_CUDA_MEMORY_H

#include <stdint.h>

/* 256-byte aligned; what it holds is undefined. NULL if there is no memory. One thread at a time. */
void *nb_device_alloc(uint64_t bytes);
void nb_device_free(void *memory); /* NULL is fine */

/* Bytes that are taken from CUDA now. */
uint64_t nb_device_taken(void);

#endif
