/* How much each block's quantization costs by itself: the original runs a few tokens with one block after the other
 * taken from the artifact, and its distributions are compared with its own. Hidden states tell where two models part;
 * this tells which block made them. */
#ifndef NB_VALIDATE_SENSITIVITY_H
#define NB_VALIDATE_SENSITIVITY_H

#include "runner/session.h"

/* Fills in block_sensitivity and sensitivity_count, which stays 0 where the blocks are of other shapes. `tokens` ids
 * are run; `reference` and `logits` are scratch of [tokens, vocab] each. The original's blocks are what they were
 * before on return. */
nibble_status nb_sensitivity_measure(nb_model *original, const nb_model *artifact, const int32_t *ids, int64_t tokens,
                                     float *reference, float *logits, nibble_behaviour *out, nibble_error *err);

#endif
