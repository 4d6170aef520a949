/* A few rows of x: weights are unpacked in registers and multiplied there, every NB_DOT_MAX rows of x anew. */
#include "base/checked.h"
#include "base/parallel.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/products.h"
#include "kernels/cpu/scratch.h"

enum {
  BAND = 64,   /* output features a band; each is a sum of its own, so no result depends on this, */
  SHARES = 12, /* nor on how many bands in a row a thread takes: long runs read well, short ones balance */
  COL_TILE = 512,
};

typedef struct decode_job {
  const nb_product *products;
  const nb_format_kernels *kernels[NB_PRODUCTS_MAX]; /* NULL: unpack, then nb_cpu_gemm.dot */
  const float *x[NB_PRODUCTS_MAX];                   /* as `prepare` left it */
  int64_t ldx[NB_PRODUCTS_MAX];
  const nb_cpu_gemm *gemm;
  int64_t n;
} decode_job;

/* Weights that no dot kernel takes: a row is unpacked a tile at a time. */
static void dot_unpacked(const nb_cpu_gemm *gemm, const nb_packed *w, int64_t begin, int64_t end, nb_rows x,
                         nb_sums out) {
  nb_dequantize_fn dequantize = nb_dequantizer(w->format);
  float tile[COL_TILE];
  for (int64_t row = begin; row < end; row++) {
    for (int64_t i = 0; i < x.count; i++) out.data[i * out.stride + row - begin] = 0;
    for (int64_t col = 0; col < w->cols; col += COL_TILE) {
      int64_t cols = nb_min_i64(COL_TILE, w->cols - col);
      dequantize((nb_tile){w, row, 1, col, cols}, tile, cols);
      for (int64_t i = 0; i < x.count; i++)
        out.data[i * out.stride + row - begin] += gemm->dot(x.data + i * x.stride + col, tile, cols);
    }
  }
}

static void decode_rows(const decode_job *job, int index, int64_t begin, int64_t end) {
  const nb_product *p = &job->products[index];
  float sums[NB_DOT_MAX * BAND];
  for (int64_t i = 0; i < job->n; i += NB_DOT_MAX) {
    int64_t n = nb_min_i64(NB_DOT_MAX, job->n - i), ldx = job->ldx[index];
    nb_rows x = {.data = job->x[index] + i * ldx, .stride = ldx, .count = n};
    nb_sums out = {.data = sums, .stride = BAND};
    if (job->kernels[index]) {
      job->kernels[index]->dot(p->w, begin, end, x, out);
    } else {
      dot_unpacked(job->gemm, p->w, begin, end, x, out);
    }
    for (int64_t j = 0; j < n; j++) {
      for (int64_t r = begin; r < end; r++) nb_finish(p, i + j, r, sums[j * BAND + r - begin]);
    }
  }
}

/* Bands are numbered through all products. */
static void decode_bands(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const decode_job *job = ctx;
  for (int64_t band = begin; band < end; band++) {
    int64_t local = band;
    int index = 0;
    for (; local * BAND >= job->products[index].w->rows; index++) {
      local -= nb_ceil_div(job->products[index].w->rows, BAND);
    }
    decode_rows(job, index, local * BAND, nb_min_i64((local + 1) * BAND, job->products[index].w->rows));
  }
}

/* Puts every distinct x in the order its kernel wants. */
static void prepare(decode_job *job, int count) {
  int64_t floats = 0;
  for (int i = 0; i < count; i++) floats += job->n * job->products[i].w->cols;
  float *at = NULL;
  for (int i = 0; i < count; i++) {
    const nb_product *p = &job->products[i];
    job->kernels[i] = nb_dot_kernels(p->w);
    job->x[i] = p->x;
    job->ldx[i] = p->ldx;
    if (!job->kernels[i] || !job->kernels[i]->prepare) continue;
    int same = 0;
    while (same < i && !(job->kernels[same] == job->kernels[i] && nb_same_x(&job->products[same], p))) same++;
    if (!at && !(at = nb_scratch(floats))) {
      job->kernels[i] = NULL;
      continue;
    }
    job->ldx[i] = p->w->cols;
    job->x[i] = same < i ? job->x[same] : at;
    if (same < i) continue;
    for (int64_t row = 0; row < job->n; row++, at += p->w->cols) {
      job->kernels[i]->prepare(p->x + row * p->ldx, p->w->cols, at);
    }
  }
}

void nb_decode(const nb_product *products, int count, int64_t n, const nb_cpu_gemm *gemm) {
  decode_job job = {.products = products, .gemm = gemm, .n = n};
  prepare(&job, count);
  int64_t bands = 0;
  for (int i = 0; i < count; i++) bands += nb_ceil_div(products[i].w->rows, BAND);
  nb_parallel(bands, nb_ceil_div(bands, (int64_t)nb_threads() * SHARES), decode_bands, &job);
}
