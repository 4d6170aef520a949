/* What quantizing costs on the GPU, from host memory and back as the command does it: nf4 and int8 by bands on several
 * threads, and GPTQ's three steps for one layer. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/dtype.h"
#include "base/parallel.h"
#include "kernels/cuda/alone/bench.h"
#include "kernels/cuda/alone/random.h"
#include "kernels/cuda/gptq.h"
#include "kernels/cuda/quantize.h"

enum { BAND = 1 << 17, BANDS = 2048, MOST_THREADS = 64, ROWS_OF_INT8 = 32, TOKENS = 2048, BATCHES = 16 };

/* Columns and rows of the layer, and bands of weights: less under a checker of memory. */
static int64_t width = 4096, bands = BANDS;

typedef struct quantize_job {
  nb_packed m;
  const uint16_t *weights; /* [BAND], the same for every band: what is measured is not the reading */
  nb_cuda_quantizer *threads[MOST_THREADS];
  uint8_t *codes; /* [threads, BAND] */
  float *absmax;  /* [threads, BAND / 64] */
  nb_block_sums *sums;
  bool failed;
} quantize_job;

static void quantize_bands(void *ctx, int64_t begin, int64_t end, int thread) {
  quantize_job *job = ctx;
  int64_t bad, blocks = BAND / 64;
  nb_cuda_quantizer **q = &job->threads[thread];
  for (int64_t b = begin; b < end; b++) {
    nibble_status status = *q ? NIBBLE_OK : nb_cuda_quantizer_create(q, NULL);
    uint8_t *codes = job->codes + (int64_t)thread * BAND;
    float *absmax = job->absmax + thread * blocks;
    nb_block_sums *sums = job->sums + thread * blocks;
    nb_quantize_run run = {.dtype = NB_BF16, .src = job->weights, .count = BAND};
    run.codes = codes, run.scales = absmax, run.sums = sums;
    if (status == NIBBLE_OK) status = nb_cuda_quantize(*q, &job->m, &run, &bad, NULL);
    if (status != NIBBLE_OK) job->failed = true;
  }
}

static nibble_status time_quantizers(nibble_error *err) {
  int threads = nb_threads() < MOST_THREADS ? nb_threads() : MOST_THREADS;
  uint64_t blocks = (uint64_t)threads * BAND / 64;
  quantize_job job = {.codes = nb_alloc((uint64_t)threads, BAND),
                      .absmax = nb_alloc(blocks, sizeof *job.absmax),
                      .sums = nb_alloc(blocks, sizeof *job.sums)};
  float *values = nb_alloc(BAND, sizeof *values);
  uint16_t *weights = nb_alloc(BAND, sizeof *weights);
  nibble_status status = NIBBLE_OK;
  if (!job.codes || !job.absmax || !job.sums || !values || !weights || nb_threads() > MOST_THREADS)
    status = nb_fail(err, NIBBLE_SYSTEM, "no memory, or too many threads, to measure the quantizers with");
  if (status == NIBBLE_OK) {
    nb_random_floats(5, 0.02f, BAND, values);
    nb_from_f32(NB_BF16, values, BAND, weights);
    job.weights = weights;
  }
  for (int int8 = 0; status == NIBBLE_OK && int8 < 2; int8++) {
    double best = 0;
    job.m = nb_packed_usual(int8 ? NB_FORMAT_INT8 : NB_FORMAT_NF4, ROWS_OF_INT8, BAND / ROWS_OF_INT8, 0, false);
    for (int round = 0; round < 4; round++) { /* the first makes what is made on first use */
      double start = nb_seconds();
      nb_parallel(bands, 1, quantize_bands, &job);
      double seconds = nb_seconds() - start;
      if (round > 0 && (best == 0 || seconds < best)) best = seconds;
    }
    if (job.failed) status = nb_fail(err, NIBBLE_SYSTEM, "CUDA: quantizing failed");
    if (status == NIBBLE_OK)
      printf("quantize %-5s %6.2f GB/s of bfloat16 weights, host to host, %d threads\n", int8 ? "int8" : "nf4",
             2.0 * BAND * (double)bands / best / 1e9, threads);
  }
  for (int i = 0; i < MOST_THREADS; i++) nb_cuda_quantizer_free(job.threads[i]);
  free(job.codes);
  free(job.absmax);
  free(job.sums);
  free(values);
  free(weights);
  return status;
}

/* One layer [width, width] on BATCHES * TOKENS tokens. */
typedef struct gptq_bench {
  nb_cuda_hessian *hessian;
  float *x, *w, *sum, *upper;
  double *work, *sums;
  int32_t *column, *group;
  bool *dead;
  uint8_t *codes, *zeros;
  uint16_t *scales;
  int64_t *mended;
} gptq_bench;

static bool make_gptq(gptq_bench *b) {
  uint64_t all = (uint64_t)(width * width), groups = (uint64_t)width / 128;
  b->x = nb_alloc((uint64_t)(TOKENS * width), sizeof *b->x), b->w = nb_alloc(all, sizeof *b->w);
  b->sum = nb_alloc(all, sizeof *b->sum), b->upper = nb_alloc(all, sizeof *b->upper);
  b->work = nb_alloc(all, sizeof *b->work), b->sums = nb_alloc((uint64_t)width, NB_GPTQ_SUMS * sizeof *b->sums);
  b->column = nb_alloc((uint64_t)width, sizeof *b->column), b->group = nb_alloc((uint64_t)width, sizeof *b->group);
  b->dead = nb_alloc((uint64_t)width, sizeof *b->dead), b->codes = nb_alloc(all, 1),
  b->zeros = nb_alloc(groups * (uint64_t)width, 1);
  b->scales = nb_alloc(groups * (uint64_t)width, sizeof *b->scales),
  b->mended = nb_alloc((uint64_t)width, sizeof *b->mended);
  return b->x && b->w && b->sum && b->upper && b->work && b->sums && b->column && b->group && b->dead && b->codes &&
         b->zeros && b->scales && b->mended;
}

static void free_gptq(gptq_bench *b) {
  nb_cuda_hessian_free(b->hessian);
  void *all[] = {b->x,     b->w,    b->sum,   b->upper, b->work,   b->sums,  b->column,
                 b->group, b->dead, b->codes, b->zeros, b->scales, b->mended};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

/* H turned end to end, a twentieth of its mean diagonal added, and back again as the factor (quant/hessian.c). */
static nibble_status factorize(gptq_bench *b, nibble_error *err) {
  double mean = 0;
  bool is_definite = false;
  for (int64_t i = 0; i < width; i++) mean += (double)b->sum[i * width + i] / (double)width;
  for (int64_t i = 0; i < width; i++) {
    for (int64_t j = 0; j < width; j++) {
      int64_t low = nb_min_i64(width - 1 - i, width - 1 - j), high = nb_max_i64(width - 1 - i, width - 1 - j);
      b->work[i * width + j] = (double)b->sum[low * width + high] + (i == j ? 0.05 * mean : 0);
    }
  }
  double start = nb_seconds();
  nibble_status status = nb_cuda_hessian_factorize(b->hessian, b->work, &is_definite, err);
  if (status != NIBBLE_OK) return status;
  if (!is_definite) return nb_fail(err, NIBBLE_CHECK_FAILED, "a Hessian of random inputs is not positive definite");
  printf("GPTQ factor of %lld columns, double: %.1f ms\n", (long long)width, (nb_seconds() - start) * 1e3);
  for (int64_t i = 0; i < width; i++) {
    for (int64_t j = 0; j <= i; j++) b->upper[(width - 1 - i) * width + width - 1 - j] = (float)b->work[j * width + i];
  }
  return NIBBLE_OK;
}

static nibble_status solve(gptq_bench *b, nibble_error *err) {
  nb_cuda_gptq_layer layer = {.w = b->w,
                              .rows = width,
                              .groups = (uint64_t)width / 128,
                              .group_size = 128,
                              .bits = 4,
                              .sym = true,
                              .column = b->column,
                              .group = b->group,
                              .dead = b->dead,
                              .upper = b->upper,
                              .codes = b->codes,
                              .scales = b->scales,
                              .zeros = b->zeros,
                              .mended = b->mended,
                              .sums = b->sums};
  double best = 0, error = 0, nearest = 0, outputs = 0;
  nibble_status status = NIBBLE_OK;
  for (int round = 0; status == NIBBLE_OK && round < 3; round++) {
    double start = nb_seconds();
    status = nb_cuda_gptq_solve(b->hessian, &layer, err);
    double seconds = nb_seconds() - start;
    if (round > 0 && (best == 0 || seconds < best)) best = seconds;
  }
  for (int64_t i = 0; status == NIBBLE_OK && i < width; i++) {
    error += b->sums[i * NB_GPTQ_SUMS], nearest += b->sums[i * NB_GPTQ_SUMS + 1];
    outputs += b->sums[i * NB_GPTQ_SUMS + 2];
  }
  if (status == NIBBLE_OK)
    printf("GPTQ solve of [%lld, %lld]: %.1f ms, output error %.5f (rounded to the nearest: %.5f)\n", (long long)width,
           (long long)width, best * 1e3, error / outputs, nearest / outputs);
  return status;
}

static nibble_status time_gptq(nibble_error *err) {
  gptq_bench b = {0};
  nibble_status status = make_gptq(&b) ? nb_cuda_hessian_create(&b.hessian, width, err)
                                       : nb_fail_memory(err, (size_t)(width * width) * sizeof(float));
  double start = 0;
  if (status == NIBBLE_OK) {
    nb_random_floats(1, 1, TOKENS * width, b.x);
    nb_random_floats(2, 0.02f, width * width, b.w);
    for (int32_t i = 0; i < width; i++) b.column[i] = i, b.group[i] = i / 128;
  }
  for (int i = -1; status == NIBBLE_OK && i < BATCHES; i++) {
    if (i == 0) start = nb_seconds();
    status = nb_cuda_hessian_add(b.hessian, b.x, TOKENS, width, err);
  }
  if (status == NIBBLE_OK)
    printf("GPTQ Hessian of %lld columns: %.2f ms for %d tokens, from host memory\n", (long long)width,
           (nb_seconds() - start) * 1e3 / BATCHES, TOKENS);
  if (status == NIBBLE_OK) status = nb_cuda_hessian_sum(b.hessian, b.sum, err);
  if (status == NIBBLE_OK) status = factorize(&b, err);
  if (status == NIBBLE_OK) status = solve(&b, err);
  free_gptq(&b);
  return status;
}

nibble_status nb_bench_quantize(bool small, nibble_error *err) {
  if (small) width = 256, bands = 8;
  nibble_status status = time_quantizers(err);
  return status == NIBBLE_OK ? time_gptq(err) : status;
}
