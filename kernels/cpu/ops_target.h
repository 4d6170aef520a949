/* The functions of ops_cpu.h, for any target that has vectors and the block product of gemm.h. */
#ifndef NB_KERNELS_CPU_OPS_TARGET_H
#define NB_KERNELS_CPU_OPS_TARGET_H

#include <math.h>
#include <string.h>

#include "base/checked.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/ops_cpu.h"
#include "kernels/cpu/vec_math.h"

extern const nb_cpu_gemm NB_OF_TARGET(nb_cpu_gemm);
static const nb_cpu_gemm *const gemm = &NB_OF_TARGET(nb_cpu_gemm);

static void rmsnorm_row(const float *x, const float *weight, int64_t cols, float eps, float *y) {
  float scale = 1 / sqrtf(gemm->dot(x, x, cols) / (float)cols + eps);
  int64_t i = 0;
  for (; i + VF <= cols; i += VF) vf_store(y + i, vf_mul(vf_mul(vf_load(x + i), vf_set1(scale)), vf_load(weight + i)));
  for (; i < cols; i++) y[i] = x[i] * scale * weight[i];
}

static void layernorm_row(const float *x, const float *weight, const float *bias, int64_t cols, float eps, float *y) {
  vf sum = vf_zero(), squares = vf_zero();
  int64_t i = 0, whole = cols - cols % VF;
  for (; i < whole; i += VF) sum = vf_add(sum, vf_load(x + i));
  vf mean = vf_set1(vf_sum(vf_add(sum, vf_load_part(x + i, cols - i))) / (float)cols);
  for (i = 0; i < whole; i += VF) {
    vf d = vf_sub(vf_load(x + i), mean);
    squares = vf_fma(d, d, squares);
  }
  float shift = vf_first(mean), rest = 0;
  for (; i < cols; i++) rest += (x[i] - shift) * (x[i] - shift);
  float scale = 1 / sqrtf((vf_sum(squares) + rest) / (float)cols + eps);
  for (i = 0; i < whole; i += VF) {
    vf v = vf_mul(vf_mul(vf_sub(vf_load(x + i), mean), vf_set1(scale)), vf_load(weight + i));
    vf_store(y + i, bias ? vf_add(v, vf_load(bias + i)) : v);
  }
  for (; i < cols; i++) y[i] = (x[i] - shift) * scale * weight[i] + (bias ? bias[i] : 0);
}

static inline vf silu_times(vf gate, vf up) {
  vf e = vf_exp(vf_sub(vf_zero(), gate));
  return vf_mul(vf_div(gate, vf_add(vf_set1(1), e)), up);
}

static void silu_mul(const float *gate, const float *up, int64_t n, float *y) {
  int64_t i = 0;
  vf one = vf_set1(1);
  for (; i + VF <= n; i += VF) vf_store(y + i, silu_times(vf_load(gate + i), up ? vf_load(up + i) : one));
  if (i == n) return;
  vf rest = up ? vf_load_part(up + i, n - i) : one;
  vf_store_part(y + i, silu_times(vf_load_part(gate + i, n - i), rest), n - i);
}

static float largest(const float *x, int64_t n) {
  vf a = vf_set1(-INFINITY), b = a;
  int64_t i = 0;
  for (; i + 2 * VF <= n; i += 2 * VF) {
    a = vf_max(a, vf_load(x + i));
    b = vf_max(b, vf_load(x + i + VF));
  }
  float best = vf_largest(vf_max(a, b));
  for (; i < n; i++) best = x[i] > best ? x[i] : best;
  return best;
}

static int64_t argmax(const float *x, int64_t n) {
  float best = largest(x, n);
  for (int64_t i = 0; i < n; i++) {
    if (x[i] == best) return i;
  }
  return 0; /* NaN everywhere */
}

static double sum_exp(const float *x, int64_t n, float max) {
  enum { RUN = 64 * VF }; /* floats add up well for that long, doubles for ever */
  double total = 0;
  for (int64_t begin = 0; begin < n; begin += RUN) {
    int64_t i = begin, end = nb_min_i64(n, begin + RUN);
    vf sum = vf_zero();
    for (; i + VF <= end; i += VF) sum = vf_add(sum, vf_exp(vf_sub(vf_load(x + i), vf_set1(max))));
    total += (double)vf_sum(sum);
    for (; i < end; i++) total += (double)expf(x[i] - max);
  }
  return total;
}

/* Attention. A query is one new token of one head; those that read the same key head are numbered token by token. */

enum {
  KEY_TILE = 48,      /* keys at a time: with head_dim 64, 12 KB each of keys and of values, and 3 to 6 KB of scores */
  HEAD_DIM_MAX = 512, /* plain C does larger ones */
  FEW_QUERIES = 4,    /* so few would leave most lanes idle */
};

typedef struct query_tile {
  const nb_attention *a;
  const float *k, *v; /* of the sequence and key head */
  int64_t sequence, kv_head, first, count;
} query_tile;

/* Where query i of the tile begins in q, or in out, given their stride. */
static int64_t query_at(const query_tile *t, int64_t i, int64_t stride) {
  int64_t group = t->a->heads / t->a->kv_heads, token = (t->first + i) / group, head = (t->first + i) % group;
  return (t->sequence * t->a->tokens + token) * stride + (t->kv_head * group + head) * t->a->head_dim;
}

/* Query i of the tile sees keys [first, end). */
static int64_t query_token(const query_tile *t, int64_t i) { return (t->first + i) / (t->a->heads / t->a->kv_heads); }
static int64_t query_first(const query_tile *t, int64_t i) { return nb_attention_first(t->a, query_token(t, i)); }
static int64_t query_end(const query_tile *t, int64_t i) { return nb_attention_end(t->a, query_token(t, i)); }

/* What is added to the scores of query i, by key. */
static const float *query_bias(const query_tile *t, int64_t i) {
  int64_t group = t->a->heads / t->a->kv_heads, head = t->kv_head * group + (t->first + i) % group;
  return nb_attention_bias(t->a, query_token(t, i), head);
}

/* scores[j] of `keys` keys become exp(score - max), where *max has grown to cover them; returns what everything summed
 * up under the old *max is to be multiplied by, and adds to *sum. */
static float soften(float *scores, int64_t keys, float scale, float *max, float *sum) {
  float top = largest(scores, keys) * scale, old = *max;
  if (top > old) *max = top;
  float keep = expf(old - *max);
  vf total = vf_zero();
  for (int64_t j = 0; j < keys; j += VF) {
    vf e = vf_exp(vf_fma(vf_load(scores + j), vf_set1(scale), vf_set1(-*max)));
    vf_store(scores + j, e);
    total = vf_add(total, e);
  }
  *sum = *sum * keep + vf_sum(total);
  return keep;
}

/* What `keys` keys add to an output: their values, `stride` floats apart, times their weights. */
typedef struct key_values {
  const float *weights, *values;
  int64_t keys, stride;
} key_values;

/* out [n] = out * keep + sum over keys of weight * value, n <= 4 * VF. */
static void add_values(key_values k, float keep, int64_t n, float *out) {
  const float *weights = k.weights, *v = k.values;
  int64_t keys = k.keys, stride = k.stride;
  vf sum[4];
  if (n == 4 * VF) {
    for (int i = 0; i < 4; i++) sum[i] = vf_mul(vf_load(out + i * VF), vf_set1(keep));
    for (int64_t j = 0; j < keys; j++, v += stride) {
      for (int i = 0; i < 4; i++) sum[i] = vf_fma(vf_set1(weights[j]), vf_load(v + i * VF), sum[i]);
    }
    for (int i = 0; i < 4; i++) vf_store(out + i * VF, sum[i]);
    return;
  }
  for (int64_t d = 0; d < n; d += VF) {
    int64_t part = nb_min_i64(VF, n - d);
    vf one = vf_mul(part == VF ? vf_load(out + d) : vf_load_part(out + d, part), vf_set1(keep));
    for (int64_t j = 0; j < keys; j++) {
      const float *at = v + j * stride + d;
      one = vf_fma(vf_set1(weights[j]), part == VF ? vf_load(at) : vf_load_part(at, part), one);
    }
    if (part == VF) {
      vf_store(out + d, one);
    } else {
      vf_store_part(out + d, one, part);
    }
  }
}

/* One query by itself, vectors along head_dim: decode. */
static void attend_one(const query_tile *t, int64_t i) {
  const nb_attention *a = t->a;
  const float *q = a->q + query_at(t, i, a->q_stride);
  float *out = a->out + query_at(t, i, a->out_stride), max = -INFINITY, sum = 0;
  const float *bias = a->bias ? query_bias(t, i) : NULL;
  float scores[KEY_TILE], scale = bias ? 1 : a->scale; /* a bias is added to scores that are scaled already */
  memset(out, 0, (size_t)a->head_dim * sizeof *out);
  int64_t end = query_end(t, i);
  for (int64_t j = query_first(t, i); j < end; j += KEY_TILE) {
    int64_t keys = nb_min_i64(KEY_TILE, end - j);
    for (int64_t l = 0; l < KEY_TILE; l++) {
      scores[l] = l < keys ? gemm->dot(q, t->k + (j + l) * a->kv_token_stride, a->head_dim) : -INFINITY;
    }
    for (int64_t l = 0; bias && l < keys; l++) scores[l] = scores[l] * a->scale + bias[j + l];
    float keep = soften(scores, KEY_TILE, scale, &max, &sum);
    for (int64_t d = 0; d < a->head_dim; d += 4 * VF) {
      key_values add = {scores, t->v + j * a->kv_token_stride + d, keys, a->kv_token_stride};
      add_values(add, keep, nb_min_i64(4 * VF, a->head_dim - d), out + d);
    }
  }
  for (int64_t d = 0; d < a->head_dim; d++) out[d] /= sum;
}

/* Many queries, one a lane: scores [keys][lanes], sums [head_dim][lanes]; softmax needs no exchange between lanes. */
typedef struct lane_state {
  float max[NB_LANES_MAX], sum[NB_LANES_MAX];
  float scores[KEY_TILE * NB_LANES_MAX];
} lane_state;

/* Queries to [head_dim][lanes], scaled. */
static void pack_queries(const query_tile *t, int64_t lanes, float *packed) {
  float rows[NB_LANES_MAX * HEAD_DIM_MAX];
  int64_t head_dim = t->a->head_dim;
  for (int64_t i = 0; i < t->count; i++) {
    const float *q = t->a->q + query_at(t, i, t->a->q_stride);
    for (int64_t d = 0; d < head_dim; d++) rows[i * head_dim + d] = q[d] * t->a->scale;
  }
  gemm->pack(rows, head_dim, t->count, head_dim, lanes, packed);
}

/* The scores of one vector of lanes become weights; what was summed before shrinks where a larger score turned up. */
static void soften_lanes(lane_state *s, int64_t lanes, int64_t lane, int64_t keys, int64_t head_dim, float *sums) {
  float *scores = s->scores + lane;
  vf old = vf_load(s->max + lane), max = old, total = vf_zero();
  for (int64_t j = 0; j < keys; j++) max = vf_max(max, vf_load(scores + j * lanes));
  for (int64_t j = 0; j < keys; j++) {
    vf e = vf_exp(vf_sub(vf_load(scores + j * lanes), max));
    vf_store(scores + j * lanes, e);
    total = vf_add(total, e);
  }
  vf keep = vf_exp(vf_sub(old, max));
  vf_store(s->max + lane, max);
  vf_store(s->sum + lane, vf_fma(vf_load(s->sum + lane), keep, total));
  if (vf_largest(vf_sub(max, old)) == 0) return; /* keep is 1 in all lanes */
  for (int64_t d = 0; d < head_dim; d++) {
    vf_store(sums + d * lanes + lane, vf_mul(vf_load(sums + d * lanes + lane), keep));
  }
}

/* Scores of those of `keys` keys from j on that query i does not see. Every query sees one of the first tile's keys:
 * the first keys of a tile of queries lie closer together than KEY_TILE. So the largest score is never -infinity. */
static void hide_keys(const query_tile *t, int64_t i, int64_t j, int64_t keys, int64_t lanes, float *scores) {
  _Static_assert((int)KEY_TILE >= (int)NB_QUERY_TILE, "each query has to find a key in its first tile");
  int64_t before = nb_min_i64(query_first(t, i) - j, keys);
  for (int64_t l = 0; l < before; l++) scores[l * lanes + i] = -INFINITY;
  for (int64_t l = nb_max_i64(query_end(t, i) - j, 0); l < keys; l++) scores[l * lanes + i] = -INFINITY;
}

/* Adds query i's bias to its scores of `keys` keys from j on. */
static void add_bias(const query_tile *t, int64_t i, int64_t j, int64_t keys, int64_t lanes, float *scores) {
  const float *bias = query_bias(t, i) + j;
  for (int64_t l = 0; l < keys; l++) scores[l * lanes + i] += bias[l];
}

static void attend_lanes(const query_tile *t) {
  const nb_attention *a = t->a;
  int64_t lanes = t->count <= gemm->narrow ? gemm->narrow : gemm->lanes, head_dim = a->head_dim;
  _Alignas(64) float packed[HEAD_DIM_MAX * NB_LANES_MAX], sums[HEAD_DIM_MAX * NB_LANES_MAX];
  _Alignas(64) lane_state s;
  pack_queries(t, lanes, packed);
  memset(sums, 0, (size_t)(head_dim * lanes) * sizeof *sums);
  for (int64_t i = 0; i < lanes; i++) s.max[i] = -INFINITY, s.sum[i] = 0;
  int64_t begin = query_first(t, 0), whole = query_first(t, t->count - 1);
  int64_t fewest = query_end(t, 0), end = query_end(t, t->count - 1);
  for (int64_t j = begin; j < end; j += KEY_TILE) {
    int64_t keys = nb_min_i64(KEY_TILE, end - j), at = j * a->kv_token_stride;
    gemm->multiply((nb_gemm_size){lanes, keys, head_dim}, packed, (nb_gemm_operand){t->k + at, a->kv_token_stride, 1},
                   s.scores, false);
    for (int64_t i = 0; a->bias && i < t->count; i++) add_bias(t, i, j, keys, lanes, s.scores);
    for (int64_t i = 0; (j < whole || j + keys > fewest) && i < t->count; i++)
      hide_keys(t, i, j, keys, lanes, s.scores);
    for (int64_t lane = 0; lane < lanes; lane += VF) soften_lanes(&s, lanes, lane, keys, head_dim, sums);
    gemm->multiply((nb_gemm_size){lanes, head_dim, keys}, s.scores, (nb_gemm_operand){t->v + at, 1, a->kv_token_stride},
                   sums, true);
  }
  for (int64_t lane = 0; lane < lanes; lane += VF) {
    vf share = vf_div(vf_set1(1), vf_load(s.sum + lane));
    for (int64_t d = 0; d < head_dim; d++) {
      vf_store(sums + d * lanes + lane, vf_mul(vf_load(sums + d * lanes + lane), share));
    }
  }
  gemm->unpack(sums, lanes, t->count, head_dim, (nb_gemm_out){.y = packed, .ldy = head_dim});
  for (int64_t i = 0; i < t->count; i++) {
    memcpy(a->out + query_at(t, i, a->out_stride), packed + i * head_dim, (size_t)head_dim * sizeof *packed);
  }
}

static void attention_tile(const nb_attention *a, int64_t sequence, int64_t kv_head, int64_t first, int64_t count) {
  if (a->head_dim > HEAD_DIM_MAX) {
    nb_cpu_ops_scalar.attention_tile(a, sequence, kv_head, first, count);
    return;
  }
  int64_t at = sequence * a->kv_sequence_stride + kv_head * a->kv_head_stride;
  query_tile t = {.a = a, .k = a->k + at, .v = a->v + at, .sequence = sequence, .kv_head = kv_head};
  for (int64_t i = 0; i < count; i += t.count) {
    t.first = first + i;
    t.count = nb_min_i64(gemm->lanes, count - i);
    if (t.count > FEW_QUERIES) {
      attend_lanes(&t);
    } else {
      for (int64_t one = 0; one < t.count; one++) attend_one(&t, one);
    }
  }
}

const nb_cpu_ops NB_OF_TARGET(nb_cpu_ops) = {
    .rmsnorm_row = rmsnorm_row,
    .layernorm_row = layernorm_row,
    .silu_mul = silu_mul,
    .attention_tile = attention_tile,
    .argmax = argmax,
    .sum_exp = sum_exp,
};

#endif
