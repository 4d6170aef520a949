#include "tokenizer/vocab.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/checked.h"

enum { SHOWN = 60 }; /* bytes of a token in a message */

static int shown(nb_str text) { return text.length < SHOWN ? (int)text.length : SHOWN; }

nb_str nb_vocab_key(const nb_vocab *v, int32_t id) { return v->ids.keys ? v->ids.keys[id] : nb_vocab_text(v, id); }

static bool is_same(nb_str a, nb_str b) { return a.length == b.length && memcmp(a.data, b.data, a.length) == 0; }

/* Keeps the texts that the index means, before one of its tokens is spelled otherwise. */
static bool keep_keys(nb_vocab *v) {
  v->ids.keys = nb_alloc((uint64_t)v->count, sizeof *v->ids.keys);
  for (int32_t id = 0; v->ids.keys && id < v->count; id++) v->ids.keys[id] = nb_vocab_text(v, id);
  return v->ids.keys != NULL;
}

bool nb_vocab_spell(nb_vocab *v, int32_t id, nb_str text) {
  if (id >= v->capacity) {
    int32_t capacity = v->capacity ? v->capacity : 1024;
    while (capacity <= id) capacity *= 2;
    nb_token *tokens = calloc((size_t)capacity, sizeof *tokens); /* pages that stay zero cost nothing */
    if (!tokens) return false;
    if (v->count > 0) memcpy(tokens, v->tokens, (size_t)v->count * sizeof *tokens);
    free(v->tokens);
    v->tokens = tokens;
    v->capacity = capacity;
  }
  bool respells = v->ids.slots && !v->ids.keys && id < v->count && v->tokens[id].text;
  if (respells && !is_same(text, nb_vocab_text(v, id)) && !keep_keys(v)) return false;
  if (id >= v->count) v->count = id + 1;
  v->tokens[id] = (nb_token){.text = text.data, .length = (uint32_t)text.length};
  return true;
}

nibble_status nb_vocab_add(nb_vocab *v, const char *where, int32_t id, nb_str text, nibble_error *err) {
  if (id < v->count && v->tokens[id].text)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: two tokens have the id %d, the second is '%.*s'", where, id, shown(text),
                   text.data);
  v->own++;
  return nb_vocab_spell(v, id, text) ? NIBBLE_OK : nb_fail_memory(err, (size_t)id * sizeof(nb_token));
}

nibble_status nb_vocab_append(nb_vocab *v, nb_str text, nibble_error *err) {
  if (!nb_vocab_spell(v, v->count, text)) return nb_fail_memory(err, (size_t)v->count * sizeof(nb_token));
  v->own++;
  return NIBBLE_OK;
}

/* --- from texts to ids --- */

static int32_t id_in(uint64_t slot) { return (int32_t)(uint32_t)slot - 1; } /* -1: it is free */

/* The slot of a text, or the free one that it would take. */
static uint64_t *probe(const nb_vocab *v, nb_str text, uint64_t hash) {
  for (size_t i = (size_t)hash & (v->ids.capacity - 1);; i = (i + 1) & (v->ids.capacity - 1)) {
    uint64_t *slot = &v->ids.slots[i];
    if (*slot == 0) return slot;
    if (*slot >> 32 == hash >> 32 && is_same(nb_vocab_key(v, id_in(*slot)), text)) return slot;
  }
}

static uint64_t hash_of(const nb_vocab *v, nb_str text) {
  return XXH3_64bits_withSeed(text.data, text.length, v->ids.seed);
}

static uint64_t *home(const nb_vocab *v, uint64_t hash) { return &v->ids.slots[(size_t)hash & (v->ids.capacity - 1)]; }

nibble_status nb_vocab_make_index(nb_vocab *v, const char *where, nibble_error *err) {
  enum { AHEAD = 16 }; /* tokens whose slots are asked for before they are needed */
  uint64_t hashes[AHEAD];
  nb_vocab_index *ids = &v->ids;
  ids->capacity = 1;
  while (ids->capacity < 2 * (size_t)v->count) ids->capacity *= 2;
  if (getrandom(&ids->seed, sizeof ids->seed, 0) < 0) return nb_fail_errno(err, "no random numbers");
  ids->slots = nb_alloc(ids->capacity, sizeof *ids->slots);
  if (!ids->slots) return nb_fail_memory(err, ids->capacity * sizeof *ids->slots);
  for (int32_t id = v->count; id > -AHEAD; id--) { /* the last ones first: a text that is there keeps its id */
    int32_t next = id - 1, now = id + AHEAD - 1;
    if (now < v->count && v->tokens[now].text) {
      uint64_t hash = hashes[now % AHEAD], *slot = probe(v, nb_vocab_text(v, now), hash);
      if (*slot == 0)
        *slot = hash >> 32 << 32 | (uint32_t)(now + 1);
      else if (where)
        return nb_fail(err, NIBBLE_BAD_INPUT, "%s: the token '%.*s' is there twice", where,
                       shown(nb_vocab_text(v, now)), v->tokens[now].text);
    }
    if (next >= 0 && v->tokens[next].text) {
      hashes[next % AHEAD] = hash_of(v, nb_vocab_text(v, next));
      __builtin_prefetch(home(v, hashes[next % AHEAD]), 1);
    }
  }
  return NIBBLE_OK;
}

int32_t nb_vocab_id(const nb_vocab *v, const char *text, size_t n) {
  nb_str key = {text, n};
  return v->ids.slots ? id_in(*probe(v, key, hash_of(v, key))) : -1;
}

/* A slot leads to a token and that to its text: each is asked for in a round of its own. */
void nb_vocab_ids(const nb_vocab *v, const nb_str *texts, size_t count, int32_t *ids) {
  uint64_t hashes[NB_VOCAB_MANY];
  for (size_t i = 0; i < count; i++) ids[i] = -1;
  if (!v->ids.slots) return;
  for (size_t i = 0; i < count; i++) __builtin_prefetch(home(v, hashes[i] = hash_of(v, texts[i])));
  for (size_t i = 0; i < count; i++) {
    if (*home(v, hashes[i]) != 0) __builtin_prefetch(&v->tokens[id_in(*home(v, hashes[i]))]);
  }
  for (size_t i = 0; i < count; i++) {
    if (*home(v, hashes[i]) != 0) __builtin_prefetch(v->tokens[id_in(*home(v, hashes[i]))].text);
  }
  for (size_t i = 0; i < count; i++) ids[i] = id_in(*probe(v, texts[i], hashes[i]));
}

int32_t nb_vocab_any_id(const nb_vocab *v, const char *text, size_t n) {
  int64_t added;
  int32_t id = nb_vocab_id(v, text, n);
  return id < 0 && nb_strmap_find(&v->added, text, n, &added) ? (int32_t)added : id;
}

void nb_vocab_free(nb_vocab *v) {
  free(v->ids.slots);
  free(v->ids.keys);
  nb_strmap_free(&v->added);
  free(v->tokens);
  free(v->texts);
  free(v->scores);
  free(v->types);
  *v = (nb_vocab){0};
}
