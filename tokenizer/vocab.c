#include "tokenizer/vocab.h"

#include <stdlib.h>
#include <string.h>

enum { SHOWN = 60 }; /* bytes of a token in a message */

static int shown(nb_str text) { return text.length < SHOWN ? (int)text.length : SHOWN; }

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
  if (id >= v->count) v->count = id + 1;
  v->tokens[id] = (nb_token){.text = text.data, .length = (uint32_t)text.length};
  return true;
}

nibble_status nb_vocab_add(nb_vocab *v, const char *where, int32_t id, nb_str text, nibble_error *err) {
  if (id < v->count && v->tokens[id].text)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: two tokens have the id %d, the second is '%.*s'", where, id, shown(text),
                   text.data);
  switch (nb_strmap_add(&v->ids, text.data, text.length, id)) {
    case NB_STRMAP_EXISTS:
      return nb_fail(err, NIBBLE_BAD_INPUT, "%s: the token '%.*s' is there twice", where, shown(text), text.data);
    case NB_STRMAP_NO_MEMORY: return nb_fail_memory(err, text.length);
    case NB_STRMAP_ADDED: break;
  }
  v->own++;
  return nb_vocab_spell(v, id, text) ? NIBBLE_OK : nb_fail_memory(err, (size_t)id * sizeof(nb_token));
}

nibble_status nb_vocab_append(nb_vocab *v, nb_str text, nibble_error *err) {
  if (!nb_vocab_spell(v, v->count, text)) return nb_fail_memory(err, (size_t)v->count * sizeof(nb_token));
  v->own++;
  return NIBBLE_OK;
}

nibble_status nb_vocab_index(nb_vocab *v, nibble_error *err) {
  for (int32_t id = v->own; id-- > 0;) { /* an existing key keeps its value */
    if (nb_strmap_add(&v->ids, v->tokens[id].text, v->tokens[id].length, id) == NB_STRMAP_NO_MEMORY)
      return nb_fail_memory(err, v->tokens[id].length);
  }
  return NIBBLE_OK;
}

int32_t nb_vocab_id(const nb_vocab *v, const char *text, size_t n) {
  int64_t id;
  return nb_strmap_find(&v->ids, text, n, &id) ? (int32_t)id : -1;
}

int32_t nb_vocab_any_id(const nb_vocab *v, const char *text, size_t n) {
  int64_t id;
  return nb_strmap_find(&v->ids, text, n, &id) || nb_strmap_find(&v->added, text, n, &id) ? (int32_t)id : -1;
}

void nb_vocab_free(nb_vocab *v) {
  nb_strmap_free(&v->ids);
  nb_strmap_free(&v->added);
  free(v->tokens);
  free(v->texts);
  free(v->scores);
  free(v->types);
  *v = (nb_vocab){0};
}
