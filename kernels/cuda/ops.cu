/* Norms, rotation, gates, rows and log-probabilities. The specification of each is its namesake in kernels/ops.h or
 * kernels/backend.h; all arithmetic is float32, sums within a row in a fixed tree over the threads of its block. */
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

void nb_cuda_rmsnorm(cudaStream_t stream, const float *x, const float *weight, int64_t rows, int64_t width, float eps,
                     float *out) {
  norm_args a = {x, weight, NULL, out, width, 1.0f / (float)width, eps, false};
  void (*kernel)(norm_args) = norm_kernel;
  int64_t quads = width / 4, each = quads <= MAX_THREADS ? 1 : quads <= 2 * MAX_THREADS ? 2 : MOST_QUADS;
  int threads = whole_warps((quads + each - 1) / each, MAX_THREADS);
  if (is_wide(x, width) && is_wide(weight, width) && is_wide(out, width) && quads <= MOST_QUADS * MAX_THREADS)
    kernel = each == 1 ? rmsnorm_kernel<1> : each == 2 ? rmsnorm_kernel<2> : rmsnorm_kernel<MOST_QUADS>;
  nb_launch_early(kernel, dim3((unsigned)rows), threads, 2 * MAX_WARPS * 4, stream, a);
}

void nb_cuda_layernorm(cudaStream_t stream, const float *x, const float *weight, const float *bias, int64_t rows,
                       int64_t width, float eps, float *out) {
  norm_args a = {x, weight, bias, out, width, 1.0f / (float)width, eps, true};
  nb_launch_early(norm_kernel, dim3((unsigned)rows), whole_warps(width / 4, 512), 2 * MAX_WARPS * 4, stream, a);
}

/* ---- rotation and the caches ------------------------------------------------------------------------------------ */

/* Block (row, part of its pairs): a thread turns the pair (i, i + half) of one head, those of the queries first. That
 * of a key also puts it, and the values beside it, into the caches. No kernel writes the position, the angles and the
 * table of pages that a launch sees, so that they are asked for at once. */
static __global__ void __launch_bounds__(THREADS) rotary_kernel(const __grid_constant__ nb_attention_args a) {
  nb_let_next_start();
  const nb_attention_shape &s = a.shape;
  int half = (int)s.head_dim / 2, heads = (int)s.heads, all_heads = heads + (int)s.kv_heads;
  int pair = (int)(blockIdx.y * THREADS + threadIdx.x), head = pair / half, i = pair % half;
  if (head >= all_heads) {
    nb_wait_for_previous();
    return;
  }
  unsigned row = blockIdx.x, tokens = (unsigned)s.tokens, sequence = row / tokens;
  bool is_key = head >= heads;
  int64_t position = (a.start_at ? *a.start_at : s.start) + row % tokens;
  float c = a.cos[position * half + i], sine = a.sin[position * half + i];
  float *key = is_key ? nb_kv_key(&a.pages, sequence, head - heads, position, s.head_dim) + i : NULL;
  int64_t at = is_key ? (row * s.kv_heads + head - heads) * s.head_dim + i : (row * s.heads + head) * s.head_dim + i;
  float *from = (is_key ? a.k : a.q) + at;
  nb_wait_for_previous();
  float v = 0, w = 0;
  if (is_key) v = a.v[at], w = a.v[at + half];
  float x = from[0], y = from[half];
  float turned_x = x * c - y * sine, turned_y = y * c + x * sine;
  from[0] = turned_x, from[half] = turned_y;
  if (!is_key) return;
  key[0] = turned_x, key[half] = turned_y;
  key[a.pages.values] = v, key[a.pages.values + half] = w;
}

void nb_cuda_rotary(cudaStream_t stream, const nb_attention_args *a) {
  int64_t rows = a->shape.sequences * a->shape.tokens;
  int64_t pairs = (a->shape.heads + a->shape.kv_heads) * (a->shape.head_dim / 2);
  dim3 blocks((unsigned)rows, (unsigned)((pairs + THREADS - 1) / THREADS));
  nb_launch_early(rotary_kernel, blocks, THREADS, 0, stream, *a);
}

/* ---- elements and rows ------------------------------------------------------------------------------------------ */

typedef struct gate_args {
  nb_activation act;
  float *gate;
  const float *up;
  int64_t count; /* of floats, or of fours */
} gate_args;

static __device__ __forceinline__ float activate(nb_activation act, float v) {
  if (act == NB_ACT_SILU) return __fdividef(v, 1 + expf(-v)); /* a slower division would be a call */
  if (act == NB_ACT_GELU) return 0.5f * v * (1 + erff(v * 0.70710678118654752f));
  return 0.5f * v * (1 + tanhf(0.79788456080286536f * (v + 0.044715f * v * v * v)));
}

static __global__ void __launch_bounds__(GATE_THREADS) gate_kernel(const __grid_constant__ gate_args a) {
  nb_let_next_start();
  nb_wait_for_previous();
  int64_t i = (int64_t)blockIdx.x * GATE_THREADS + threadIdx.x;
  if (i < a.count) a.gate[i] = activate(a.act, a.gate[i]) * a.up[i];
}

/* By fours. A template, so that the four are worked out side by side, which branches would not let them. */
template <nb_activation ACT>
static __global__ void __launch_bounds__(GATE_THREADS) wide_gate_kernel(const __grid_constant__ gate_args a) {
  nb_let_next_start();
  nb_wait_for_previous();
  int64_t i = (int64_t)blockIdx.x * GATE_THREADS + threadIdx.x;
  if (i >= a.count) return;
  float4 v = ((const float4 *)a.gate)[i], up = ((const float4 *)a.up)[i];
  ((float4 *)a.gate)[i] = make_float4(activate(ACT, v.x) * up.x, activate(ACT, v.y) * up.y, activate(ACT, v.z) * up.z,
                                      activate(ACT, v.w) * up.w);
}

void nb_cuda_gate(cudaStream_t stream, nb_activation act, float *gate, const float *up, int64_t count) {
  bool wide = is_wide(gate, count) && is_wide(up, count);
  void (*kernel)(gate_args) = !wide                ? gate_kernel
                              : act == NB_ACT_SILU ? wide_gate_kernel<NB_ACT_SILU>
                              : act == NB_ACT_GELU ? wide_gate_kernel<NB_ACT_GELU>
                                                   : wide_gate_kernel<NB_ACT_GELU_TANH>;
  gate_args a = {act, gate, up, wide ? count / 4 : count};
  nb_launch_early(kernel, dim3((unsigned)((a.count + GATE_THREADS - 1) / GATE_THREADS)), GATE_THREADS, 0, stream, a);
}

typedef struct gather_args {
  const float *x;
  const int32_t *rows;
  int64_t width;
  float *out;
} gather_args;

static __global__ void gather_kernel(const __grid_constant__ gather_args a) {
  nb_let_next_start();
  nb_wait_for_previous();
  const float *from = a.x + a.rows[blockIdx.x] * a.width;
  for (int64_t i = threadIdx.x; i < a.width; i += blockDim.x) a.out[blockIdx.x * a.width + i] = from[i];
}

void nb_cuda_gather(cudaStream_t stream, const float *x, const int32_t *rows, int64_t n, int64_t width, float *out) {
  gather_args a = {x, rows, width, out};
  nb_launch_early(gather_kernel, dim3((unsigned)n), THREADS, 0, stream, a);
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

typedef struct log_prob_args {
  const float *logits;
  const int32_t *targets;
  int64_t vocab;
  double *log_prob;
  int32_t *argmax; /* NULL: not wanted */
} log_prob_args;

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
static __global__ void log_prob_kernel(const __grid_constant__ log_prob_args a) {
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

void nb_cuda_log_probs(cudaStream_t stream, const float *logits, const int32_t *targets, int64_t n, int64_t vocab,
                       double *log_prob, int32_t *argmax) {
  log_prob_args a = {logits, targets, vocab, log_prob, argmax};
  nb_launch(log_prob_kernel, dim3((unsigned)n), THREADS, THREADS * 16, stream, a);
}
