/* Where the keys and values of a token lie: in pages of NB_KV_PAGE tokens, [2 (keys, values), kv_heads, NB_KV_PAGE,
 * head_dim], which a table names for every sequence. A sequence has the pages that it has filled, wherever there was
 * memory for them (Kwon et al. 2023, arXiv:2309.06180). Shared by host and device. */
#ifndef NB_KERNELS_CUDA_KV_PAGES_H
#define NB_KERNELS_CUDA_KV_PAGES_H

#include "kernels/cuda/tiles.h"

enum { NB_KV_PAGE = 64 };

typedef struct nb_kv_pages {
  float *const *table; /* [sequences, per_sequence] */
  int64_t per_sequence;
  int64_t values; /* floats from a key to its value: kv_heads * NB_KV_PAGE * head_dim */
} nb_kv_pages;

/* The head_dim floats of one key. */
static inline NB_BOTH float *nb_kv_key(const nb_kv_pages *pages, int64_t sequence, int64_t head, int64_t position,
                                       int64_t head_dim) {
  float *page = pages->table[sequence * pages->per_sequence + position / NB_KV_PAGE];
  return page + (head * NB_KV_PAGE + position % NB_KV_PAGE) * head_dim;
}

#endif
