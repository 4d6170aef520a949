/* The door between the library and its CUDA part, which lies in a file of its own, libnibble_cuda.so, opened when a
 * device is first asked for: CUDA's runtime has constructors that crash where memory is short, and most runs need none
 * of it. The file exports one function, which hands out this table. A program that links the CUDA objects directly
 * (kernels/CMakeLists.txt) has no need of it. */
#ifndef NB_KERNELS_CUDA_MODULE_H
#define NB_KERNELS_CUDA_MODULE_H

#ifdef __cplusplus
extern "C" {
#endif
#include "kernels/backend.h"
#include "kernels/cuda/gptq.h"
#include "kernels/cuda/quantize.h"

typedef struct nb_cuda_module {
  uint64_t bytes;    /* of this struct, as the module knows it: the rest is read only if that is right */
  const char *build; /* NB_CUDA_BUILD, a hash of this header and all of ours that it includes (cmake/cuda_build.cmake):
                        tells a module that would read the structs passed to it in another way */
  nb_backend *(*backend)(nibble_error *err);
  uint64_t (*free_bytes)(void);
  nibble_status (*quantizer_create)(nb_cuda_quantizer **out, nibble_error *err);
  void (*quantizer_free)(nb_cuda_quantizer *quantizer);
  nibble_status (*quantize)(nb_cuda_quantizer *q, const nb_packed *m, const nb_quantize_run *run, int64_t *bad,
                            nibble_error *err);
  nibble_status (*hessian_create)(nb_cuda_hessian **out, int64_t n, nibble_error *err);
  void (*hessian_free)(nb_cuda_hessian *hessian);
  nibble_status (*hessian_add)(nb_cuda_hessian *hessian, const float *x, int64_t rows, int64_t ldx, nibble_error *err);
  nibble_status (*hessian_sum)(const nb_cuda_hessian *hessian, float *out, nibble_error *err);
  nibble_status (*hessian_factorize)(const nb_cuda_hessian *hessian, double *a, bool *is_definite, nibble_error *err);
  nibble_status (*gptq_solve)(const nb_cuda_hessian *hessian, const nb_cuda_gptq_layer *layer, nibble_error *err);
} nb_cuda_module;

#define NB_CUDA_MODULE_FILE "libnibble_cuda.so"
#define NB_CUDA_MODULE_ENTRY "nibble_cuda_module"

/* What the file exports. `threads` of the calling thread, as nb_threads_use takes it: the module has a copy of base/ to
 * itself. */
typedef const nb_cuda_module *nb_cuda_module_fn(int threads);
__attribute__((visibility("default"))) const nb_cuda_module *nibble_cuda_module(int threads);

/* The module, opened on the first call: beside the program or library that asks, in its ../lib, or where the system
 * looks. NULL, with one line in *err (NIBBLE_SYSTEM), if it is not there or is of another build. */
const nb_cuda_module *nb_cuda_module_get(nibble_error *err);

/* Puts another in its place: the tests' emulated one. NULL: back to the file. */
void nb_cuda_module_set(const nb_cuda_module *module);

#ifdef __cplusplus
}
#endif
#endif
