/* Activations on their way to the tensor cores: eight neighbours at a time, from float32, float16 or bfloat16 in memory
 * to float16 as product.h says, in one part or in two. For kernels; nb_narrow (activations.cu) is in product.h. */
#ifndef NB_KERNELS_CUDA_ACTIVATIONS_H
#define NB_KERNELS_CUDA_ACTIVATIONS_H

#include "kernels/cuda/product.h"

/* Eight elements as they lie. */
template <int DTYPE>
struct nb_eight {
  uint4 quads[DTYPE == NB_X_F32 ? 2 : 1];
};

/* Those from element `at` on, which is 16-byte aligned: without a branch, so that several reads are on their way at
 * once. */
template <int DTYPE>
static __device__ __forceinline__ nb_eight<DTYPE> nb_read_eight(const void *x, int64_t at) {
  nb_eight<DTYPE> e;
  const uint4 *from = (const uint4 *)((const char *)x + at * (DTYPE == NB_X_F32 ? 4 : 2));
  e.quads[0] = from[0];
  if constexpr (DTYPE == NB_X_F32) e.quads[1] = from[1];
  return e;
}

template <int DTYPE>
static __device__ __forceinline__ void nb_widen_eight(const nb_eight<DTYPE> &e, float v[8]) {
  const uint32_t *words = (const uint32_t *)e.quads;
#pragma unroll
  for (int i = 0; i < 8; i++) {
    if (DTYPE == NB_X_F32) {
      v[i] = nb_bits_float(words[i]);
      continue;
    }
    uint32_t bits = words[i / 2] >> (16 * (i % 2));
    v[i] = DTYPE == NB_X_F16 ? nb_half_to_float(bits & 0xffffu) : nb_bits_float(bits << 16);
  }
}

/* A row of x, and the order of columns in which a weight is tiled. */
typedef struct nb_ordered_row {
  const void *x;
  nb_x_dtype dtype;
  int64_t row; /* its first element */
  int64_t cols;
  const int32_t *order; /* NULL: as they lie */
} nb_ordered_row;

/* Eight at tiled columns k .. k + 7 of a row, in any order and on any address; zeros for padding. */
static __device__ __forceinline__ void nb_gather_eight(nb_ordered_row r, int64_t k, float v[8]) {
#pragma unroll
  for (int i = 0; i < 8; i++) {
    int64_t col = r.order ? r.order[k + i] : k + i;
    v[i] = 0;
    if (col < 0 || col >= r.cols) continue;
    if (r.dtype == NB_X_F32) {
      v[i] = ((const float *)r.x)[r.row + col];
    } else {
      uint32_t bits = ((const uint16_t *)r.x)[r.row + col];
      v[i] = r.dtype == NB_X_F16 ? nb_half_to_float(bits) : nb_bits_float(bits << 16);
    }
  }
}

static __device__ __forceinline__ uint4 nb_narrow_eight(const float v[8], float scale) {
  uint32_t p[4];
#pragma unroll
  for (int i = 0; i < 4; i++)
    p[i] = nb_pair_f16(fminf(fmaxf(v[2 * i] * scale, -65504.0f), 65504.0f),
                       fminf(fmaxf(v[2 * i + 1] * scale, -65504.0f), 65504.0f));
  return make_uint4(p[0], p[1], p[2], p[3]);
}

/* To where the eight go, and with two parts what that leaves of them (v) to `second`. */
static __device__ __forceinline__ void nb_put_eight(float v[8], nb_x_dtype dtype, bool two_parts, uint4 *first,
                                                    uint4 *second) {
  uint4 rounded = nb_narrow_eight(v, dtype == NB_X_F16 ? 1.0f : NB_X_SCALE);
  *first = rounded;
  if (!two_parts) return;
  const uint32_t words[4] = {rounded.x, rounded.y, rounded.z, rounded.w};
#pragma unroll
  for (int i = 0; i < 4; i++) {
    v[2 * i] -= nb_half_to_float(words[i] & 0xffffu) * (1 / NB_X_SCALE);
    v[2 * i + 1] -= nb_half_to_float(words[i] >> 16) * (1 / NB_X_SCALE);
  }
  *second = nb_narrow_eight(v, NB_X_REST);
}

#endif
