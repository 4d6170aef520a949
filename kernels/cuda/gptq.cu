/* Compiled without fused multiply-adds: grids and codes are those of quant/grid.c and quant/gptq.c, bit for bit. */
#include "kernels/cuda/gptq.h"

#include <math.h>
#include <stdlib.h>

extern "C" {
#include "kernels/backend.h"
}
#include "kernels/cuda/device.h"
#include "kernels/cuda/gptq_libraries.h"
#include "kernels/cuda/memory.h"

enum {
  WARPS = 8,
  THREADS = WARPS * 32,
  SHRINK_STEPS = 100,
  SHRINK_TRIED = 80,
  SUM_LANES = 8,
  WEIGHED = 3,
  BAND = 1024
};

/* ---- grids, as in quant/grid.c ---------------------------------------------------------------------------------- */

typedef struct grid_kind {
  int bits;
  bool sym, mse, bf16_scales;
} grid_kind;

typedef struct grid {
  float scale, zero, max_code;
  uint32_t scale_bits;
  bool was_mended;
} grid;

static __device__ __forceinline__ float round_even(float x) { return (x + 12582912.0f) - 12582912.0f; }

static __device__ __forceinline__ uint32_t to_bf16(float v) {
  uint32_t u = __float_as_uint(v);
  return (u + 0x7fffu + (u >> 16 & 1u)) >> 16;
}

static __device__ __forceinline__ grid span(const grid_kind &k, float low, float high) {
  grid g;
  g.max_code = (float)((1 << k.bits) - 1);
  float scale = (high - low) / g.max_code;
  float least = k.bf16_scales ? 0x1p-60f : 0x1p-14f, most = k.bf16_scales ? 0x1p60f : 65504.0f;
  g.was_mended = !(scale >= least && scale <= most);
  scale = scale >= least ? scale : least;
  scale = scale <= most ? scale : most;
  g.scale_bits = k.bf16_scales ? to_bf16(scale) : nb_pair_f16(scale, 0) & 0xffffu;
  g.scale = k.bf16_scales ? nb_bits_float(g.scale_bits << 16) : nb_half_to_float(g.scale_bits);
  if (k.sym) {
    g.zero = (float)(1 << (k.bits - 1));
  } else {
    float zero = round_even(fminf(-low / g.scale, 1024));
    g.zero = zero > g.max_code ? g.max_code : zero;
  }
  return g;
}

static __device__ __forceinline__ float code_of(const grid &g, float w) {
  float steps = w / g.scale;
  steps = steps < -1024 ? -1024 : steps;
  steps = steps > 1024 ? 1024 : steps;
  float code = round_even(steps) + g.zero;
  code = code < 0 ? 0 : code;
  return code > g.max_code ? g.max_code : code;
}

static __device__ __forceinline__ float value_of(const grid &g, float code) { return g.scale * (code - g.zero); }

static __device__ __forceinline__ void find_range(const grid_kind &k, const float *w, int64_t n, float *low,
                                                  float *high) {
  float lo = 0, hi = 0;
  for (int64_t i = threadIdx.x % 32; i < n; i += 32) {
    float v = w[i];
    lo = v < lo ? v : lo;
    hi = v > hi ? v : hi;
  }
  lo = -nb_warp_max(-lo), hi = nb_warp_max(hi);
  if (k.sym) {
    hi = hi > -lo ? hi : -lo;
    lo = -hi;
  }
  if (lo == 0 && hi == 0) lo = -1, hi = 1;
  *low = lo, *high = hi;
}

/* The squared error in eight sums, one for each lane of a quarter of the warp; all eight get it. */
static __device__ __forceinline__ float grid_error(const grid &g, const float *w, int64_t n, const float *importance) {
  int lane = (int)threadIdx.x % SUM_LANES;
  float inverse = 1 / g.scale, least = -g.zero, most = g.max_code - g.zero, sum = 0;
  int64_t even = n / SUM_LANES * SUM_LANES;
  for (int64_t i = lane; i < n; i = i < even || lane > 0 ? i + SUM_LANES : i + 1) {
    if (i >= even && lane > 0) break; /* what is left over belongs to the first sum */
    float v = w[i], steps = v * inverse;
    steps = steps < least ? least : steps;
    steps = steps > most ? most : steps;
    float d = v - g.scale * round_even(steps);
    d *= d;
    sum += importance ? d * importance[i] : d;
  }
  for (int step = 1; step < SUM_LANES; step *= 2) sum += __shfl_xor_sync(NB_WARP, sum, step);
  return sum;
}

/* The grid for n weights; each quarter of the warp tries another range. */
static __device__ __forceinline__ grid fit(const grid_kind &k, const float *w, int64_t n, const float *importance) {
  float low, high, least_error = INFINITY, best_part = 1;
  find_range(k, w, n, &low, &high);
  if (!k.mse) return span(k, low, high);
  for (int i = 0; i < SHRINK_TRIED; i += 32 / SUM_LANES) {
    float part = 1 - (float)(i + (int)threadIdx.x % 32 / SUM_LANES) / SHRINK_STEPS;
    float error = grid_error(span(k, low * part, high * part), w, n, importance);
    for (int q = 0; q < 32 / SUM_LANES; q++) {
      float of_quarter = __shfl_sync(NB_WARP, error, q * SUM_LANES);
      if (of_quarter < least_error) least_error = of_quarter, best_part = 1 - (float)(i + q) / SHRINK_STEPS;
    }
  }
  /* With no error that is a number, the CPU keeps the whole range as well. */
  return span(k, low * best_part, high * best_part);
}

/* ---- rounding --------------------------------------------------------------------------------------------------- */

typedef struct round_args {
  grid_kind kind;
  int64_t rows, n, begin, end, group_size;
  const float *source;
  float *w; /* [rows, n] by place */
  const int32_t *column, *group;
  const uint8_t *dead;
  const float *upper, *importance;
  float *errors;  /* [rows, NB_GPTQ_BLOCK] */
  float *carried; /* [rows, 2]: scale and zero point of the group that goes on */
  uint8_t *codes, *zeros;
  uint16_t *scales;
  unsigned long long *mended;
} round_args;

static __global__ void order_kernel(const __grid_constant__ round_args a) {
  int64_t row = blockIdx.x, j = (int64_t)blockIdx.y * blockDim.x + threadIdx.x;
  if (j >= a.n) return;
  int32_t column = a.column[j];
  a.w[row * a.n + j] = a.dead[column] ? 0 : a.source[row * a.n + column];
}

static __device__ __forceinline__ int64_t end_of_group(const round_args &a, int64_t j) {
  int64_t stop = j + 1;
  while (stop < a.n && a.group[stop] == a.group[j]) stop++;
  return stop;
}

/* Places [begin, end) of a row by one warp, which has them in shared memory: one after the other is rounded, and its
 * error taken out of those after it. Grids are fitted to the weights as they were before. */
static __global__ void __launch_bounds__(THREADS) round_kernel(const __grid_constant__ round_args a) {
  int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
  int64_t row = (int64_t)blockIdx.x * WARPS + warp, count = a.end - a.begin;
  if (row >= a.rows) return;
  float *near_ones = (float *)nb_shared() + warp * NB_GPTQ_BLOCK, *w = a.w + row * a.n;
  for (int64_t k = lane; k < count; k += 32) near_ones[k] = w[a.begin + k];
  __syncwarp();
  grid g = span(a.kind, -1, 1);
  g.scale = a.carried[row * 2], g.zero = a.carried[row * 2 + 1];
  for (int64_t k = 0; k < count; k++) {
    int64_t j = a.begin + k;
    if (j == 0 || a.group[j] != a.group[j - 1]) {
      g = fit(a.kind, w + j, end_of_group(a, j) - j, a.importance ? a.importance + j : NULL);
      if (lane == 0) {
        a.scales[a.group[j] * a.rows + row] = (uint16_t)g.scale_bits;
        a.zeros[a.group[j] * a.rows + row] = (uint8_t)g.zero;
        a.mended[row] += g.was_mended;
      }
    }
    const float *u = a.upper + j * a.n + j;
    float v = near_ones[k], code = code_of(g, v), error = (value_of(g, code) - v) / u[0];
    if (lane == 0) {
      a.codes[row * a.n + a.column[j]] = (uint8_t)code;
      a.errors[row * NB_GPTQ_BLOCK + k] = error;
    }
    for (int64_t i = k + 1 + lane; i < count; i += 32) near_ones[i] += error * u[i - k];
    __syncwarp();
  }
  if (lane == 0) a.carried[row * 2] = g.scale, a.carried[row * 2 + 1] = g.zero;
}

/* ---- what it cost ----------------------------------------------------------------------------------------------- */

typedef struct error_args {
  round_args round;
  const int32_t *group_of_column;
  int64_t first, rows; /* of the band */
  float *d, *product;  /* [WEIGHED * rows, n]: errors, those of rounding to the nearest, the weights */
  double *sums;        /* [all rows, NB_GPTQ_SUMS] */
} error_args;

static __device__ __forceinline__ double warp_sum(double v) {
  for (int step = 16; step > 0; step /= 2) v += __shfl_xor_sync(NB_WARP, v, step);
  return v;
}

/* A warp has a row: its errors, and those that rounding to the nearest would make, on grids of least and largest. */
static __global__ void __launch_bounds__(THREADS) error_kernel(const __grid_constant__ error_args a) {
  const round_args &r = a.round;
  int lane = (int)threadIdx.x % 32;
  int64_t in_band = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32, row = a.first + in_band, n = r.n;
  if (in_band >= a.rows) return;
  const float *source = r.source + row * n;
  float *d = a.d + in_band * n, *nearest = d + a.rows * n, *copy = nearest + a.rows * n;
  double error = 0, squares = 0;
  for (int64_t c = lane; c < n; c += 32) {
    int64_t at = a.group_of_column[c] * r.rows + row;
    float scale = r.kind.bf16_scales ? nb_bits_float((uint32_t)r.scales[at] << 16) : nb_half_to_float(r.scales[at]);
    float v = source[c], miss = v - scale * (float)((int)r.codes[row * n + c] - (int)r.zeros[at]);
    d[c] = miss, copy[c] = v;
    error += (double)miss * (double)miss;
    squares += (double)v * (double)v;
  }
  grid_kind plain = r.kind;
  plain.mse = false;
  for (int64_t i = 0; i < n; i += r.group_size) {
    int64_t count = n - i < r.group_size ? n - i : r.group_size;
    grid g = fit(plain, source + i, count, NULL);
    for (int64_t k = lane; k < count; k += 32) nearest[i + k] = source[i + k] - value_of(g, code_of(g, source[i + k]));
  }
  error = warp_sum(error), squares = warp_sum(squares);
  if (lane == 0) a.sums[row * NB_GPTQ_SUMS + 3] = error, a.sums[row * NB_GPTQ_SUMS + 4] = squares;
}

/* sums[row][s] = d . product for row number s * rows + row of both. */
static __global__ void __launch_bounds__(THREADS) dot_kernel(const __grid_constant__ error_args a) {
  int lane = (int)threadIdx.x % 32;
  int64_t i = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
  if (i >= WEIGHED * a.rows) return;
  double sum = 0;
  for (int64_t k = lane; k < a.round.n; k += 32)
    sum += (double)a.d[i * a.round.n + k] * (double)a.product[i * a.round.n + k];
  sum = warp_sum(sum);
  if (lane == 0) a.sums[(a.first + i % a.rows) * NB_GPTQ_SUMS + i / a.rows] = sum;
}

typedef struct identity_args {
  double *a;
  int64_t n;
} identity_args;

static __global__ void identity_kernel(const __grid_constant__ identity_args a) {
  int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (i < a.n * a.n) a.a[i] = i / a.n == i % a.n ? 1 : 0;
}

/* ---- the host's side -------------------------------------------------------------------------------------------- */

/* cuBLAS' and cuSOLVER's handles and their stream. To make them costs more than a small layer's solve, so they are
 * made once, for all Hessians; they remember nothing of one call in the next. */
static nb_gptq_libraries libraries;

struct nb_cuda_hessian {
  float *sum; /* [n, n], cuBLAS' lower triangle: the upper one of rows */
  int64_t n;
};

enum { MOST_BLOCKS = 24 };

/* Device memory of one call, given back all at once; the first failure stays. */
typedef struct call {
  void *blocks[MOST_BLOCKS];
  int count;
  cudaError_t code;
  bool no_memory, no_library;
} call;

static void *take(call *c, int64_t bytes) {
  void *p = nb_device_alloc((uint64_t)bytes);
  if (!p) c->no_memory = true;
  return c->blocks[c->count++] = p;
}

static bool is_fine(const call *c) { return c->code == cudaSuccess && !c->no_memory && !c->no_library; }

static void copy(call *c, void *to, const void *from, int64_t bytes, cudaMemcpyKind kind) {
  if (is_fine(c)) c->code = cudaMemcpyAsync(to, from, (size_t)bytes, kind, libraries.stream);
}

/* A copy of the host's, or zeros where that is NULL. */
static void *bring(call *c, const void *from, int64_t bytes) {
  void *to = take(c, bytes);
  if (from) {
    copy(c, to, from, bytes, cudaMemcpyHostToDevice);
  } else if (is_fine(c)) {
    c->code = cudaMemsetAsync(to, 0, (size_t)bytes, libraries.stream);
  }
  return to;
}

static nibble_status end_call(call *c, nibble_error *err) {
  if (is_fine(c)) c->code = cudaStreamSynchronize(libraries.stream);
  if (c->code == cudaSuccess) c->code = cudaGetLastError();
  for (int i = 0; i < c->count; i++) nb_device_free(c->blocks[i]);
  if (c->no_memory) return nb_fail(err, NIBBLE_SYSTEM, "CUDA: no device memory for GPTQ");
  if (c->no_library) return nb_fail(err, NIBBLE_SYSTEM, "CUDA: cuBLAS or cuSOLVER failed in GPTQ");
  if (c->code != cudaSuccess) return nb_fail(err, NIBBLE_SYSTEM, "CUDA: GPTQ: %s", cudaGetErrorString(c->code));
  return NIBBLE_OK;
}

nibble_status nb_cuda_hessian_create(nb_cuda_hessian **out, int64_t n, nibble_error *err) {
  *out = NULL;
  if (!nb_backend_cuda(err)) return NIBBLE_SYSTEM;
  if (!nb_gptq_libraries_open(&libraries))
    return nb_fail(err, NIBBLE_SYSTEM, "no cuBLAS or no cuSOLVER, which GPTQ on a GPU needs");
  nb_cuda_hessian *h = (nb_cuda_hessian *)calloc(1, sizeof *h);
  if (!h) return nb_fail_memory(err, sizeof *h);
  h->n = n;
  h->sum = (float *)nb_device_alloc((uint64_t)(n * n) * sizeof(float));
  if (!h->sum) {
    nb_cuda_hessian_free(h);
    return nb_fail(err, NIBBLE_SYSTEM, "CUDA: no device memory for a Hessian of %lld columns", (long long)n);
  }
  call c = {};
  c.code = cudaMemsetAsync(h->sum, 0, (size_t)(n * n) * sizeof(float), libraries.stream);
  nibble_status status = end_call(&c, err);
  if (status == NIBBLE_OK) {
    *out = h;
  } else {
    nb_cuda_hessian_free(h);
  }
  return status;
}

/* Every call ends with the stream empty: nothing that is queued reads the sum. */
void nb_cuda_hessian_free(nb_cuda_hessian *h) {
  if (!h) return;
  nb_device_free(h->sum);
  free(h);
}

nibble_status nb_cuda_hessian_add(nb_cuda_hessian *h, const float *x, int64_t rows, int64_t ldx, nibble_error *err) {
  call c = {};
  float *there = (float *)bring(&c, x, ((rows - 1) * ldx + h->n) * (int64_t)sizeof *x);
  if (is_fine(&c)) c.no_library = !nb_gptq_add_gram(&libraries, there, rows, ldx, h->n, h->sum);
  return end_call(&c, err);
}

nibble_status nb_cuda_hessian_sum(const nb_cuda_hessian *h, float *out, nibble_error *err) {
  call c = {};
  copy(&c, out, h->sum, h->n * h->n * (int64_t)sizeof *out, cudaMemcpyDeviceToHost);
  return end_call(&c, err);
}

nibble_status nb_cuda_hessian_factorize(const nb_cuda_hessian *h, double *a, bool *is_definite, nibble_error *err) {
  int64_t n = h->n, bytes = n * n * (int64_t)sizeof *a;
  call c = {};
  identity_args id = {};
  *is_definite = false;
  double *l = (double *)bring(&c, a, bytes), *inverse = (double *)take(&c, bytes);
  id.a = inverse, id.n = n;
  int64_t room = is_fine(&c) ? nb_gptq_cholesky_room(&libraries, l, n) : 0;
  double *work = (double *)take(&c, room * (int64_t)sizeof *work + 8);
  int *info = (int *)take(&c, sizeof *info), failed = 0;
  if (is_fine(&c)) c.no_library = room < 0 || !nb_gptq_cholesky(&libraries, l, n, work, room, info);
  copy(&c, &failed, info, sizeof failed, cudaMemcpyDeviceToHost);
  if (is_fine(&c)) c.code = cudaStreamSynchronize(libraries.stream);
  if (is_fine(&c) && failed == 0) {
    nb_launch(identity_kernel, dim3((unsigned)((n * n + 255) / 256)), 256, 0, libraries.stream, id);
    c.no_library = !nb_gptq_divide(&libraries, l, n, inverse);
    copy(&c, a, inverse, bytes, cudaMemcpyDeviceToHost);
  }
  nibble_status status = end_call(&c, err);
  *is_definite = status == NIBBLE_OK && failed == 0;
  return status;
}

static unsigned blocks_for(int64_t warps) { return (unsigned)((warps + WARPS - 1) / WARPS); }

/* All columns, a block of them at a time. */
static void round_all(call *c, round_args a) {
  cudaStream_t stream = libraries.stream;
  nb_launch(order_kernel, dim3((unsigned)a.rows, (unsigned)((a.n + 255) / 256)), 256, 0, stream, a);
  for (a.begin = 0; a.begin < a.n && is_fine(c); a.begin = a.end) {
    a.end = a.begin + NB_GPTQ_BLOCK < a.n ? a.begin + NB_GPTQ_BLOCK : a.n;
    nb_launch(round_kernel, dim3(blocks_for(a.rows)), THREADS, WARPS * NB_GPTQ_BLOCK * 4, stream, a);
    if (a.end == a.n) continue;
    nb_gptq_rounded r = {a.rows, a.n, a.begin, a.end, a.errors, NB_GPTQ_BLOCK, a.upper, a.w};
    c->no_library = !nb_gptq_update(&libraries, &r);
  }
}

static void weigh_all(call *c, const nb_cuda_hessian *h, error_args a, int64_t rows) {
  cudaStream_t stream = libraries.stream;
  int64_t band = rows < BAND ? rows : (int64_t)BAND;
  a.d = (float *)take(c, WEIGHED * band * a.round.n * (int64_t)sizeof(float));
  a.product = (float *)take(c, WEIGHED * band * a.round.n * (int64_t)sizeof(float));
  for (a.first = 0; a.first < rows && is_fine(c); a.first += band) {
    a.rows = rows - a.first < band ? rows - a.first : band;
    nb_launch(error_kernel, dim3(blocks_for(a.rows)), THREADS, 0, stream, a);
    c->no_library = !nb_gptq_times_gram(&libraries, h->sum, h->n, a.d, WEIGHED * a.rows, a.product);
    nb_launch(dot_kernel, dim3(blocks_for(WEIGHED * a.rows)), THREADS, 0, stream, a);
  }
}

nibble_status nb_cuda_gptq_solve(const nb_cuda_hessian *h, const nb_cuda_gptq_layer *l, nibble_error *err) {
  int64_t rows = l->rows, n = h->n, per_group = l->groups * rows;
  call c = {};
  error_args e = {};
  round_args &a = e.round;
  a.kind.bits = l->bits, a.kind.sym = l->sym, a.kind.mse = l->mse, a.kind.bf16_scales = l->bf16_scales;
  a.rows = rows, a.n = n, a.group_size = l->group_size;
  a.source = (const float *)bring(&c, l->w, rows * n * 4);
  a.column = (const int32_t *)bring(&c, l->column, n * 4);
  a.group = (const int32_t *)bring(&c, l->group, n * 4);
  a.dead = (const uint8_t *)bring(&c, l->dead, n);
  a.upper = (const float *)bring(&c, l->upper, n * n * 4);
  if (l->importance) a.importance = (const float *)bring(&c, l->importance, n * 4);
  a.w = (float *)take(&c, rows * n * 4);
  a.errors = (float *)take(&c, rows * NB_GPTQ_BLOCK * 4);
  a.carried = (float *)bring(&c, NULL, rows * 2 * 4);
  a.codes = (uint8_t *)take(&c, rows * n);
  a.scales = (uint16_t *)take(&c, per_group * 2);
  a.zeros = (uint8_t *)take(&c, per_group);
  a.mended = (unsigned long long *)bring(&c, NULL, rows * 8);
  e.sums = (double *)bring(&c, NULL, rows * NB_GPTQ_SUMS * 8);
  /* By column what `group` is by place. */
  int32_t *group_of_column = (int32_t *)malloc((size_t)n * sizeof *group_of_column);
  if (!group_of_column) c.no_memory = true;
  for (int64_t j = 0; group_of_column && j < n; j++) group_of_column[l->column[j]] = l->group[j];
  e.group_of_column = (const int32_t *)bring(&c, group_of_column, n * 4);
  if (is_fine(&c)) round_all(&c, a);
  if (is_fine(&c)) weigh_all(&c, h, e, rows);
  copy(&c, l->codes, a.codes, rows * n, cudaMemcpyDeviceToHost);
  copy(&c, l->scales, a.scales, per_group * 2, cudaMemcpyDeviceToHost);
  copy(&c, l->zeros, a.zeros, per_group, cudaMemcpyDeviceToHost);
  copy(&c, l->mended, a.mended, rows * 8, cudaMemcpyDeviceToHost);
  copy(&c, l->sums, e.sums, rows * NB_GPTQ_SUMS * 8, cudaMemcpyDeviceToHost);
  nibble_status status = end_call(&c, err);
  free(group_of_column);
  return status;
}
