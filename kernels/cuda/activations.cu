#include "kernels/cuda/activations.h"

enum {
  THREADS = 128,
  PARTS = 4, /* of 8 elements, of each thread: loads in flight hide the memory's latency */
};

typedef struct narrow_args {
  const void *x;
  int64_t ldx;
  uint32_t cols, width; /* of the output */
  const int32_t *order;
  bool two_parts;
  uint16_t *out;
} narrow_args;

/* Where a row of x goes. */
static __device__ __forceinline__ uint4 *output_row(const narrow_args &a) {
  return (uint4 *)(a.out + (int64_t)blockIdx.x * (a.two_parts ? 2 : 1) * a.width);
}

/* Columns in order, in whole and aligned eights: as fast as memory goes. Padding beyond them is zero. */
template <int DTYPE>
static __global__ void __launch_bounds__(THREADS) narrow_kernel(const __grid_constant__ narrow_args a) {
  nb_let_next_start();
  nb_wait_for_previous();
  uint32_t first = blockIdx.y * (THREADS * PARTS) + threadIdx.x, eights = a.width / 8;
  uint4 *to = output_row(a);
  nb_eight<DTYPE> e[PARTS] = {};
#pragma unroll
  for (int p = 0; p < PARTS; p++) {
    uint32_t i = first + (uint32_t)p * THREADS;
    if (i < a.cols / 8) e[p] = nb_read_eight<DTYPE>(a.x, blockIdx.x * a.ldx + i * 8);
  }
#pragma unroll
  for (int p = 0; p < PARTS; p++) {
    uint32_t i = first + (uint32_t)p * THREADS;
    float v[8];
    nb_widen_eight<DTYPE>(e[p], v);
    if (i < eights) nb_put_eight(v, (nb_x_dtype)DTYPE, a.two_parts, &to[i], &to[eights + i]);
  }
}

/* Columns in any order, or rows that are not aligned: eight single loads a thread. */
template <int DTYPE>
static __global__ void __launch_bounds__(THREADS) gather_kernel(const __grid_constant__ narrow_args a) {
  nb_let_next_start();
  nb_wait_for_previous();
  uint32_t i = blockIdx.y * THREADS + threadIdx.x, eights = a.width / 8;
  if (i >= eights) return;
  uint4 *to = output_row(a);
  float v[8];
  nb_gather_eight({a.x, (nb_x_dtype)DTYPE, blockIdx.x * a.ldx, a.cols, a.order}, (int64_t)i * 8, v);
  nb_put_eight(v, (nb_x_dtype)DTYPE, a.two_parts, &to[i], &to[eights + i]);
}

void nb_narrow(cudaStream_t stream, const nb_device_matrix *w, nb_device_rows x, bool two_parts, uint16_t *out) {
  static void (*const plain[])(narrow_args) = {narrow_kernel<NB_X_F32>, narrow_kernel<NB_X_F16>,
                                               narrow_kernel<NB_X_BF16>};
  static void (*const gathered[])(narrow_args) = {gather_kernel<NB_X_F32>, gather_kernel<NB_X_F16>,
                                                  gather_kernel<NB_X_BF16>};
  narrow_args a = {};
  a.x = x.data, a.ldx = x.stride, a.cols = (uint32_t)w->tiles.cols,
  a.width = (uint32_t)(w->tiles.col_tiles * NB_TILE_COLS);
  a.order = w->order, a.two_parts = two_parts, a.out = out;
  bool is_plain = !w->order && a.cols % 8 == 0 && x.stride % 8 == 0 && (uintptr_t)x.data % 16 == 0;
  uint32_t of_block = THREADS * 8 * (is_plain ? PARTS : 1);
  nb_launch_early(is_plain ? plain[x.dtype] : gathered[x.dtype],
                  dim3((unsigned)x.count, (a.width + of_block - 1) / of_block), THREADS, 0, stream, a);
}
