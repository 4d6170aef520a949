#include "kernels/matmul.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/parallel.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/products.h"

enum {
  SCALAR_BAND = 16,
  X_ROWS = 64,
  COL_TILE = 512,
  ORDER_BAND = 16,
};

typedef struct scalar_job {
  const nb_product *product;
  int64_t x_begin, n;
} scalar_job;

/* Plain C: the specification of all other kernels. */
static void scalar_band(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const scalar_job *job = ctx;
  const nb_product *p = job->product;
  nb_dequantize_fn dequantize = nb_format_info(p->w->format)->dequantize;
  float tile[COL_TILE], sums[X_ROWS];
  for (int64_t row = begin; row < end; row++) {
    for (int64_t i = 0; i < job->n; i++) sums[i] = 0;
    for (int64_t col = 0; col < p->w->cols; col += COL_TILE) {
      int64_t cols = nb_min_i64(COL_TILE, p->w->cols - col);
      dequantize((nb_tile){p->w, row, 1, col, cols}, tile, cols);
      for (int64_t i = 0; i < job->n; i++) {
        const float *x = p->x + (job->x_begin + i) * p->ldx;
        for (int64_t c = 0; c < cols; c++) sums[i] += x[p->w->order ? p->w->order[col + c] : col + c] * tile[c];
      }
    }
    for (int64_t i = 0; i < job->n; i++) nb_finish(p, job->x_begin + i, row, sums[i]);
  }
}

static void scalar_product(const nb_product *product, int64_t n) {
  for (int64_t begin = 0; begin < n; begin += X_ROWS) {
    scalar_job job = {.product = product, .x_begin = begin, .n = nb_min_i64(X_ROWS, n - begin)};
    nb_parallel_stoppable(product->w->rows, SCALAR_BAND, scalar_band, &job, NULL);
  }
}

static bool few_rows(const nb_packed *w, int64_t n) {
  const nb_format_kernels *kernels = nb_dot_kernels(w);
  return n < (kernels && kernels->prefill_from ? kernels->prefill_from(w) : NB_PREFILL_FROM);
}

/* Each weight goes its own way, whatever company it is in. */
static void multiply_many(const nb_product *products, int count, int64_t n, const nb_cpu_gemm *gemm) {
  nb_product few[NB_PRODUCTS_MAX], many[NB_PRODUCTS_MAX];
  int few_count = 0, many_count = 0;
  for (int i = 0; i < count; i++) {
    if (few_rows(products[i].w, n)) {
      few[few_count++] = products[i];
    } else {
      many[many_count++] = products[i];
    }
  }
  if (few_count) nb_decode(few, few_count, n, gemm);
  if (many_count && !nb_prefill(many, many_count, n, gemm)) nb_decode(many, many_count, n, gemm);
}

/* ---- columns in an order of their own ---------------------------------------------------------------------------- */

typedef struct order_job {
  const nb_product *product;
  float *to; /* [n, cols] */
} order_job;

static void order_band(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const order_job *job = ctx;
  const nb_packed *w = job->product->w;
  for (int64_t i = begin; i < end; i++) {
    const float *x = job->product->x + i * job->product->ldx;
    float *to = job->to + i * w->cols;
    for (int64_t c = 0; c < w->cols; c++) to[c] = x[w->order[c]];
  }
}

/* The projections to q, k and v have been given the same order. */
static bool same_order(const nb_product *a, const nb_product *b) {
  return b->w->order && nb_same_x(a, b) &&
         (a->w->order == b->w->order || !memcmp(a->w->order, b->w->order, (size_t)a->w->cols * sizeof *a->w->order));
}

bool nb_order_x(const nb_product *products, int count, int64_t n, nb_product *out, float **memory) {
  int64_t floats = 0;
  *memory = NULL;
  for (int i = 0; i < count; i++) {
    out[i] = products[i];
    if (products[i].w->order) floats += n * products[i].w->cols;
  }
  if (floats == 0) return true;
  float *at = *memory = nb_alloc_aligned((uint64_t)floats, sizeof *at);
  if (!at) return false;
  for (int i = 0; i < count; i++) {
    const nb_product *p = &products[i];
    if (!p->w->order) continue;
    int same = 0;
    while (same < i && !same_order(p, &products[same])) same++;
    out[i].x = same < i ? out[same].x : at;
    out[i].ldx = p->w->cols;
    if (same < i) continue;
    order_job job = {.product = p, .to = at};
    nb_parallel(n, ORDER_BAND, order_band, &job);
    at += n * p->w->cols;
  }
  return true;
}

void nb_matmul_many(const nb_product *products, int count, int64_t n) {
  const nb_cpu_gemm *gemm = nb_cpu_gemm_for(nb_isa_current());
  for (int i = 0; i < count; i += NB_PRODUCTS_MAX) {
    int some = count - i < NB_PRODUCTS_MAX ? count - i : NB_PRODUCTS_MAX;
    nb_product ordered[NB_PRODUCTS_MAX];
    float *memory = NULL;
    if (gemm && nb_order_x(products + i, some, n, ordered, &memory)) {
      multiply_many(ordered, some, n, gemm);
    } else {
      for (int j = i; j < i + some; j++) scalar_product(&products[j], n);
    }
    free(memory);
  }
}

void nb_matmul(const nb_packed *w, const float *x, int64_t ldx, int64_t n, float *y, int64_t ldy) {
  nb_product product = {.w = w, .x = x, .ldx = ldx, .y = y, .ldy = ldy};
  nb_matmul_many(&product, 1, n);
}
