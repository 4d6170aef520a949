#include "quant/blas.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/checked.h"
#include "base/parallel.h"
#include "kernels/cpu/isa.h"

/* CBLAS's own numbers (netlib.org/blas, cblas.h). */
enum { ROW_MAJOR = 101, COL_MAJOR = 102, NO_TRANS = 111, TRANS = 112 };
enum { UPPER = 121, LOWER = 122, NON_UNIT = 131, LEFT = 141, RIGHT = 142 };
enum {
  ROOM = 256 << 20,
  GRAM_LEAST = 144,
  GRAM_BANDS = 8,    /* rows of the triangle to a product: few enough for threads to share them evenly */
  FACTOR_BLOCK = 96, /* columns of a matrix that are factorized at a time */
  FACTOR_BAND = 96,
};

typedef void set_threads_fn(int count);
typedef void sgemm_fn(int order, int trans_a, int trans_b, int m, int n, int k, float alpha, const float *a, int lda,
                      const float *b, int ldb, float beta, float *c, int ldc);
typedef void potrf_fn(const char *uplo, const int *n, double *a, const int *lda, int *info, size_t uplo_length);
typedef void ssyrk_fn(int order, int uplo, int trans, int n, int k, float alpha, const float *a, int lda, float beta,
                      float *c, int ldc);
typedef void dgemm_fn(int order, int trans_a, int trans_b, int m, int n, int k, double alpha, const double *a, int lda,
                      const double *b, int ldb, double beta, double *c, int ldc);
typedef void dtrsm_fn(int order, int side, int uplo, int trans, int diag, int m, int n, double alpha, const double *a,
                      int lda, double *b, int ldb);

static struct {
  sgemm_fn *sgemm;
  ssyrk_fn *ssyrk;
  dgemm_fn *dgemm;
  dtrsm_fn *dtrsm;
  potrf_fn *potrf;
  char problem[256]; /* empty: loaded */
} blas;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static bool has_room(void) {
  void *room = mmap(NULL, ROOM, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return room != MAP_FAILED && munmap(room, ROOM) == 0;
}

/* A pointer to data may not be cast to one to a function; copying it is what POSIX wants. */
static bool find(void *library, const char *name, void *function) {
  void *symbol = dlsym(library, name);
  memcpy(function, &symbol, sizeof symbol);
  if (!symbol) snprintf(blas.problem, sizeof blas.problem, "OpenBLAS has no %s", name);
  return symbol;
}

/* A processor that came out after the OpenBLAS at hand is taken by it for one of 2004, and served at a tenth of the
 * speed. We know what it can do. */
static void name_processor(void) {
  static const char *const cores[NB_ISA_COUNT] = {
      [NB_ISA_AVX2] = "HASWELL", [NB_ISA_AVXVNNI] = "HASWELL", [NB_ISA_AVX512] = "SKYLAKEX"};
  const char *core = cores[nb_isa_current()];
  if (core) setenv("OPENBLAS_CORETYPE", core, false);
}

static void load(void) {
  if (!has_room()) {
    snprintf(blas.problem, sizeof blas.problem, "no room for OpenBLAS: it needs %d MiB of addresses", ROOM >> 20);
    return;
  }
  name_processor();
  void *library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
  if (!library) library = dlopen("libopenblas.so", RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    snprintf(blas.problem, sizeof blas.problem, "OpenBLAS cannot be loaded: %s", dlerror());
    return;
  }
  set_threads_fn *set_threads;
  if (find(library, "openblas_set_num_threads", &set_threads) && find(library, "cblas_sgemm", &blas.sgemm) &&
      find(library, "cblas_ssyrk", &blas.ssyrk) && find(library, "cblas_dgemm", &blas.dgemm) &&
      find(library, "cblas_dtrsm", &blas.dtrsm) && find(library, "dpotrf_", &blas.potrf))
    set_threads(1);
}

nibble_status nb_blas_load(nibble_error *err) {
  pthread_once(&once, load);
  return blas.problem[0] ? nb_fail(err, NIBBLE_SYSTEM, "%s", blas.problem) : NIBBLE_OK;
}

void nb_dense_add(const nb_dense_sum *s) {
  blas.sgemm(ROW_MAJOR, NO_TRANS, NO_TRANS, (int)s->m, (int)s->n, (int)s->k, 1, s->a.data, (int)s->a.ld, s->b.data,
             (int)s->b.ld, 1, s->c, (int)s->ldc);
}

typedef struct gram_job {
  const float *x; /* [rows, n] */
  int64_t rows, ldx, n;
  float *sum;
} gram_job;

/* Rows [begin, end) of the upper triangle: the square on the diagonal, and what lies right of it. */
static void gram_band(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const gram_job *job = ctx;
  int rows = (int)(end - begin), right = (int)(job->n - end), tokens = (int)job->rows, ldx = (int)job->ldx;
  const float *x = job->x + begin;
  float *sum = job->sum + begin * job->n + begin;
  blas.ssyrk(ROW_MAJOR, UPPER, TRANS, rows, tokens, 1, x, ldx, 1, sum, (int)job->n);
  if (right == 0) return;
  blas.sgemm(ROW_MAJOR, TRANS, NO_TRANS, rows, right, tokens, 1, x, ldx, x + rows, ldx, 1, sum + rows, (int)job->n);
}

void nb_dense_gram(const float *x, int64_t rows, int64_t ldx, int64_t n, float *sum) {
  gram_job job = {.x = x, .rows = rows, .ldx = ldx, .n = n, .sum = sum};
  nb_parallel_stoppable(n, nb_max_i64(nb_ceil_div(n, GRAM_BANDS), GRAM_LEAST), gram_band, &job, NULL);
}

/* ---- Cholesky: in blocks of our own, as LAPACK's would be one thread's ------------------------------------------ */

typedef struct factor_job {
  double *a;              /* [n, n] */
  int64_t n, done, block; /* columns [done, done + block) are at work */
  nb_columns_fn *emit;
  void *ctx;
  double *solved; /* for each thread [FACTOR_BLOCK, n] */
} factor_job;

/* The rows below the block's triangle: X L^T = A for X. */
static void divide_band(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const factor_job *job = ctx;
  double *corner = job->a + job->done * job->n + job->done;
  blas.dtrsm(COL_MAJOR, RIGHT, LOWER, TRANS, NON_UNIT, (int)(end - begin), (int)job->block, 1, corner, (int)job->n,
             corner + job->block + begin, (int)job->n);
}

/* Takes the block's part out of what is right of it: rows [begin, end) up to the diagonal. */
static void update_band(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const factor_job *job = ctx;
  int n = (int)job->n;
  const double *below = job->a + job->done * job->n + job->done + job->block;
  blas.dgemm(COL_MAJOR, NO_TRANS, TRANS, (int)(end - begin), (int)end, (int)job->block, -1, below + begin, n, below, n,
             1, job->a + (job->done + job->block) * (job->n + 1) + begin, n);
}

static nibble_status factorize(factor_job *job, bool *is_definite, nibble_error *err) {
  nibble_status status = NIBBLE_OK;
  int lda = (int)job->n, info = 0;
  *is_definite = false;
  for (job->done = 0; status == NIBBLE_OK && job->done < job->n; job->done += job->block) {
    job->block = nb_min_i64(FACTOR_BLOCK, job->n - job->done);
    int block = (int)job->block;
    int64_t rest = job->n - job->done - job->block;
    blas.potrf("L", &block, job->a + job->done * (job->n + 1), &lda, &info, 1);
    if (info != 0) return NIBBLE_OK;
    nb_parallel(rest, FACTOR_BAND, divide_band, job);
    status = nb_parallel_stoppable(rest, FACTOR_BAND, update_band, job, err);
  }
  *is_definite = status == NIBBLE_OK;
  return status;
}

/* Columns [begin, end) of the inverse, from L X = I: whatever lies above them is 0. */
static void invert_band(void *ctx, int64_t begin, int64_t end, int thread) {
  const factor_job *job = ctx;
  int64_t rows = job->n - begin;
  double *x = job->solved + (int64_t)thread * FACTOR_BLOCK * job->n;
  memset(x, 0, (size_t)((end - begin) * rows) * sizeof *x);
  for (int64_t c = 0; c < end - begin; c++) x[c * rows + c] = 1;
  blas.dtrsm(COL_MAJOR, LEFT, LOWER, NO_TRANS, NON_UNIT, (int)rows, (int)(end - begin), 1,
             job->a + begin * (job->n + 1), (int)job->n, x, (int)rows);
  job->emit(job->ctx, x, begin, end);
}

nibble_status nb_invert_factor(double *a, int64_t n, nb_columns_fn *emit, void *ctx, bool *is_definite,
                               nibble_error *err) {
  uint64_t doubles = (uint64_t)nb_threads() * FACTOR_BLOCK * (uint64_t)n;
  factor_job job = {.a = a, .n = n, .emit = emit, .ctx = ctx, .solved = nb_alloc_aligned(doubles, sizeof(double))};
  if (!job.solved) return nb_fail_memory(err, doubles * sizeof(double));
  nibble_status status = factorize(&job, is_definite, err);
  if (*is_definite) status = nb_parallel_stoppable(n, FACTOR_BLOCK, invert_band, &job, err);
  free(job.solved);
  return status;
}
