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

/* A hash table from texts to ids that holds no texts: 32 bits of a text's hash, then one more than the id; 0: free. */
typedef struct nb_vocab_index {
  uint64_t *slots; /* at most half full; NULL: not made yet */
  size_t capacity; /* a power of two */
  uint64_t seed;   /* nobody can prepare a file whose tokens all collide */
  nb_str *keys;    /* the tokens' texts; NULL: they are spelled so still */
} nb_vocab_index;

typedef struct nb_vocab {
  nb_vocab_index ids; /* of the model's own tokens */
  nb_strmap added;    /* text -> id of added tokens that are none of those */
  nb_token *tokens;   /* [count], by id */
  int32_t count, capacity;
  int32_t own;    /* tokens of the model itself; added tokens without an id get those from here on */
  char *texts;    /* the model's own texts, in one allocation that whoever adds them makes */
  double *scores; /* [count of the own ones], by id; NULL: the file has none */
  uint8_t *types; /* [own], by id; NULL: all are normal */
} nb_vocab;

/* Adds a token of the model; `text` must outlive the vocabulary. NIBBLE_BAD_INPUT if the id is another token's; `where`
 * names the file. */
nibble_status nb_vocab_add(nb_vocab *vocab, const char *where, int32_t id, nb_str text, nibble_error *err);

/* Adds the token of the next id. */
nibble_status nb_vocab_append(nb_vocab *vocab, nb_str text, nibble_error *err);

/* Makes the map from texts to ids, once the model's tokens are all there: one after the other in memory, which takes a
 * third of the time that it takes to let a map grow. NIBBLE_BAD_INPUT if two tokens of the file `where` are spelled
 * alike; where it is NULL they may be, and the text means the last of them. */
nibble_status nb_vocab_make_index(nb_vocab *vocab, const char *where, nibble_error *err);

/* Spells `id` as `text`, whatever it was before; what texts mean stays as it is. False if there is no memory. */
bool nb_vocab_spell(nb_vocab *vocab, int32_t id, nb_str text);

/* The id of a token of the model; -1 if there is none, or no index yet. */
int32_t nb_vocab_id(const nb_vocab *vocab, const char *text, size_t n);

/* The same of many texts, at most NB_VOCAB_MANY, which is faster than one by one: memory is asked for all of them
 * before the first is looked at. */
enum { NB_VOCAB_MANY = 32 };
void nb_vocab_ids(const nb_vocab *vocab, const nb_str *texts, size_t count, int32_t *ids);

/* What a token of the model was spelled like when the index was made. */
nb_str nb_vocab_key(const nb_vocab *vocab, int32_t id);

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
