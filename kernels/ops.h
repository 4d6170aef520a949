/* What a forward pass does between its matrix products, on float32: norms, gated activation, sums, rotary positions,
 * attention over a cache, log-softmax. Matrices are row-major; where a stride is given it counts floats from row to
 * row, elsewhere rows follow each other. An output may be the input itself where that is said, and never overlaps it
 * otherwise. Each function spreads its rows over the threads itself; results do not depend on how many there are. */
#ifndef NB_KERNELS_OPS_H
#define NB_KERNELS_OPS_H

#include <stdbool.h>
#include <stdint.h>

/* What a norm does to each row. */
typedef struct nb_row_norm {
  const float *weight; /* [cols] */
  const float *bias;   /* [cols], or NULL; nb_layernorm's alone */
  int64_t cols;
  float eps;
} nb_row_norm;

/* y = x / sqrt(mean(x^2) + eps) * weight, row by row. x, y [rows, cols]; y may be x. */
void nb_rmsnorm(const float *x, const nb_row_norm *norm, int64_t rows, float *y);

/* y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias, likewise. */
void nb_layernorm(const float *x, const nb_row_norm *norm, int64_t rows, float *y);

/* y = silu(gate) * up with silu(v) = v / (1 + exp(-v)), n floats each; y may be either input. up NULL: silu(gate). */
void nb_silu_mul(const float *gate, const float *up, int64_t n, float *y);

/* y += x, n floats. */
void nb_add(const float *x, int64_t n, float *y);

/* x *= factor, n floats. */
void nb_scale(float factor, int64_t n, float *x);

/* y[rows[i]] += weights[i] * x[i] for i = 0 .. n - 1, one after the other; rows of `cols` floats. */
void nb_scatter_add(const float *x, const int32_t *rows, const float *weights, int64_t n, int64_t cols, float *y);

/* How heads turn with their row's position. */
typedef struct nb_rotation {
  int64_t heads, head_dim;
  int64_t rotary_dim;     /* elements of a head that turn, even, from the first on; the others are left alone */
  int64_t period;         /* row r uses the angles of row r % period */
  const float *cos, *sin; /* [period, rotary_dim/2] */
} nb_rotation;

/* Turns pairs (i, i + rotary_dim/2) of every head by the angle of the row's position, as transformers' Llama does
 * (arXiv:2104.09864, in the half-split form). x [rows, heads * head_dim] in place, `stride` floats from row to row. */
void nb_rotary(float *x, int64_t stride, int64_t rows, const nb_rotation *r);

/* Softmax(q k^T * scale + bias) v for a batch of sequences that each have `past` tokens before the `tokens` new ones.
 * The keys and values that they see, their own among them, are in the cache already. Query head h reads key head h /
 * (heads / kv_heads). */
typedef struct nb_attention {
  const float *q; /* [sequences * tokens, heads * head_dim], q_stride floats from token to token */
  float *out;     /* the same shape, out_stride floats from token to token */
  int64_t q_stride, out_stride;

  /* The key of token t, head h of sequence s: head_dim floats at
   * k + s * kv_sequence_stride + t * kv_token_stride + h * kv_head_stride. v lies likewise. */
  const float *k, *v;
  int64_t kv_sequence_stride, kv_token_stride, kv_head_stride;

  int64_t sequences, tokens, past;
  int64_t heads, kv_heads, head_dim; /* heads is a multiple of kv_heads */
  float scale;                       /* 1 / sqrt(head_dim) as a rule */
  bool causal;                       /* token i of the new ones sees past + i + 1 keys */
  int64_t window;                    /* if causal: it sees the last `window` of those alone; 0: all */
  int64_t keys;                      /* if not: every token sees so many */

  /* NULL, or what is added to the score of head h, query position p and key j: bias[h * bias_stride + j - p]. */
  const float *bias;
  int64_t bias_stride;
} nb_attention;

void nb_attention_run(const nb_attention *a);

typedef struct nb_logits {
  const float *data; /* [rows, vocab] */
  int64_t stride;    /* floats from row to row */
  int64_t rows, vocab;
} nb_logits;

/* log softmax(logits[row])[target], computed in double. logprob [rows]; argmax [rows] is the index of the largest logit
 * (the first of equals), or NULL. A target is in [0, vocab). */
void nb_logprob(const nb_logits *logits, const int32_t *targets, double *logprob, int32_t *argmax);

#endif
