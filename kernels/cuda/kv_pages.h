/* Where keys and values of a token lie. A cache is [sequences, kv_heads, capacity, head_dim], or it is cut in pages of
 * NB_KV_PAGE tokens, each [kv_heads, NB_KV_PAGE, head_dim], which a table names for every sequence: then sequences of
 * different lengths take what they need. Shared by host and device. */
#ifndef NB_KERNELS_CUDA_KV_PAGES_H
#define NB_KERNELS_CUDA_KV_PAGES_H

#include "kernels/cuda/tiles.h"

enum { NB_KV_PAGE = 64 };

typedef struct nb_kv_pages {
  const int32_t *table; /* [sequences, per_sequence], page numbers; NULL: not paged */
  int64_t per_sequence;
} nb_kv_pages;

/* Index of the first of head_dim floats. */
static inline NB_BOTH int64_t nb_kv_index(const nb_kv_pages *pages, int64_t sequence, int64_t head, int64_t position,
                                          int64_t kv_heads, int64_t capacity, int64_t head_dim) {
  if (!pages->table) return ((sequence * kv_heads + head) * capacity + position) * head_dim;
  int64_t page = pages->table[sequence * pages->per_sequence + position / NB_KV_PAGE];
  return ((page * kv_heads + head) * NB_KV_PAGE + position % NB_KV_PAGE) * head_dim;
}

#endif
