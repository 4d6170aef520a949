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

/* How much a product multiplies: a tile of `lanes` rows of x with `rows` rows of w, over k columns. */
typedef struct nb_gemm_size {
  int64_t lanes, rows, k;
} nb_gemm_size;

/* w: element (r, i), of rows x k, is data[r * row_stride + i * k_stride]. */
typedef struct nb_gemm_operand {
  const float *data;
  int64_t row_stride, k_stride;
} nb_gemm_operand;

/* Where a finished tile goes: element (r, lane) of the sums to y[lane * ldy + r]. */
typedef struct nb_gemm_out {
  float *y;
  int64_t ldy;
  const float *bias; /* [rows], or NULL */
  bool accumulate;   /* adds to y instead of replacing it */
} nb_gemm_out;

typedef struct nb_cpu_gemm {
  int64_t lanes, narrow;

  /* x [n, k] to out [k][lanes] with zeros in lanes n and above; n <= lanes. */
  void (*pack)(const float *x, int64_t ldx, int64_t n, int64_t k, int64_t lanes, float *out);

  /* x as `pack` left it; c [rows][lanes], which is replaced unless `add`. */
  void (*multiply)(nb_gemm_size size, const float *x, nb_gemm_operand w, float *c, bool add);

  /* c [rows][lanes], of which the first n lanes are wanted. */
  void (*unpack)(const float *c, int64_t lanes, int64_t n, int64_t rows, nb_gemm_out out);

  float (*dot)(const float *x, const float *w, int64_t n);

  /* Multiply-adds in registers alone, `rounds` times; what they add up to is put in *sink. Returns their number of
   * floating point operations. */
  double (*peak)(int64_t rounds, float *sink);
} nb_cpu_gemm;

/* NULL where there is none. */
const nb_cpu_gemm *nb_cpu_gemm_for(nb_isa isa);

extern const nb_cpu_gemm nb_cpu_gemm_avx2, nb_cpu_gemm_avx512, nb_cpu_gemm_neon;

#endif
