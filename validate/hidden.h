/* Where in the depth of two models the hidden states part: the residual stream that enters each block, and the last
 * norm, on the first tokens of a text. One model's are kept, the other's compared in passing. */
#ifndef NB_VALIDATE_HIDDEN_H
#define NB_VALIDATE_HIDDEN_H

#include "runner/session.h"

typedef struct nb_hidden {
  int64_t tokens, width, layers; /* layers: blocks + 1 */
  float *states;                 /* [layers, tokens, width] */
  double *error, *squares;       /* [layers] sums of the comparison */
} nb_hidden;

/* Runs at most `most` tokens. Free with nb_hidden_free, on failure too. */
nibble_status nb_hidden_keep(const nb_model *model, const int32_t *ids, int64_t most, nb_hidden *out,
                             nibble_error *err);

/* Runs the other model, the reference, and fills in block_errors, block_count and parting_block. */
nibble_status nb_hidden_compare(nb_hidden *hidden, const nb_model *reference, const int32_t *ids, nibble_behaviour *out,
                                nibble_error *err);

uint64_t nb_hidden_bytes(const nb_hidden *hidden);
void nb_hidden_free(nb_hidden *hidden);

#endif
