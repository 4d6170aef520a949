/* The inner loops of quantize.c, a table of them for each instruction set. All give the same bits. */
#ifndef NB_KERNELS_CPU_QUANTIZE_CPU_H
#define NB_KERNELS_CPU_QUANTIZE_CPU_H

#include "kernels/cpu/isa.h"
#include "kernels/quantize.h"

/* A 4-bit format for the search of a code. Level k of the tree holds 2^k thresholds; a weight above its threshold goes
 * right, so that the path read as a number is the rank of its code's value among the 16. */
typedef struct nb_levels {
  float tree[4][8];
  float values[16];  /* by rank */
  int32_t codes[16]; /* by rank */
} nb_levels;

/* Those of a format that has a codebook. */
void nb_quantize_levels(nb_format format, nb_levels *out);

typedef struct nb_cpu_quantize {
  /* The run's whole blocks; block_size is a multiple of 32. Returns the first one that has a NaN or an infinity, or
   * -1. */
  int64_t (*blocks_4bit)(const nb_levels *levels, const nb_quantize_run *run, int64_t block_size);
  /* One row. False if it has a value that is not finite in float16. */
  bool (*row_int8)(nb_dtype dtype, const void *src, int64_t cols, int8_t *codes, float *scb, nb_block_sums *sums);
} nb_cpu_quantize;

/* One block of 1 to NB_MAX_BLOCK_SIZE weights, divided by their absmax: a matrix's short last one. False if it has a
 * NaN or an infinity. */
bool nb_tail_4bit(const nb_levels *levels, const nb_quantize_run *tail);

extern const nb_cpu_quantize nb_cpu_quantize_scalar, nb_cpu_quantize_avx2, nb_cpu_quantize_avx512, nb_cpu_quantize_neon;

/* bitsandbytes' lower bound for an absmax that is divided by. It is subnormal. */
#define NB_MIN_ABSMAX 1e-38f

/* Lanes of the sums: a block's weights are dealt out in pairs, pair p to lane p % 16, and an int8 row's one by one;
 * each lane adds its own in order, then halves of the lanes are added to each other. This is what a vector of 16 does.
 */
enum { NB_SUM_LANES = 16 };

#endif
