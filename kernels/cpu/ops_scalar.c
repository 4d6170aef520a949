#include <math.h>
#include <stddef.h>

#include "kernels/cpu/ops_cpu.h"

static void rmsnorm_row(const float *x, const float *weight, int64_t cols, float eps, float *y) {
  float sum = 0;
  for (int64_t i = 0; i < cols; i++) sum += x[i] * x[i];
  float scale = 1 / sqrtf(sum / (float)cols + eps);
  for (int64_t i = 0; i < cols; i++) y[i] = x[i] * scale * weight[i];
}

static void layernorm_row(const float *x, const float *weight, const float *bias, int64_t cols, float eps, float *y) {
  float sum = 0, squares = 0;
  for (int64_t i = 0; i < cols; i++) sum += x[i];
  float mean = sum / (float)cols;
  for (int64_t i = 0; i < cols; i++) squares += (x[i] - mean) * (x[i] - mean);
  float scale = 1 / sqrtf(squares / (float)cols + eps);
  for (int64_t i = 0; i < cols; i++) y[i] = (x[i] - mean) * scale * weight[i] + (bias ? bias[i] : 0);
}

static void silu_mul(const float *gate, const float *up, int64_t n, float *y) {
  for (int64_t i = 0; i < n; i++) y[i] = gate[i] / (1 + expf(-gate[i])) * (up ? up[i] : 1);
}

/* New token `token` of one head. Online softmax (Milakov and Gimelshein 2018, arXiv:1805.02867): `out` holds the
 * weighted sum of values so far, relative to the largest score so far, and is scaled down when a larger one turns up.
 */
static void attend(const nb_attention *a, int64_t sequence, int64_t token, int64_t head) {
  int64_t row = sequence * a->tokens + token, kv_head = head / (a->heads / a->kv_heads);
  int64_t at = sequence * a->kv_sequence_stride + kv_head * a->kv_head_stride;
  const float *q = a->q + row * a->q_stride + head * a->head_dim;
  const float *bias = a->bias ? nb_attention_bias(a, token, head) : NULL;
  float *out = a->out + row * a->out_stride + head * a->head_dim, max = -INFINITY, sum = 0;
  for (int64_t i = 0; i < a->head_dim; i++) out[i] = 0;
  for (int64_t t = nb_attention_first(a, token); t < nb_attention_end(a, token); t++) {
    const float *k = a->k + at + t * a->kv_token_stride, *v = a->v + at + t * a->kv_token_stride;
    float score = 0;
    for (int64_t i = 0; i < a->head_dim; i++) score += q[i] * k[i];
    score *= a->scale;
    if (bias) score += bias[t];
    float new_max = score > max ? score : max;
    float keep = expf(max - new_max), weight = expf(score - new_max);
    for (int64_t i = 0; i < a->head_dim; i++) out[i] = out[i] * keep + weight * v[i];
    sum = sum * keep + weight;
    max = new_max;
  }
  for (int64_t i = 0; i < a->head_dim; i++) out[i] /= sum;
}

static void attention_tile(const nb_attention *a, int64_t sequence, int64_t kv_head, int64_t first, int64_t count) {
  int64_t group = a->heads / a->kv_heads;
  for (int64_t i = first; i < first + count; i++) attend(a, sequence, i / group, kv_head * group + i % group);
}

static int64_t argmax(const float *x, int64_t n) {
  int64_t best = 0;
  for (int64_t i = 1; i < n; i++) {
    if (x[i] > x[best]) best = i;
  }
  return best;
}

static double sum_exp(const float *x, int64_t n, float max) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += (double)expf(x[i] - max);
  return sum;
}

const nb_cpu_ops nb_cpu_ops_scalar = {
    .rmsnorm_row = rmsnorm_row,
    .layernorm_row = layernorm_row,
    .silu_mul = silu_mul,
    .attention_tile = attention_tile,
    .argmax = argmax,
    .sum_exp = sum_exp,
};
