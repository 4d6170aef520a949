/* cuBLAS and cuSOLVER, opened when they are first wanted: their functions by name, NULL where they are not installed.
 * The tests' emulator has stand-ins. */
#ifndef NB_KERNELS_CUDA_LIBRARIES_H
#define NB_KERNELS_CUDA_LIBRARIES_H

#ifdef __CUDACC__
#include <dlfcn.h>
#include <stddef.h>

static inline void *nb_symbol_of(const char *const names[4], void **library, const char *name) {
  for (int i = 0; !*library && i < 4; i++) *library = dlopen(names[i], RTLD_NOW);
  return *library ? dlsym(*library, name) : NULL;
}

static inline void *nb_blas_symbol(const char *name) {
  static const char *const names[4] = {"libcublas.so.13", "libcublas.so.12", "libcublas.so",
                                       "/usr/local/cuda/lib64/libcublas.so"};
  static void *library;
  return nb_symbol_of(names, &library, name);
}

static inline void *nb_solver_symbol(const char *name) {
  static const char *const names[4] = {"libcusolver.so.12", "libcusolver.so.11", "libcusolver.so",
                                       "/usr/local/cuda/lib64/libcusolver.so"};
  static void *library;
  return nb_symbol_of(names, &library, name);
}
#endif

#endif
