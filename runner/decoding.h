/* A model that writes: what generate and chat share. It is opened once; each run goes on from ids and hands out text.
 *
 *   nb_decoding_open(&d, "./SmolLM2", options, err)
 *   nb_decoding_reserve(&d, capacity, err)              a session of that many tokens
 *   nb_decoding_run(&d, ids, count, most, &text, err)   as often as there is room
 *   nb_decoding_close(&d) */
#ifndef NB_RUNNER_DECODING_H
#define NB_RUNNER_DECODING_H

#include "runner/sample.h"
#include "runner/session.h"
#include "runner/stop_tokens.h"
#include "tokenizer/tokenizer.h"

typedef struct nb_decoding {
  const char *name; /* MODEL, for messages */
  nb_model model;
  nb_tokenizer *tokenizer;
  nb_session *session;
  nb_sampler sampler;
  nb_stop_tokens stops;
  float *logits;       /* [vocab] */
  int64_t step_tokens; /* of the session */
  nb_ids ids;          /* that the session holds, once it was reserved */
  /* Set by the caller. */
  bool ignore_eos;
  void (*text)(void *ctx, const char *bytes, size_t n); /* gets each piece of text as it comes; NULL: none */
  void *ctx;
  /* What the last run was. */
  int64_t prompt_tokens, new_tokens; /* the first: those that had to be read */
  bool stopped_at_eos;
  double prompt_seconds, generate_seconds;
} nb_decoding;

/* Loads a model with its tokenizer and its stop tokens. Close with nb_decoding_close, also after a failure. */
nibble_status nb_decoding_open(nb_decoding *d, const char *model, const nb_model_options *options, nibble_error *err);
void nb_decoding_close(nb_decoding *d);

/* Takes memory for `capacity` tokens, read in steps of at most `step`, and for sampling as `how` says. */
nibble_status nb_decoding_reserve(nb_decoding *d, int64_t capacity, int64_t step, const nb_sampling *how,
                                  nibble_error *err);

/* Reads ids [count > 0] from their beginning, of which the session keeps those that it begins with already, and appends
 * what the model writes then to *text: at most `most` new tokens, and not the one that ends it. */
nibble_status nb_decoding_run(nb_decoding *d, const int32_t *ids, int64_t count, int64_t most, nb_buf *text,
                              nibble_error *err);

#endif
