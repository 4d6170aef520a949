/* nibble_bench_kernels: this machine's limits, then every product as a share of the nearer one. */
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/context.h"
#include "base/parallel.h"
#include "base/status.h"
#include "base/stop.h"
#include "kernels/cpu/gemm.h"
#include "kernels/gptq.h"
#include "kernels/q8.h"
#include "kernels/quantize.h"

enum {
  RUNS = 5, /* timed, after one that is not; their median counts */
  NESTED_BLOCK = 256,
  GROUP = 128, /* of GPTQ's formats */
  READ_PIECE = 4096,
  QUANTIZED = 64 << 20, /* weights, in runs of QUANTIZE_RUN */
  QUANTIZE_RUN = 1 << 16,
  PEAK_ROUNDS = 1 << 20,
};

/* More than second-level caches hold, so that weights come from further away each time, as they do in a model. */
static const int64_t arena_bytes = 512 << 20;

static const struct {
  int64_t rows, cols;
} shapes[] = {
    {576, 576},   {1536, 576},   {576, 1536},   {49152, 576}, /* SmolLM2-135M */
    {2048, 2048}, {8192, 2048},                               /* Llama-3.2-1B */
    {4096, 4096}, {14336, 4096}, {4096, 14336},               /* Llama-3-8B */
};

static const int64_t batches[] = {1, 2, 4, 8, 16, 32, 64, 256, 512};

enum {
  SHAPES = sizeof shapes / sizeof *shapes,
  BATCHES = sizeof batches / sizeof *batches,
};

typedef struct bench {
  const nb_cpu_gemm *gemm; /* NULL: scalar */
  uint8_t *arena;
  int64_t at; /* in the arena: where the next weight begins */
  float *x, *y;
} bench;

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Median seconds of one call of `fn`, each run being as many calls as take `least` seconds. */
static double median_seconds(void (*fn)(bench *, void *), bench *b, void *arg, double least) {
  double seconds[RUNS];
  int64_t calls = 1;
  for (int run = -1; run < RUNS;) {
    double start = nb_seconds();
    for (int64_t i = 0; i < calls; i++) fn(b, arg);
    double took = nb_seconds() - start;
    if (took < least && run < 0) {
      calls *= took > 0 && least / took < 16 ? (int64_t)(least / took) + 1 : 16;
      continue;
    }
    if (run >= 0) seconds[run] = took / (double)calls;
    run++;
  }
  qsort(seconds, RUNS, sizeof *seconds, by_value);
  return seconds[RUNS / 2];
}

/* The machine's limits: each thread works on a part of its own. */

static void copy_part(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  bench *b = ctx;
  int64_t half = arena_bytes / 2, part = half / nb_threads();
  for (int64_t i = begin; i < end; i++) memcpy(b->arena + half + i * part, b->arena + i * part, (size_t)part);
}

static void copy_all(bench *b, void *arg) {
  (void)arg;
  nb_parallel(nb_threads(), 1, copy_part, b);
}

static void read_part(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  bench *b = ctx;
  const int64_t part = arena_bytes / nb_threads() / READ_PIECE;
  for (int64_t i = begin; i < end; i++) {
    const uint8_t *from = b->arena + i * part * READ_PIECE;
    float sum = 0;
    for (int64_t piece = 0; piece < part; piece++, from += READ_PIECE) {
      /* Asked for in time, as the kernels do. */
      for (int64_t line = 0; line < READ_PIECE; line += 64) __builtin_prefetch(from + line + (int64_t)2 * READ_PIECE);
      const float *values = (const float *)(const void *)from;
      sum += b->gemm->dot(values, values, READ_PIECE / (int64_t)sizeof *values);
    }
    b->y[i] = sum;
  }
}

static void read_all(bench *b, void *arg) {
  (void)arg;
  nb_parallel(nb_threads(), 1, read_part, b);
}

static void peak_part(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  bench *b = ctx;
  for (int64_t i = begin; i < end; i++) b->gemm->peak(PEAK_ROUNDS, &b->y[i]);
}

static void peak_all(bench *b, void *arg) {
  (void)arg;
  nb_parallel(nb_threads(), 1, peak_part, b);
}

static void quantize_part(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  bench *b = ctx;
  /* Weights, codes, scales and sums lie one after the other in the arena. */
  nb_packed m = nb_packed_usual(NB_FORMAT_NF4, 1, QUANTIZED, 0, false);
  nb_quantize_run run = {.dtype = NB_BF16, .src = b->arena + begin * 2, .count = end - begin};
  run.codes = b->arena + (int64_t)QUANTIZED * 2 + begin / 2;
  run.scales = (float *)(void *)(b->arena + (int64_t)QUANTIZED * 5 / 2) + begin / m.scale.block_cols;
  run.sums = (nb_block_sums *)(void *)(b->arena + (int64_t)QUANTIZED * 3) + begin / m.scale.block_cols;
  nb_quantize(&m, &run);
}

static void quantize_all(bench *b, void *arg) {
  (void)arg;
  nb_parallel(QUANTIZED, QUANTIZE_RUN, quantize_part, b);
}

static void measure_machine(bench *b, nibble_kernel_bench *out) {
  float sink;
  out->copy_bytes_per_second = (double)arena_bytes / median_seconds(copy_all, b, NULL, 0.1);
  out->read_bytes_per_second = (double)arena_bytes / median_seconds(read_all, b, NULL, 0.1);
  out->nf4_parameters_per_second = (double)QUANTIZED / median_seconds(quantize_all, b, NULL, 0.1);
  double flops = b->gemm->peak(PEAK_ROUNDS, &sink) * nb_threads();
  out->peak_flops = flops / median_seconds(peak_all, b, NULL, 0.02);
}

/* One product. */

typedef struct product_arg {
  nb_packed w;
  nb_product product;
  int64_t n, bytes;
  bool int8_activations;
} product_arg;

/* Takes `bytes` from the arena, from the start again where it ends. */
static const void *take(bench *b, int64_t bytes) {
  if (b->at + bytes > arena_bytes) b->at = 0;
  const void *at = b->arena + b->at;
  b->at += (bytes + 63) / 64 * 64;
  return at;
}

static void multiply(bench *b, void *arg) {
  product_arg *a = arg;
  int64_t count = a->w.rows * a->w.cols;
  a->w.codes = take(b, a->bytes);
  if (a->w.groups) {
    a->w.scale.data = take(b, a->w.groups * a->w.rows * 2);
    a->w.zeros = take(b, a->w.groups * a->w.rows);
  } else if (a->w.scale.block_cols) {
    int64_t scales = count / a->w.scale.block_cols;
    a->w.scale.data = take(b, scales * (int64_t)nb_dtype_size(a->w.scale.dtype));
    if (a->w.second.block_cols) a->w.second.data = take(b, nb_ceil_div(scales, a->w.second.block_cols) * 4);
  }
  if (!a->int8_activations || !nb_q8_matmul(&a->product, 1, a->n)) nb_matmul_many(&a->product, 1, a->n);
}

/* A line of the table. */
typedef struct bench_case {
  nb_format format;
  bool double_quant, int8_activations;
  int64_t rows, cols, n;
} bench_case;

static void measure_product(bench *b, const bench_case *c, const nibble_kernel_bench *machine,
                            nibble_kernel_bench_row *out) {
  product_arg a = {.n = c->n, .int8_activations = c->int8_activations};
  a.w = nb_packed_usual(c->format, c->rows, c->cols, 0, c->double_quant);
  a.w.scale.codebook = (const float *)(const void *)b->arena;
  a.w.band = a.w.groups ? nb_gptq_band() : 0; /* as a model has them once it is loaded */
  a.bytes = nb_packed_bytes(&a.w);
  a.product = (nb_product){.w = &a.w, .x = b->x, .ldx = c->cols, .y = b->y, .ldy = c->rows};
  *out = (nibble_kernel_bench_row){.format = nb_format_info(c->format)->name,
                                   .double_quant = c->double_quant,
                                   .rows = c->rows,
                                   .cols = c->cols,
                                   .n = c->n};
  out->seconds = median_seconds(multiply, b, &a, 0.01);
  out->bytes_per_second = (double)a.bytes / out->seconds;
  out->flops = 2.0 * (double)(c->n * c->rows * c->cols) / out->seconds;
  double by_memory = out->bytes_per_second / machine->read_bytes_per_second, by_peak = out->flops / machine->peak_flops;
  out->bound_by_memory = by_memory > by_peak;
  out->share = out->bound_by_memory ? by_memory : by_peak;
}

static bool wanted(const nibble_kernel_bench_options *o, nb_format format, int64_t shape, int64_t batch) {
  return (!o->format || !strcmp(o->format, nb_format_info(format)->name)) &&
         (!o->rows || o->rows == shapes[shape].rows) && (!o->cols || o->cols == shapes[shape].cols) &&
         (!o->n || o->n == batches[batch]);
}

static bool any_wanted(const nibble_kernel_bench_options *o) {
  for (int format = 0; format < NB_FORMAT_COUNT; format++) {
    for (int shape = 0; shape < SHAPES; shape++) {
      for (int batch = 0; batch < BATCHES; batch++) {
        if (wanted(o, (nb_format)format, shape, batch)) return true;
      }
    }
  }
  return false;
}

static nibble_status measure_all(bench *b, const nibble_kernel_bench_options *o, nibble_kernel_bench *out,
                                 nibble_error *err) {
  for (int format = 0; format < NB_FORMAT_COUNT; format++) {
    for (int nested = 0; nested <= (nb_format_info((nb_format)format)->nested_footprint != NULL); nested++) {
      for (int shape = 0; shape < SHAPES; shape++) {
        int64_t rows = shapes[shape].rows, cols = shapes[shape].cols;
        int block = nb_format_info((nb_format)format)->block.weights;
        if (block && cols % block) continue;
        for (int batch = 0; batch < BATCHES; batch++) {
          if (!wanted(o, (nb_format)format, shape, batch)) continue;
          nibble_kernel_bench_row *row = &out->rows[out->row_count++];
          bench_case c = {.format = (nb_format)format, .double_quant = nested, .rows = rows, .cols = cols};
          c.int8_activations = o->activations == NIBBLE_ACTIVATIONS_INT8;
          c.n = batches[batch];
          nibble_status status = nb_stop_check(err);
          if (status != NIBBLE_OK) return status;
          measure_product(b, &c, out, row);
          if (o->each) o->each(o->ctx, row);
        }
      }
    }
  }
  return NIBBLE_OK;
}

static nibble_status bench_kernels(const nibble_kernel_bench_options *options, nibble_kernel_bench *out,
                                   nibble_error *err) {
  *out = (nibble_kernel_bench){.size = sizeof *out, .isa = nb_isa_name(nb_isa_current()), .threads = nb_threads()};
  const size_t most = (size_t)(NB_FORMAT_COUNT + 1) * SHAPES * BATCHES, floats = (size_t)512 * 49152;
  bench b = {.gemm = nb_cpu_gemm_for(nb_isa_current())};
  nibble_status status = NIBBLE_OK;
  if (!b.gemm) return nb_fail(err, NIBBLE_USAGE, "there are no fast kernels to measure on this processor");
  if (!any_wanted(options)) return nb_fail(err, NIBBLE_USAGE, "no format, shape and batch of the table is like that");
  b.arena = nb_alloc_aligned((uint64_t)arena_bytes, 1);
  b.x = nb_alloc_aligned((uint64_t)512 * 14336, sizeof *b.x);
  b.y = nb_alloc_aligned(floats, sizeof *b.y);
  out->rows = nb_alloc(most, sizeof *out->rows);
  if (!b.arena || !b.x || !b.y || !out->rows) {
    status = nb_fail_memory(err, (size_t)arena_bytes + floats * sizeof *b.y);
    goto done;
  }
  /* Any two or four of these bytes are an ordinary float of any kind, so they serve as weights and scales alike. */
  uint32_t random = 1;
  for (int64_t i = 0; i < arena_bytes; i++)
    b.arena[i] = (uint8_t)(0x38 | (random = random * 1664525 + 1013904223) >> 29);
  for (int64_t i = 0; i < (int64_t)512 * 14336; i++) b.x[i] = (float)(i % 17 - 8) / 8;
  memset(b.y, 0, floats * sizeof *b.y);
  measure_machine(&b, out);
  if (options->started) options->started(options->ctx, out);
  status = measure_all(&b, options, out, err);
done:
  free(b.arena);
  free(b.x);
  free(b.y);
  if (status) nibble_kernel_bench_free(out);
  return status;
}

nibble_status nibble_bench_kernels(const nibble_kernel_bench_options *options, nibble_kernel_bench *out,
                                   nibble_error *err) {
  nibble_kernel_bench_options o;
  nibble_kernel_bench r;
  static const nb_call_rules rules = {"nibble_bench_kernels",
                                      NB_SIZES(nibble_kernel_bench_options, ctx),
                                      NB_SIZES(nibble_kernel_bench, row_count),
                                      {{0}}};
  nb_call call = {.options = &o, .result = &r};
  nibble_status status = nb_call_begin(&call, &rules, options, out, err);
  if (status == NIBBLE_OK) status = bench_kernels(&o, &r, err);
  return nb_call_end(&call, status);
}

void nibble_kernel_bench_free(nibble_kernel_bench *bench) {
  if (!bench) return;
  free(bench->rows);
  bench->rows = NULL;
  bench->row_count = 0;
}
