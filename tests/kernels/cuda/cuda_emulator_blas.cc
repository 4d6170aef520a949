// What the CUDA backend calls of cuBLAS and cuSOLVER, as plain loops over column-major matrices.
#include "tests/kernels/cuda/cuda_emulator.h"
#include "tests/kernels/cuda/cuda_races.h"

using emulator::BfloatToFloat;
using emulator::Die;
using emulator::HalfToFloat;
using emulator::Queue;

static int BlasCreate(void **handle) {
  static int something;
  *handle = &something;
  return 0;
}
static int BlasDestroy(void *) { return 0; }
static int BlasSetStream(void *, int *) { return 0; }
static int BlasSetWorkspace(void *, void *, size_t) { return 0; }

// Column-major c [m, n] = alpha op(a) [m, k] op(b) [k, n] + beta c; types 0 float32, 2 float16, 14 bfloat16; op 1
// transposes.
static int BlasGemmEx(void *, int op_a, int op_b, int m, int n, int k, const void *alpha, const void *a, int type,
                      int lda, const void *b, int, int ldb, const void *beta, void *c, int, int ldc, int, int) {
  auto at = [type](const void *p, int64_t i) {
    if (type == 0) return ((const float *)p)[i];
    uint16_t bits = ((const uint16_t *)p)[i];
    return type == 2 ? HalfToFloat(bits) : BfloatToFloat(bits);
  };
  float *out = (float *)c, factor = *(const float *)alpha, keep = *(const float *)beta;
  Queue([=] {
    for (int j = 0; j < n; j++) {
      for (int i = 0; i < m; i++) {
        double sum = 0;
        for (int l = 0; l < k; l++)
          sum += (double)at(a, op_a ? (int64_t)i * lda + l : (int64_t)l * lda + i) *
                 at(b, op_b ? (int64_t)l * ldb + j : (int64_t)j * ldb + l);
        float *to = &out[(int64_t)j * ldc + i];
        *to = (float)(factor * sum) + (keep == 0 ? 0 : keep * *to);
      }
      races::WrittenByLibrary(&out[(int64_t)j * ldc], (size_t)m * sizeof *out);
    }
  });
  return 0;
}

// Column-major, as the libraries count; `uplo` 0 is the lower triangle, and what is not read may be anything.
static int BlasSgemm(void *, int, int, int m, int n, int k, const float *, const float *a, int lda, const float *b,
                     int ldb, const float *, float *c, int ldc) {
  for (int j = 0; j < n; j++) {
    for (int i = 0; i < m; i++) {
      double sum = c[(int64_t)j * ldc + i];
      for (int l = 0; l < k; l++) sum += (double)a[(int64_t)l * lda + i] * b[(int64_t)j * ldb + l];
      c[(int64_t)j * ldc + i] = (float)sum;
    }
  }
  return 0;
}
static int BlasSsyrk(void *, int uplo, int op, int n, int k, const float *, const float *a, int lda, const float *,
                     float *c, int ldc) {
  if (uplo != 0 || op != 0) Die("ssyrk: another triangle");
  for (int j = 0; j < n; j++) {
    for (int i = j; i < n; i++) {
      double sum = c[(int64_t)j * ldc + i];
      for (int l = 0; l < k; l++) sum += (double)a[(int64_t)l * lda + i] * a[(int64_t)l * lda + j];
      c[(int64_t)j * ldc + i] = (float)sum;
    }
  }
  return 0;
}
static int BlasSsymm(void *, int side, int uplo, int m, int n, const float *, const float *a, int lda, const float *b,
                     int ldb, const float *, float *c, int ldc) {
  if (side != 0 || uplo != 0) Die("ssymm: another side");
  for (int j = 0; j < n; j++) {
    for (int i = 0; i < m; i++) {
      double sum = 0;
      for (int l = 0; l < m; l++)
        sum += (double)a[(int64_t)std::min(i, l) * lda + std::max(i, l)] * b[(int64_t)j * ldb + l];
      c[(int64_t)j * ldc + i] = (float)sum;
    }
  }
  return 0;
}
static int BlasDtrsm(void *, int side, int uplo, int op, int, int m, int n, const double *, const double *a, int lda,
                     double *b, int ldb) {
  if (side != 0 || uplo != 0 || op != 0) Die("dtrsm: another side");
  for (int j = 0; j < n; j++) {
    double *x = b + (int64_t)j * ldb;
    for (int i = 0; i < m; i++) {
      for (int l = 0; l < i; l++) x[i] -= a[(int64_t)l * lda + i] * x[l];
      x[i] /= a[(int64_t)i * lda + i];
    }
  }
  return 0;
}
static int PotrfRoom(void *, int, int, double *, int, int *room) {
  *room = 0;
  return 0;
}
static int Potrf(void *, int uplo, int n, double *a, int lda, double *, int, int *info) {
  if (uplo != 0) Die("dpotrf: another triangle");
  *info = 0;
  for (int j = 0; j < n && *info == 0; j++) {
    double *column = a + (int64_t)j * lda;
    for (int l = 0; l < j; l++) {
      for (int i = j; i < n; i++) column[i] -= a[(int64_t)l * lda + i] * a[(int64_t)l * lda + j];
    }
    if (!(column[j] > 0)) *info = j + 1;
    double root = std::sqrt(column[j]);
    for (int i = j; i < n; i++) column[i] /= root;
  }
  return 0;
}

void *nb_solver_symbol(const char *name) {
  if (strcmp(name, "cusolverDnCreate") == 0) return (void *)BlasCreate;
  if (strcmp(name, "cusolverDnSetStream") == 0) return (void *)BlasSetStream;
  if (strcmp(name, "cusolverDnDpotrf_bufferSize") == 0) return (void *)PotrfRoom;
  return strcmp(name, "cusolverDnDpotrf") == 0 ? (void *)Potrf : nullptr;
}
void *nb_blas_symbol(const char *name) {
  if (strcmp(name, "cublasCreate_v2") == 0) return (void *)BlasCreate;
  if (strcmp(name, "cublasDestroy_v2") == 0) return (void *)BlasDestroy;
  if (strcmp(name, "cublasSetStream_v2") == 0) return (void *)BlasSetStream;
  if (strcmp(name, "cublasSetWorkspace_v2") == 0) return (void *)BlasSetWorkspace;
  if (strcmp(name, "cublasSgemm_v2") == 0) return (void *)BlasSgemm;
  if (strcmp(name, "cublasSsyrk_v2") == 0) return (void *)BlasSsyrk;
  if (strcmp(name, "cublasSsymm_v2") == 0) return (void *)BlasSsymm;
  if (strcmp(name, "cublasDtrsm_v2") == 0) return (void *)BlasDtrsm;
  return strcmp(name, "cublasGemmEx") == 0 ? (void *)BlasGemmEx : nullptr;
}
