/* Two distributions over a vocabulary, each given by its logits, compared at one token. */
#ifndef NB_VALIDATE_DIVERGENCE_H
#define NB_VALIDATE_DIVERGENCE_H

#include <stdbool.h>
#include <stdint.h>

typedef struct nb_divergence {
  double kl;                    /* sum p (log p - log q), p being the reference's, in nats; never below zero */
  double nll, reference_nll;    /* -log of the target's probability */
  int32_t top1, reference_top1; /* the likeliest token (the first of equals) */
  int common_top5;              /* of the five likeliest */
  bool finite;                  /* false: a logit is NaN or infinite, and all of the above is zero */
} nb_divergence;

/* reference and logits [vocab]; target in [0, vocab). */
void nb_divergence_of(const float *reference, const float *logits, int64_t vocab, int32_t target, nb_divergence *out);

#endif
