/* How much each block's quantization costs by itself: the original runs a few tokens with one block after the other
 * taken from the artifact, and its distributions are compared with its own. Hidden states tell where two models part;
 * this tells which block made them. */
#ifndef NB_VALIDATE_SENSITIVITY_H
#define NB_VALIDATE_SENSITIVITY_H

#include "runner/session.h"

typedef struct nb_sensitivity {
  nb_model *original; /* whose blocks are on return what they were before */
  const nb_model *artifact;
  const int32_t *ids; /* [tokens] */
  int64_t tokens;
  float *reference, *logits; /* scratch: [tokens, vocab] */
} nb_sensitivity;

/* Fills in block_sensitivity and sensitivity_count, which stays 0 where the blocks are of other shapes. */
nibble_status nb_sensitivity_measure(const nb_sensitivity *sensitivity, nibble_behaviour *out, nibble_error *err);

#endif
