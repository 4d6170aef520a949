/* SentencePiece's model of whole words: the text is cut before every U+2581, each part is a token or unknown, and
 * unknown neighbours are one. tokenizer.json has no such type; readers/sentencepiece.c asks for it. */
#include <stdlib.h>
#include <string.h>

#include "model/json.h"
#include "tokenizer/model.h"

typedef struct words {
  const nb_vocab *vocab;
  int32_t unknown_id;
  int32_t fallback_ids[256]; /* nb_fallback_find */
  bool byte_fallback;
} words;

static nibble_status open_words(const char *where, const nb_tokenizer_spec *spec, const nb_vocab *vocab, void **out,
                                nibble_error *err) {
  words *w = *out = calloc(1, sizeof *w);
  if (!w) return nb_fail_memory(err, sizeof *w);
  const cJSON *model = nb_json_object(spec->parts, "model");
  int64_t unknown = -1;
  w->vocab = vocab;
  nibble_status status =
      nb_json_need_int(where, model, "unk_id", (nb_range){0, vocab->count > 0 ? vocab->count - 1 : 0}, &unknown, err);
  if (status == NIBBLE_OK) status = nb_json_bool(where, model, "byte_fallback", &w->byte_fallback, err);
  w->unknown_id = (int32_t)unknown;
  nb_fallback_find(vocab, w->fallback_ids);
  return status;
}

/* Appends the bytes' ids; false, and none of them, if one is no token. */
static bool put_bytes(const words *w, const char *text, size_t n, nb_ids *ids) {
  if (!nb_fallback_covers(w->fallback_ids, text, n)) return false;
  for (size_t i = 0; i < n; i++) nb_ids_append(ids, &w->fallback_ids[(unsigned char)text[i]], 1);
  return true;
}

/* `count` ids stand for n bytes; without an id they go to the one before. */
static void put_piece(nb_places *pieces, size_t begin, size_t n, size_t count) {
  nb_places_fill(pieces, (nb_place){(uint32_t)begin, (uint32_t)(begin + n)}, count);
  if (count == 0 && pieces->length > 0) pieces->data[pieces->length - 1].end = (uint32_t)(begin + n);
}

static nibble_status encode_words(void *model, const nb_word *word, nb_ids *ids, nb_budget *budget, nibble_error *err) {
  const words *w = model;
  const char *end = word->text + word->n;
  bool after_unknown = false;
  for (const char *at = word->text, *next; at < end; at = next) {
    next = memmem(at + 1, (size_t)(end - at) - 1, NB_METASPACE, sizeof NB_METASPACE - 1);
    if (!next) next = end;
    size_t n = (size_t)(next - at), before = ids->length;
    int32_t id = nb_vocab_id(w->vocab, at, n);
    bool unknown = id < 0 || id == w->unknown_id;
    if (unknown && !(w->byte_fallback && put_bytes(w, at, n, ids)) && !after_unknown)
      nb_ids_append(ids, &w->unknown_id, 1);
    if (!unknown) nb_ids_append(ids, &id, 1);
    after_unknown = unknown;
    if (word->pieces) put_piece(word->pieces, (size_t)(at - word->text), n, ids->length - before);
  }
  return nb_token_model_pay(budget, word->n, err);
}

static void close_words(void *model) { free(model); }

const nb_token_model_kind nb_words = {
    .type = "SentencePieceWord", .has_scores = true, .open = open_words, .encode = encode_words, .close = close_words};
