/* The inner loops of int8.c, a table of them for each instruction set. The scalar one is the specification. */
#ifndef NB_KERNELS_CPU_INT8_CPU_H
#define NB_KERNELS_CPU_INT8_CPU_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/cpu/isa.h"

/* Rows of activations and of weights that one call of `dots` multiplies: what fits the registers. */
enum { NB_INT8_X_ROWS = 4, NB_INT8_W_ROWS = 2 };

typedef struct nb_cpu_int8 {
  /* The largest |x| below `threshold` in a row, on values rounded to float16; sets is_outlier[c] where |x[c]| is not
   * below it, with atomic stores, since rows are looked at in parallel. */
  float (*absmax_row)(const float *x, int64_t cols, float threshold, bool *is_outlier);

  /* codes[c] = round(x[c] * scale), and 0 where |x[c]| >= threshold; on values rounded to float16. */
  void (*quantize_row)(const float *x, int64_t cols, float threshold, float scale, int16_t *codes);

  /* out[i][j] += w[i] . x[j] over n columns; x rows are ldx apart. Codes of x are widened to 16 bits, so that a product
   * of pairs is exact whatever a weight's file holds. n is small enough for 32 bits. */
  void (*dots)(const int8_t *const w[NB_INT8_W_ROWS], const int16_t *x, int64_t ldx, int64_t n,
               int32_t out[NB_INT8_W_ROWS][NB_INT8_X_ROWS]);
} nb_cpu_int8;

const nb_cpu_int8 *nb_cpu_int8_for(nb_isa isa);

extern const nb_cpu_int8 nb_cpu_int8_scalar, nb_cpu_int8_avx2, nb_cpu_int8_avxvnni, nb_cpu_int8_avx512,
    nb_cpu_int8_neon, nb_cpu_int8_dotprod, nb_cpu_int8_i8mm;

float nb_int8_absmax_row_avx2(const float *x, int64_t cols, float threshold, bool *is_outlier);
void nb_int8_quantize_row_avx2(const float *x, int64_t cols, float threshold, float scale, int16_t *codes);
float nb_int8_absmax_row_neon(const float *x, int64_t cols, float threshold, bool *is_outlier);
void nb_int8_quantize_row_neon(const float *x, int64_t cols, float threshold, float scale, int16_t *codes);

#endif
