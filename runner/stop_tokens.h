/* The tokens at which a model's text ends: those of generation_config.json, if it names any, else those of config.json.
 */
#ifndef NB_RUNNER_STOP_TOKENS_H
#define NB_RUNNER_STOP_TOKENS_H

#include "convert/checkpoint.h"

typedef struct nb_stop_tokens {
  int64_t *ids; /* [count], from 0 to INT32_MAX, sorted */
  int count;
} nb_stop_tokens;

/* Free with nb_stop_tokens_free, on failure too. NIBBLE_BAD_INPUT if generation_config.json is there and no JSON. */
nibble_status nb_stop_tokens_read(const nb_checkpoint *checkpoint, nb_stop_tokens *out, nibble_error *err);
void nb_stop_tokens_free(nb_stop_tokens *tokens);

/* One more; NIBBLE_SYSTEM without memory. */
nibble_status nb_stop_tokens_add(nb_stop_tokens *tokens, int64_t id, nibble_error *err);

bool nb_stop_tokens_have(const nb_stop_tokens *tokens, int64_t id);

#endif
