/* What a forward pass does between its products, on the GPU: the counterparts of kernels/ops.h, on device pointers and
 * a stream. Sums run in a fixed order. The position of a step is read from device memory where `start_at` is set, so
 * that a recorded graph can be run again at the next position. */
#ifndef NB_KERNELS_CUDA_OPS_H
#define NB_KERNELS_CUDA_OPS_H

extern "C" {
#include "kernels/backend.h"
}
#include "kernels/cuda/device.h"
#include "kernels/cuda/kv_pages.h"

/* One call of store or attention. */
typedef struct nb_attention_args {
  nb_attention_shape shape; /* rotary_dim is 0 without tables; window is 0 where it is not causal */
  const int64_t *start_at;  /* on the device; NULL: shape.start */
  nb_kv_pages pages;
  const float *cos, *sin; /* [capacity, rotary_dim / 2] */
  float *q, *k;
  const float *v, *bias; /* bias [heads, 2 * capacity - 1]; NULL: none */
  float *out;
  float *partial;    /* of the keys' splits: [rows, heads, splits, head_dim + 2] */
  unsigned *arrived; /* zero between launches; as many as there are queries where splits > 1, at most 2 * processors */
  int splits;        /* blocks that may share a query's keys */
} nb_attention_args;

/* One call of a norm, of rows of `width`. */
typedef struct nb_norm_args {
  const float *x, *weight, *bias; /* bias is layernorm's alone; NULL: none */
  float *out;                     /* may be x */
  int64_t width;
  float eps;
} nb_norm_args;

void nb_cuda_rmsnorm(cudaStream_t stream, const nb_norm_args *n, int64_t rows);
void nb_cuda_layernorm(cudaStream_t stream, const nb_norm_args *n, int64_t rows);
void nb_cuda_store(cudaStream_t stream, const nb_attention_args *a);

/* Sets a->splits and gives the floats that nb_cuda_attention needs in `partial`. `longest` is the most keys that any
 * later run may see. */
int64_t nb_cuda_attention_plan(nb_attention_args *a, int64_t longest, int processors);
void nb_cuda_attention(cudaStream_t stream, const nb_attention_args *a);

/* up may be NULL. */
void nb_cuda_gate(cudaStream_t stream, nb_activation act, float *gate, const float *up, int64_t count);
void nb_cuda_add(cudaStream_t stream, float *y, const float *x, int64_t count);
void nb_cuda_scale(cudaStream_t stream, float *x, float factor, int64_t count);

/* out [c->rows, c->count] = the columns of rows[i] of x; rows NULL: of row i. */
void nb_cuda_gather(cudaStream_t stream, const float *x, const int32_t *rows, const nb_columns *c, float *out);
/* to->rows and to->weights are on the device. at_once: no row comes twice. */
void nb_cuda_scatter_add(cudaStream_t stream, const float *x, const nb_scatter *to, bool at_once, float *y);
/* One call of log_probs, all of it on the device. */
typedef struct nb_log_prob_args {
  const float *logits; /* [n, vocab] */
  const int32_t *targets;
  int64_t vocab;
  double *log_prob;
  int32_t *argmax; /* NULL: not wanted */
} nb_log_prob_args;

void nb_cuda_log_probs(cudaStream_t stream, const nb_log_prob_args *a, int64_t n);
void nb_cuda_set_value(cudaStream_t stream, int64_t *at, int64_t value);

#endif
