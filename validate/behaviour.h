/* The third depth of `verify`: both models read the same text, and their distributions are compared token by token.
 * Logits of both pass through tiles; what is kept is three numbers a token. Windows and their scoring are those of
 * `ppl --convention hf`. */
#ifndef NB_VALIDATE_BEHAVIOUR_H
#define NB_VALIDATE_BEHAVIOUR_H

#include "convert/checkpoint.h"
#include "validate/findings.h"

typedef struct nb_behaviour_options {
  const nibble_context *context;
  const nb_checkpoint *artifact, *original; /* as opened; each model is loaded from its path and owns its files */
  const char *text;                         /* file, plain or gzip */
  int64_t ctx, chunks;                      /* 0: 512, and all */
  nibble_int8 int8;
  bool sensitivity; /* of each block */
  const nibble_progress *progress;
} nb_behaviour_options;

/* A figure of the original (reference) and of the artifact. NIBBLE_BAD_INPUT if one of the models cannot be run, or
 * they have other vocabularies. Strings and arrays in *out are freed with nb_behaviour_free, on failure too. */
nibble_status nb_behaviour_measure(const nb_behaviour_options *options, nb_findings *findings, nibble_behaviour *out,
                                   nibble_error *err);
void nb_behaviour_free(nibble_behaviour *behaviour);

#endif
