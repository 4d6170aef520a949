/* Unigram (Kudo 2018, https://arxiv.org/abs/1804.10959): every piece has a score, the logarithm of its probability, and
 * a word is cut so that the sum is the largest (Viterbi's algorithm over the pieces that begin at each character).
 * Sums are rounded in the reference's order, and of two equal ones the first counts, as there. */
#include <math.h>
#include <stdlib.h>

#include "base/grow.h"
#include "base/utf8.h"
#include "model/json.h"
#include "tokenizer/model.h"
#include "tokenizer/trie.h"

/* How the best path comes to a place in the word: by the piece that ends there. */
typedef struct step {
  double score; /* of the path */
  uint32_t length;
  int32_t id; /* -1: nothing comes here yet */
} step;

typedef struct unigram {
  const nb_vocab *vocab;
  nb_trie trie;
  int32_t unknown_id;        /* -1: none */
  double unknown_score;      /* of a character that is no piece */
  int32_t fallback_ids[256]; /* nb_fallback_find */
  bool byte_fallback;

  step *steps; /* scratch: to each byte of a word */
  size_t capacity;
} unigram;

static nibble_status read_settings(const char *where, const cJSON *model, unigram *u, nibble_error *err) {
  static const double penalty = 10; /* what an unknown character's score is below the worst piece's */
  const nb_vocab *v = u->vocab;
  int64_t unknown = -1;
  nibble_status status = nb_json_int(where, model, "unk_id", (nb_range){0, INT64_MAX}, &unknown, err);
  if (status == NIBBLE_OK) status = nb_json_bool(where, model, "byte_fallback", &u->byte_fallback, err);
  if (status == NIBBLE_OK && unknown >= v->count)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: model.unk_id is %lld, but there are %d pieces", where,
                   (long long)unknown, v->count);
  u->unknown_id = (int32_t)unknown;
  double least = INFINITY;
  for (int32_t id = 0; id < v->count && status == NIBBLE_OK; id++) {
    if (!isfinite(v->scores[id]))
      status = nb_fail(err, NIBBLE_BAD_INPUT, "%s: the score of token %d is no number", where, id);
    least = fmin(least, v->scores[id]);
  }
  u->unknown_score = least - penalty;
  return status;
}

static nibble_status open_unigram(const char *where, const nb_tokenizer_spec *spec, const nb_vocab *vocab, void **out,
                                  nibble_error *err) {
  unigram *u = *out = calloc(1, sizeof *u);
  if (!u) return nb_fail_memory(err, sizeof *u);
  u->vocab = vocab;
  if (vocab->count > 0 && !vocab->scores) return nb_fail(err, NIBBLE_BAD_INPUT, "%s: the pieces have no scores", where);
  nibble_status status = read_settings(where, nb_json_object(spec->parts, "model"), u, err);
  if (status == NIBBLE_OK) status = nb_trie_make(&u->trie, vocab, err);
  nb_fallback_find(vocab, u->fallback_ids);
  return status;
}

static void close_unigram(void *model) {
  unigram *u = model;
  nb_trie_free(&u->trie);
  free(u->steps);
  free(u);
}

static void offer(step *at, double score, size_t length, int32_t id) {
  if (at->id < 0 || score > at->score) *at = (step){score, (uint32_t)length, id};
}

/* Finds the best way to every character of the word. */
static nibble_status find_paths(unigram *u, const nb_word *word, nb_budget *budget, nibble_error *err) {
  step *steps = u->steps;
  for (size_t i = 1; i <= word->n; i++) steps[i].id = -1;
  steps[0].score = 0;
  for (size_t i = 0, length; i < word->n; i += length) {
    nb_trie_walk walk = {.text = word->text + i, .n = word->n - i, .node = NB_TRIE_ROOT};
    bool is_piece = false;
    nb_utf8_decode(walk.text, &length);
    for (int32_t id; (id = nb_trie_next(&u->trie, &walk)) >= 0; is_piece |= walk.at == length)
      offer(&steps[i + walk.at], u->vocab->scores[id] + steps[i].score, walk.at, id);
    nibble_status status = nb_token_model_pay(budget, walk.steps, err);
    if (status != NIBBLE_OK) return status;
    if (is_piece) continue;
    if (u->unknown_id < 0)
      return nb_fail(err, NIBBLE_BAD_INPUT, "the text has a character without a piece, and there is no unk_id");
    offer(&steps[i + length], u->unknown_score + steps[i].score, length, u->unknown_id);
  }
  return NIBBLE_OK;
}

/* Appends the ids of an unknown part, in reverse: a piece's own (characters that are unknown one by one may be one
 * together), those of its bytes, or the unknown one. */
static void put_unknown(const unigram *u, nb_str part, nb_ids *ids) {
  const char *text = part.data;
  size_t n = part.length;
  int32_t id = nb_vocab_id(u->vocab, text, n);
  if (id < 0 && u->byte_fallback && nb_fallback_covers(u->fallback_ids, text, n)) {
    while (n > 0) nb_ids_append(ids, &u->fallback_ids[(unsigned char)text[--n]], 1);
    return;
  }
  nb_ids_append(ids, id >= 0 ? &id : &u->unknown_id, 1);
}

/* Appends the ids of the best path, from its end. Neighbours that are unknown are one part. */
static void walk_back(const unigram *u, const nb_word *word, nb_ids *ids) {
  const step *steps = u->steps;
  for (size_t at = word->n; at > 0;) {
    size_t end = at, before = ids->length;
    while (at > 0 && steps[at].id == u->unknown_id) at -= steps[at].length;
    if (at < end) {
      put_unknown(u, (nb_str){word->text + at, end - at}, ids);
    } else {
      nb_ids_append(ids, &steps[at].id, 1);
      at -= steps[at].length;
    }
    if (word->pieces) nb_places_fill(word->pieces, (nb_place){(uint32_t)at, (uint32_t)end}, ids->length - before);
  }
}

static void reverse(nb_ids *ids) {
  for (size_t i = 0, k = ids->length; i + 1 < k; i++) {
    int32_t id = ids->data[i];
    ids->data[i] = ids->data[--k];
    ids->data[k] = id;
  }
}

static void reverse_pieces(nb_places *pieces) {
  for (size_t i = 0, k = pieces->length; i + 1 < k; i++) {
    nb_place piece = pieces->data[i];
    pieces->data[i] = pieces->data[--k];
    pieces->data[k] = piece;
  }
}

static int32_t spelled_unigram(const void *model) { return ((const unigram *)model)->unknown_id; }

static nibble_status encode_unigram(void *model, const nb_word *word, nb_ids *ids, nb_budget *budget,
                                    nibble_error *err) {
  unigram *u = model;
  step *grown = nb_grow(u->steps, &u->capacity, word->n + 1, sizeof *grown);
  if (!grown) return nb_fail_memory(err, word->n * sizeof *grown);
  u->steps = grown;
  nibble_status status = find_paths(u, word, budget, err);
  if (status != NIBBLE_OK) return status;
  walk_back(u, word, ids);
  if (ids->length > 1) reverse(ids);
  if (word->pieces) reverse_pieces(word->pieces);
  return NIBBLE_OK;
}

const nb_token_model_kind nb_unigram = {.type = "Unigram",
                                        .tell = "unk_id",
                                        .has_scores = true,
                                        .open = open_unigram,
                                        .encode = encode_unigram,
                                        .spelled = spelled_unigram,
                                        .close = close_unigram};
