#include "kernels/int8.h"

#include <stdlib.h>

#include "base/checked.h"
#include "base/parallel.h"
#include "kernels/cpu/int8_cpu.h"

enum {
  X_ROW_BAND = 8,
  W_ROW_BAND = 16,    /* output features that one thread takes at a time */
  COL_TILE = 1 << 14, /* columns whose sum of products stays inside 32 bits: 2^14 * 127 * 128 < 2^31 */
  OUTLIER_ROWS = 32,  /* rows of x whose outlier sums are held at once */
};

/* As bitsandbytes 0.50 spells 1 / (127 * 127) and 1 / 127. */
static const float inverse_127_squared = 6.200124e-05f, inverse_127 = 7.874015718698502e-3f;

typedef struct int8_job {
  const nb_cpu_int8 *kernel;
  const nb_packed *w;
  const nb_product *product;
  int64_t n;
  float threshold;

  int64_t ld_codes;
  int16_t *codes;    /* [n rounded up to NB_INT8_X_ROWS, ld_codes]; the rows beyond n are zero */
  float *absmax;     /* [n] */
  bool *is_outlier;  /* [cols] */
  int32_t *outliers; /* the columns that are, [outlier_count] */
  float *outlier_x;  /* [outlier_count, n]: x of those columns */
  int64_t outlier_count;
} int8_job;

static void absmax_band(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const int8_job *job = ctx;
  for (int64_t i = begin; i < end; i++)
    job->absmax[i] =
        job->kernel->absmax_row(job->product->x + i * job->product->ldx, job->w->cols, job->threshold, job->is_outlier);
}

static void quantize_band(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const int8_job *job = ctx;
  for (int64_t i = begin; i < end; i++) {
    /* The reciprocal comes first, because that is how torch divides a number by a tensor. */
    float scale = job->absmax[i] > 0 ? 1.0f / job->absmax[i] * 127.0f : 0;
    int16_t *codes = job->codes + i * job->ld_codes;
    job->kernel->quantize_row(job->product->x + i * job->product->ldx, job->w->cols, job->threshold, scale, codes);
    for (int64_t k = 0; k < job->outlier_count; k++) codes[job->outliers[k]] = 0;
  }
}

static bool collect_outliers(int8_job *job) {
  int64_t cols = job->w->cols, count = 0;
  for (int64_t c = 0; c < cols; c++) count += job->is_outlier[c];
  job->outlier_count = count;
  if (count == 0) return true;
  job->outliers = nb_alloc((uint64_t)count, sizeof *job->outliers);
  job->outlier_x = nb_alloc((uint64_t)(count * job->n), sizeof *job->outlier_x);
  if (!job->outliers || !job->outlier_x) return false;
  for (int64_t c = 0, k = 0; c < cols; c++) {
    if (!job->is_outlier[c]) continue;
    job->outliers[k] = (int32_t)c;
    for (int64_t i = 0; i < job->n; i++) job->outlier_x[k * job->n + i] = job->product->x[i * job->product->ldx + c];
    k++;
  }
  return true;
}

/* Adds the float32 product of the outlier columns of w's row to sum[0, rows), for rows of x from `first` on. */
static void add_outliers(const int8_job *job, int64_t row, int64_t first, int64_t rows, float *restrict sum) {
  const int8_t *codes = (const int8_t *)job->w->codes + row * job->w->cols;
  float absmax = ((const float *)job->w->scale.data)[row];
  for (int64_t k = 0; k < job->outlier_count; k++) {
    float w = (float)codes[job->outliers[k]] * absmax * inverse_127;
    const float *restrict x = job->outlier_x + k * job->n + first;
    for (int64_t i = 0; i < rows; i++) sum[i] += x[i] * w;
  }
}

/* Integer products of rows of w, from `row` on, with NB_INT8_X_ROWS rows of x, from `first` on. */
static void integer_tile(const int8_job *job, int64_t row, int64_t first, int64_t out[NB_INT8_W_ROWS][NB_INT8_X_ROWS]) {
  const nb_packed *w = job->w;
  for (int64_t col = 0; col < w->cols; col += COL_TILE) {
    const int8_t *rows[NB_INT8_W_ROWS];
    int32_t part[NB_INT8_W_ROWS][NB_INT8_X_ROWS] = {{0}};
    for (int i = 0; i < NB_INT8_W_ROWS; i++)
      rows[i] = (const int8_t *)w->codes + nb_min_i64(row + i, w->rows - 1) * w->cols + col;
    job->kernel->dots(rows, job->codes + first * job->ld_codes + col, job->ld_codes,
                      nb_min_i64(COL_TILE, w->cols - col), part);
    for (int i = 0; i < NB_INT8_W_ROWS; i++) {
      for (int j = 0; j < NB_INT8_X_ROWS; j++) out[i][j] += part[i][j];
    }
  }
}

/* Rows of w [row, row + NB_INT8_W_ROWS) with rows of x [first, first + rows), rows <= OUTLIER_ROWS. */
static void product_tile(const int8_job *job, int64_t row, int64_t first, int64_t rows) {
  const nb_product *p = job->product;
  const nb_packed *w = job->w;
  const float *absmax = w->scale.data;
  float result[NB_INT8_W_ROWS][OUTLIER_ROWS];
  for (int64_t at = 0; at < rows; at += NB_INT8_X_ROWS) {
    int64_t sums[NB_INT8_W_ROWS][NB_INT8_X_ROWS] = {{0}};
    integer_tile(job, row, first + at, sums);
    for (int i = 0; i < NB_INT8_W_ROWS && row + i < w->rows; i++) {
      for (int64_t j = 0; j < nb_min_i64(NB_INT8_X_ROWS, rows - at); j++)
        result[i][at + j] = (float)sums[i][j] * (job->absmax[first + at + j] * absmax[row + i]) * inverse_127_squared;
    }
  }
  for (int i = 0; i < NB_INT8_W_ROWS && row + i < w->rows; i++) {
    if (p->bias) {
      for (int64_t j = 0; j < rows; j++) result[i][j] += p->bias[row + i];
    }
    add_outliers(job, row + i, first, rows, result[i]);
    for (int64_t j = 0; j < rows; j++) {
      float *y = &p->y[(first + j) * p->ldy + row + i];
      *y = p->accumulate ? *y + result[i][j] : result[i][j];
    }
  }
}

static void product_band(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const int8_job *job = ctx;
  for (int64_t first = 0; first < job->n; first += OUTLIER_ROWS) {
    int64_t rows = nb_min_i64(OUTLIER_ROWS, job->n - first);
    for (int64_t row = begin; row < end; row += NB_INT8_W_ROWS) product_tile(job, row, first, rows);
  }
}

bool nb_int8_matmul(const nb_product *product, int64_t n, float threshold) {
  const nb_packed *w = product->w;
  int8_job job = {.kernel = nb_cpu_int8_for(nb_isa_current()),
                  .w = w,
                  .product = product,
                  .n = n,
                  .threshold = threshold,
                  .ld_codes = w->cols};
  uint64_t padded = (uint64_t)(nb_ceil_div(n, NB_INT8_X_ROWS) * NB_INT8_X_ROWS);
  job.codes = nb_alloc(padded * (uint64_t)w->cols, sizeof *job.codes);
  job.absmax = nb_alloc((uint64_t)n, sizeof *job.absmax);
  job.is_outlier = nb_alloc((uint64_t)w->cols, sizeof *job.is_outlier);
  bool ok = job.codes && job.absmax && job.is_outlier;
  if (ok) nb_parallel(n, X_ROW_BAND, absmax_band, &job);
  ok = ok && collect_outliers(&job);
  if (ok) {
    nb_parallel(n, X_ROW_BAND, quantize_band, &job);
    nb_parallel_stoppable(w->rows, W_ROW_BAND, product_band, &job, NULL);
  }
  free(job.codes);
  free(job.absmax);
  free(job.is_outlier);
  free(job.outliers);
  free(job.outlier_x);
  return ok;
}
