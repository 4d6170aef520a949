/* Many rows of x: x is packed into tiles, and each panel of weights is unpacked once and multiplied with all of them.
 *
 *   for X_ROWS rows of x                              one item of work: its sums, PANEL_ROWS x X_ROWS, stay with it
 *     for PANEL_COLS columns
 *       unpack PANEL_ROWS x PANEL_COLS weights        to the second-level cache
 *       for each tile of x                            lanes x PANEL_COLS, from the first-level cache
 *         sums += panel . tile                        the block product of gemm.h */
#include "base/checked.h"
#include "base/parallel.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/products.h"
#include "kernels/cpu/scratch.h"

enum {
  /* A panel takes 61 KB, a tile 20 KB (AVX2) or 40 KB (AVX-512). 48 is a multiple of the 6 and 12 rows that the block
   * product likes, PANEL_COLS of the 64 weights that formats like. */
  PANEL_ROWS = 48,
  PANEL_COLS = 320,
  /* Enough rows to make unpacking a panel cheap, few enough for their sums (48 KB) to stay in the cache beside it. */
  X_ROWS = 256,
  /* Rows of x that are packed at a time, as long as PACKED_MAX floats (32 MB) hold them. */
  PACKED_ROWS = 1024,
  PACKED_MAX = 8 << 20,
};

typedef struct prefill_job {
  const nb_product *products;
  int count;
  const nb_cpu_gemm *gemm;
  int64_t x_begin, n;                  /* the rows of x that are packed */
  float *packed[NB_PRODUCTS_MAX];      /* tiles of [cols][lanes] */
  int shares[NB_PRODUCTS_MAX];         /* the first product with the same x */
  int64_t first_item[NB_PRODUCTS_MAX]; /* items of work are numbered through all products */
} prefill_job;

/* Lanes of the tile that begins at row i of n: a narrow one where it holds the rest. */
static int64_t tile_lanes(const nb_cpu_gemm *gemm, int64_t i, int64_t n) {
  return n - i <= gemm->narrow ? gemm->narrow : gemm->lanes;
}

/* Packed rows: full tiles, then one tile that is padded. */
static int64_t padded_rows(const nb_cpu_gemm *gemm, int64_t n) {
  int64_t full = n / gemm->lanes * gemm->lanes;
  return full == n ? n : full + tile_lanes(gemm, full, n);
}

/* One item is one tile of one product's x. */
static void pack_band(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const prefill_job *job = ctx;
  int64_t tiles = nb_ceil_div(job->n, job->gemm->lanes);
  for (int64_t item = begin; item < end; item++) {
    int index = (int)(item / tiles);
    const nb_product *p = &job->products[index];
    if (job->shares[index] != index) continue;
    int64_t i = item % tiles * job->gemm->lanes, lanes = tile_lanes(job->gemm, i, job->n);
    job->gemm->pack(p->x + (job->x_begin + i) * p->ldx, p->ldx, nb_min_i64(lanes, job->n - i), p->w->cols, lanes,
                    job->packed[index] + i * p->w->cols);
  }
}

/* One item of work: y [i, i + n) x [row, row + rows) of a product, where i counts from the first packed row. */
typedef struct prefill_block {
  int64_t i, n, row, rows;
} prefill_block;

static void multiply_block(const prefill_job *job, int index, prefill_block b) {
  const nb_product *p = &job->products[index];
  const float *packed = job->packed[job->shares[index]];
  _Alignas(64) float panel[PANEL_ROWS * PANEL_COLS], sums[PANEL_ROWS * X_ROWS];
  const nb_cpu_gemm *gemm = job->gemm;
  const nb_format_kernels *kernels = nb_dot_kernels(p->w);
  bool turned = kernels && kernels->columns;
  nb_dequantize_fn dequantize = turned ? kernels->columns : nb_dequantizer(p->w->format);
  int64_t stride = turned ? PANEL_ROWS : PANEL_COLS;
  for (int64_t col = 0; col < p->w->cols; col += PANEL_COLS) {
    int64_t cols = nb_min_i64(PANEL_COLS, p->w->cols - col);
    dequantize((nb_tile){p->w, b.row, b.rows, col, cols}, panel, stride);
    nb_gemm_operand w = {panel, turned ? 1 : stride, turned ? stride : 1};
    for (int64_t t = 0; t < b.n; t += gemm->lanes) {
      nb_gemm_size size = {tile_lanes(gemm, b.i + t, job->n), b.rows, cols};
      const float *tile = packed + (b.i + t) * p->w->cols + col * size.lanes;
      gemm->multiply(size, tile, w, sums + t * PANEL_ROWS, col > 0);
    }
  }
  nb_gemm_out out = {.ldy = p->ldy, .bias = p->bias ? p->bias + b.row : NULL, .accumulate = p->accumulate};
  for (int64_t t = 0; t < b.n; t += gemm->lanes) {
    int64_t lanes = tile_lanes(gemm, b.i + t, job->n);
    out.y = p->y + (job->x_begin + b.i + t) * p->ldy + b.row;
    gemm->unpack(sums + t * PANEL_ROWS, lanes, nb_min_i64(lanes, b.n - t), b.rows, out);
  }
}

static void multiply_band(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const prefill_job *job = ctx;
  for (int64_t item = begin; item < end; item++) {
    int index = job->count - 1;
    while (item < job->first_item[index]) index--;
    const nb_product *p = &job->products[index];
    int64_t panels = nb_ceil_div(p->w->rows, PANEL_ROWS), local = item - job->first_item[index];
    int64_t row = local % panels * PANEL_ROWS, i = local / panels * X_ROWS;
    prefill_block b = {i, nb_min_i64(X_ROWS, job->n - i), row, nb_min_i64(PANEL_ROWS, p->w->rows - row)};
    multiply_block(job, index, b);
  }
}

/* Finds out which products share an x; returns the floats in one row of all distinct ones. */
static int64_t share(prefill_job *job) {
  int64_t floats = 0;
  for (int i = 0; i < job->count; i++) {
    int same = 0;
    while (!nb_same_x(&job->products[same], &job->products[i])) same++;
    job->shares[i] = same;
    if (same == i) floats += job->products[i].w->cols;
  }
  return floats;
}

static void prefill_rows(prefill_job *job, float *memory) {
  int64_t items = 0, padded = padded_rows(job->gemm, job->n), tiles = nb_ceil_div(job->n, job->gemm->lanes);
  for (int i = 0; i < job->count; i++) {
    job->first_item[i] = items;
    items += nb_ceil_div(job->products[i].w->rows, PANEL_ROWS) * nb_ceil_div(job->n, X_ROWS);
    if (job->shares[i] != i) continue;
    job->packed[i] = memory;
    memory += padded * job->products[i].w->cols;
  }
  nb_parallel(tiles * job->count, 1, pack_band, job);
  nb_parallel_stoppable(items, 1, multiply_band, job, NULL);
}

bool nb_prefill(const nb_product *products, int count, int64_t n, const nb_cpu_gemm *gemm) {
  prefill_job job = {.products = products, .count = count, .gemm = gemm};
  int64_t floats = share(&job), rows = nb_min_i64(PACKED_ROWS, nb_max_i64(PACKED_MAX / nb_max_i64(floats, 1), 1));
  rows = nb_max_i64(rows / X_ROWS * X_ROWS, X_ROWS);
  float *memory = nb_scratch(padded_rows(gemm, nb_min_i64(rows, n)) * floats);
  if (!memory) return false;
  for (; job.x_begin < n; job.x_begin += rows) {
    job.n = nb_min_i64(rows, n - job.x_begin);
    prefill_rows(&job, memory);
  }
  return true;
}
