/* Chooses the next token from logits: greedily, or at random among the likeliest with a seeded generator, so that the
 * same seed and settings give the same text on every machine that computes the same logits. */
#ifndef NB_RUNNER_SAMPLE_H
#define NB_RUNNER_SAMPLE_H

#include "base/status.h"

typedef struct nb_sampling {
  double temperature; /* 0: greedy */
  int64_t top_k;      /* 0: all */
  double top_p;       /* 0 or 1: all */
  uint64_t seed;
} nb_sampling;

typedef struct nb_sampler {
  nb_sampling how;
  uint64_t state[4];               /* of the generator */
  struct nb_candidate *candidates; /* [vocab] */
  int64_t vocab;
} nb_sampler;

/* NIBBLE_SYSTEM without memory. Free with nb_sampler_free, which is harmless on a zeroed struct. */
nibble_status nb_sampler_init(nb_sampler *sampler, const nb_sampling *how, int64_t vocab, nibble_error *err);
void nb_sampler_free(nb_sampler *sampler);

/* An id in [0, vocab), from logits [vocab]. As transformers does: temperature first, then the k likeliest, then the
 * fewest of those that together reach top_p (the likeliest always stays). Equal logits are ordered by id. */
int32_t nb_sampler_next(nb_sampler *sampler, const float *logits);

#endif
