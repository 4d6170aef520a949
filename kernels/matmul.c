#include "kernels/matmul.h"

#include "base/checked.h"
#include "base/parallel.h"

enum { ROW_BAND = 16, COL_TILE = 512 };

typedef struct matmul_job {
  const nb_product *product;
  int64_t n;
} matmul_job;

/* Output features [begin, end) of a product; the specification of all other kernels. */
static void scalar_band(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const matmul_job *job = ctx;
  const nb_product *p = job->product;
  nb_dequantize_fn dequantize = nb_format_info(p->w->format)->dequantize;
  float tile[COL_TILE];
  for (int64_t row = begin; row < end; row++) {
    for (int64_t i = 0; i < job->n; i++) {
      float *y = &p->y[i * p->ldy + row];
      *y = (p->accumulate ? *y : 0) + (p->bias ? p->bias[row] : 0);
    }
    for (int64_t col = 0; col < p->w->cols; col += COL_TILE) {
      int64_t cols = nb_min_i64(COL_TILE, p->w->cols - col);
      dequantize(p->w, row, 1, col, cols, tile, cols);
      for (int64_t i = 0; i < job->n; i++) {
        const float *x = p->x + i * p->ldx + col;
        float sum = 0;
        for (int64_t c = 0; c < cols; c++) sum += x[c] * tile[c];
        p->y[i * p->ldy + row] += sum;
      }
    }
  }
}

void nb_matmul_many(const nb_product *products, int count, int64_t n) {
  for (int i = 0; i < count; i++) {
    matmul_job job = {.product = &products[i], .n = n};
    nb_parallel(products[i].w->rows, ROW_BAND, scalar_band, &job);
  }
}

void nb_matmul(const nb_packed *w, const float *x, int64_t ldx, int64_t n, float *y, int64_t ldy) {
  nb_product product = {.w = w, .x = x, .ldx = ldx, .y = y, .ldy = ldy};
  nb_matmul_many(&product, 1, n);
}
