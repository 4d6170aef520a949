/* Attention over a cache, with the online softmax of Milakov and Gimelshein 2018 (arXiv:1805.02867): keys are seen
 * once, the largest score so far, the sum of exponentials and the weighted values are carried along, and rescaled when
 * a larger score turns up. Two kernels: one for a few new tokens, which shares out the keys (Dao et al. 2023, "Flash-
 * Decoding"), and one for many, which works on tiles of queries by keys. */
#include <math.h>

#include "kernels/cuda/ops.h"

enum {
  FEW_TOKENS = 4, /* up to here the keys are shared out */
  WARPS = 4,
  THREADS = WARPS * 32,
  KEYS_AT_ONCE = 4,
  LANE_DIMS = 8, /* of 256 at most */
  QUERIES = 32,  /* of a tile */
  KEYS = 32,
};

static __device__ __forceinline__ int64_t position_of(const nb_attention_args &a, int64_t token) {
  return (a.start_at ? *a.start_at : a.shape.start) + token;
}

/* The first key that a token at `position` sees. */
static __device__ __forceinline__ int64_t first_key(const nb_attention_shape &s, int64_t position) {
  return s.window > 0 && position + 1 > s.window ? position + 1 - s.window : 0;
}

/* ---- few tokens: the keys are shared out ------------------------------------------------------------------------ */

typedef struct running {
  float top, sum;         /* largest score, sum of exp(score - top) */
  float value[LANE_DIMS]; /* dims lane, lane + 32, ... of the weighted values */
} running;

static __device__ __forceinline__ running nothing_yet(void) {
  running r;
  r.top = -INFINITY, r.sum = 0;
#pragma unroll
  for (int i = 0; i < LANE_DIMS; i++) r.value[i] = 0;
  return r;
}

/* Keys position, position + 1, ... (`count` of at most KEYS_AT_ONCE) of one head, by one warp. */
static __device__ __forceinline__ void take_keys(const nb_attention_args &a, running *r, const float *q,
                                                 int64_t sequence, int64_t kv_head, int64_t position, int count) {
  const nb_attention_shape &s = a.shape;
  int lane = (int)threadIdx.x % 32;
  float scores[KEYS_AT_ONCE];
  const float *keys[KEYS_AT_ONCE];
#pragma unroll
  for (int j = 0; j < KEYS_AT_ONCE; j++) {
    int64_t key = position + (j < count ? j : 0);
    keys[j] = nb_kv_key(&a.pages, sequence, kv_head, key, s.head_dim);
    scores[j] = 0;
#pragma unroll
    for (int i = 0; i < LANE_DIMS; i++) {
      int d = lane + 32 * i;
      if (d < s.head_dim) scores[j] = fmaf(q[i], keys[j][d], scores[j]);
    }
  }
  float top = r->top;
#pragma unroll
  for (int j = 0; j < KEYS_AT_ONCE; j++) {
    scores[j] = j < count ? nb_warp_sum(scores[j]) * s.scale : -INFINITY;
    top = fmaxf(top, scores[j]);
  }
  float shrink = expf(r->top - top);
  r->top = top;
  r->sum *= shrink;
#pragma unroll
  for (int i = 0; i < LANE_DIMS; i++) r->value[i] *= shrink;
#pragma unroll
  for (int j = 0; j < KEYS_AT_ONCE; j++) {
    float weight = expf(scores[j] - top);
    r->sum += weight;
#pragma unroll
    for (int i = 0; i < LANE_DIMS; i++) {
      int d = lane + 32 * i;
      if (j < count && d < s.head_dim) r->value[i] = fmaf(weight, keys[j][a.pages.values + d], r->value[i]);
    }
  }
}

/* What several parts of the keys gave, [parts, head_dim + 2] (top, sum, values), as one; dimension d of it. */
static __device__ __forceinline__ float merge(const float *parts, int count, int64_t head_dim, int64_t d, float *top,
                                              float *sum) {
  *top = -INFINITY, *sum = 0;
  for (int p = 0; p < count; p++) *top = fmaxf(*top, parts[p * (head_dim + 2)]);
  float value = 0;
  for (int p = 0; p < count; p++) {
    const float *part = parts + p * (head_dim + 2);
    if (part[0] == -INFINITY) continue;
    float weight = expf(part[0] - *top);
    *sum += weight * part[1];
    value += weight * part[2 + d];
  }
  return value;
}

/* Block (split, head, row): its four warps take KEYS_AT_ONCE keys of the split each by turns, and meet in shared
 * memory, [WARPS, head_dim + 2]. */
static __global__ void __launch_bounds__(THREADS) few_kernel(const __grid_constant__ nb_attention_args a) {
  nb_let_next_start();
  nb_wait_for_previous();
  const nb_attention_shape &s = a.shape;
  float *parts = (float *)nb_shared();
  int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
  int64_t head = blockIdx.y, row = blockIdx.z, kv_head = head / (s.heads / s.kv_heads), sequence = row / s.tokens;
  int64_t position = position_of(a, row % s.tokens), first = first_key(s, position);
  int64_t begin = blockIdx.x * a.split_keys, end = begin + a.split_keys;
  if (begin < first) begin = first;
  if (end > position + 1) end = position + 1;
  float q[LANE_DIMS];
#pragma unroll
  for (int i = 0; i < LANE_DIMS; i++) {
    int d = lane + 32 * i;
    q[i] = d < s.head_dim ? a.q[(row * s.heads + head) * s.head_dim + d] : 0;
  }
  running r = nothing_yet();
  for (int64_t key = begin + warp * KEYS_AT_ONCE; key < end; key += WARPS * KEYS_AT_ONCE)
    take_keys(a, &r, q, sequence, kv_head, key, (int)min(end - key, (int64_t)KEYS_AT_ONCE));
  float *mine = parts + warp * (s.head_dim + 2);
  if (lane == 0) mine[0] = r.top, mine[1] = r.sum;
#pragma unroll
  for (int i = 0; i < LANE_DIMS; i++) {
    int d = lane + 32 * i;
    if (d < s.head_dim) mine[2 + d] = r.value[i];
  }
  __syncthreads();
  float *out = a.out + (row * s.heads + head) * s.head_dim;
  float *partial = a.partial + ((row * s.heads + head) * a.splits + blockIdx.x) * (s.head_dim + 2);
  for (int64_t d = threadIdx.x; d < s.head_dim; d += THREADS) {
    float top, sum, value = merge(parts, WARPS, s.head_dim, d, &top, &sum);
    if (a.splits == 1) {
      out[d] = value / sum;
    } else {
      partial[2 + d] = value;
      if (d == 0) partial[0] = top, partial[1] = sum;
    }
  }
}

/* Block (head, row) puts the splits together. */
static __global__ void merge_kernel(const __grid_constant__ nb_attention_args a) {
  nb_let_next_start();
  nb_wait_for_previous();
  const nb_attention_shape &s = a.shape;
  int64_t at = (int64_t)blockIdx.y * s.heads + blockIdx.x;
  const float *parts = a.partial + at * a.splits * (s.head_dim + 2);
  for (int64_t d = threadIdx.x; d < s.head_dim; d += blockDim.x) {
    float top, sum, value = merge(parts, a.splits, s.head_dim, d, &top, &sum);
    a.out[at * s.head_dim + d] = value / sum;
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
    int64_t from = first_key(a.shape, position);
#pragma unroll
    for (int j = 0; j < 2; j++) {
      int64_t key = first + x + 16 * j;
      bool seen = query < p.queries && key >= from && key <= position;
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
  int64_t end = position_of(a, last_query / p.group) + 1;
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
  int64_t blocks = s.heads * s.sequences * s.tokens;
  a->splits = 1;
  a->split_keys = longest;
  if (s.tokens > FEW_TOKENS) return 0;
  /* Enough blocks for two on each multiprocessor, but no fewer than 64 keys in each. */
  int64_t splits = (2 * processors + blocks - 1) / blocks, most = (longest + 63) / 64;
  if (splits > most) splits = most;
  if (splits < 1) splits = 1;
  a->split_keys = (longest + splits - 1) / splits;
  a->splits = (int)((longest + a->split_keys - 1) / a->split_keys);
  return a->splits > 1 ? blocks * a->splits * (s.head_dim + 2) : 0;
}

void nb_cuda_attention(cudaStream_t stream, const nb_attention_args *a) {
  const nb_attention_shape &s = a->shape;
  unsigned rows = (unsigned)(s.sequences * s.tokens), heads = (unsigned)s.heads;
  if (s.tokens <= FEW_TOKENS) {
    nb_launch_early(few_kernel, dim3((unsigned)a->splits, heads, rows), THREADS, WARPS * (s.head_dim + 2) * 4, stream,
                    *a);
    if (a->splits > 1) nb_launch_early(merge_kernel, dim3(heads, rows), THREADS, 0, stream, *a);
    return;
  }
  unsigned tiles = (unsigned)((s.tokens * (s.heads / s.kv_heads) + QUERIES - 1) / QUERIES);
  void (*kernel)(nb_attention_args) = s.head_dim <= 64    ? many_kernel<4>
                                      : s.head_dim <= 128 ? many_kernel<8>
                                                          : many_kernel<16>;
  nb_launch_early(kernel, dim3(tiles, (unsigned)s.kv_heads, (unsigned)s.sequences), THREADS, tile_bytes(s.head_dim),
                  stream, *a);
}
