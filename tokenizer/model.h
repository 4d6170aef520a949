/* Models: a word to ids. Each kind is a file and a row of the table in models.c; the words that come often are kept in
 * a cache here, for all of them. */
#ifndef NB_TOKENIZER_MODEL_H
#define NB_TOKENIZER_MODEL_H

#include "tokenizer/spec.h"
#include "tokenizer/tokenizer.h"

typedef struct nb_word {
  const char *text;
  size_t n;
  bool raw; /* the text is bytes, each of which stands for its character (tokenizer/bytes.h); else it is UTF-8 */
} nb_word;

/* A kind of model: a row of the table. */
typedef struct nb_token_model_kind {
  const char *type; /* tokenizer.json's */
  bool has_merges;  /* tokenizer.json must have them */

  /* Makes a model from spec->parts' "model" and spec->merges. It keeps `vocab`, which outlives it and which added
   * tokens join later. *out is closed also after a failure. `where` names the file. */
  nibble_status (*open)(const char *where, const nb_tokenizer_spec *spec, const nb_vocab *vocab, void **out,
                        nibble_error *err);

  /* Appends the ids of a word; *ids is empty. */
  nibble_status (*encode)(void *model, const nb_word *word, nb_ids *ids, nibble_error *err);
  void (*close)(void *model);
} nb_token_model_kind;

extern const nb_token_model_kind nb_bpe;

/* A model and the ids of words that it saw before. */
typedef struct nb_token_model nb_token_model;

/* The kind that the object "model" of a tokenizer.json asks for; an unknown one is refused by name. */
nibble_status nb_token_model_kind_of(const char *where, const cJSON *model, const nb_token_model_kind **out,
                                     nibble_error *err);

nibble_status nb_token_model_open(const char *where, const nb_tokenizer_spec *spec, const nb_vocab *vocab,
                                  nb_token_model **out, nibble_error *err);

/* Appends the ids of a word. */
nibble_status nb_token_model_encode(nb_token_model *model, const nb_word *word, nb_ids *ids, nibble_error *err);
void nb_token_model_close(nb_token_model *model);

#endif
