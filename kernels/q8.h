/* Products with activations rounded to eight bits: the arithmetic behind `--activations int8`. Each run of 32
 * activations of a row, in the order of the weight's columns, has a scale of its own,
 *
 *   x[j] ~ scale * code[j],  scale = largest |x| / 127,  code = x / scale rounded to the nearest, halves to even
 *
 * and is multiplied in integers with the codes of 32 weights, which are w[j] ~ scales[j / 16] * code[j] - minimum.
 * For most formats these are the very weights; nf4 and fp4 round their 16 values (nb_format_row.q8_steps).
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

/* What the rows of formats.c name: the specification of a format's integers. */
typedef struct nb_q8_form {
  void (*weights)(const nb_packed *w, int64_t row, int64_t block, nb_q8_weights *out);
  bool (*fits)(const nb_packed *w); /* besides columns that are a multiple of 64 */
} nb_q8_form;

extern const nb_q8_form nb_q8_codebook, nb_q8_int8, nb_q8_q4_0, nb_q8_q8_0, nb_q8_q4_k, nb_q8_q6_k, nb_q8_gptq;

/* Whether w is multiplied in integers. */
bool nb_q8_fits(const nb_packed *w);

/* Whether it is the better product for one who asks for no other: in integers, by kernels of the processor's vectors,
 * and cheap by measurement. */
bool nb_q8_pays(const nb_packed *w);

/* Block `block` of 32 columns of a row, for a w that fits. */
void nb_q8_weights_at(const nb_packed *w, int64_t row, int64_t block, nb_q8_weights *out);

/* Rounds x [cols] to codes [cols] and scales [ceil(cols/32)]. */
void nb_q8_round(const float *x, int64_t cols, int8_t *codes, float *scales);

/* nb_matmul_many with x rounded first; false if there is no memory for that (a byte and a quarter a value). */
bool nb_q8_matmul(const nb_product *products, int count, int64_t n);

#endif
