/* The forward pass. A session holds what one run of a model needs besides its weights: the keys and values
 * of a batch of sequences, and scratch memory for a bounded number of new tokens at a time. All sequences of a batch
 * move together: each step appends the same number of tokens to every one of them.
 *
 *   nb_session_create(model, &(nb_session_options){.sequences = 1, .capacity = 512}, &session, err)
 *   nb_session_step(session, ids, tokens, err)             -> last hidden states stay on the device
 *   nb_session_logits(session, rows, n, out, err)          or nb_session_log_probs, for rows of the last step
 *   nb_session_truncate(session, 0)                        and again
 *
 * Results do not depend on how the tokens are cut into steps, but for float rounding and for LLM.int8, whose outlier
 * columns are those of a step. */
#ifndef NB_RUNNER_SESSION_H
#define NB_RUNNER_SESSION_H

#include "runner/program.h"

typedef struct nb_session nb_session;

typedef struct nb_session_options {
  int64_t sequences;        /* in the batch, at most; 0: 1 */
  int64_t capacity;         /* tokens that a sequence may grow to */
  int64_t step_tokens;      /* most new tokens of a sequence in one step; 0: capacity */
  int64_t encoder_capacity; /* tokens that a text for the encoder may have, beside a decoder */
  const nb_hook *hook;      /* NULL: none; must outlive the session */
} nb_session_options;

/* The model must outlive the session. NIBBLE_SYSTEM if there is no memory. Free with nb_session_free. */
nibble_status nb_session_create(const nb_model *model, const nb_session_options *options, nb_session **out,
                                nibble_error *err);
void nb_session_free(nb_session *session);

/* Gives the encoder of a model that has a decoder, too, its ids [sequences, tokens]; the decoder begins anew. */
nibble_status nb_session_encode(nb_session *session, const int32_t *ids, int64_t tokens, nibble_error *err);

/* Appends ids [sequences, tokens] and runs all blocks on them; tokens <= step_tokens. NIBBLE_USAGE if an id is not in
 * the vocabulary or a sequence would outgrow the capacity; the session is then as it was. A model that sees later
 * tokens takes a text as a whole, and each step is another text. */
nibble_status nb_session_step(nb_session *session, const int32_t *ids, int64_t tokens, nibble_error *err);

int64_t nb_session_length(const nb_session *session); /* tokens in each sequence */

/* Forgets all tokens from `length` on. */
void nb_session_truncate(nb_session *session, int64_t length);

/* Forgets everything and goes on with a batch of `sequences`, at most as many as the session was made for. */
void nb_session_restart(nb_session *session, int64_t sequences);

/* What the model gives after rows of the last step, [n, output_width] (logits, or hidden states of a base class); row
 * s * tokens + t is token t of sequence s. */
nibble_status nb_session_logits(nb_session *session, const int32_t *rows, int64_t n, float *out, nibble_error *err);

typedef struct nb_predictions {
  int64_t count;
  const int32_t *rows, *targets; /* [count] rows of the last step, and what comes after each */
  double *log_prob;              /* [count], to be filled */
  int32_t *argmax;               /* the same with the likeliest ids; NULL: not asked for */
} nb_predictions;

/* log_prob[i] = log p(targets[i] | what row rows[i] has seen), without ever holding more than a tile of logits. */
nibble_status nb_session_log_probs(nb_session *session, const nb_predictions *predictions, nibble_error *err);

#endif
