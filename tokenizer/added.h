/* Added tokens: texts that become one id wherever they stand, before anything else looks at the text. Some are matched
 * in the text as given, some in the normalized one. Which id, which of two candidates, and what white space goes with
 * them follows the reference to the letter (tokenizers 0.23, added_vocabulary.rs), where the longest token at the
 * leftmost place wins. */
#ifndef NB_TOKENIZER_ADDED_H
#define NB_TOKENIZER_ADDED_H

#include "tokenizer/steps.h"

typedef struct nb_added nb_added;

/* Reads the list "added_tokens" of a tokenizer.json. Each gets the id that the vocabulary has for it, else the next
 * free one, and joins the vocabulary; what is `normalized` is matched as the normalizer leaves it. *out needs
 * nb_added_free, also after a failure. */
nibble_status nb_added_read(const char *where, const cJSON *list, const nb_normalizer *normalizer, nb_vocab *vocab,
                            nb_added **out, nibble_error *err);
void nb_added_free(nb_added *added); /* harmless on NULL */

/* The parts of a text that was cut at added tokens, in their order. A token's part includes the white space that it
 * swallows; `id` is -1 for what lies between tokens. */
typedef struct nb_cut_sink {
  nibble_status (*take)(void *ctx, size_t begin, size_t end, int32_t id, nibble_error *err);
  void *ctx;
} nb_cut_sink;

/* Cuts `text`, which is the one as given or the normalized one. NIBBLE_BAD_INPUT once the search for tokens has spent
 * the budget. */
nibble_status nb_added_cut(const nb_added *added, bool normalized, nb_str text, nb_cut_sink sink, nb_budget *budget,
                           nibble_error *err);

#endif
