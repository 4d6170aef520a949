#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "kernels/cuda/alone/check.h"
#include "kernels/cuda/alone/random.h"

#if defined(NIBBLE_HAS_CUDA) || defined(NIBBLE_EMULATED_CUDA)
#ifdef NIBBLE_EMULATED_CUDA
#define nb_cuda_quantizer_create nb_emulated_cuda_quantizer_create
#define nb_cuda_quantizer_free nb_emulated_cuda_quantizer_free
#define nb_cuda_quantize nb_emulated_cuda_quantize
#endif
#include "kernels/cuda/quantize.h"

/* What one quantizer made. */
typedef struct result {
  uint8_t *codes;
  float *scales;
  nb_block_sums *sums;
  int64_t bad;
} result;

typedef struct quantize_case {
  nb_format format;
  nb_dtype dtype;
  int64_t n, block_size; /* int8: all weights, and those of a row */
  bool nested;
  int64_t spoilt; /* this weight is an infinity; -1: none */
} quantize_case;

static bool make_result(const quantize_case *q, result *out) {
  int64_t blocks = nb_ceil_div(q->n, q->block_size);
  out->codes = nb_alloc((uint64_t)q->n, 1);
  out->scales = nb_alloc((uint64_t)blocks, sizeof *out->scales);
  out->sums = nb_alloc((uint64_t)blocks, sizeof *out->sums);
  return out->codes && out->scales && out->sums;
}

static void free_result(result *r) {
  free(r->codes);
  free(r->scales);
  free(r->sums);
}

static bool same(const quantize_case *q, const result *a, const result *b) {
  size_t blocks = (size_t)nb_ceil_div(q->n, q->block_size);
  size_t codes = (size_t)nb_ceil_div(q->n * nb_format_info(q->format)->bits, 8);
  if (a->bad != b->bad) return false;
  return a->bad >= 0 ||
         (memcmp(a->codes, b->codes, codes) == 0 && memcmp(a->scales, b->scales, blocks * sizeof *a->scales) == 0 &&
          memcmp(a->sums, b->sums, blocks * sizeof *a->sums) == 0);
}

static nibble_status quantize_both(nb_cuda_quantizer *on, const quantize_case *q, const void *src, result *cpu,
                                   result *gpu, nibble_error *err) {
  nb_packed m = nb_packed_usual(q->format, q->n / q->block_size, q->block_size, q->block_size, false);
  nb_quantize_run run = {.dtype = q->dtype, .src = src, .count = q->n, .nested = q->nested};
  run.codes = cpu->codes, run.scales = cpu->scales, run.sums = cpu->sums;
  cpu->bad = nb_quantize(&m, &run);
  run.codes = gpu->codes, run.scales = gpu->scales, run.sums = gpu->sums;
  return nb_cuda_quantize(on, &m, &run, &gpu->bad, err);
}

static void check_case(nb_check *c, nb_cuda_quantizer *on, const quantize_case *q) {
  float *values = nb_alloc((uint64_t)q->n, sizeof *values);
  void *src = nb_alloc((uint64_t)q->n, sizeof *values);
  result cpu = {0}, gpu = {0};
  char line[256];
  nibble_error err = {0};
  bool ok = values && src && make_result(q, &cpu) && make_result(q, &gpu);
  if (ok) {
    nb_random_floats((uint64_t)q->n, 0.02f, q->n, values);
    for (int64_t i = 0; i < nb_min_i64(q->n, q->block_size); i++) values[i] = 0; /* an empty block too */
    if (q->spoilt >= 0) values[q->spoilt] = (float)(1e38 * 10);
    nb_from_f32(q->dtype, values, (size_t)q->n, src);
    ok = quantize_both(on, q, src, &cpu, &gpu, &err) == NIBBLE_OK && same(q, &cpu, &gpu);
  }
  if (ok) {
    c->passed++;
  } else {
    c->failed++;
    snprintf(line, sizeof line, "quantizing %lld weights to %s, blocks of %lld: other bits than the CPU's %.80s",
             (long long)q->n, nb_format_info(q->format)->name, (long long)q->block_size, err.message);
    if (c->report) c->report(line);
  }
  free_result(&cpu);
  free_result(&gpu);
  free(values);
  free(src);
}

void nb_check_quantizers(nb_check *c) {
  static const nb_dtype dtypes[] = {NB_F32, NB_F16, NB_BF16};
  static const int64_t counts[] = {1, 63, 64, 65, 1000, 4096 * 3 + 17}, blocks[] = {32, 64, 4096};
  static const int64_t rows[][2] = {{1, 1}, {3, 131}, {17, 256}};
  nb_cuda_quantizer *on = NULL;
  nibble_error err = {0};
  if (nb_cuda_quantizer_create(&on, &err) != NIBBLE_OK) {
    c->failed++;
    if (c->report) c->report(err.message);
    return;
  }
  for (int d = 0; d < 3; d++) {
    for (int i = 0; i < 6; i++) {
      for (int b = 0; b < 3; b++) {
        quantize_case q = {.format = (i + b) % 2 ? NB_FORMAT_FP4 : NB_FORMAT_NF4,
                           .dtype = dtypes[d],
                           .n = counts[i],
                           .block_size = blocks[b],
                           .nested = i % 2 == 0,
                           .spoilt = i == 4 ? 777 : -1};
        check_case(c, on, &q);
      }
    }
    for (int i = 0; i < 3; i++) {
      quantize_case q = {.format = NB_FORMAT_INT8,
                         .dtype = dtypes[d],
                         .n = rows[i][0] * rows[i][1],
                         .block_size = rows[i][1],
                         .spoilt = i == 2 && d == 1 ? 300 : -1};
      check_case(c, on, &q);
    }
  }
  nb_cuda_quantizer_free(on);
}
#else
void nb_check_quantizers(nb_check *c) { (void)c; }
#endif
