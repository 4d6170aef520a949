#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/checked.h"
#include "model/json.h"
#include "tokenizer/bytes.h"
#include "tokenizer/model.h"

static const nb_token_model_kind *const kinds[] = {&nb_bpe, &nb_wordpiece, &nb_unigram, &nb_wordlevel, &nb_words};

enum {
  CACHED_WORD = 64,       /* bytes: longer words hardly come twice */
  CACHED_WORDS = 1 << 15, /* words after which the cache is emptied */
  SLOTS = 2 * CACHED_WORDS,
};

typedef struct slot {
  uint32_t hash; /* 0: free */
  uint32_t text, ids;
  uint16_t text_length, id_count;
} slot;

typedef struct cache {
  slot *slots; /* hash table [SLOTS] */
  size_t count;
  uint64_t seed; /* nobody can prepare a text whose words all collide */
  nb_buf text;
  nb_ids ids;
} cache;

struct nb_token_model {
  const nb_token_model_kind *kind;
  void *state; /* the kind's */
  cache cache;
  nb_ids fresh; /* of the word that is being encoded, */
  nb_buf chars; /* and its characters where it is raw */
};

nibble_status nb_token_model_kind_of(const char *where, const cJSON *model, const nb_token_model_kind **out,
                                     nibble_error *err) {
  if (!cJSON_IsObject(model)) return nb_fail(err, NIBBLE_BAD_INPUT, "%s: \"model\" is missing", where);
  const char *type = nb_bpe.type;
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) { /* older files do not say */
    if (kinds[i]->tell && cJSON_HasObjectItem(model, kinds[i]->tell)) type = kinds[i]->type;
  }
  nibble_status status = nb_json_string(where, model, "type", &type, err);
  if (status != NIBBLE_OK) return status;
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
    *out = kinds[i];
    if (strcmp(type, kinds[i]->type) == 0) return NIBBLE_OK;
  }
  return nb_fail(err, NIBBLE_BAD_INPUT, "%s: model type '%s' is not supported", where, type);
}

nibble_status nb_token_model_open(const char *where, const nb_tokenizer_spec *spec, const nb_vocab *vocab,
                                  nb_token_model **out, nibble_error *err) {
  nb_token_model *m = *out = calloc(1, sizeof *m);
  if (!m) return nb_fail_memory(err, sizeof *m);
  nibble_status status = nb_token_model_kind_of(where, nb_json_object(spec->parts, "model"), &m->kind, err);
  if (status == NIBBLE_OK && getrandom(&m->cache.seed, sizeof m->cache.seed, 0) < 0)
    status = nb_fail_errno(err, "no random numbers");
  m->cache.slots = nb_alloc(SLOTS, sizeof *m->cache.slots);
  if (status == NIBBLE_OK && !m->cache.slots) status = nb_fail_memory(err, SLOTS * sizeof *m->cache.slots);
  if (status == NIBBLE_OK) status = m->kind->open(where, spec, vocab, &m->state, err);
  if (status == NIBBLE_OK) return NIBBLE_OK;
  nb_token_model_close(m);
  *out = NULL;
  return status;
}

void nb_token_model_close(nb_token_model *m) {
  if (!m) return;
  if (m->state) m->kind->close(m->state);
  free(m->cache.slots);
  nb_buf_free(&m->cache.text);
  nb_ids_free(&m->cache.ids);
  nb_ids_free(&m->fresh);
  nb_buf_free(&m->chars);
  free(m);
}

/* The slot of a word, or a free one. */
static slot *find(const cache *c, const nb_word *word, uint32_t hash) {
  for (size_t i = hash % SLOTS;; i = (i + 1) % SLOTS) {
    slot *s = &c->slots[i];
    if (s->hash == 0) return s;
    if (s->hash == hash && s->text_length == word->n && memcmp(c->text.data + s->text, word->text, word->n) == 0)
      return s;
  }
}

/* Without memory the word is just not remembered. */
static void add(cache *c, uint32_t hash, const nb_word *word, const nb_ids *ids) {
  if (c->count == CACHED_WORDS) {
    memset(c->slots, 0, SLOTS * sizeof *c->slots);
    c->count = c->text.length = c->ids.length = 0;
  }
  slot fresh = {.hash = hash,
                .text = (uint32_t)c->text.length,
                .ids = (uint32_t)c->ids.length,
                .text_length = (uint16_t)word->n,
                .id_count = (uint16_t)ids->length};
  nb_buf_append(&c->text, word->text, word->n);
  nb_ids_append(&c->ids, ids->data, ids->length);
  if (c->text.failed || c->ids.failed) return;
  *find(c, word, hash) = fresh;
  c->count++;
}

/* The ids of a word that the cache does not know, into m->fresh. */
static nibble_status encode_fresh(nb_token_model *m, const nb_word *word, nb_budget *budget, nibble_error *err) {
  nb_word chars = {0};
  m->fresh.length = 0;
  if (word->raw && !m->kind->reads_raw) {
    m->chars.length = 0;
    nb_bytes_to_chars(word->text, word->n, &m->chars);
    if (m->chars.failed) return nb_fail_memory(err, word->n);
    chars = (nb_word){.text = m->chars.data, .n = m->chars.length};
    word = &chars;
  }
  nibble_status status = m->kind->encode(m->state, word, &m->fresh, budget, err);
  return status == NIBBLE_OK && m->fresh.failed ? nb_fail_memory(err, word->n * sizeof *m->fresh.data) : status;
}

nibble_status nb_token_model_locate(nb_token_model *m, const nb_word *word, nb_ids *ids, nb_places *pieces,
                                    nb_budget *budget, nibble_error *err) {
  nb_word asking = *word;
  asking.pieces = pieces;
  pieces->length = 0;
  nibble_status status = encode_fresh(m, &asking, budget, err);
  if (status == NIBBLE_OK && pieces->failed) status = nb_fail_memory(err, word->n * sizeof *pieces->data);
  if (status == NIBBLE_OK) nb_ids_append(ids, m->fresh.data, m->fresh.length);
  return status;
}

int32_t nb_token_model_spelled(const nb_token_model *m) { return m->kind->spelled ? m->kind->spelled(m->state) : -1; }

static nibble_status encode_part(nb_token_model *m, const nb_word *word, nb_ids *ids, nb_budget *budget,
                                 nibble_error *err) {
  cache *c = &m->cache;
  bool cached = word->n <= CACHED_WORD;
  uint32_t hash = 0;
  if (cached) {
    hash = (uint32_t)XXH3_64bits_withSeed(word->text, word->n, c->seed);
    hash = 1u << 31 | (hash & ~1u) | word->is_part; /* never 0: that slot is free; a part may have other ids */
    const slot *s = find(c, word, hash);
    if (s->hash) {
      if (s->id_count > 0) nb_ids_append(ids, c->ids.data + s->ids, s->id_count);
      return NIBBLE_OK;
    }
  }
  nibble_status status = encode_fresh(m, word, budget, err);
  if (status != NIBBLE_OK) return status;
  if (cached) add(c, hash, word, &m->fresh);
  nb_ids_append(ids, m->fresh.data, m->fresh.length);
  return NIBBLE_OK;
}

nibble_status nb_token_model_encode(nb_token_model *m, const nb_word *word, nb_ids *ids, nb_budget *budget,
                                    nibble_error *err) {
  if (word->n <= CACHED_WORD || !m->kind->part) return encode_part(m, word, ids, budget, err);
  nibble_status status = NIBBLE_OK;
  for (size_t at = 0, end; at < word->n && status == NIBBLE_OK; at = end) {
    nb_word part = *word;
    end = m->kind->part(m->state, word, at);
    part.text += at;
    part.n = end - at;
    part.is_part = part.n < word->n;
    status = encode_part(m, &part, ids, budget, err);
  }
  return status;
}

nibble_status nb_token_model_string(const char *where, const cJSON *model, const char *key, char **out,
                                    nibble_error *err) {
  const char *text = NULL;
  nibble_status status = nb_json_string(where, model, key, &text, err);
  if (status != NIBBLE_OK || !text) return status;
  *out = strdup(text);
  return *out ? NIBBLE_OK : nb_fail_memory(err, strlen(text));
}

nibble_status nb_unknown_read(const char *where, const cJSON *model, const nb_vocab *vocab, nb_unknown *out,
                              nibble_error *err) {
  nibble_status status = nb_token_model_string(where, model, "unk_token", &out->text, err);
  out->id = out->text ? nb_vocab_id(vocab, out->text, strlen(out->text)) : -1;
  return status;
}

nibble_status nb_unknown_need(const char *where, const cJSON *model, const nb_vocab *vocab, nb_unknown *out,
                              nibble_error *err) {
  nibble_status status = nb_unknown_read(where, model, vocab, out, err);
  if (status != NIBBLE_OK || out->text) return status;
  return nb_fail(err, NIBBLE_BAD_INPUT, "%s: model.unk_token is missing", where);
}

nibble_status nb_unknown_refuse(const nb_unknown *unknown, nibble_error *err) {
  return nb_fail(err, NIBBLE_BAD_INPUT, "the text has a character without a token, and unk_token '%s' is no token",
                 unknown->text);
}

void nb_fallback_find(const nb_vocab *vocab, int32_t ids[256]) {
  for (unsigned byte = 0; byte < 256; byte++) {
    char name[16];
    int length = snprintf(name, sizeof name, "<0x%02X>", byte);
    ids[byte] = nb_vocab_id(vocab, name, (size_t)length);
  }
}

bool nb_fallback_covers(const int32_t ids[256], const char *text, size_t n) {
  size_t have = 0;
  while (have < n && ids[(unsigned char)text[have]] >= 0) have++;
  return have == n;
}

nibble_status nb_token_model_pay(nb_budget *budget, size_t steps, nibble_error *err) {
  enum { STEP_WORK = 2 }; /* of a byte or a branch, in units of the budget */
  if (nb_budget_pay(budget, (uint64_t)steps * STEP_WORK)) return NIBBLE_OK;
  return nb_fail(err, NIBBLE_BAD_INPUT, "the tokenizer's model costs too much on this text");
}
