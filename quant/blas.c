#include "quant/blas.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/parallel.h"
#include "kernels/cpu/isa.h"

/* CBLAS's own numbers (netlib.org/blas, cblas.h). */
enum { ROW_MAJOR = 101, NO_TRANS = 111, TRANS = 112 };
enum {
  ROOM = 256 << 20,
  GRAM_BAND = 96, /* rows of the triangle to a product: few enough for the threads to share n = 576 evenly */
};

typedef void set_threads_fn(int count);
typedef void sgemm_fn(int order, int trans_a, int trans_b, int m, int n, int k, float alpha, const float *a, int lda,
                      const float *b, int ldb, float beta, float *c, int ldc);
typedef void potrf_fn(const char *uplo, const int *n, double *a, const int *lda, int *info, size_t uplo_length);
typedef void trtri_fn(const char *uplo, const char *diag, const int *n, double *a, const int *lda, int *info,
                      size_t uplo_length, size_t diag_length);

static struct {
  sgemm_fn *sgemm;
  potrf_fn *potrf;
  trtri_fn *trtri;
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
  static const char *const cores[NB_ISA_COUNT] = {[NB_ISA_AVX2] = "HASWELL", [NB_ISA_AVX512] = "SKYLAKEX"};
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
      find(library, "dpotrf_", &blas.potrf) && find(library, "dtrtri_", &blas.trtri))
    set_threads(1);
}

nibble_status nb_blas_load(nibble_error *err) {
  pthread_once(&once, load);
  return blas.problem[0] ? nb_fail(err, NIBBLE_SYSTEM, "%s", blas.problem) : NIBBLE_OK;
}

void nb_dense_add(int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, const float *b, int64_t ldb, float *c,
                  int64_t ldc) {
  blas.sgemm(ROW_MAJOR, NO_TRANS, NO_TRANS, (int)m, (int)n, (int)k, 1, a, (int)lda, b, (int)ldb, 1, c, (int)ldc);
}

typedef struct gram_job {
  const float *x; /* [rows, n] */
  int64_t rows, ldx, n;
  float *sum;
} gram_job;

/* Rows [begin, end) of the upper triangle. */
static void gram_band(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const gram_job *job = ctx;
  blas.sgemm(ROW_MAJOR, TRANS, NO_TRANS, (int)(end - begin), (int)(job->n - begin), (int)job->rows, 1, job->x + begin,
             (int)job->ldx, job->x + begin, (int)job->ldx, 1, job->sum + begin * job->n + begin, (int)job->n);
}

void nb_dense_gram(const float *x, int64_t rows, int64_t ldx, int64_t n, float *sum) {
  gram_job job = {.x = x, .rows = rows, .ldx = ldx, .n = n, .sum = sum};
  nb_parallel(n, GRAM_BAND, gram_band, &job);
}

bool nb_invert_factor(double *a, int64_t n) {
  int size = (int)n, info = 0;
  blas.potrf("L", &size, a, &size, &info, 1);
  if (info == 0) blas.trtri("L", "N", &size, a, &size, &info, 1, 1);
  return info == 0;
}
