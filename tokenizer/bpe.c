/* Byte-pair encoding of one word (Sennrich et al. 2016, https://arxiv.org/abs/1508.07909): of all neighbouring pairs
 * that have a merge, the one of the lowest rank is joined, the leftmost first, until none is left. Short words rescan
 * their pairs, which is fastest; long ones keep them in a heap, so that a word of n symbols costs n log n. */
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/utf8.h"
#include "model/json.h"
#include "tokenizer/bytes.h"
#include "tokenizer/model.h"
#include "tokenizer/pairs.h"

enum { SHORT_WORD = 24 }; /* symbols up to which rescanning beats the heap */

typedef struct symbol {
  int32_t id, previous, next; /* neighbours by index; -1 at the ends. id is -1 once merged into the left one */
  uint32_t length;            /* bytes of the word; 0 where nobody asks */
} symbol;

typedef struct candidate {
  uint64_t rank;
  int32_t at, merged;
} candidate;

typedef struct bpe {
  const nb_vocab *vocab;
  nb_pairs *pairs;
  int32_t byte_ids[256];     /* id of a byte's character; -1: none */
  int32_t fallback_ids[256]; /* nb_fallback_find */
  nb_unknown unknown;
  char *prefix, *suffix; /* continuing_subword_prefix, end_of_word_suffix; "": none */
  bool fuse_unknown, byte_fallback, ignore_merges;

  int32_t own;                          /* ids of the model, before added tokens */
  enum { UNSEEN, WHOLE, PARTED } parts; /* of words: not yet looked for, none, or before the U+2581 in them, */
  bool joins[256];                      /* but for those behind a byte that is before one in some token */

  nb_buf chars; /* scratch, as what follows */
  symbol *symbols;
  size_t symbol_capacity;
  candidate *heap;
  size_t heap_length;
} bpe;

/* --- opening --- */

static nibble_status read_settings(const char *where, const cJSON *model, bpe *b, nibble_error *err) {
  double dropout = 0;
  nibble_status status = nb_json_double(where, model, "dropout", &dropout, err);
  if (status == NIBBLE_OK && dropout != 0)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: a model with dropout gives other ids each time", where);
  if (status == NIBBLE_OK) status = nb_json_bool(where, model, "fuse_unk", &b->fuse_unknown, err);
  if (status == NIBBLE_OK) status = nb_json_bool(where, model, "byte_fallback", &b->byte_fallback, err);
  if (status == NIBBLE_OK) status = nb_json_bool(where, model, "ignore_merges", &b->ignore_merges, err);
  if (status == NIBBLE_OK) status = nb_unknown_read(where, model, b->vocab, &b->unknown, err);
  if (status == NIBBLE_OK) status = nb_token_model_string(where, model, "continuing_subword_prefix", &b->prefix, err);
  if (status == NIBBLE_OK) status = nb_token_model_string(where, model, "end_of_word_suffix", &b->suffix, err);
  if (status == NIBBLE_OK && !b->prefix && !(b->prefix = strdup(""))) return nb_fail_memory(err, 1);
  if (status == NIBBLE_OK && !b->suffix && !(b->suffix = strdup(""))) return nb_fail_memory(err, 1);
  return status;
}

static nibble_status open_bpe(const char *where, const nb_tokenizer_spec *spec, const nb_vocab *vocab, void **out,
                              nibble_error *err) {
  bpe *b = *out = calloc(1, sizeof *b);
  if (!b) return nb_fail_memory(err, sizeof *b);
  b->vocab = vocab;
  b->own = vocab->count;
  nibble_status status = read_settings(where, nb_json_object(spec->parts, "model"), b, err);
  if (status == NIBBLE_OK) status = nb_pairs_make(where, &spec->merges, vocab, &b->pairs, err);
  if (status != NIBBLE_OK) return status;
  for (unsigned byte = 0; byte < 256; byte++) {
    char two[2];
    b->byte_ids[byte] = nb_vocab_id(vocab, two, nb_byte_char((unsigned char)byte, two));
  }
  nb_fallback_find(vocab, b->fallback_ids);
  return NIBBLE_OK;
}

static void close_bpe(void *model) {
  bpe *b = model;
  nb_pairs_free(b->pairs);
  free(b->unknown.text);
  free(b->prefix);
  free(b->suffix);
  nb_buf_free(&b->chars);
  free(b->symbols);
  free(b->heap);
  free(b);
}

/* --- from a word to its first symbols --- */

static void put(nb_ids *ids, int32_t id) { nb_ids_append(ids, &id, 1); }

typedef struct speller {
  bpe *b;
  nb_ids *ids;
  nb_places *pieces; /* those of the word: [0, bytes of the id) as yet */
  bool pending;      /* an unknown token not yet put: the reference puts it before the next known character, */
  size_t unknown;    /* and so many bytes that it stands for */
  nibble_error *err;
} speller;

static void put_piece(speller *s, int32_t id, size_t length) {
  put(s->ids, id);
  if (s->pieces) nb_places_fill(s->pieces, (nb_place){0, (uint32_t)length}, 1);
}

/* A character that is `length` bytes of the word. */
static nibble_status unknown_char(speller *s, nb_str text, size_t length) {
  bpe *b = s->b;
  if (b->byte_fallback && nb_fallback_covers(b->fallback_ids, text.data, text.length)) {
    for (size_t i = 0; i < text.length; i++) put_piece(s, b->fallback_ids[(unsigned char)text.data[i]], 1);
    return NIBBLE_OK;
  }
  if (!b->unknown.text) return NIBBLE_OK; /* dropped, as the reference does */
  if (b->unknown.id < 0) return nb_unknown_refuse(&b->unknown, s->err);
  if (s->pending && !b->fuse_unknown) put_piece(s, b->unknown.id, s->unknown);
  s->unknown = (s->pending && b->fuse_unknown ? s->unknown : 0) + length;
  s->pending = true;
  return NIBBLE_OK;
}

/* A character of the word, with what its place in the word adds to it. */
static nibble_status spell_char(speller *s, nb_str text, bool first, bool last) {
  bpe *b = s->b;
  size_t length = text.length;
  const char *prefix = first ? "" : b->prefix, *suffix = last ? b->suffix : "";
  if (prefix[0] || suffix[0]) {
    b->chars.length = 0;
    nb_buf_puts(&b->chars, prefix);
    nb_buf_append(&b->chars, text.data, text.length);
    nb_buf_puts(&b->chars, suffix);
    if (b->chars.failed) return nb_fail_memory(s->err, text.length);
    text = (nb_str){b->chars.data, b->chars.length};
  }
  int32_t id = nb_vocab_id(b->vocab, text.data, text.length);
  if (id < 0) return unknown_char(s, text, length);
  if (s->pending) put_piece(s, b->unknown.id, s->unknown);
  s->pending = false;
  put_piece(s, id, length);
  return NIBBLE_OK;
}

static nibble_status spell(bpe *b, const nb_word *word, nb_ids *ids, nibble_error *err) {
  speller s = {.b = b, .ids = ids, .pieces = word->pieces, .err = err};
  bool affixes = b->prefix[0] || b->suffix[0];
  nibble_status status = NIBBLE_OK;
  size_t length = 1;
  for (size_t i = 0; i < word->n && status == NIBBLE_OK; i += length) {
    unsigned char byte = (unsigned char)word->text[i];
    if (word->raw && !affixes && !s.pending && b->byte_ids[byte] >= 0) {
      put(ids, b->byte_ids[byte]);
      continue;
    }
    char two[2];
    nb_str text = {two, 0};
    if (word->raw) {
      text.length = nb_byte_char(byte, two);
    } else {
      nb_utf8_decode(word->text + i, &length);
      text = (nb_str){word->text + i, length};
    }
    status = spell_char(&s, text, i == 0, i + length == word->n);
  }
  if (s.pending) put_piece(&s, b->unknown.id, s.unknown);
  return status;
}

/* --- merging --- */

/* What becomes of ids[at] and its neighbour; ranks[at] is the largest number where that is nothing. */
static void look(const bpe *b, const int32_t *ids, size_t at, uint64_t *ranks, int32_t *merged) {
  nb_joined joined = nb_pairs_find(b->pairs, ids[at], ids[at + 1]);
  ranks[at] = joined.whole < 0 ? UINT64_MAX : joined.rank;
  merged[at] = joined.whole;
}

static size_t merge_short(const bpe *b, int32_t *ids, size_t n) {
  uint64_t ranks[SHORT_WORD];
  int32_t merged[SHORT_WORD];
  for (size_t i = 0; i + 1 < n; i++) look(b, ids, i, ranks, merged);
  while (n > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < n; i++) {
      if (ranks[i] < ranks[best]) best = i;
    }
    if (ranks[best] == UINT64_MAX) break;
    ids[best] = merged[best];
    n--;
    memmove(ids + best + 1, ids + best + 2, (n - best - 1) * sizeof *ids);
    if (best + 1 < n) {
      memmove(ranks + best, ranks + best + 1, (n - best - 1) * sizeof *ranks);
      memmove(merged + best, merged + best + 1, (n - best - 1) * sizeof *merged);
    }
    for (size_t i = best > 0 ? best - 1 : 0; i <= best && i + 1 < n; i++) look(b, ids, i, ranks, merged);
  }
  return n;
}

static bool before(candidate a, candidate b) { return a.rank != b.rank ? a.rank < b.rank : a.at < b.at; }

static void push(bpe *b, candidate c) {
  size_t i = b->heap_length++;
  while (i > 0 && before(c, b->heap[(i - 1) / 2])) {
    b->heap[i] = b->heap[(i - 1) / 2];
    i = (i - 1) / 2;
  }
  b->heap[i] = c;
}

static candidate pop(bpe *b) {
  candidate top = b->heap[0], last = b->heap[--b->heap_length];
  size_t i = 0, child;
  while ((child = 2 * i + 1) < b->heap_length) {
    if (child + 1 < b->heap_length && before(b->heap[child + 1], b->heap[child])) child++;
    if (!before(b->heap[child], last)) break;
    b->heap[i] = b->heap[child];
    i = child;
  }
  b->heap[i] = last;
  return top;
}

/* Each of n symbols is put once and each of at most n - 1 merges puts two more. */
static bool reserve_long(bpe *b, size_t n) {
  b->heap_length = 0;
  if (b->symbol_capacity >= n) return true;
  free(b->symbols);
  free(b->heap);
  b->symbols = nb_alloc(n, sizeof *b->symbols);
  b->heap = nb_alloc(n, 3 * sizeof *b->heap);
  b->symbol_capacity = b->symbols && b->heap ? n : 0;
  return b->symbol_capacity > 0;
}

static void consider(bpe *b, int32_t at) {
  if (at < 0 || b->symbols[at].next < 0) return;
  nb_joined joined = nb_pairs_find(b->pairs, b->symbols[at].id, b->symbols[b->symbols[at].next].id);
  if (joined.whole >= 0) push(b, (candidate){.rank = joined.rank, .at = at, .merged = joined.whole});
}

/* `pieces` go with the ids; NULL: nobody asks. */
static nibble_status merge_long(bpe *b, nb_ids *ids, nb_places *pieces, nibble_error *err) {
  int32_t n = (int32_t)ids->length;
  if (!reserve_long(b, ids->length)) return nb_fail_memory(err, ids->length * (sizeof(symbol) + 3 * sizeof(candidate)));
  for (int32_t i = 0; i < n; i++) {
    b->symbols[i] = (symbol){.id = ids->data[i],
                             .previous = i - 1,
                             .next = i + 1 < n ? i + 1 : -1,
                             .length = pieces ? pieces->data[i].end : 0};
  }
  for (int32_t i = 0; i < n; i++) consider(b, i);
  while (b->heap_length > 0) {
    candidate top = pop(b);
    symbol *left = &b->symbols[top.at];
    if (left->id < 0 || left->next < 0) continue;
    symbol *right = &b->symbols[left->next];
    if (nb_pairs_find(b->pairs, left->id, right->id).whole != top.merged) continue; /* a neighbour has changed since */
    left->id = top.merged;
    left->length += right->length;
    right->id = -1;
    left->next = right->next;
    if (left->next >= 0) b->symbols[left->next].previous = top.at;
    consider(b, left->previous);
    consider(b, top.at);
  }
  ids->length = 0;
  for (int32_t i = 0; i >= 0; i = b->symbols[i].next) {
    if (pieces) pieces->data[ids->length].end = b->symbols[i].length;
    ids->data[ids->length++] = b->symbols[i].id;
  }
  return NIBBLE_OK;
}

/* As merge_long, of an empty word too; the pieces, lengths before, follow each other from there on. */
static nibble_status merge_pieces(bpe *b, nb_ids *ids, nb_places *pieces, nibble_error *err) {
  nibble_status status = pieces->failed    ? nb_fail_memory(err, ids->length * sizeof *pieces->data)
                         : ids->length > 0 ? merge_long(b, ids, pieces, err)
                                           : NIBBLE_OK;
  if (status != NIBBLE_OK) return status;
  pieces->length = ids->length;
  uint32_t at = 0;
  for (size_t i = 0; i < pieces->length; i++) {
    uint32_t end = at + pieces->data[i].end;
    pieces->data[i] = (nb_place){at, end};
    at = end;
  }
  return NIBBLE_OK;
}

/* The id of a whole word; -1 if it is no token. */
static nibble_status find_word(bpe *b, const nb_word *word, int32_t *id, nibble_error *err) {
  b->chars.length = 0;
  if (word->raw)
    nb_bytes_to_chars(word->text, word->n, &b->chars);
  else
    nb_buf_append(&b->chars, word->text, word->n);
  if (b->chars.failed) return nb_fail_memory(err, word->n);
  *id = nb_vocab_id(b->vocab, b->chars.data, b->chars.length);
  return NIBBLE_OK;
}

/* --- the parts of a long word ---
 *
 * SentencePiece's texts are one word each, with U+2581 for spaces. A merge makes a token that is spelled as its two
 * parts together, so none reaches over a place where no token has the two characters side by side. */

/* True if each character leaves a symbol: were one dropped, its neighbours would be side by side. */
static bool keeps_all(const bpe *b) {
  bool all = b->byte_fallback;
  for (unsigned byte = 0; byte < 256; byte++) all = all && b->fallback_ids[byte] >= 0;
  return all || (b->unknown.text && b->unknown.id >= 0);
}

/* True if the token may have been merged of one that stands for a byte, or for unknown characters: its spelling does
 * not tell which text it stands for. */
static bool is_of_others(const bpe *b, nb_str token) {
  static const char byte[] = "<0x00>";
  const char *unknown = b->unknown.text ? b->unknown.text : "";
  size_t n = strlen(unknown);
  return (token.length > strlen(byte) && memmem(token.data, token.length, byte, 3)) ||
         (n > 0 && token.length > n && memmem(token.data, token.length, unknown, n));
}

/* Where U+2581 stands next in text[at, n); n if it does not. */
static size_t next_space(const char *text, size_t n, size_t at) {
  const char *space = memmem(text + at, n - at, NB_METASPACE, strlen(NB_METASPACE));
  return space ? (size_t)(space - text) : n;
}

static void look_for_parts(bpe *b) {
  b->parts = WHOLE;
  bool plain = !b->prefix[0] && !b->suffix[0];
  if (!plain || !keeps_all(b) || nb_vocab_id(b->vocab, NB_METASPACE, strlen(NB_METASPACE)) < 0) return;
  for (int32_t id = 0; id < b->own; id++) {
    nb_str token = nb_vocab_key(b->vocab, id);
    if (token.length < 2) continue;
    if (is_of_others(b, token)) return;
    for (size_t at = 1; (at = next_space(token.data, token.length, at)) < token.length; at++)
      b->joins[(unsigned char)token.data[at - 1]] = true;
  }
  b->parts = PARTED;
}

static size_t end_of_part(void *model, const nb_word *word, size_t at) {
  bpe *b = model;
  int32_t id = -1;
  if (b->parts == UNSEEN) look_for_parts(b);
  if (word->raw || b->parts == WHOLE) return word->n;
  bool asks = at == 0 && b->ignore_merges; /* whether the whole word is a token */
  if (asks && (find_word(b, word, &id, NULL) != NIBBLE_OK || id >= 0)) return word->n;
  do at = next_space(word->text, word->n, at + 1);
  while (at < word->n && b->joins[(unsigned char)word->text[at - 1]]);
  return at;
}

static nibble_status encode_bpe(void *model, const nb_word *word, nb_ids *ids, nb_budget *budget, nibble_error *err) {
  (void)budget; /* n log n needs no bound */
  bpe *b = model;
  int32_t id = -1;
  nibble_status status = b->ignore_merges && !word->is_part ? find_word(b, word, &id, err) : NIBBLE_OK;
  if (status == NIBBLE_OK && id >= 0) {
    put(ids, id);
    if (word->pieces) nb_places_fill(word->pieces, (nb_place){0, (uint32_t)word->n}, 1);
  } else if (status == NIBBLE_OK) {
    status = spell(b, word, ids, err);
  }
  if (status == NIBBLE_OK && ids->failed) status = nb_fail_memory(err, word->n * sizeof *ids->data);
  if (status != NIBBLE_OK) return status;
  if (word->pieces) return merge_pieces(b, ids, word->pieces, err);
  if (ids->length > SHORT_WORD) return merge_long(b, ids, NULL, err);
  ids->length = merge_short(b, ids->data, ids->length);
  return NIBBLE_OK;
}

const nb_token_model_kind nb_bpe = {.type = "BPE",
                                    .has_merges = true,
                                    .reads_raw = true,
                                    .open = open_bpe,
                                    .encode = encode_bpe,
                                    .part = end_of_part,
                                    .close = close_bpe};
