/* Products with activations rounded to eight bits: the arithmetic behind `--activations int8`. Each run of 32
 * activations of a row, in the order of the weight's columns, has a scale of its own,
 *
 *   x[j] ~ scale * code[j],  scale = largest |x| / 127,  code = x / scale rounded to the nearest, halves to even
 *
 * and is multiplied in integers with the codes of 32 weights, which are w[j] ~ scales[j / 16] * code[j] - minimum.
 * For most formats these are the very weights; nf4 and fp4 round their 16 values (nb_q8_steps).
 * Weights in plain floats, and shapes that do not fit, are multiplied in float32; the rounding of x is the same for
 * those that are packed. Integer sums are exact, so instruction sets differ in the last float additions only. */
#ifndef NB_KERNELS_Q8_H
#define NB_KERNELS_Q8_H

#include "kernels/matmul.h"

enum { NB_Q8_BLOCK = 32 };

/* 32 weights of a row. */
typedef struct nb_q8_weights {
  int16_t codes[NB_Q8_BLOCK];
  float scales[2], minimum;
} nb_q8_weights;

/* Whether w is multiplied in integers. */
bool nb_q8_fits(const nb_packed *w);

/* The specification of what each format's integers are: block `block` of 32 columns of a row, for a w that fits. */
void nb_q8_weights_at(const nb_packed *w, int64_t row, int64_t block, nb_q8_weights *out);

/* The 16 values of nf4 or fp4 are rounded to whole steps, nb_q8_steps of them to 1: of all that a byte holds the number
 * that brings them closest, nearly 0.2% of the largest. With 127 instead, nf4's small values are off by 2 to 4%, all of
 * a code alike, and perplexity rises by 1.3% instead of 0.15%. */
static inline float nb_q8_steps(nb_format format) { return format == NB_FORMAT_NF4 ? 112.03f : 120.0f; }

/* Rounds x [cols] to codes [cols] and scales [ceil(cols/32)]. */
void nb_q8_round(const float *x, int64_t cols, int8_t *codes, float *scales);

/* nb_matmul_many with x rounded first; false if there is no memory for that (a byte and a quarter a value). */
bool nb_q8_matmul(const nb_product *products, int count, int64_t n);

#endif
