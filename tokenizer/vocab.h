/* The vocabulary: which ids there are and how each is spelled. Every kind of model has one; a reader fills it, added
 * tokens join it last. What only some files tell of a token stands in an array beside the tokens. */
#ifndef NB_TOKENIZER_VOCAB_H
#define NB_TOKENIZER_VOCAB_H

#include "base/status.h"
#include "base/str.h"
#include "base/strmap.h"

enum { NB_MAX_ID = 1 << 21 }; /* larger than any vocabulary, small enough for an array */

/* SentencePiece's numbers, which are GGUF's too. */
typedef enum nb_token_type {
  NB_TOKEN_NORMAL = 1,
  NB_TOKEN_UNKNOWN = 2, /* stands for what has no token */
  NB_TOKEN_CONTROL = 3, /* stands for no text */
  NB_TOKEN_USER = 4,    /* is found in a text before anything else */
} nb_token_type;

typedef struct nb_token {
  const char *text; /* NULL: no token has this id */
  uint32_t length;  /* bytes */
  int32_t added;    /* one more than its index among the added tokens; 0: it is none */
  bool special;
} nb_token;

typedef struct nb_vocab {
  nb_strmap ids;    /* text -> id, of the model's own */
  nb_strmap added;  /* the same of added tokens that are none of those */
  nb_token *tokens; /* [count], by id */
  int32_t count, capacity;
  int32_t own;    /* tokens of the model itself; added tokens without an id get those from here on */
  char *texts;    /* the model's own texts, in one allocation that whoever adds them makes */
  double *scores; /* [count of the own ones], by id; NULL: the file has none */
  uint8_t *types; /* [own], by id; NULL: all are normal */
} nb_vocab;

/* Adds a token of the model; `text` must outlive the vocabulary. NIBBLE_BAD_INPUT if the id or the spelling is another
 * token's; `where` names the file. */
nibble_status nb_vocab_add(nb_vocab *vocab, const char *where, int32_t id, nb_str text, nibble_error *err);

/* Adds the token of the next id; another one may have the same text, which then means the last of them. The map from
 * texts to ids is made by nb_vocab_index, once they are all there. */
nibble_status nb_vocab_append(nb_vocab *vocab, nb_str text, nibble_error *err);
nibble_status nb_vocab_index(nb_vocab *vocab, nibble_error *err);

/* Spells `id` as `text`, whatever it was before; the maps from texts to ids are the caller's. False if there is no
 * memory. */
bool nb_vocab_spell(nb_vocab *vocab, int32_t id, nb_str text);

/* The id of a token of the model; -1 if there is none. */
int32_t nb_vocab_id(const nb_vocab *vocab, const char *text, size_t n);

/* The same of any token: a word that only an added token is written like is none to the model. */
int32_t nb_vocab_any_id(const nb_vocab *vocab, const char *text, size_t n);

static inline nb_str nb_vocab_text(const nb_vocab *vocab, int32_t id) {
  nb_str text = {vocab->tokens[id].text, vocab->tokens[id].length};
  return text;
}

static inline int nb_vocab_type(const nb_vocab *vocab, int32_t id) {
  return vocab->types ? vocab->types[id] : (int)NB_TOKEN_NORMAL;
}

void nb_vocab_free(nb_vocab *vocab);

#endif
