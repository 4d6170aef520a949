/* Compiled without fused multiply-adds: every rounding here is one of the scalar version's, in its order. */
#include "kernels/cuda/quantize.h"

#include <math.h>
#include <stdlib.h>

extern "C" {
#include "base/checked.h"
#include "kernels/cpu/quantize_cpu.h"
}
#include "kernels/cuda/device.h"

enum { THREADS = 128, GROUP = NB_SUM_LANES, GROUPS = THREADS / GROUP };

typedef struct quantize_args {
  nb_levels levels;
  nb_dtype dtype;
  const void *src;
  int64_t n, block_size; /* int8: all weights, and those of a row */
  bool nested;
  uint8_t *codes;
  float *absmax; /* int8: scb */
  nb_block_sums *sums;
  unsigned long long *bad; /* ~0: none */
} quantize_args;

static __device__ __forceinline__ float read_weight(const quantize_args &a, int64_t i) {
  if (a.dtype == NB_F32) return ((const float *)a.src)[i];
  uint32_t bits = ((const uint16_t *)a.src)[i];
  return a.dtype == NB_F16 ? nb_half_to_float(bits) : nb_bits_float(bits << 16);
}

static __device__ __forceinline__ float round_half(float v) { return nb_half_to_float(nb_pair_f16(v, 0) & 0xffffu); }

static __device__ __forceinline__ bool is_finite(float v) { return (__float_as_uint(v) & 0x7f800000u) != 0x7f800000u; }

/* Lanes i and i + 8, then i and i + 4, ...: each sum ends in all lanes of the group. Both halves of a warp do this. */
static __device__ __forceinline__ float sum_group(float v) {
  for (int step = GROUP / 2; step > 0; step /= 2) v += __shfl_xor_sync(NB_WARP, v, step);
  return v;
}

static __device__ __forceinline__ float max_group(float v) {
  for (int step = GROUP / 2; step > 0; step /= 2) v = fmaxf(v, __shfl_xor_sync(NB_WARP, v, step));
  return v;
}

static __device__ __forceinline__ int rank_of(const nb_levels &levels, float v) {
  int path = 0;
  for (int level = 0; level < 4; level++) path = 2 * path + (v > levels.tree[level][path]);
  return path;
}

typedef struct lane_sums {
  float squares, error, cross, code_squares;
} lane_sums;

/* One weight: its code, and its part of the sums. */
static __device__ __forceinline__ uint32_t encode(const quantize_args &a, float v, lane_sums *s) {
  int rank = rank_of(a.levels, v);
  float m = a.levels.values[rank], miss = v - m;
  s->squares += v * v;
  s->error += miss * miss;
  if (a.nested) {
    s->cross += miss * m;
    s->code_squares += m * m;
  }
  return (uint32_t)a.levels.codes[rank];
}

/* The largest magnitude of weights [begin, end), pairs dealt out to the lanes; reports what is not finite. */
static __device__ __forceinline__ float find_absmax(const quantize_args &a, int64_t begin, int64_t end, int lane,
                                                    bool half) {
  float most = 0;
  for (int64_t i = begin + lane; i < end; i += GROUP) {
    float v = read_weight(a, i);
    if (half) v = round_half(v);
    if (!is_finite(v)) {
      atomicMin(a.bad, (unsigned long long)i);
    } else {
      most = fmaxf(most, fabsf(v));
    }
  }
  return max_group(most);
}

static __device__ __forceinline__ void store_sums(const quantize_args &a, int64_t at, int lane, lane_sums s,
                                                  bool there) {
  nb_block_sums out;
  out.squares = sum_group(s.squares);
  out.error = sum_group(s.error);
  out.cross = sum_group(s.cross);
  out.code_squares = sum_group(s.code_squares);
  if (lane == 0 && there) a.sums[at] = out;
}

/* A block of weights: multiplied by the reciprocal of its absmax, or if it is a short last one, divided by it. */
static __global__ void __launch_bounds__(THREADS) quantize_4bit_kernel(const __grid_constant__ quantize_args a) {
  int lane = (int)threadIdx.x % GROUP;
  int64_t block = (int64_t)blockIdx.x * GROUPS + threadIdx.x / GROUP, begin = block * a.block_size;
  int64_t end = min(begin + a.block_size, a.n);
  bool there = begin < a.n, is_short = there && end - begin < a.block_size;
  float absmax = find_absmax(a, begin, end, lane, false);
  float bound = absmax > NB_MIN_ABSMAX ? absmax : NB_MIN_ABSMAX, reciprocal = 1.0f / bound;
  lane_sums s = {0, 0, 0, 0};
  for (int64_t i = begin + 2 * lane; i < end; i += 2 * GROUP) {
    float v = read_weight(a, i);
    uint32_t high = encode(a, is_short ? v / bound : v * reciprocal, &s), low;
    if (i + 1 < end) {
      v = read_weight(a, i + 1);
      low = encode(a, is_short ? v / bound : v * reciprocal, &s);
    } else {
      low = (uint32_t)a.levels.codes[rank_of(a.levels, 0)];
    }
    a.codes[i / 2] = (uint8_t)(high << 4 | low);
  }
  if (lane == 0 && there) a.absmax[block] = is_short ? bound : absmax;
  store_sums(a, block, lane, s, there);
}

static __global__ void __launch_bounds__(THREADS) quantize_int8_kernel(const __grid_constant__ quantize_args a) {
  int lane = (int)threadIdx.x % GROUP;
  int64_t row = (int64_t)blockIdx.x * GROUPS + threadIdx.x / GROUP, begin = row * a.block_size;
  bool there = begin < a.n;
  int64_t end = there ? begin + a.block_size : begin;
  float absmax = find_absmax(a, begin, end, lane, true);
  float scale = absmax > 0 ? 1.0f / absmax * 127.0f : 0;
  lane_sums s = {0, 0, 0, 0};
  for (int64_t i = begin + lane; i < end; i += GROUP) {
    float x = read_weight(a, i), code = rintf(round_half(x) * scale), v = x * scale, miss = v - code;
    a.codes[i] = (uint8_t)(int8_t)code;
    s.squares += v * v;
    s.error += miss * miss;
  }
  if (lane == 0 && there) a.absmax[row] = absmax;
  store_sums(a, row, lane, s, there);
}

/* ---- from host memory and back ---------------------------------------------------------------------------------- */

typedef struct outputs {
  void *codes, *absmax, *sums;
  int64_t code_bytes, blocks;
} outputs;

static bool take(void **out, int64_t bytes) { return cudaMalloc(out, (size_t)bytes + 16) == cudaSuccess; }

static nibble_status copy_back(const quantize_args *a, const outputs *out, int64_t *bad, nibble_error *err) {
  unsigned long long first = ~0ull;
  cudaError_t code = cudaMemcpyAsync(&first, a->bad, sizeof first, cudaMemcpyDeviceToHost, 0);
  if (code == cudaSuccess)
    code = cudaMemcpyAsync(out->codes, a->codes, (size_t)out->code_bytes, cudaMemcpyDeviceToHost, 0);
  if (code == cudaSuccess)
    code = cudaMemcpyAsync(out->absmax, a->absmax, (size_t)out->blocks * sizeof(float), cudaMemcpyDeviceToHost, 0);
  if (code == cudaSuccess)
    code = cudaMemcpyAsync(out->sums, a->sums, (size_t)out->blocks * sizeof(nb_block_sums), cudaMemcpyDeviceToHost, 0);
  if (code == cudaSuccess) code = cudaStreamSynchronize(0);
  if (code == cudaSuccess) code = cudaGetLastError();
  if (code != cudaSuccess) return nb_fail(err, NIBBLE_SYSTEM, "CUDA: quantizing: %s", cudaGetErrorString(code));
  *bad = first == ~0ull ? -1 : (int64_t)first;
  return NIBBLE_OK;
}

static nibble_status run(void (*kernel)(quantize_args), quantize_args *a, const void *src, const outputs *out,
                         int64_t *bad, nibble_error *err) {
  nibble_error ignored;
  if (!nb_backend_cuda(err ? err : &ignored)) return NIBBLE_SYSTEM;
  size_t bytes = (size_t)a->n * nb_dtype_size(a->dtype);
  void *weights = NULL;
  nibble_status status = NIBBLE_OK;
  if (!take(&weights, (int64_t)bytes) || !take((void **)&a->codes, out->code_bytes) ||
      !take((void **)&a->absmax, out->blocks * 4) ||
      !take((void **)&a->sums, out->blocks * (int64_t)sizeof(nb_block_sums)) || !take((void **)&a->bad, 8)) {
    cudaGetLastError();
    status = nb_fail(err, NIBBLE_SYSTEM, "CUDA: no device memory to quantize %lld weights", (long long)a->n);
  }
  if (status == NIBBLE_OK) {
    cudaMemcpyAsync(weights, src, bytes, cudaMemcpyHostToDevice, 0);
    cudaMemsetAsync(a->bad, 0xff, 8, 0);
    a->src = weights;
    nb_launch(kernel, dim3((unsigned)nb_ceil_div(out->blocks, GROUPS)), THREADS, 0, 0, *a);
    status = copy_back(a, out, bad, err);
  }
  cudaFree(weights);
  cudaFree(a->codes);
  cudaFree(a->absmax);
  cudaFree(a->sums);
  cudaFree(a->bad);
  return status;
}

nibble_status nb_cuda_quantize_4bit(nb_format format, nb_dtype dtype, const void *src, int64_t n, int64_t block_size,
                                    bool nested, uint8_t *codes, float *absmax, nb_block_sums *sums, int64_t *bad,
                                    nibble_error *err) {
  quantize_args a = {};
  nb_quantize_levels(format, &a.levels);
  a.dtype = dtype, a.n = n, a.block_size = block_size, a.nested = nested;
  outputs out = {codes, absmax, sums, (n + 1) / 2, nb_ceil_div(n, block_size)};
  return run(quantize_4bit_kernel, &a, src, &out, bad, err);
}

nibble_status nb_cuda_quantize_int8(nb_dtype dtype, const void *src, int64_t rows, int64_t cols, int8_t *codes,
                                    float *scb, nb_block_sums *sums, int64_t *bad, nibble_error *err) {
  quantize_args a = {};
  a.dtype = dtype, a.n = rows * cols, a.block_size = cols;
  outputs out = {codes, scb, sums, rows * cols, rows};
  return run(quantize_int8_kernel, &a, src, &out, bad, err);
}
