/* Norms, rotation, gates, rows and log-probabilities. The specification of each is its namesake in kernels/ops.h or
 * kernels/backend.h; all arithmetic is float32, sums within a row in a fixed tree over the threads of its block. */
#include "kernels/cuda/ops.h"

#include <math.h>

enum { THREADS = 256, MAX_WARPS = 32 };

/* The sum over a block, the same in every thread; `scratch` has MAX_WARPS floats. */
static __device__ __forceinline__ float block_sum(float v, float *scratch) {
  v = nb_warp_sum(v);
  int warp = (int)threadIdx.x / 32, warps = (int)blockDim.x / 32;
  __syncthreads(); /* scratch may still be read from the last time */
  if (threadIdx.x % 32 == 0) scratch[warp] = v;
  __syncthreads();
  float sum = 0;
  for (int i = 0; i < warps; i++) sum += scratch[i];
  return sum;
}

/* Threads for rows of `width`: some elements each, whole warps. */
static int threads_for(int64_t width) {
  int64_t threads = (width / 4 + 31) / 32 * 32;
  return (int)(threads < 32 ? 32 : threads > 512 ? 512 : threads);
}

/* ---- norms ------------------------------------------------------------------------------------------------------ */

typedef struct norm_args {
  const float *x, *weight, *bias;
  float *out;
  int64_t width;
  float eps;
  bool centred; /* layernorm */
} norm_args;

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
    mean = block_sum(sum, scratch) / (float)a.width;
  }
  for (int64_t i = threadIdx.x; i < a.width; i += blockDim.x) {
    float v = x[i] - mean;
    squares = fmaf(v, v, squares);
  }
  float scale = 1.0f / sqrtf(block_sum(squares, scratch) / (float)a.width + a.eps);
  for (int64_t i = threadIdx.x; i < a.width; i += blockDim.x)
    out[i] = (x[i] - mean) * scale * a.weight[i] + (a.bias ? a.bias[i] : 0);
}

void nb_cuda_rmsnorm(cudaStream_t stream, const float *x, const float *weight, int64_t rows, int64_t width, float eps,
                     float *out) {
  norm_args a = {x, weight, NULL, out, width, eps, false};
  nb_launch_early(norm_kernel, dim3((unsigned)rows), threads_for(width), MAX_WARPS * 4, stream, a);
}

void nb_cuda_layernorm(cudaStream_t stream, const float *x, const float *weight, const float *bias, int64_t rows,
                       int64_t width, float eps, float *out) {
  norm_args a = {x, weight, bias, out, width, eps, true};
  nb_launch_early(norm_kernel, dim3((unsigned)rows), threads_for(width), MAX_WARPS * 4, stream, a);
}

/* ---- rotation and the caches ------------------------------------------------------------------------------------ */

/* Turns the pair (i, i + half) of a head. */
static __device__ __forceinline__ void rotate(float *head, int64_t i, int64_t half, float c, float s) {
  float a = head[i], b = head[i + half];
  head[i] = a * c - b * s;
  head[i + half] = b * c + a * s;
}

/* A block is a row (a token of a sequence); its threads go over the pairs of all query and key heads. The thread that
 * turns a pair of a key also puts it, and the values beside it, into the caches. */
static __global__ void rotary_kernel(const __grid_constant__ nb_attention_args a) {
  nb_let_next_start();
  nb_wait_for_previous();
  const nb_attention_shape &s = a.shape;
  int64_t row = blockIdx.x, sequence = row / s.tokens, half = s.head_dim / 2;
  int64_t position = (a.start_at ? *a.start_at : s.start) + row % s.tokens;
  const float *cos = a.cos + position * half, *sin = a.sin + position * half;
  for (int64_t i = threadIdx.x; i < s.heads * half; i += blockDim.x)
    rotate(a.q + (row * s.heads + i / half) * s.head_dim, i % half, half, cos[i % half], sin[i % half]);
  for (int64_t i = threadIdx.x; i < s.kv_heads * half; i += blockDim.x) {
    int64_t head = i / half, at = i % half;
    float *k = a.k + (row * s.kv_heads + head) * s.head_dim;
    const float *v = a.v + (row * s.kv_heads + head) * s.head_dim;
    rotate(k, at, half, cos[at], sin[at]);
    float *key = nb_kv_key(&a.pages, sequence, head, position, s.head_dim), *value = key + a.pages.values;
    key[at] = k[at], key[at + half] = k[at + half];
    value[at] = v[at], value[at + half] = v[at + half];
  }
}

void nb_cuda_rotary(cudaStream_t stream, const nb_attention_args *a) {
  int64_t rows = a->shape.sequences * a->shape.tokens;
  nb_launch_early(rotary_kernel, dim3((unsigned)rows), THREADS, 0, stream, *a);
}

/* ---- elements and rows ------------------------------------------------------------------------------------------ */

typedef struct gate_args {
  nb_activation act;
  float *gate;
  const float *up;
  int64_t count;
} gate_args;

static __device__ __forceinline__ float activate(nb_activation act, float v) {
  if (act == NB_ACT_SILU) return v / (1 + expf(-v));
  if (act == NB_ACT_GELU) return 0.5f * v * (1 + erff(v * 0.70710678118654752f));
  return 0.5f * v * (1 + tanhf(0.79788456080286536f * (v + 0.044715f * v * v * v)));
}

static __global__ void gate_kernel(const __grid_constant__ gate_args a) {
  nb_let_next_start();
  nb_wait_for_previous();
  int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (i < a.count) a.gate[i] = activate(a.act, a.gate[i]) * a.up[i];
}

void nb_cuda_gate(cudaStream_t stream, nb_activation act, float *gate, const float *up, int64_t count) {
  gate_args a = {act, gate, up, count};
  nb_launch_early(gate_kernel, dim3((unsigned)((count + THREADS - 1) / THREADS)), THREADS, 0, stream, a);
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
