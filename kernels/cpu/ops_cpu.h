/* The inner loops of ops.c, a table of them for each instruction set. The scalar one is the specification. */
#ifndef NB_KERNELS_CPU_OPS_CPU_H
#define NB_KERNELS_CPU_OPS_CPU_H

#include "kernels/cpu/isa.h"
#include "kernels/ops.h"

/* Queries that one call of attention_tile handles. Keys and values are read once a tile, so more is less traffic; its
 * scores and its queries have to fit the first-level cache. */
enum { NB_QUERY_TILE = 32 };

typedef struct nb_cpu_ops {
  void (*rmsnorm_row)(const float *x, const float *weight, int64_t cols, float eps, float *y);
  void (*layernorm_row)(const float *x, const float *weight, const float *bias, int64_t cols, float eps, float *y);
  void (*silu_mul)(const float *gate, const float *up, int64_t n, float *y); /* up may be NULL */
  /* A query is one new token of one head. Those that read key head kv_head are numbered token by token, and this
   * computes [first, first + count) of them, count <= NB_QUERY_TILE. */
  void (*attention_tile)(const nb_attention *a, int64_t sequence, int64_t kv_head, int64_t first, int64_t count);
  int64_t (*argmax)(const float *x, int64_t n);            /* n >= 1 */
  double (*sum_exp)(const float *x, int64_t n, float max); /* sum of exp(x - max) */
} nb_cpu_ops;

/* New token `token` sees keys [first, end). */
static inline int64_t nb_attention_end(const nb_attention *a, int64_t token) {
  return a->causal ? a->past + token + 1 : a->keys;
}
static inline int64_t nb_attention_first(const nb_attention *a, int64_t token) {
  int64_t first = a->causal && a->window ? nb_attention_end(a, token) - a->window : 0;
  return first > 0 ? first : 0;
}

/* What is added to the score of key j stands at [j]; only where there is a bias. */
static inline const float *nb_attention_bias(const nb_attention *a, int64_t token, int64_t head) {
  return a->bias + head * a->bias_stride - (a->past + token);
}

const nb_cpu_ops *nb_cpu_ops_for(nb_isa isa);

extern const nb_cpu_ops nb_cpu_ops_scalar, nb_cpu_ops_avx2, nb_cpu_ops_avx512, nb_cpu_ops_neon;

#endif
