/* WordPiece (Wu et al. 2016, https://arxiv.org/abs/1609.08144): of the tokens that the word begins with the longest,
 * then the same for what is left of it, where tokens begin with a prefix ("##"). A word of which something is left that
 * way is one unknown token as a whole. */
#include <stdlib.h>

#include "base/utf8.h"
#include "model/json.h"
#include "tokenizer/model.h"
#include "tokenizer/trie.h"

typedef struct wordpiece {
  nb_trie trie;
  nb_trie_walk inside; /* where a token inside a word begins: behind the prefix */
  bool has_inside;     /* there are such tokens */
  nb_unknown unknown;
  int64_t longest; /* characters of a word that is looked at */
} wordpiece;

static nibble_status open_wordpiece(const char *where, const nb_tokenizer_spec *spec, const nb_vocab *vocab, void **out,
                                    nibble_error *err) {
  wordpiece *w = *out = calloc(1, sizeof *w);
  if (!w) return nb_fail_memory(err, sizeof *w);
  const cJSON *model = nb_json_object(spec->parts, "model");
  const char *prefix = NULL;
  nibble_status status = nb_unknown_need(where, model, vocab, &w->unknown, err);
  if (status == NIBBLE_OK) status = nb_json_string(where, model, "continuing_subword_prefix", &prefix, err);
  if (status == NIBBLE_OK && !prefix)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: model.continuing_subword_prefix is missing", where);
  if (status == NIBBLE_OK)
    status = nb_json_need_int(where, model, "max_input_chars_per_word", (nb_range){0, INT64_MAX}, &w->longest, err);
  if (status == NIBBLE_OK) status = nb_trie_make(&w->trie, vocab, err);
  if (status == NIBBLE_OK) w->has_inside = nb_trie_begin(&w->trie, (nb_str){prefix, strlen(prefix)}, &w->inside);
  return status;
}

static bool is_too_long(const wordpiece *w, const nb_word *word) {
  int64_t chars = 0;
  if ((uint64_t)word->n <= (uint64_t)w->longest) return false;
  for (size_t i = 0; i < word->n && chars <= w->longest; i++) chars += nb_utf8_begins(word->text[i]);
  return chars > w->longest;
}

static nibble_status encode_wordpiece(void *model, const nb_word *word, nb_ids *ids, nb_budget *budget,
                                      nibble_error *err) {
  const wordpiece *w = model;
  size_t at = 0, begin = 0, n = is_too_long(w, word) ? 0 : word->n;
  while (at < n) {
    nb_trie_walk walk = at > 0 ? w->inside : (nb_trie_walk){.node = NB_TRIE_ROOT};
    walk.text = word->text + at;
    walk.n = n - at;
    int32_t best = -1;
    if (at == 0 || w->has_inside) {
      size_t length = 0;
      for (int32_t id; (id = nb_trie_next(&w->trie, &walk)) >= 0; length = walk.at) best = id;
      at += length;
    }
    nibble_status status = nb_token_model_pay(budget, walk.steps, err);
    if (status != NIBBLE_OK) return status;
    if (best < 0) break;
    nb_ids_append(ids, &best, 1);
    if (word->pieces) nb_places_fill(word->pieces, (nb_place){(uint32_t)begin, (uint32_t)at}, 1);
    begin = at;
  }
  if (at == word->n) return NIBBLE_OK;
  if (w->unknown.id < 0) return nb_unknown_refuse(&w->unknown, err);
  ids->length = 0;
  nb_ids_append(ids, &w->unknown.id, 1);
  if (!word->pieces) return NIBBLE_OK;
  word->pieces->length = 0;
  nb_places_fill(word->pieces, (nb_place){0, (uint32_t)word->n}, 1);
  return NIBBLE_OK;
}

static void close_wordpiece(void *model) {
  wordpiece *w = model;
  nb_trie_free(&w->trie);
  free(w->unknown.text);
  free(w);
}

const nb_token_model_kind nb_wordpiece = {.type = "WordPiece",
                                          .tell = "max_input_chars_per_word",
                                          .open = open_wordpiece,
                                          .encode = encode_wordpiece,
                                          .close = close_wordpiece};
