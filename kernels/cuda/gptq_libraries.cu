#include "kernels/cuda/gptq_libraries.h"

#include <stddef.h>

#include "kernels/cuda/libraries.h"

/* The libraries' own numbers (cublas_api.h, cusolver_common.h); their headers are not needed to build. What is the
 * upper triangle in rows is the lower one in columns, as they count. */
enum { OP_N = 0, OP_T = 1, LOWER = 0, LEFT = 0, NON_UNIT = 0 };

typedef int (*create_fn)(void **handle);
typedef int (*stream_fn)(void *handle, cudaStream_t stream);
typedef int (*sgemm_fn)(void *handle, int op_a, int op_b, int m, int n, int k, const float *alpha, const float *a,
                        int lda, const float *b, int ldb, const float *beta, float *c, int ldc);
typedef int (*ssyrk_fn)(void *handle, int uplo, int op, int n, int k, const float *alpha, const float *a, int lda,
                        const float *beta, float *c, int ldc);
typedef int (*ssymm_fn)(void *handle, int side, int uplo, int m, int n, const float *alpha, const float *a, int lda,
                        const float *b, int ldb, const float *beta, float *c, int ldc);
typedef int (*dtrsm_fn)(void *handle, int side, int uplo, int op, int diag, int m, int n, const double *alpha,
                        const double *a, int lda, double *b, int ldb);
typedef int (*potrf_room_fn)(void *handle, int uplo, int n, double *a, int lda, int *room);
typedef int (*potrf_fn)(void *handle, int uplo, int n, double *a, int lda, double *work, int room, int *info);

static struct {
  sgemm_fn sgemm;
  ssyrk_fn ssyrk;
  ssymm_fn ssymm;
  dtrsm_fn dtrsm;
  potrf_room_fn potrf_room;
  potrf_fn potrf;
} of;

static bool find_all(void) {
  of.sgemm = (sgemm_fn)nb_blas_symbol("cublasSgemm_v2");
  of.ssyrk = (ssyrk_fn)nb_blas_symbol("cublasSsyrk_v2");
  of.ssymm = (ssymm_fn)nb_blas_symbol("cublasSsymm_v2");
  of.dtrsm = (dtrsm_fn)nb_blas_symbol("cublasDtrsm_v2");
  of.potrf_room = (potrf_room_fn)nb_solver_symbol("cusolverDnDpotrf_bufferSize");
  of.potrf = (potrf_fn)nb_solver_symbol("cusolverDnDpotrf");
  return of.sgemm && of.ssyrk && of.ssymm && of.dtrsm && of.potrf_room && of.potrf;
}

bool nb_gptq_libraries_open(nb_gptq_libraries *l) {
  if (l->solver) return true;
  create_fn blas = (create_fn)nb_blas_symbol("cublasCreate_v2");
  create_fn solver = (create_fn)nb_solver_symbol("cusolverDnCreate");
  stream_fn blas_stream = (stream_fn)nb_blas_symbol("cublasSetStream_v2");
  stream_fn solver_stream = (stream_fn)nb_solver_symbol("cusolverDnSetStream");
  if (!find_all() || !blas || !solver || !blas_stream || !solver_stream) return false;
  if (cudaStreamCreateWithFlags(&l->stream, cudaStreamNonBlocking) != cudaSuccess) return false;
  void *handle = NULL;
  if (blas(&l->blas) != 0 || blas_stream(l->blas, l->stream) != 0) return false;
  if (solver(&handle) != 0 || solver_stream(handle, l->stream) != 0) return false;
  l->solver = handle;
  return true;
}

bool nb_gptq_add_gram(nb_gptq_libraries *l, const float *x, int64_t rows, int64_t ldx, int64_t n, float *sum) {
  const float one = 1;
  return of.ssyrk(l->blas, LOWER, OP_N, (int)n, (int)rows, &one, x, (int)ldx, &one, sum, (int)n) == 0;
}

bool nb_gptq_times_gram(nb_gptq_libraries *l, const float *sum, int64_t n, const float *d, int64_t rows,
                        float *product) {
  const float one = 1, zero = 0;
  return of.ssymm(l->blas, LEFT, LOWER, (int)n, (int)rows, &one, sum, (int)n, d, (int)n, &zero, product, (int)n) == 0;
}

bool nb_gptq_update(nb_gptq_libraries *l, const nb_gptq_rounded *r) {
  const float one = 1;
  int n = (int)r->n, rest = (int)(r->n - r->end), columns = (int)(r->end - r->begin);
  return of.sgemm(l->blas, OP_N, OP_N, rest, (int)r->rows, columns, &one, r->upper + r->begin * r->n + r->end, n,
                  r->errors, (int)r->block, &one, r->w + r->end, n) == 0;
}

int64_t nb_gptq_cholesky_room(nb_gptq_libraries *l, double *a, int64_t n) {
  int room = 0;
  return of.potrf_room(l->solver, LOWER, (int)n, a, (int)n, &room) == 0 ? room : -1;
}

bool nb_gptq_cholesky(nb_gptq_libraries *l, double *a, int64_t n, double *work, int64_t room, int *info) {
  return of.potrf(l->solver, LOWER, (int)n, a, (int)n, work, (int)room, info) == 0;
}

bool nb_gptq_divide(nb_gptq_libraries *l, const double *factor, int64_t n, double *x) {
  const double one = 1;
  return of.dtrsm(l->blas, LEFT, LOWER, OP_N, NON_UNIT, (int)n, (int)n, &one, factor, (int)n, x, (int)n) == 0;
}
