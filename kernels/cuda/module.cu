#include "kernels/cuda/module.h"

extern "C" {
#include "base/parallel.h"
}

static nb_cuda_module make_table(void) {
  nb_cuda_module t = {};
  t.bytes = sizeof t;
  t.build = NB_CUDA_BUILD;
  t.backend = nb_backend_cuda;
  t.free_bytes = nb_backend_cuda_free_bytes;
  t.quantizer_create = nb_cuda_quantizer_create;
  t.quantizer_free = nb_cuda_quantizer_free;
  t.quantize = nb_cuda_quantize;
  t.hessian_create = nb_cuda_hessian_create;
  t.hessian_free = nb_cuda_hessian_free;
  t.hessian_add = nb_cuda_hessian_add;
  t.hessian_sum = nb_cuda_hessian_sum;
  t.hessian_factorize = nb_cuda_hessian_factorize;
  t.gptq_solve = nb_cuda_gptq_solve;
  return t;
}

extern "C" const nb_cuda_module *nibble_cuda_module(int threads) {
  static const nb_cuda_module module = make_table();
  nb_threads_use(threads);
  return &module;
}
