/* Random packed matrices that own their buffers, for checks and measurements. */
#ifndef NB_KERNELS_CUDA_ALONE_RANDOM_H
#define NB_KERNELS_CUDA_ALONE_RANDOM_H

#include "kernels/formats.h"

typedef struct nb_random_matrix {
  nb_packed m;
  void *owned[8];
  int count;
} nb_random_matrix;

typedef struct nb_random_options {
  nb_format format;
  int64_t rows, cols;
  int64_t block_size;   /* nf4, fp4; 0: 64 */
  bool double_quant;    /* nf4, fp4 */
  int64_t group_size;   /* gptq; 0: 128 */
  bool act_order, bf16; /* gptq: shuffled groups; scales in bfloat16 */
} nb_random_options;

/* False if there is no memory. Free with nb_random_free. */
bool nb_random_create(const nb_random_options *options, uint64_t seed, nb_random_matrix *out);
void nb_random_free(nb_random_matrix *matrix);

/* n floats, about normal, of the given spread. */
void nb_random_floats(uint64_t seed, float spread, int64_t n, float *out);

/* The next 64 random bits of *state (splitmix64, Steele et al. 2014). */
uint64_t nb_random_next(uint64_t *state);

#endif
