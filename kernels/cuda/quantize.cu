/* Compiled without fused multiply-adds: every rounding here is one of the scalar version's, in its order. */
#include "kernels/cuda/quantize.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

extern "C" {
#include "base/checked.h"
#include "kernels/cpu/quantize_cpu.h"
}
#include "kernels/cuda/device.h"

enum { THREADS = 128, GROUP = NB_SUM_LANES, GROUPS = THREADS / GROUP };

typedef struct quantize_args {
  bool has_levels; /* a codebook; else int8 */
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

/* Weights go in, and what is made of them comes out, in one copy each: the first weight that is not finite, absmax, the
 * sums and the codes lie behind each other, on the device and in page-locked memory alike. */
struct nb_cuda_quantizer {
  cudaStream_t stream;
  char *weights, *results, *host_weights, *host_results;
  int64_t weight_bytes, result_bytes; /* room */
};

typedef struct layout {
  int64_t blocks, weight_bytes, absmax, sums, codes, code_bytes, total; /* offsets of the results */
} layout;

static layout lay_out(const quantize_args *a, int64_t code_bytes) {
  layout l = {};
  l.blocks = nb_ceil_div(a->n, a->block_size);
  l.weight_bytes = a->n * (int64_t)nb_dtype_size(a->dtype);
  l.absmax = 16;
  l.sums = l.absmax + nb_ceil_div(l.blocks * (int64_t)sizeof(float), 16) * 16;
  l.codes = l.sums + l.blocks * (int64_t)sizeof(nb_block_sums);
  l.code_bytes = code_bytes;
  l.total = l.codes + code_bytes;
  return l;
}

nibble_status nb_cuda_quantizer_create(nb_cuda_quantizer **out, nibble_error *err) {
  *out = NULL;
  if (!nb_backend_cuda(err)) return NIBBLE_SYSTEM;
  nb_cuda_quantizer *q = (nb_cuda_quantizer *)calloc(1, sizeof *q);
  if (!q) return nb_fail_memory(err, sizeof *q);
  cudaError_t code = cudaStreamCreateWithFlags(&q->stream, cudaStreamNonBlocking);
  if (code != cudaSuccess) {
    free(q);
    return nb_fail(err, NIBBLE_SYSTEM, "CUDA: making a stream: %s", cudaGetErrorString(code));
  }
  *out = q;
  return NIBBLE_OK;
}

static void drop_room(nb_cuda_quantizer *q) {
  cudaFree(q->weights);
  cudaFree(q->results);
  cudaFreeHost(q->host_weights);
  cudaFreeHost(q->host_results);
  q->weights = q->results = q->host_weights = q->host_results = NULL;
  q->weight_bytes = q->result_bytes = 0;
}

void nb_cuda_quantizer_free(nb_cuda_quantizer *q) {
  if (!q) return;
  drop_room(q);
  cudaStreamDestroy(q->stream);
  free(q);
}

static nibble_status make_room(nb_cuda_quantizer *q, const layout *l, nibble_error *err) {
  if (l->weight_bytes <= q->weight_bytes && l->total <= q->result_bytes) return NIBBLE_OK;
  int64_t in = nb_max_i64(l->weight_bytes, q->weight_bytes), out = nb_max_i64(l->total, q->result_bytes);
  drop_room(q);
  bool ok = cudaMalloc((void **)&q->weights, (size_t)in) == cudaSuccess &&
            cudaMalloc((void **)&q->results, (size_t)out) == cudaSuccess &&
            cudaMallocHost((void **)&q->host_weights, (size_t)in) == cudaSuccess &&
            cudaMallocHost((void **)&q->host_results, (size_t)out) == cudaSuccess;
  if (!ok) {
    cudaGetLastError();
    drop_room(q);
    return nb_fail(err, NIBBLE_SYSTEM, "CUDA: no device or page-locked memory to quantize %lld bytes of weights",
                   (long long)l->weight_bytes);
  }
  q->weight_bytes = in;
  q->result_bytes = out;
  return NIBBLE_OK;
}

static nibble_status run_kernel(nb_cuda_quantizer *q, quantize_args *a, const layout *l, const void *src, int64_t *bad,
                                nibble_error *err) {
  void (*kernel)(quantize_args) = a->has_levels ? quantize_4bit_kernel : quantize_int8_kernel;
  nibble_status status = make_room(q, l, err);
  if (status != NIBBLE_OK) return status;
  memcpy(q->host_weights, src, (size_t)l->weight_bytes);
  a->src = q->weights;
  a->bad = (unsigned long long *)q->results;
  a->absmax = (float *)(q->results + l->absmax);
  a->sums = (nb_block_sums *)(q->results + l->sums);
  a->codes = (uint8_t *)(q->results + l->codes);
  cudaError_t code =
      cudaMemcpyAsync(q->weights, q->host_weights, (size_t)l->weight_bytes, cudaMemcpyHostToDevice, q->stream);
  if (code == cudaSuccess) code = cudaMemsetAsync(a->bad, 0xff, sizeof *a->bad, q->stream);
  if (code == cudaSuccess) nb_launch(kernel, dim3((unsigned)nb_ceil_div(l->blocks, GROUPS)), THREADS, 0, q->stream, *a);
  if (code == cudaSuccess)
    code = cudaMemcpyAsync(q->host_results, q->results, (size_t)l->total, cudaMemcpyDeviceToHost, q->stream);
  if (code == cudaSuccess) code = cudaStreamSynchronize(q->stream);
  if (code == cudaSuccess) code = cudaGetLastError();
  if (code != cudaSuccess) return nb_fail(err, NIBBLE_SYSTEM, "CUDA: quantizing: %s", cudaGetErrorString(code));
  unsigned long long first;
  memcpy(&first, q->host_results, sizeof first);
  *bad = first == ~0ull ? -1 : (int64_t)first;
  return NIBBLE_OK;
}

static void take_results(const nb_cuda_quantizer *q, const layout *l, const nb_quantize_run *run) {
  memcpy(run->scales, q->host_results + l->absmax, (size_t)l->blocks * sizeof *run->scales);
  memcpy(run->sums, q->host_results + l->sums, (size_t)l->blocks * sizeof *run->sums);
  memcpy(run->codes, q->host_results + l->codes, (size_t)l->code_bytes);
}

nibble_status nb_cuda_quantize(nb_cuda_quantizer *q, const nb_packed *m, const nb_quantize_run *run, int64_t *bad,
                               nibble_error *err) {
  const nb_format_row *info = nb_format_info(m->format);
  quantize_args a = {};
  a.has_levels = info->scheme == NB_SCHEME_CODEBOOK;
  if (a.has_levels) nb_quantize_levels(m->format, &a.levels);
  a.dtype = run->dtype, a.n = run->count, a.block_size = nb_packed_unit(m), a.nested = run->nested;
  layout l = lay_out(&a, nb_ceil_div(run->count * info->bits, 8));
  nibble_status status = run_kernel(q, &a, &l, run->src, bad, err);
  if (status == NIBBLE_OK && *bad < 0) take_results(q, &l, run);
  return status;
}
