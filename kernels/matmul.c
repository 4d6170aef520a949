#include "kernels/matmul.h"

#include "base/checked.h"
#include "base/parallel.h"

enum { ROW_BAND = 16, COL_TILE = 512 };

typedef struct matmul_job {
  const nb_packed *w;
  const float *x;
  float *y;
  int64_t ldx, ldy, n;
} matmul_job;

static void scalar_band(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const matmul_job *job = ctx;
  nb_dequantize_fn dequantize = nb_format_info(job->w->format)->dequantize;
  float tile[COL_TILE];
  for (int64_t row = begin; row < end; row++) {
    for (int64_t i = 0; i < job->n; i++) job->y[i * job->ldy + row] = 0;
    for (int64_t col = 0; col < job->w->cols; col += COL_TILE) {
      int64_t cols = nb_min_i64(COL_TILE, job->w->cols - col);
      dequantize(job->w, row, 1, col, cols, tile, cols);
      for (int64_t i = 0; i < job->n; i++) {
        float sum = 0;
        for (int64_t c = 0; c < cols; c++) sum += job->x[i * job->ldx + col + c] * tile[c];
        job->y[i * job->ldy + row] += sum;
      }
    }
  }
}

void nb_matmul(const nb_packed *w, const float *x, int64_t ldx, int64_t n, float *y, int64_t ldy) {
  matmul_job job = {.w = w, .x = x, .y = y, .ldx = ldx, .ldy = ldy, .n = n};
  nb_parallel(w->rows, ROW_BAND, scalar_band, &job);
}
