/* Both products end in the block product of cpu/gemm.h, which wants one operand packed in tiles of `lanes` columns:
 *
 *   for each tile of b                       [k][lanes], 32 KB for one step of k: the first-level cache
 *     c [M_STEP][lanes]                      stays in the cache while k runs
 *     for each K_STEP of k                   c += a . tile */
#include "kernels/dense.h"

#include <string.h>

#include "base/checked.h"
#include "base/parallel.h"
#include "kernels/cpu/gemm.h"

enum {
  K_STEP = 256,
  M_STEP = 96,
  GRAM_ROWS = 512, /* of x that are packed at a time */
  GRAM_BAND = 48,  /* rows of the sum: a multiple of the 6 and 12 that the block product likes */
};

/* Short rows, for which a call of memcpy would cost more than the copy. */
static void copy_row(const float *from, int64_t n, float *to) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) memcpy(to + i, from + i, 8 * sizeof *to);
  for (; i < n; i++) to[i] = from[i];
}

/* [k, n] to [k][lanes], with zeros in lanes n and above. */
static void pack_tile(const float *b, int64_t ldb, int64_t k, int64_t n, int64_t lanes, float *tile) {
  for (int64_t i = 0; i < k; i++, b += ldb, tile += lanes) {
    copy_row(b, n, tile);
    for (int64_t l = n; l < lanes; l++) tile[l] = 0;
  }
}

static void load_sums(const float *c, int64_t ldc, int64_t rows, int64_t n, int64_t lanes, float *sums) {
  pack_tile(c, ldc, rows, n, lanes, sums);
}

static void store_sums(const float *sums, int64_t lanes, int64_t rows, int64_t n, float *c, int64_t ldc) {
  for (int64_t r = 0; r < rows; r++) copy_row(sums + r * lanes, n, c + r * ldc);
}

/* ---- c += a b --------------------------------------------------------------------------------------------------- */

static void scalar_add(int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, const float *b, int64_t ldb,
                       float *c, int64_t ldc) {
  for (int64_t r = 0; r < m; r++) {
    for (int64_t i = 0; i < k; i++) {
      for (int64_t j = 0; j < n; j++) c[r * ldc + j] += a[r * lda + i] * b[i * ldb + j];
    }
  }
}

void nb_dense_add(int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, const float *b, int64_t ldb, float *c,
                  int64_t ldc) {
  _Alignas(64) float tile[K_STEP * NB_LANES_MAX], sums[M_STEP * NB_LANES_MAX];
  const nb_cpu_gemm *gemm = nb_cpu_gemm_for(nb_isa_current());
  if (!gemm) {
    scalar_add(m, n, k, a, lda, b, ldb, c, ldc);
    return;
  }
  for (int64_t j = 0; j < n; j += gemm->lanes) {
    int64_t width = nb_min_i64(gemm->lanes, n - j);
    for (int64_t i = 0; i < k; i += K_STEP) {
      int64_t depth = nb_min_i64(K_STEP, k - i);
      pack_tile(b + i * ldb + j, ldb, depth, width, gemm->lanes, tile);
      for (int64_t r = 0; r < m; r += M_STEP) {
        int64_t rows = nb_min_i64(M_STEP, m - r);
        load_sums(c + r * ldc + j, ldc, rows, width, gemm->lanes, sums);
        gemm->multiply(gemm->lanes, rows, depth, tile, a + r * lda + i, lda, 1, sums, true);
        store_sums(sums, gemm->lanes, rows, width, c + r * ldc + j, ldc);
      }
    }
  }
}

/* ---- sum += x^T x ----------------------------------------------------------------------------------------------- */

typedef struct gram_job {
  const nb_cpu_gemm *gemm;
  const float *x; /* [rows, n] */
  int64_t rows, ldx, n;
  float *tiles; /* x as [n / lanes][rows][lanes] */
  float *sum;
} gram_job;

static void pack_band(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const gram_job *job = ctx;
  int64_t lanes = job->gemm->lanes;
  for (int64_t t = begin; t < end; t++) {
    pack_tile(job->x + t * lanes, job->ldx, job->rows, nb_min_i64(lanes, job->n - t * lanes), lanes,
              job->tiles + t * lanes * job->rows);
  }
}

/* Rows [begin, end) of the sum: one panel of x's columns, [rows][GRAM_BAND], against all tiles not left of it. */
static void gram_band(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const gram_job *job = ctx;
  _Alignas(64) float panel[GRAM_ROWS * GRAM_BAND], sums[GRAM_BAND * NB_LANES_MAX];
  int64_t lanes = job->gemm->lanes, n = job->n, rows = end - begin;
  pack_tile(job->x + begin, job->ldx, job->rows, rows, GRAM_BAND, panel);
  for (int64_t j = begin / lanes * lanes; j < n; j += lanes) {
    const float *tile = job->tiles + j * job->rows;
    int64_t width = nb_min_i64(lanes, n - j);
    load_sums(job->sum + begin * n + j, n, rows, width, lanes, sums);
    for (int64_t i = 0; i < job->rows; i += K_STEP) {
      job->gemm->multiply(lanes, rows, nb_min_i64(K_STEP, job->rows - i), tile + i * lanes, panel + i * GRAM_BAND, 1,
                          GRAM_BAND, sums, true);
    }
    store_sums(sums, lanes, rows, width, job->sum + begin * n + j, n);
  }
}

static void scalar_gram_band(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const gram_job *job = ctx;
  for (int64_t i = begin; i < end; i++) {
    for (int64_t t = 0; t < job->rows; t++) {
      const float *x = job->x + t * job->ldx;
      for (int64_t j = i; j < job->n; j++) job->sum[i * job->n + j] += x[i] * x[j];
    }
  }
}

int64_t nb_dense_gram_work(int64_t n) { return GRAM_ROWS * (nb_ceil_div(n, NB_LANES_MAX) * NB_LANES_MAX); }

void nb_dense_gram(const float *x, int64_t rows, int64_t ldx, int64_t n, float *work, float *sum) {
  gram_job job = {.gemm = nb_cpu_gemm_for(nb_isa_current()), .ldx = ldx, .n = n, .tiles = work, .sum = sum};
  for (int64_t at = 0; at < rows; at += GRAM_ROWS) {
    job.x = x + at * ldx;
    job.rows = nb_min_i64(GRAM_ROWS, rows - at);
    if (!job.gemm) {
      nb_parallel(n, GRAM_BAND, scalar_gram_band, &job);
      continue;
    }
    nb_parallel(nb_ceil_div(n, job.gemm->lanes), 1, pack_band, &job);
    nb_parallel(n, GRAM_BAND, gram_band, &job);
  }
}
