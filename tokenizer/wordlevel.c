/* The simplest model: a word is a token, or the unknown one. */
#include <stdlib.h>

#include "model/json.h"
#include "tokenizer/model.h"

typedef struct wordlevel {
  const nb_vocab *vocab;
  nb_unknown unknown;
} wordlevel;

static nibble_status open_wordlevel(const char *where, const nb_tokenizer_spec *spec, const nb_vocab *vocab, void **out,
                                    nibble_error *err) {
  wordlevel *w = *out = calloc(1, sizeof *w);
  if (!w) return nb_fail_memory(err, sizeof *w);
  w->vocab = vocab;
  return nb_unknown_need(where, nb_json_object(spec->parts, "model"), vocab, &w->unknown, err);
}

static nibble_status encode_wordlevel(void *model, const nb_word *word, nb_ids *ids, nb_budget *budget,
                                      nibble_error *err) {
  (void)budget; /* one look */
  const wordlevel *w = model;
  int32_t id = nb_vocab_id(w->vocab, word->text, word->n);
  if (id < 0) id = w->unknown.id;
  if (id < 0) return nb_unknown_refuse(&w->unknown, err);
  nb_ids_append(ids, &id, 1);
  if (word->pieces) nb_places_fill(word->pieces, (nb_place){0, (uint32_t)word->n}, 1);
  return NIBBLE_OK;
}

static void close_wordlevel(void *model) {
  wordlevel *w = model;
  free(w->unknown.text);
  free(w);
}

const nb_token_model_kind nb_wordlevel = {
    .type = "WordLevel", .open = open_wordlevel, .encode = encode_wordlevel, .close = close_wordlevel};
