/* The dense float32 block product that prefill and attention end in, one table for each instruction set (none for
 * scalar). Rows of x lie across the lanes of vectors, so x is packed once; the other operand is read one float at a
 * time and broadcast, so weights and cache rows need no rearranging:
 *
 *   packed x tile [k][lanes]      c [rows][lanes] (+)= w [rows, k] . x [k][lanes]      y [lanes, rows] = c^T
 *
 * lanes is `lanes` for a full tile and `narrow` for what is left, if that is enough. */
#ifndef NB_KERNELS_CPU_GEMM_H
#define NB_KERNELS_CPU_GEMM_H

#include "kernels/cpu/isa.h"
#include "kernels/matmul.h"

enum { NB_LANES_MAX = 32 }; /* of any instruction set */

typedef struct nb_cpu_gemm {
  int64_t lanes, narrow;

  /* x [n, k] to out [k][lanes] with zeros in lanes n and above; n <= lanes. */
  void (*pack)(const float *x, int64_t ldx, int64_t n, int64_t k, int64_t lanes, float *out);

  /* w's element (r, i) is w[r * row_stride + i * k_stride]. Replaces c unless `add`. */
  void (*multiply)(int64_t lanes, int64_t rows, int64_t k, const float *x, const float *w, int64_t row_stride,
                   int64_t k_stride, float *c, bool add);

  /* y[i * ldy + r] = c[r * lanes + i] (+ bias[r]) (+ y) for i < n, r < rows. */
  void (*unpack)(const float *c, int64_t lanes, int64_t n, int64_t rows, const float *bias, bool accumulate, float *y,
                 int64_t ldy);

  float (*dot)(const float *x, const float *w, int64_t n);

  /* Multiply-adds in registers alone, `rounds` times; what they add up to is put in *sink. Returns their number of
   * floating point operations. */
  double (*peak)(int64_t rounds, float *sink);
} nb_cpu_gemm;

/* NULL where there is none. */
const nb_cpu_gemm *nb_cpu_gemm_for(nb_isa isa);

extern const nb_cpu_gemm nb_cpu_gemm_avx2, nb_cpu_gemm_avx512, nb_cpu_gemm_neon;

#endif
