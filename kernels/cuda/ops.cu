/* Norms, rotation, gates, sums, rows and log-probabilities. The specification of each is its namesake in kernels/ops.h
 * or kernels/backend.h; all arithmetic is float32, sums within a row in a fixed tree over the threads of its block. */
#include "kernels/cuda/ops.h"

#include <math.h>

enum {
  THREADS = 256,
  GATE_THREADS = 128, /* a few more multiprocessors to wait for memory where there is one token */
  MAX_THREADS = 1024,
  MAX_WARPS = MAX_THREADS / 32,
  MOST_QUADS = 4, /* of four floats, that a thread holds of a row */
};

/* The sum over a block, the same in every thread; `scratch` has MAX_WARPS floats that nothing else uses. */
static __device__ __forceinline__ float block_sum(float v, float *scratch) {
  int lane = (int)threadIdx.x % 32, warps = (int)blockDim.x / 32;
  v = nb_warp_sum(v);
  if (lane == 0) scratch[threadIdx.x / 32] = v;
  __syncthreads();
  return nb_warp_sum(lane < warps ? scratch[lane] : 0);
}

static int whole_warps(int64_t threads, int64_t most) {
  threads = (threads + 31) / 32 * 32;
  return (int)(threads < 32 ? 32 : threads > most ? most : threads);
}

/* ---- norms ------------------------------------------------------------------------------------------------------ */

typedef struct norm_args {
  const float *x, *weight, *bias;
  float *out;
  int64_t width;
  float share; /* 1 / width */
  float eps;
  bool centred; /* layernorm */
} norm_args;

/* Rows of any width, and layernorm. */
static __global__ void norm_kernel(const __grid_constant__ norm_args a) {
  nb_let_next_start();
  nb_wait_for_previous();
  float *scratch = (float *)nb_shared();
  const float *x = a.x + blockIdx.x * a.width;
  float *out = a.out + blockIdx.x * a.width;
  float mean = 0, squares = 0;
  if (a.centred) {
    float sum = 0;
    for (int64_t i = threadIdx.x; i < a.width; i += blockDim.x) sum += x[i];
    mean = block_sum(sum, scratch) * a.share;
  }
  for (int64_t i = threadIdx.x; i < a.width; i += blockDim.x) {
    float v = x[i] - mean;
    squares = fmaf(v, v, squares);
  }
  float scale = nb_inverse_root(fmaf(block_sum(squares, scratch + MAX_WARPS), a.share, a.eps));
  for (int64_t i = threadIdx.x; i < a.width; i += blockDim.x)
    out[i] = (x[i] - mean) * scale * a.weight[i] + (a.bias ? a.bias[i] : 0);
}

/* An rmsnorm whose row the block's registers hold, QUADS times four floats a thread: memory is waited for once. The
 * weights are nobody's output and come while the kernel before this one ends. */
template <int QUADS>
static __global__ void __launch_bounds__(MAX_THREADS) rmsnorm_kernel(const __grid_constant__ norm_args a) {
  nb_let_next_start();
  int quads = (int)a.width / 4, step = (int)blockDim.x;
  const float4 *x = (const float4 *)(a.x + blockIdx.x * a.width), *weight = (const float4 *)a.weight;
  float4 *out = (float4 *)(a.out + blockIdx.x * a.width);
  float4 v[QUADS], w[QUADS];
#pragma unroll
  for (int i = 0; i < QUADS; i++) {
    int at = (int)threadIdx.x + i * step;
    w[i] = at < quads ? weight[at] : make_float4(0, 0, 0, 0);
  }
  nb_wait_for_previous();
#pragma unroll
  for (int i = 0; i < QUADS; i++) {
    int at = (int)threadIdx.x + i * step;
    v[i] = at < quads ? x[at] : make_float4(0, 0, 0, 0);
  }
  float squares = 0;
#pragma unroll
  for (int i = 0; i < QUADS; i++)
    squares += fmaf(v[i].x, v[i].x, v[i].y * v[i].y) + fmaf(v[i].z, v[i].z, v[i].w * v[i].w);
  float scale = nb_inverse_root(fmaf(block_sum(squares, (float *)nb_shared()), a.share, a.eps));
#pragma unroll
  for (int i = 0; i < QUADS; i++) {
    int at = (int)threadIdx.x + i * step;
    if (at < quads)
      out[at] = make_float4(v[i].x * scale * w[i].x, v[i].y * scale * w[i].y, v[i].z * scale * w[i].z,
                            v[i].w * scale * w[i].w);
  }
}

/* Whether rows of `width` from p on can be read by four floats. */
static bool is_wide(const float *p, int64_t width) { return width % 4 == 0 && (uintptr_t)p % 16 == 0; }

static norm_args args_of(const nb_norm_args *n, bool centred) {
  return {n->x, n->weight, centred ? n->bias : NULL, n->out, n->width, 1.0f / (float)n->width, n->eps, centred};
}

void nb_cuda_rmsnorm(cudaStream_t stream, const nb_norm_args *n, int64_t rows) {
  norm_args a = args_of(n, false);
  void (*kernel)(norm_args) = norm_kernel;
  int64_t width = n->width, quads = width / 4,
          each = quads <= MAX_THREADS       ? 1
                 : quads <= 2 * MAX_THREADS ? 2
                                            : MOST_QUADS;
  int threads = whole_warps((quads + each - 1) / each, MAX_THREADS);
  if (is_wide(a.x, width) && is_wide(a.weight, width) && is_wide(a.out, width) && quads <= MOST_QUADS * MAX_THREADS)
    kernel = each == 1 ? rmsnorm_kernel<1> : each == 2 ? rmsnorm_kernel<2> : rmsnorm_kernel<MOST_QUADS>;
  nb_launch_early(kernel, dim3((unsigned)rows), threads, 2 * MAX_WARPS * 4, stream, a);
}

void nb_cuda_layernorm(cudaStream_t stream, const nb_norm_args *n, int64_t rows) {
  nb_launch_early(norm_kernel, dim3((unsigned)rows), whole_warps(n->width / 4, 512), 2 * MAX_WARPS * 4, stream,
                  args_of(n, true));
}

/* ---- rotation and the caches ------------------------------------------------------------------------------------ */

/* Block (row, part of its pairs): a thread turns the pair (i, i + half) of one head, those of the queries first. That
 * of a key also puts it, and the values beside it, into the caches. No kernel writes the position, the angles and the
 * table of pages that a launch sees, so that they are asked for at once. What does not turn goes by pairs too, of the
 * two halves that are left of the head; of an odd head_dim the last has no second. */
static __global__ void __launch_bounds__(THREADS) store_kernel(const __grid_constant__ nb_attention_args a) {
  nb_let_next_start();
  const nb_attention_shape &s = a.shape;
  int dim = (int)s.head_dim, half = (int)s.rotary_dim / 2, rest = (dim - 2 * half + 1) / 2, pairs = half + rest;
  int heads = half > 0 ? (int)s.heads : 0, all_heads = heads + (int)s.kv_heads;
  int pair = (int)(blockIdx.y * THREADS + threadIdx.x), head = pair / pairs, i = pair % pairs;
  bool is_key = head >= heads, turns = i < half;
  if (head >= all_heads || (!is_key && !turns)) {
    nb_wait_for_previous();
    return;
  }
  unsigned row = blockIdx.x, tokens = (unsigned)s.tokens, sequence = row / tokens;
  int64_t position = (a.start_at ? *a.start_at : s.start) + row % tokens;
  float c = 1, sine = 0;
  if (turns) c = a.cos[position * half + i], sine = a.sin[position * half + i];
  int low = turns ? i : half + i, to_high = turns ? half : rest;
  bool has_high = low + to_high < dim;
  float *key = is_key ? nb_kv_key(&a.pages, sequence, head - heads, position, s.head_dim) + low : NULL;
  int64_t at = (is_key ? row * s.kv_heads + head - heads : row * s.heads + head) * s.head_dim + low;
  float *from = (is_key ? a.k : a.q) + at;
  nb_wait_for_previous();
  float v = 0, w = 0;
  if (is_key) v = a.v[at], w = has_high ? a.v[at + to_high] : 0;
  float x = from[0], y = has_high ? from[to_high] : 0;
  if (turns) {
    float turned_x = x * c - y * sine, turned_y = y * c + x * sine;
    from[0] = x = turned_x, from[to_high] = y = turned_y;
  }
  if (!is_key) return;
  key[0] = x, key[a.pages.values] = v;
  if (has_high) key[to_high] = y, key[a.pages.values + to_high] = w;
}

void nb_cuda_store(cudaStream_t stream, const nb_attention_args *a) {
  const nb_attention_shape &s = a->shape;
  int64_t half = s.rotary_dim / 2, pairs = half + (s.head_dim - 2 * half + 1) / 2;
  int64_t threads = ((half > 0 ? s.heads : 0) + s.kv_heads) * pairs;
  dim3 blocks((unsigned)(s.sequences * s.tokens), (unsigned)((threads + THREADS - 1) / THREADS));
  nb_launch_early(store_kernel, blocks, THREADS, 0, stream, *a);
}

/* ---- elements and rows ------------------------------------------------------------------------------------------ */

typedef struct gate_args {
  nb_activation act;
  float *gate;
  const float *up; /* NULL: none */
  int64_t count;   /* of floats, or of fours */
} gate_args;

static __device__ __forceinline__ float activate(nb_activation act, float v) {
  switch (act) {
    case NB_ACT_SILU: return __fdividef(v, 1 + expf(-v)); /* a slower division would be a call */
    case NB_ACT_GELU: return 0.5f * v * (1 + erff(v * 0.70710678118654752f));
    case NB_ACT_GELU_TANH: return 0.5f * v * (1 + tanhf(0.79788456080286536f * (v + 0.044715f * v * v * v)));
    case NB_ACT_RELU: return v < 0 ? 0 : v;
    case NB_ACT_QUICK_GELU: return __fdividef(v, 1 + expf(-1.702f * v));
    default: return tanhf(v);
  }
}

static __global__ void __launch_bounds__(GATE_THREADS) gate_kernel(const __grid_constant__ gate_args a) {
  nb_let_next_start();
  nb_wait_for_previous();
  int64_t i = (int64_t)blockIdx.x * GATE_THREADS + threadIdx.x;
  if (i < a.count) a.gate[i] = activate(a.act, a.gate[i]) * (a.up ? a.up[i] : 1);
}

/* By fours. A template, so that the four are worked out side by side, which branches would not let them. */
template <nb_activation ACT>
static __global__ void __launch_bounds__(GATE_THREADS) wide_gate_kernel(const __grid_constant__ gate_args a) {
  nb_let_next_start();
  nb_wait_for_previous();
  int64_t i = (int64_t)blockIdx.x * GATE_THREADS + threadIdx.x;
  if (i >= a.count) return;
  float4 v = ((const float4 *)a.gate)[i], up = a.up ? ((const float4 *)a.up)[i] : make_float4(1, 1, 1, 1);
  ((float4 *)a.gate)[i] = make_float4(activate(ACT, v.x) * up.x, activate(ACT, v.y) * up.y, activate(ACT, v.z) * up.z,
                                      activate(ACT, v.w) * up.w);
}

void nb_cuda_gate(cudaStream_t stream, nb_activation act, float *gate, const float *up, int64_t count) {
  static void (*const by_fours[])(gate_args) = {/* in the order of nb_activation */
                                                wide_gate_kernel<NB_ACT_SILU>,       wide_gate_kernel<NB_ACT_GELU>,
                                                wide_gate_kernel<NB_ACT_GELU_TANH>,  wide_gate_kernel<NB_ACT_RELU>,
                                                wide_gate_kernel<NB_ACT_QUICK_GELU>, wide_gate_kernel<NB_ACT_TANH>};
  static_assert(sizeof by_fours / sizeof *by_fours == NB_ACTIVATIONS, "a kernel for each activation");
  bool wide = is_wide(gate, count) && is_wide(up, count); /* no up: wide too */
  gate_args a = {act, gate, up, wide ? count / 4 : count};
  nb_launch_early(wide ? by_fours[act] : gate_kernel, dim3((unsigned)((a.count + GATE_THREADS - 1) / GATE_THREADS)),
                  GATE_THREADS, 0, stream, a);
}

typedef struct add_args {
  float *y;
  const float *x;
  int64_t count;
} add_args;

static __global__ void __launch_bounds__(THREADS) add_kernel(const __grid_constant__ add_args a) {
  nb_let_next_start();
  nb_wait_for_previous();
  int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (i < a.count) a.y[i] += a.x[i];
}

void nb_cuda_add(cudaStream_t stream, float *y, const float *x, int64_t count) {
  add_args a = {y, x, count};
  nb_launch_early(add_kernel, dim3((unsigned)((count + THREADS - 1) / THREADS)), THREADS, 0, stream, a);
}

typedef struct scale_args {
  float *x, factor;
  int64_t count;
} scale_args;

static __global__ void __launch_bounds__(THREADS) scale_kernel(const __grid_constant__ scale_args a) {
  nb_let_next_start();
  nb_wait_for_previous();
  int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (i < a.count) a.x[i] *= a.factor;
}

void nb_cuda_scale(cudaStream_t stream, float *x, float factor, int64_t count) {
  scale_args a = {x, factor, count};
  nb_launch_early(scale_kernel, dim3((unsigned)((count + THREADS - 1) / THREADS)), THREADS, 0, stream, a);
}

typedef struct gather_args {
  const float *x;
  const int32_t *rows; /* NULL: each in its place */
  int64_t width, first, count;
  float *out;
} gather_args;

static __global__ void gather_kernel(const __grid_constant__ gather_args a) {
  nb_let_next_start();
  nb_wait_for_previous();
  int64_t row = a.rows ? a.rows[blockIdx.x] : (int64_t)blockIdx.x;
  const float *from = a.x + row * a.width + a.first;
  for (int64_t i = threadIdx.x; i < a.count; i += blockDim.x) a.out[blockIdx.x * a.count + i] = from[i];
}

void nb_cuda_gather(cudaStream_t stream, const float *x, const int32_t *rows, const nb_columns *c, float *out) {
  gather_args a = {x, rows, c->width, c->first, c->count, out};
  nb_launch_early(gather_kernel, dim3((unsigned)c->rows), THREADS, 0, stream, a);
}

typedef struct scatter_args {
  const float *x;
  nb_scatter to;
  int64_t each; /* rows of x that a block adds, one after the other */
  float *y;
} scatter_args;

/* Block (part of x's rows, part of the columns); a thread has one column. */
static __global__ void __launch_bounds__(THREADS) scatter_kernel(const __grid_constant__ scatter_args a) {
  nb_let_next_start();
  nb_wait_for_previous();
  int64_t column = (int64_t)blockIdx.y * THREADS + threadIdx.x, width = a.to.width, first = blockIdx.x * a.each;
  if (column >= width) return;
  for (int64_t i = first; i < first + a.each; i++)
    a.y[a.to.rows[i] * width + column] += a.to.weights[i] * a.x[i * width + column];
}

void nb_cuda_scatter_add(cudaStream_t stream, const float *x, const nb_scatter *to, bool at_once, float *y) {
  scatter_args a = {x, *to, at_once ? 1 : to->n, y};
  dim3 blocks((unsigned)(at_once ? to->n : 1), (unsigned)((to->width + THREADS - 1) / THREADS));
  nb_launch_early(scatter_kernel, blocks, THREADS, 0, stream, a);
}

typedef struct value_args {
  int64_t *at;
  int64_t value;
} value_args;

static __global__ void value_kernel(const __grid_constant__ value_args a) { *a.at = a.value; }

/* As a launch the value travels with the call; a copy would need memory that outlives it. */
void nb_cuda_set_value(cudaStream_t stream, int64_t *at, int64_t value) {
  value_args a = {at, value};
  nb_launch(value_kernel, dim3(1), 1, 0, stream, a);
}

/* ---- log-probabilities ------------------------------------------------------------------------------------------ */

typedef struct best {
  float value;
  int32_t index;
} best;

/* The larger, and of equals the first. */
static __device__ __forceinline__ best better(best a, best b) {
  return b.value > a.value || (b.value == a.value && b.index < a.index) ? b : a;
}

/* A block a row: the largest logit first, then the sum of exponentials in double. Shared: a best and a double for each
 * thread. */
static __global__ void log_prob_kernel(const __grid_constant__ nb_log_prob_args a) {
  double *sums = (double *)nb_shared();
  best *bests = (best *)(sums + THREADS);
  const float *row = a.logits + blockIdx.x * a.vocab;
  best mine = {-INFINITY, 0x7fffffff};
  for (int64_t i = threadIdx.x; i < a.vocab; i += THREADS) {
    best here = {row[i], (int32_t)i};
    mine = better(mine, here);
  }
  bests[threadIdx.x] = mine;
  for (int step = THREADS / 2; step > 0; step /= 2) {
    __syncthreads();
    if ((int)threadIdx.x < step) bests[threadIdx.x] = better(bests[threadIdx.x], bests[threadIdx.x + step]);
  }
  __syncthreads();
  best top = bests[0];
  double sum = 0;
  for (int64_t i = threadIdx.x; i < a.vocab; i += THREADS) sum += (double)expf(row[i] - top.value);
  sums[threadIdx.x] = sum;
  for (int step = THREADS / 2; step > 0; step /= 2) {
    __syncthreads();
    if ((int)threadIdx.x < step) sums[threadIdx.x] += sums[threadIdx.x + step];
  }
  if (threadIdx.x != 0) return;
  a.log_prob[blockIdx.x] = (double)row[a.targets[blockIdx.x]] - (double)top.value - log(sums[0]);
  if (a.argmax) a.argmax[blockIdx.x] = top.index;
}

void nb_cuda_log_probs(cudaStream_t stream, const nb_log_prob_args *a, int64_t n) {
  nb_launch(log_prob_kernel, dim3((unsigned)n), THREADS, THREADS * 16, stream, *a);
}
