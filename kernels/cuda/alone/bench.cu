#include "kernels/cuda/alone/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern "C" {
#include "base/checked.h"
#include "kernels/cuda/alone/random.h"
}
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/matrix.h"
#include "kernels/cuda/ops.h"

enum { MAX_COPIES = 24, ROUNDS = 15, CHUNK_ROWS = 2048 };

static const int64_t rotated_bytes = 512ll << 20; /* of weights, at least: eight times the largest cache */

typedef struct bench {
  nb_workspace ws;
  nb_gemm *gemm;
  cudaEvent_t before, after;
  double copy_rate, gemm_rate; /* bytes and operations a second */
  uint16_t *x[2];              /* bfloat16, float16 [X_ROWS, X_COLS] */
  float *y;
  uint16_t *narrow, *panel;
  int64_t panel_elements;
} bench;

enum { X_ROWS = 2048, X_COLS = 28672, Y_ROWS = 28672, ARRIVED = 16384 };

static nibble_status check(nibble_error *err, cudaError_t code, const char *what) {
  if (code == cudaSuccess) code = cudaGetLastError();
  return code == cudaSuccess ? NIBBLE_OK : nb_fail(err, NIBBLE_SYSTEM, "CUDA: %s: %s", what, cudaGetErrorString(code));
}

/* ---- timing ----------------------------------------------------------------------------------------------------- */

static int ascending(const void *a, const void *b) {
  float x = *(const float *)a, y = *(const float *)b;
  return (x > y) - (x < y);
}

typedef void (*work_fn)(void *ctx, int copy);

/* Seconds of one run of `work`: the median over ROUNDS replays of a graph that runs it once for every copy. */
static double seconds_of(bench *b, work_fn work, void *ctx, int copies) {
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  work(ctx, 0); /* what is made on first use is made now */
  cudaStreamSynchronize(b->ws.stream);
  if (cudaStreamBeginCapture(b->ws.stream, cudaStreamCaptureModeRelaxed) != cudaSuccess) return -1;
  for (int i = 0; i < copies; i++) work(ctx, i);
  if (cudaStreamEndCapture(b->ws.stream, &graph) != cudaSuccess) return -1;
  if (cudaGraphInstantiate(&exec, graph, 0) != cudaSuccess) return -1;
  float times[ROUNDS];
  for (int i = -2; i < ROUNDS; i++) {
    float milliseconds = 0;
    cudaEventRecord(b->before, b->ws.stream);
    cudaGraphLaunch(exec, b->ws.stream);
    cudaEventRecord(b->after, b->ws.stream);
    cudaEventSynchronize(b->after);
    cudaEventElapsedTime(&milliseconds, b->before, b->after);
    if (i >= 0) times[i] = milliseconds;
  }
  cudaGraphExecDestroy(exec);
  cudaGraphDestroy(graph);
  qsort(times, ROUNDS, sizeof *times, ascending);
  return times[ROUNDS / 2] * 1e-3 / copies;
}

/* ---- the machine's limits --------------------------------------------------------------------------------------- */

typedef struct copy_work {
  bench *b;
  char *from, *to;
  size_t bytes;
} copy_work;

enum { COPY_THREADS = 256, COPY_AT_ONCE = 4 };

/* A graph's cudaMemcpyAsync reaches only two thirds of what a kernel does. */
static __global__ void copy_kernel(const uint4 *from, uint4 *to) {
  size_t at = (size_t)blockIdx.x * COPY_THREADS * COPY_AT_ONCE + threadIdx.x;
  uint4 v[COPY_AT_ONCE];
#pragma unroll
  for (int i = 0; i < COPY_AT_ONCE; i++) v[i] = from[at + i * COPY_THREADS];
#pragma unroll
  for (int i = 0; i < COPY_AT_ONCE; i++) to[at + i * COPY_THREADS] = v[i];
}

static void run_copy(void *ctx, int copy) {
  (void)copy;
  copy_work *w = (copy_work *)ctx;
  unsigned blocks = (unsigned)(w->bytes / (COPY_THREADS * COPY_AT_ONCE * sizeof(uint4)));
  copy_kernel<<<blocks, COPY_THREADS, 0, w->b->ws.stream>>>((const uint4 *)w->from, (uint4 *)w->to);
}

static nibble_status measure_copy(bench *b, nibble_error *err) {
  copy_work w = {};
  w.b = b, w.bytes = (size_t)4 << 30;
  void *from = NULL, *to = NULL;
  if (cudaMalloc(&from, w.bytes) != cudaSuccess || cudaMalloc(&to, w.bytes) != cudaSuccess)
    return nb_fail(err, NIBBLE_SYSTEM, "CUDA: no device memory to measure copies");
  w.from = (char *)from, w.to = (char *)to;
  cudaMemsetAsync(from, 0x5a, w.bytes, b->ws.stream);
  b->copy_rate = 2.0 * (double)w.bytes / seconds_of(b, run_copy, &w, 2);
  cudaFree(from);
  cudaFree(to);
  return check(err, cudaSuccess, "measuring copies");
}

/* Random 16-bit numbers, repeated after CHUNK_ROWS rows: never zeros, which run faster than data. */
static bool fill_random(bench *b, uint16_t *to, int64_t rows, int64_t cols, nb_dtype dtype) {
  int64_t some = rows < CHUNK_ROWS ? rows : CHUNK_ROWS;
  float *values = (float *)nb_alloc((uint64_t)(some * cols), sizeof *values);
  uint16_t *narrow = (uint16_t *)nb_alloc((uint64_t)(some * cols), sizeof *narrow);
  bool ok = values && narrow;
  if (ok) {
    nb_random_floats((uint64_t)cols, 1, some * cols, values);
    nb_from_f32(dtype, values, (size_t)(some * cols), narrow);
  }
  for (int64_t at = 0; ok && at < rows; at += some) {
    int64_t count = rows - at < some ? rows - at : some;
    cudaMemcpyAsync(to + at * cols, narrow, (size_t)(count * cols) * 2, cudaMemcpyHostToDevice, b->ws.stream);
    cudaStreamSynchronize(b->ws.stream);
  }
  free(values);
  free(narrow);
  return ok;
}

typedef struct dense_work {
  bench *b;
  uint16_t *weights[MAX_COPIES];
  int64_t n, rows, cols;
} dense_work;

static void run_dense(void *ctx, int copy) {
  dense_work *w = (dense_work *)ctx;
  nb_gemm_args args = {NB_X_BF16, w->b->x[0], w->weights[copy], w->n, w->rows, w->cols, 1, w->b->y, w->rows, false};
  nb_gemm_run(w->b->gemm, &args);
}

static int copies_of(int64_t bytes) {
  int64_t copies = (rotated_bytes + bytes - 1) / bytes;
  return (int)(copies < 2 ? 2 : copies > MAX_COPIES ? MAX_COPIES : copies);
}

/* Rows of activations that a weight is multiplied with. */
typedef struct row_counts {
  const int64_t *counts; /* [count] */
  int count;
} row_counts;

/* cuBLAS' bfloat16 product: seconds for each number of rows. */
static nibble_status time_dense(bench *b, int64_t rows, int64_t cols, row_counts n, double *out, nibble_error *err) {
  dense_work w = {};
  w.b = b, w.rows = rows, w.cols = cols;
  int copies = copies_of(rows * cols * 2);
  bool ok = true;
  for (int i = 0; ok && i < copies; i++) {
    void *p = NULL;
    ok = cudaMalloc(&p, (size_t)(rows * cols) * 2) == cudaSuccess;
    w.weights[i] = (uint16_t *)p;
    if (ok)
      ok = i ? cudaMemcpy(p, w.weights[0], (size_t)(rows * cols) * 2, cudaMemcpyDeviceToDevice) == cudaSuccess
             : fill_random(b, w.weights[0], rows, cols, NB_BF16);
  }
  for (int i = 0; ok && i < n.count; i++) {
    w.n = n.counts[i];
    out[i] = b->gemm ? seconds_of(b, run_dense, &w, copies) : 0;
  }
  for (int i = 0; i < copies; i++) cudaFree(w.weights[i]);
  return ok ? check(err, cudaSuccess, "cuBLAS") : nb_fail(err, NIBBLE_SYSTEM, "CUDA: no memory for dense weights");
}

/* ---- our products ----------------------------------------------------------------------------------------------- */

static const nb_random_options formats[] = {
    {.format = NB_FORMAT_NF4, .rows = 0, .cols = 0, .block_size = 64, .double_quant = false},
    {.format = NB_FORMAT_NF4, .rows = 0, .cols = 0, .block_size = 64, .double_quant = true},
    {.format = NB_FORMAT_FP4, .rows = 0, .cols = 0, .block_size = 64, .double_quant = false},
    {.format = NB_FORMAT_INT8},
    {.format = NB_FORMAT_GPTQ4, .rows = 0, .cols = 0, .block_size = 0, .double_quant = false, .group_size = 128},
    {.format = NB_FORMAT_GPTQ8, .rows = 0, .cols = 0, .block_size = 0, .double_quant = false, .group_size = 128},
    {.format = NB_FORMAT_BF16},
};
static const int64_t counts[] = {1, 2, 4, 8, 16, 32, 64, 128, 512, 2048};
static const int64_t shapes[][2] = {{4096, 14336}, {14336, 4096}, {8192, 28672}};

enum {
  FORMATS = sizeof formats / sizeof *formats,
  COUNTS = sizeof counts / sizeof *counts,
  SHAPES = sizeof shapes / sizeof *shapes
};

typedef struct packed_work {
  bench *b;
  nb_matrix *first;               /* a random weight */
  nb_device_matrix w[MAX_COPIES]; /* it, and copies of its codes and scales */
  void *memory[2 * MAX_COPIES];   /* of the copies */
  int copies;
  int64_t n;
  nb_x_dtype x_dtype;
  bool ok;
} packed_work;

static void run_packed(void *ctx, int copy) {
  packed_work *w = (packed_work *)ctx;
  bench *b = w->b;
  nb_device_layer layer = {};
  layer.w = w->w[copy];
  layer.y = b->y;
  int64_t cols = layer.w.packed.cols;
  nb_device_rows x = {b->x[w->x_dtype == NB_X_F16], w->x_dtype, cols, w->n};
  if (w->n <= NB_PRODUCT_MAX_ROWS) {
    w->ok &= nb_product_small(&b->ws, &layer, 1, x);
  } else {
    nb_gemm_room room = {b->narrow, b->panel, b->panel_elements};
    w->ok &= b->gemm && nb_product_gemm(b->gemm, &b->ws, &layer, x, &room);
  }
}

static void *duplicate(const void *from, int64_t bytes) {
  void *to = NULL;
  bool ok = bytes > 0 && cudaMalloc(&to, (size_t)bytes) == cudaSuccess;
  return ok && cudaMemcpy(to, from, (size_t)bytes, cudaMemcpyDeviceToDevice) == cudaSuccess ? to : NULL;
}

/* Copies of one random weight: their content does not matter, that they lie apart does. */
static nibble_status make_copies(bench *b, const nb_random_options *o, packed_work *w, nb_random_matrix *source,
                                 nibble_error *err) {
  if (!nb_random_create(o, 3, source)) return nb_fail_memory(err, (size_t)(o->rows * o->cols));
  w->copies = copies_of(nb_packed_bytes(&source->m));
  nibble_status status = nb_matrix_upload(&source->m, b->ws.stream, &w->first, err);
  if (status != NIBBLE_OK) return status;
  const nb_tiles *t = &w->first->w.tiles;
  int64_t codes = t->row_tiles * nb_tiles_code_bytes(t), scales = t->row_tiles * nb_tiles_scale_bytes(t);
  w->w[0] = w->first->w;
  for (int i = 1; i < w->copies; i++) {
    w->w[i] = w->w[0];
    w->w[i].codes = (const uint32_t *)(w->memory[2 * i] = duplicate(w->w[0].codes, codes));
    w->w[i].scales = w->memory[2 * i + 1] = duplicate(w->w[0].scales, scales);
  }
  return check(err, cudaSuccess, "copies of a weight");
}

static void free_copies(packed_work *w) {
  for (int i = 0; i < 2 * MAX_COPIES; i++) cudaFree(w->memory[i]);
  nb_matrix_free(w->first);
}

static void print_row(const packed_work *w, const nb_random_options *o, const nb_packed *m, double seconds,
                      double dense) {
  const bench *b = w->b;
  int64_t n = w->n;
  double bytes = (double)nb_packed_bytes(m) + (double)n * (double)(m->cols * 2 + m->rows * 4);
  double flops = 2.0 * (double)n * (double)m->rows * (double)m->cols;
  double bits = 8 * (double)nb_packed_bytes(m) / ((double)m->rows * (double)m->cols);
  printf("%-6s%-4s %-4s %6lld %6lld %5lld %10.1f %8.0f %5.0f%% %9.1f %5.0f%% %10.1f %6.2f %6.2f\n",
         nb_format_info(m->format)->name, o->double_quant ? "+dq" : "", w->x_dtype == NB_X_F16 ? "f16" : "bf16",
         (long long)m->rows, (long long)m->cols, (long long)n, seconds * 1e6, bytes / seconds / 1e9,
         100 * bytes / seconds / b->copy_rate, flops / seconds / 1e12, 100 * flops / seconds / b->gemm_rate,
         dense * 1e6, dense / seconds, 16 / bits);
  fflush(stdout);
}

static nibble_status bench_product(packed_work *w, const nb_random_options *o, const nb_packed *m, double dense,
                                   nibble_error *err) {
  w->ok = true;
  double seconds = seconds_of(w->b, run_packed, w, w->copies);
  nibble_status status = check(err, cudaSuccess, "a product");
  if (status != NIBBLE_OK) return status;
  if (w->ok)
    print_row(w, o, m, seconds, dense);
  else
    printf("%s: no room for %lld rows\n", nb_format_info(o->format)->name, (long long)w->n);
  return NIBBLE_OK;
}

static nibble_status bench_format(bench *b, const nb_random_options *o, const double *dense, nibble_error *err) {
  packed_work w = {};
  w.b = b;
  nb_random_matrix source = {};
  nibble_status status = make_copies(b, o, &w, &source, err);
  for (int i = 0; status == NIBBLE_OK && i < 2 * COUNTS; i++) {
    w.n = counts[i % COUNTS], w.x_dtype = i < COUNTS ? NB_X_BF16 : NB_X_F16;
    status = bench_product(&w, o, &source.m, dense[i % COUNTS], err);
  }
  free_copies(&w);
  nb_random_free(&source);
  return status;
}

/* ---- making a bench --------------------------------------------------------------------------------------------- */

static bool take(void **out, int64_t bytes) { return cudaMalloc(out, (size_t)bytes) == cudaSuccess; }

static nibble_status begin(bench *b, nibble_error *err) {
  cudaDeviceProp device;
  nibble_status status = check(err, cudaGetDeviceProperties(&device, 0), "asking for the device");
  if (status != NIBBLE_OK) return status;
  b->ws.processors = device.multiProcessorCount;
  b->ws.shared_limit = (int64_t)device.sharedMemPerBlockOptin;
  cudaStreamCreateWithFlags(&b->ws.stream, cudaStreamNonBlocking);
  cudaEventCreate(&b->before);
  cudaEventCreate(&b->after);
  b->ws.partial_floats = 3 << 20;
  b->ws.narrow_elements = (int64_t)NB_PRODUCT_MAX_ROWS * X_COLS;
  b->ws.arrived_count = ARRIVED;
  b->panel_elements = 128 << 20;
  bool ok =
      take((void **)&b->ws.partial, b->ws.partial_floats * 4) && take((void **)&b->ws.arrived, ARRIVED * 4) &&
      take((void **)&b->ws.narrow, b->ws.narrow_elements * 2) &&
      take((void **)&b->x[0], (int64_t)X_ROWS * X_COLS * 2) && take((void **)&b->x[1], (int64_t)X_ROWS * X_COLS * 2) &&
      take((void **)&b->y, (int64_t)X_ROWS * Y_ROWS * 4) && take((void **)&b->narrow, (int64_t)X_ROWS * X_COLS * 2) &&
      take((void **)&b->panel, b->panel_elements * 2) && fill_random(b, b->x[0], X_ROWS, X_COLS, NB_BF16) &&
      fill_random(b, b->x[1], X_ROWS, X_COLS, NB_F16);
  if (!ok) return nb_fail(err, NIBBLE_SYSTEM, "CUDA: no device memory to measure with");
  cudaMemsetAsync(b->ws.arrived, 0, ARRIVED * 4, b->ws.stream);
  b->gemm = nb_gemm_create(b->ws.stream);
  printf("%s, %d multiprocessors, %.0f MB of L2, cuBLAS %s\n", device.name, device.multiProcessorCount,
         device.l2CacheSize / 1e6, b->gemm ? "found" : "not found");
  return measure_copy(b, err);
}

static nibble_status begin_with_peak(bench *b, nibble_error *err) {
  nibble_status status = begin(b, err);
  const int64_t n = X_ROWS;
  double seconds = 0;
  if (status == NIBBLE_OK) status = time_dense(b, 8192, 8192, {&n, 1}, &seconds, err);
  b->gemm_rate = seconds > 0 ? 2.0 * (double)n * 8192 * 8192 / seconds : 1;
  if (status == NIBBLE_OK)
    printf("copies %.0f GB/s (read and written), cuBLAS bf16 %.0f TFLOP/s (%lld x 8192 x 8192)\n", b->copy_rate / 1e9,
           b->gemm_rate / 1e12, (long long)n);
  return status;
}

double nb_gpu_copy_rate(void) {
  static bench b;
  nibble_error ignored;
  if (b.copy_rate == 0 && begin(&b, &ignored) != NIBBLE_OK) return 0;
  return b.copy_rate;
}

/* One plain launch of each product, for a profiler. */
nibble_status nb_profile_gpu(nibble_error *err) {
  static bench b;
  static const int64_t some[] = {1, 16, 64, 2048};
  nibble_status status = begin(&b, err);
  for (int f = 0; status == NIBBLE_OK && f < FORMATS; f++) {
    nb_random_options o = formats[f];
    o.rows = shapes[0][0], o.cols = shapes[0][1];
    packed_work w = {};
    w.b = &b, w.x_dtype = NB_X_BF16, w.ok = true;
    nb_random_matrix source = {};
    status = make_copies(&b, &o, &w, &source, err);
    for (int i = 0; status == NIBBLE_OK && i < 4; i++) {
      w.n = some[i];
      run_packed(&w, 1);
      status = check(err, cudaStreamSynchronize(b.ws.stream), "a product");
    }
    free_copies(&w);
    nb_random_free(&source);
  }
  return status;
}

nibble_status nb_bench_gpu(const char *only, nibble_error *err) {
  static bench b;
  nibble_status status = begin_with_peak(&b, err);
  for (int s = 0; status == NIBBLE_OK && s < SHAPES; s++) {
    double dense[COUNTS] = {0};
    status = time_dense(&b, shapes[s][0], shapes[s][1], {counts, COUNTS}, dense, err);
    printf("%-10s %-4s %6s %6s %5s %10s %8s %6s %9s %6s %10s %6s %6s\n", "format", "x", "rows", "cols", "n", "us",
           "GB/s", "copy", "TFLOP/s", "peak", "bf16 us", "faster", "ideal");
    for (int f = 0; status == NIBBLE_OK && f < FORMATS; f++) {
      nb_random_options o = formats[f];
      if (only && strcmp(only, nb_format_info(o.format)->name) != 0) continue;
      o.rows = shapes[s][0], o.cols = shapes[s][1];
      status = bench_format(&b, &o, dense, err);
    }
  }
  return status;
}
