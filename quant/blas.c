#include "quant/blas.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "kernels/cpu/isa.h"

enum { ROOM = 256 << 20 };

typedef void set_threads_fn(int count);
typedef void potrf_fn(const char *uplo, const int *n, double *a, const int *lda, int *info, size_t uplo_length);
typedef void trtri_fn(const char *uplo, const char *diag, const int *n, double *a, const int *lda, int *info,
                      size_t uplo_length, size_t diag_length);

static struct {
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
  if (find(library, "openblas_set_num_threads", &set_threads) && find(library, "dpotrf_", &blas.potrf) &&
      find(library, "dtrtri_", &blas.trtri))
    set_threads(1);
}

nibble_status nb_blas_load(nibble_error *err) {
  pthread_once(&once, load);
  return blas.problem[0] ? nb_fail(err, NIBBLE_SYSTEM, "%s", blas.problem) : NIBBLE_OK;
}

bool nb_invert_factor(double *a, int64_t n) {
  int size = (int)n, info = 0;
  blas.potrf("L", &size, a, &size, &info, 1);
  if (info == 0) blas.trtri("L", "N", &size, a, &size, &info, 1, 1);
  return info == 0;
}
