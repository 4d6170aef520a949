#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/checked.h"
#include "model/json.h"
#include "tokenizer/model.h"

static const nb_token_model_kind *const kinds[] = {&nb_bpe};

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
  nb_ids fresh; /* of the word that is being encoded */
};

nibble_status nb_token_model_kind_of(const char *where, const cJSON *model, const nb_token_model_kind **out,
                                     nibble_error *err) {
  if (!cJSON_IsObject(model)) return nb_fail(err, NIBBLE_BAD_INPUT, "%s: \"model\" is missing", where);
  const char *type = nb_bpe.type; /* older files do not say */
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

nibble_status nb_token_model_encode(nb_token_model *m, const nb_word *word, nb_ids *ids, nibble_error *err) {
  cache *c = &m->cache;
  bool cached = word->n <= CACHED_WORD;
  uint32_t hash = 0;
  if (cached) {
    hash = (uint32_t)XXH3_64bits_withSeed(word->text, word->n, c->seed) | 1u << 31; /* never 0: that slot is free */
    const slot *s = find(c, word, hash);
    if (s->hash) {
      if (s->id_count > 0) nb_ids_append(ids, c->ids.data + s->ids, s->id_count);
      return NIBBLE_OK;
    }
  }
  m->fresh.length = 0;
  nibble_status status = m->kind->encode(m->state, word, &m->fresh, err);
  if (status != NIBBLE_OK) return status;
  if (cached) add(c, hash, word, &m->fresh);
  nb_ids_append(ids, m->fresh.data, m->fresh.length);
  return NIBBLE_OK;
}
