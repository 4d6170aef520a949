/* Attention over a cache, with the online softmax of Milakov and Gimelshein 2018 (arXiv:1805.02867): keys are seen
 * once, the largest score so far, the sum of exponentials and the weighted values are carried along, and rescaled when
 * a larger score turns up. Two kernels: one for a few new tokens, which shares out the keys (Dao et al. 2023, "Flash-
 * Decoding"), and one for many, which works on tiles of queries by keys. */
#include <math.h>

extern "C" {
#include "base/checked.h"
}
#include "kernels/cuda/ops.h"

enum {
  FEW_TOKENS = 4, /* up to here the keys are shared out */
  FEW_WARPS = 8,
  FEW_THREADS = FEW_WARPS * 32, /* at least the largest head_dim */
  FEW_BLOCKS = 2,               /* on a multiprocessor: what they have in flight hides the latency of memory */
  BATCH_KEYS = 8,               /* that a warp asks for at once; of a page, as NB_KV_PAGE is a multiple of it */
  PARTS_AT_ONCE = 8,            /* that are put together */
  WARPS = 4,
  THREADS = WARPS * 32,
  QUERIES = 32, /* of a tile */
  KEYS = 32,
};

static __device__ __forceinline__ int64_t position_of(const nb_attention_args &a, int64_t token) {
  return (a.start_at ? *a.start_at : a.shape.start) + token;
}

/* The first and the last key that a token at `position` sees. */
static __device__ __forceinline__ int64_t first_key(const nb_attention_shape &s, int64_t position) {
  return s.window > 0 && position + 1 > s.window ? position + 1 - s.window : 0;
}
static __device__ __forceinline__ int64_t last_key(const nb_attention_shape &s, int64_t position) {
  return s.causal ? position : s.keys - 1;
}

/* What is added to the scores of a query of `head` at `position`, by key. */
static __device__ __forceinline__ const float *bias_of(const nb_attention_args &a, int64_t head, int64_t position) {
  return a.bias + head * (2 * a.shape.capacity - 1) + a.shape.capacity - 1 - position;
}

/* ---- few tokens: the keys are shared out ------------------------------------------------------------------------ */

/* How a warp reads: a group of LANES lanes has a key, a lane QUADS times four of its dims, LANES * 4 apart. All keys
 * and values of a batch are asked for before the first is used. A unit is what a block takes in a turn: a batch for
 * each of its warps. DIM: head_dim, where it is all that the lanes can hold, which makes addresses constants; 0: less.
 * WIDE: by 16 bytes. BIAS: there is one; a kernel without it has nothing of it. */
template <int LANES_OF_KEY, int QUADS_OF_LANE, int HEAD_DIM, bool BY_16_BYTES, bool HAS_BIAS>
struct few_way {
  static constexpr int LANES = LANES_OF_KEY, QUADS = QUADS_OF_LANE, DIM = HEAD_DIM, GROUPS = 32 / LANES;
  static constexpr int KEYS_OF_LANE = BATCH_KEYS / GROUPS / QUADS, BATCH = KEYS_OF_LANE * GROUPS;
  static constexpr int UNIT = BATCH * FEW_WARPS, PARTS = GROUPS * FEW_WARPS, STRIDE = 4 * LANES * QUADS;
  static constexpr int SHARED = (PARTS * (STRIDE + 2) + 1) * 4;
  static constexpr bool WIDE = BY_16_BYTES, BIAS = HAS_BIAS;
  static_assert(DIM == 0 || DIM == STRIDE, "all lanes, or any number of them");
};

template <typename W>
static __device__ __forceinline__ int head_dim_of(const nb_attention_args &a) {
  return W::DIM ? W::DIM : (int)a.shape.head_dim;
}

template <typename W>
struct few_batch {
  float4 k[W::KEYS_OF_LANE][W::QUADS], v[W::KEYS_OF_LANE][W::QUADS];
  float bias[W::BIAS ? W::KEYS_OF_LANE : 1];
};

template <typename W>
struct few_running {
  float top, sum; /* largest score, sum of exp(score - top) */
  float4 value[W::QUADS];
};

/* What some of the keys come to, and one dimension of their weighted values. */
typedef struct few_part {
  float top, sum, value;
} few_part;

template <typename W>
static __device__ __forceinline__ int lane_dim(int quad) {
  return 4 * ((int)threadIdx.x % W::LANES + W::LANES * quad);
}

/* Where a lane reads of vectors that begin at p and at constant distances from it. */
template <typename W>
static __device__ __forceinline__ const float *lane_start(const float *p) {
  return nb_settled(W::DIM ? p + lane_dim<W>(0) : p);
}

/* The lane's dims of a vector, from its lane_start. Of those that there are not it gives others; nothing comes of
 * them. */
template <typename W>
static __device__ __forceinline__ float4 load_dims(const float *from, int quad, int head_dim) {
  if (W::DIM) return nb_load_fresh((const float4 *)(from + 4 * W::LANES * quad));
  int d = lane_dim<W>(quad), last = head_dim - 1;
  if (W::WIDE) return nb_load_fresh((const float4 *)(from + (d < head_dim ? d : 0)));
  return make_float4(nb_load_fresh(from + min(d, last)), nb_load_fresh(from + min(d + 1, last)),
                     nb_load_fresh(from + min(d + 2, last)), nb_load_fresh(from + min(d + 3, last)));
}

/* The query's dims, with zeros where it has none. */
template <typename W>
static __device__ __forceinline__ void load_query(const float *from, int head_dim, float4 q[W::QUADS]) {
#pragma unroll
  for (int i = 0; i < W::QUADS; i++) {
    int rest = W::DIM ? 4 : head_dim - lane_dim<W>(i);
    float4 v = load_dims<W>(lane_start<W>(from), i, head_dim);
    q[i] = make_float4(rest > 0 ? v.x : 0, rest > 1 ? v.y : 0, rest > 2 ? v.z : 0, rest > 3 ? v.w : 0);
  }
}

/* Where a key lies; one beyond the last, which may have no page, somewhere else. */
template <typename W>
static __device__ __forceinline__ const float *key_at(const nb_attention_args &a, int sequence, int kv_head, int key,
                                                      int last) {
  const float *page = a.pages.table[sequence * a.pages.per_sequence + min(key, last) / NB_KV_PAGE];
  return page + ((int64_t)kv_head * NB_KV_PAGE + key % NB_KV_PAGE) * head_dim_of<W>(a);
}

template <typename W>
static __device__ __forceinline__ const float *bias_at(const nb_attention_args &a, int head, int position, int key) {
  return W::BIAS ? bias_of(a, head, position) + key : NULL;
}

/* Of the lane's keys, which lie from k on and their biases from `bias` on, those numbered [0, count), where the first
 * has the number `number`. The values first: nothing that is done with the keys can then come between the loads. */
template <typename W>
static __device__ __forceinline__ void load_batch(const nb_attention_args &a, const float *k, const float *bias,
                                                  int number, int count, few_batch<W> *b) {
  int head_dim = head_dim_of<W>(a);
  const float *v = lane_start<W>(k + a.pages.values);
  k = lane_start<W>(k);
#pragma unroll
  for (int i = 0; i < W::KEYS_OF_LANE * W::QUADS; i++) {
    int key = i / W::QUADS, quad = i % W::QUADS, step = key * W::GROUPS;
    if ((unsigned)(number + step) < (unsigned)count)
      b->v[key][quad] = load_dims<W>(v + step * head_dim, quad, head_dim);
  }
#pragma unroll
  for (int i = 0; i < W::KEYS_OF_LANE * W::QUADS; i++) {
    int key = i / W::QUADS, quad = i % W::QUADS, step = key * W::GROUPS;
    if ((unsigned)(number + step) < (unsigned)count)
      b->k[key][quad] = load_dims<W>(k + step * head_dim, quad, head_dim);
  }
  if constexpr (W::BIAS) {
#pragma unroll
    for (int key = 0; key < W::KEYS_OF_LANE; key++) {
      int step = key * W::GROUPS;
      if ((unsigned)(number + step) < (unsigned)count) b->bias[key] = bias[step];
    }
  }
}

template <typename W>
static __device__ __forceinline__ void take_batch(const few_batch<W> &b, const float4 q[W::QUADS], float scale,
                                                  int number, int count, few_running<W> *r) {
  float scores[W::KEYS_OF_LANE], top = r->top;
#pragma unroll
  for (int j = 0; j < W::KEYS_OF_LANE; j++) {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < W::QUADS; i++) {
      sum = fmaf(q[i].x, b.k[j][i].x, sum), sum = fmaf(q[i].y, b.k[j][i].y, sum);
      sum = fmaf(q[i].z, b.k[j][i].z, sum), sum = fmaf(q[i].w, b.k[j][i].w, sum);
    }
    scores[j] = sum;
  }
#pragma unroll
  for (int step = W::LANES / 2; step > 0; step /= 2) {
#pragma unroll
    for (int j = 0; j < W::KEYS_OF_LANE; j++) scores[j] += __shfl_xor_sync(NB_WARP, scores[j], step);
  }
#pragma unroll
  for (int j = 0; j < W::KEYS_OF_LANE; j++) {
    bool is_seen = (unsigned)(number + j * W::GROUPS) < (unsigned)count;
    if constexpr (W::BIAS) {
      scores[j] = is_seen ? fmaf(scores[j], scale, b.bias[j]) : -INFINITY;
    } else {
      scores[j] = is_seen ? scores[j] * scale : -INFINITY;
    }
    top = fmaxf(top, scores[j]);
  }
  float base = top == -INFINITY ? 0 : top, shrink = expf(r->top - base); /* a group may have seen no key yet */
  r->top = top;
  r->sum *= shrink;
#pragma unroll
  for (int i = 0; i < W::QUADS; i++)
    r->value[i].x *= shrink, r->value[i].y *= shrink, r->value[i].z *= shrink, r->value[i].w *= shrink;
#pragma unroll
  for (int j = 0; j < W::KEYS_OF_LANE; j++) {
    float weight = expf(scores[j] - base);
    r->sum += weight;
#pragma unroll
    for (int i = 0; i < W::QUADS; i++) {
      float4 *value = &r->value[i];
      value->x = fmaf(weight, b.v[j][i].x, value->x), value->y = fmaf(weight, b.v[j][i].y, value->y);
      value->z = fmaf(weight, b.v[j][i].z, value->z), value->w = fmaf(weight, b.v[j][i].w, value->w);
    }
  }
}

template <bool SHARED>
static __device__ __forceinline__ float load_part(const float *at) {
  return SHARED ? *at : nb_load_fresh(at);
}

/* `count` parts as one, in order, several loads in flight; values [count, stride] at the dimension wanted. */
template <bool SHARED>
static __device__ __forceinline__ few_part merge(const float *tops, const float *sums, const float *values, int stride,
                                                 int count) {
  few_part all = {-INFINITY, 0, 0};
  for (int first = 0; first < count; first += PARTS_AT_ONCE) {
    few_part parts[PARTS_AT_ONCE];
#pragma unroll
    for (int i = 0; i < PARTS_AT_ONCE; i++) {
      int at = first + i < count ? first + i : first;
      parts[i].top = load_part<SHARED>(tops + at), parts[i].sum = load_part<SHARED>(sums + at);
      parts[i].value = load_part<SHARED>(values + (int64_t)at * stride);
    }
    float top = all.top;
#pragma unroll
    for (int i = 0; i < PARTS_AT_ONCE; i++) {
      if (first + i >= count) parts[i].top = -INFINITY;
      top = fmaxf(top, parts[i].top);
    }
    float base = top == -INFINITY ? 0 : top, shrink = expf(all.top - base);
    all.top = top, all.sum *= shrink, all.value *= shrink;
#pragma unroll
    for (int i = 0; i < PARTS_AT_ONCE; i++) {
      float weight = expf(parts[i].top - base);
      all.sum = fmaf(weight, parts[i].sum, all.sum), all.value = fmaf(weight, parts[i].value, all.value);
    }
  }
  return all;
}

/* What the block's groups have carried, as one; dimension threadIdx.x of it. Shared: values [PARTS, STRIDE], tops,
 * sums. */
template <typename W>
static __device__ __forceinline__ few_part meet(const few_running<W> &r, int head_dim) {
  float *values = (float *)nb_shared(), *tops = values + W::PARTS * W::STRIDE, *sums = tops + W::PARTS;
  int part = (int)threadIdx.x / W::LANES, d = (int)threadIdx.x;
#pragma unroll
  for (int i = 0; i < W::QUADS; i++) *(float4 *)(values + part * W::STRIDE + lane_dim<W>(i)) = r.value[i];
  if (threadIdx.x % W::LANES == 0) tops[part] = r.top, sums[part] = r.sum;
  __syncthreads();
  few_part none = {-INFINITY, 0, 0};
  return d < head_dim ? merge<true>(tops, sums, values + d, W::STRIDE, W::PARTS) : none;
}

/* Writes a query's result, or leaves the block's part of it to the block that comes last. */
static __device__ __forceinline__ void finish(const nb_attention_args &a, few_part mine, int64_t query, int head_dim,
                                              int blocks, unsigned *flag) {
  int d = (int)threadIdx.x, split = (int)blockIdx.x;
  if (blocks > 1) {
    float *tops = a.partial + query * a.splits * (head_dim + 2), *sums = tops + a.splits, *values = sums + a.splits;
    if (d < head_dim) values[split * head_dim + d] = mine.value;
    if (d == 0) tops[split] = mine.top, sums[split] = mine.sum;
    if (!nb_came_last(a.arrived + query, (unsigned)blocks, flag)) return;
    if (d < head_dim) mine = merge<false>(tops, sums, values + d, head_dim, blocks);
  }
  if (d < head_dim) a.out[query * head_dim + d] = mine.value / mine.sum;
}

/* Block (split, head, row) takes the split-th unit of the keys that are seen and every splits-th after it, so that at
 * every length the blocks have the same to do, give or take one unit; those for which there is none leave. In a
 * recording the keys before this step were written by launches that ended before it began: they are asked for while
 * the kernel before this one ends. */
template <typename W>
static __global__ void __launch_bounds__(FEW_THREADS, FEW_BLOCKS)
    few_kernel(const __grid_constant__ nb_attention_args a) {
  nb_let_next_start();
  const nb_attention_shape &s = a.shape;
  int row = (int)blockIdx.z, head = (int)blockIdx.y, tokens = (int)s.tokens, head_dim = head_dim_of<W>(a);
  int sequence = row / tokens, kv_head = head / ((int)s.heads / (int)s.kv_heads);
  int start = (int)position_of(a, 0), position = start + row % tokens, from = (int)first_key(s, position);
  int last = (int)last_key(s, position);
  int first_unit = from / W::UNIT, units = last / W::UNIT - first_unit + 1, blocks = min(units, a.splits);
  if ((int)blockIdx.x >= blocks) {
    nb_wait_for_previous();
    return;
  }
  int warp = (int)threadIdx.x / 32, group = (int)threadIdx.x % 32 / W::LANES;
  int key = (first_unit + (int)blockIdx.x) * W::UNIT + warp * W::BATCH + group;
  int count = last + 1 - from, written = a.start_at ? min(max(start - from, 0), count) : 0;
  int64_t query = (int64_t)row * s.heads + head;
  const float *k = key_at<W>(a, sequence, kv_head, key, last);
  few_batch<W> b = {};
  few_running<W> r = {-INFINITY, 0, {}};
  float4 q[W::QUADS];
  load_batch<W>(a, k, bias_at<W>(a, head, position, key), key - from, written, &b);
  nb_wait_for_previous();
  load_query<W>(a.q + query * head_dim, head_dim, q);
  load_batch<W>(a, k, bias_at<W>(a, head, position, key), key - from - written, count - written, &b);
  for (int turn = (int)blockIdx.x + a.splits;; turn += a.splits) {
    int next = key + a.splits * W::UNIT;
    k = key_at<W>(a, sequence, kv_head, next, last);
    take_batch<W>(b, q, s.scale, key - from, count, &r);
    if (turn >= units) break;
    key = next;
    load_batch<W>(a, k, bias_at<W>(a, head, position, key), key - from, count, &b);
  }
  few_part mine = meet<W>(r, head_dim);
  finish(a, mine, query, head_dim, blocks, (unsigned *)(nb_shared() + W::SHARED - 4));
}

typedef struct few_launch {
  void (*kernel)(nb_attention_args);
  int unit, shared_bytes;
} few_launch;

template <typename W>
static few_launch launch_of(void) {
  few_launch l = {few_kernel<W>, W::UNIT, W::SHARED};
  return l;
}

template <bool BIAS>
static few_launch few_launch_for(int64_t head_dim) {
  switch (head_dim) {
    case 64: return launch_of<few_way<16, 1, 64, true, BIAS>>();
    case 128: return launch_of<few_way<32, 1, 128, true, BIAS>>();
    case 256: return launch_of<few_way<32, 2, 256, true, BIAS>>();
    default:
      return head_dim % 4 == 0 ? launch_of<few_way<32, 2, 0, true, BIAS>>()
                               : launch_of<few_way<32, 2, 0, false, BIAS>>();
  }
}

/* ---- many tokens: tiles ----------------------------------------------------------------------------------------- */

/* Block (query tile, kv head, sequence). The queries of a tile are neighbours in token * group + head, so that all
 * heads that share a key head read it once. 128 threads as 8 x 16:
 *
 *   scores [32, 32]: thread (y, x) has queries 4y .. 4y + 3 and keys x, x + 16
 *   out [32, head_dim]: thread (y, x) has the same queries and dims x, x + 16, ... (16 * DIMS of them)
 *
 * Shared: q, k, v [32, stride] with an odd stride, the scores, and for each query its top, sum and last shrinking. */
typedef struct tile_memory {
  float *q, *k, *v, *scores, *top, *sum, *shrink;
  int stride;
} tile_memory;

enum { SCORE_STRIDE = KEYS + 1 };

static int64_t tile_bytes(int64_t head_dim) {
  return (3 * QUERIES * (head_dim + 1) + QUERIES * SCORE_STRIDE + 3 * QUERIES) * (int64_t)sizeof(float);
}

static __device__ __forceinline__ tile_memory lay_out(const nb_attention_shape &s) {
  tile_memory m;
  m.stride = (int)s.head_dim + 1;
  m.q = (float *)nb_shared();
  m.k = m.q + QUERIES * m.stride;
  m.v = m.k + KEYS * m.stride;
  m.scores = m.v + KEYS * m.stride;
  m.top = m.scores + QUERIES * SCORE_STRIDE;
  m.sum = m.top + QUERIES;
  m.shrink = m.sum + QUERIES;
  return m;
}

typedef struct tile_place {
  int64_t sequence, kv_head, group, first_query, queries; /* queries: of the whole sequence, all heads of the group */
} tile_place;

/* Where query number i of a sequence's key head lies in q and out; its token in *token. */
static __device__ __forceinline__ int64_t query_at(const nb_attention_shape &s, const tile_place &p, int64_t i,
                                                   int64_t *token) {
  *token = i / p.group;
  int64_t row = p.sequence * s.tokens + *token, head = p.kv_head * p.group + i % p.group;
  return (row * s.heads + head) * s.head_dim;
}

static __device__ __forceinline__ void load_queries(const nb_attention_args &a, const tile_place &p,
                                                    const tile_memory &m) {
  int dim = (int)a.shape.head_dim;
  for (int i = (int)threadIdx.x; i < QUERIES * dim; i += THREADS) {
    int64_t query = p.first_query + i / dim, token;
    int64_t at = query_at(a.shape, p, query, &token);
    m.q[i / dim * m.stride + i % dim] = query < p.queries ? a.q[at + i % dim] * a.shape.scale : 0;
  }
  for (int i = (int)threadIdx.x; i < QUERIES; i += THREADS) m.top[i] = -INFINITY, m.sum[i] = 0;
}

static __device__ __forceinline__ void load_keys(const nb_attention_args &a, const tile_place &p, const tile_memory &m,
                                                 int64_t first, int64_t end) {
  const nb_attention_shape &s = a.shape;
  int dim = (int)s.head_dim;
  for (int i = (int)threadIdx.x; i < KEYS * dim; i += THREADS) {
    int64_t key = first + i / dim;
    int to = i / dim * m.stride + i % dim;
    const float *from = nb_kv_key(&a.pages, p.sequence, p.kv_head, key < end ? key : first, dim) + i % dim;
    m.k[to] = key < end ? *from : 0;
    m.v[to] = key < end ? from[a.pages.values] : 0;
  }
}

static __device__ __forceinline__ void make_scores(const nb_attention_args &a, const tile_place &p,
                                                   const tile_memory &m, int64_t first) {
  int y = (int)threadIdx.x / 16, x = (int)threadIdx.x % 16, dim = (int)a.shape.head_dim;
  float sums[4][2] = {};
  for (int d = 0; d < dim; d++) {
    float k0 = m.k[x * m.stride + d], k1 = m.k[(x + 16) * m.stride + d];
#pragma unroll
    for (int i = 0; i < 4; i++) {
      float q = m.q[(4 * y + i) * m.stride + d];
      sums[i][0] = fmaf(q, k0, sums[i][0]);
      sums[i][1] = fmaf(q, k1, sums[i][1]);
    }
  }
#pragma unroll
  for (int i = 0; i < 4; i++) {
    int64_t query = p.first_query + 4 * y + i, position = position_of(a, query / p.group);
    int64_t from = first_key(a.shape, position), last = last_key(a.shape, position);
    const float *bias = a.bias ? bias_of(a, p.kv_head * p.group + query % p.group, position) : NULL;
#pragma unroll
    for (int j = 0; j < 2; j++) {
      int64_t key = first + x + 16 * j;
      bool seen = query < p.queries && key >= from && key <= last;
      if (bias && seen) sums[i][j] += bias[key];
      m.scores[(4 * y + i) * SCORE_STRIDE + x + 16 * j] = seen ? sums[i][j] : -INFINITY;
    }
  }
}

/* A warp has 8 queries, a lane a key: scores become weights, and what was carried is to shrink. */
static __device__ __forceinline__ void soften(const tile_memory &m) {
  int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
  for (int i = 0; i < QUERIES / WARPS; i++) {
    int query = warp * (QUERIES / WARPS) + i;
    float score = m.scores[query * SCORE_STRIDE + lane], before = m.top[query];
    float top = fmaxf(before, nb_warp_max(score));
    float weight = score == -INFINITY ? 0 : expf(score - top);
    float sum = nb_warp_sum(weight), shrink = before == -INFINITY ? 0 : expf(before - top);
    m.scores[query * SCORE_STRIDE + lane] = weight;
    __syncwarp(); /* all lanes have read the top */
    if (lane != 0) continue;
    m.top[query] = top;
    m.sum[query] = m.sum[query] * shrink + sum;
    m.shrink[query] = shrink;
  }
}

template <int DIMS>
static __device__ __forceinline__ void add_values(const tile_memory &m, int dim, float out[4][DIMS]) {
  int y = (int)threadIdx.x / 16, x = (int)threadIdx.x % 16;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    float shrink = m.shrink[4 * y + i];
#pragma unroll
    for (int e = 0; e < DIMS; e++) out[i][e] *= shrink;
  }
  for (int key = 0; key < KEYS; key++) {
    float weights[4];
#pragma unroll
    for (int i = 0; i < 4; i++) weights[i] = m.scores[(4 * y + i) * SCORE_STRIDE + key];
#pragma unroll
    for (int e = 0; e < DIMS; e++) {
      float v = x + 16 * e < dim ? m.v[key * m.stride + x + 16 * e] : 0;
#pragma unroll
      for (int i = 0; i < 4; i++) out[i][e] = fmaf(weights[i], v, out[i][e]);
    }
  }
}

template <int DIMS>
static __global__ void __launch_bounds__(THREADS) many_kernel(const __grid_constant__ nb_attention_args a) {
  nb_let_next_start();
  nb_wait_for_previous();
  const nb_attention_shape &s = a.shape;
  tile_memory m = lay_out(s);
  tile_place p;
  p.group = s.heads / s.kv_heads, p.kv_head = blockIdx.y, p.sequence = blockIdx.z;
  p.queries = s.tokens * p.group, p.first_query = (int64_t)blockIdx.x * QUERIES;
  int64_t last_query = p.first_query + QUERIES < p.queries ? p.first_query + QUERIES - 1 : p.queries - 1;
  int64_t begin = first_key(s, position_of(a, p.first_query / p.group));
  int64_t end = last_key(s, position_of(a, last_query / p.group)) + 1;
  float out[4][DIMS] = {};
  load_queries(a, p, m);
  for (int64_t first = begin; first < end; first += KEYS) {
    load_keys(a, p, m, first, end);
    __syncthreads();
    make_scores(a, p, m, first);
    __syncthreads();
    soften(m);
    __syncthreads();
    add_values<DIMS>(m, (int)s.head_dim, out);
    __syncthreads(); /* before the next keys come */
  }
  int y = (int)threadIdx.x / 16, x = (int)threadIdx.x % 16;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    int64_t query = p.first_query + 4 * y + i, token;
    if (query >= p.queries) continue;
    int64_t at = query_at(s, p, query, &token);
    float scale = 1.0f / m.sum[4 * y + i];
#pragma unroll
    for (int e = 0; e < DIMS; e++) {
      if (x + 16 * e < s.head_dim) a.out[at + x + 16 * e] = out[i][e] * scale;
    }
  }
}

/* ---- which ------------------------------------------------------------------------------------------------------ */

int64_t nb_cuda_attention_plan(nb_attention_args *a, int64_t longest, int processors) {
  const nb_attention_shape &s = a->shape;
  int64_t queries = s.heads * s.sequences * s.tokens, unit = few_launch_for<false>(s.head_dim).unit;
  a->splits = 1;
  if (s.tokens > FEW_TOKENS) return 0;
  /* As many blocks as fit, and no more: a last few would be waited for. */
  int64_t splits = nb_min_i64(FEW_BLOCKS * processors / queries, (longest + unit - 1) / unit);
  a->splits = (int)nb_max_i64(splits, 1);
  return a->splits > 1 ? queries * a->splits * (s.head_dim + 2) : 0;
}

void nb_cuda_attention(cudaStream_t stream, const nb_attention_args *a) {
  const nb_attention_shape &s = a->shape;
  if (s.tokens <= FEW_TOKENS) {
    few_launch l = a->bias ? few_launch_for<true>(s.head_dim) : few_launch_for<false>(s.head_dim);
    dim3 blocks((unsigned)a->splits, (unsigned)s.heads, (unsigned)(s.sequences * s.tokens));
    nb_launch_early(l.kernel, blocks, FEW_THREADS, l.shared_bytes, stream, *a);
    return;
  }
  unsigned tiles = (unsigned)((s.tokens * (s.heads / s.kv_heads) + QUERIES - 1) / QUERIES);
  void (*kernel)(nb_attention_args) = s.head_dim <= 64    ? many_kernel<4>
                                      : s.head_dim <= 128 ? many_kernel<8>
                                                          : many_kernel<16>;
  nb_launch_early(kernel, dim3(tiles, (unsigned)s.kv_heads, (unsigned)s.sequences), THREADS, tile_bytes(s.head_dim),
                  stream, *a);
}
