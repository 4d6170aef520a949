/* Models: a word to ids. Each kind is a file and a row of the table in models.c:
 *
 *   bpe.c        joins neighbours by merges          wordpiece.c   takes the longest piece, again and again
 *   unigram.c    takes the best-scored path          wordlevel.c   looks the word up
 *                                                    words.c       the same for SentencePiece
 *
 * The words that come often are kept in a cache, for all kinds. */
#ifndef NB_TOKENIZER_MODEL_H
#define NB_TOKENIZER_MODEL_H

#include "tokenizer/alignment.h"
#include "tokenizer/budget.h"
#include "tokenizer/spec.h"
#include "tokenizer/tokenizer.h"

typedef struct nb_word {
  const char *text;
  size_t n;
  bool is_part; /* of a longer word, which is no token as a whole */
  bool raw;     /* the text is bytes, each of which stands for its character (tokenizer/bytes.h); else it is UTF-8 */
  const nb_place *align; /* where the text comes from, which no model looks at; NULL: nobody asks */
  nb_places *pieces;     /* gets the bytes of the word that each id stands for; NULL: nobody asks. Not with `raw` */
} nb_word;

/* A kind of model: a row of the table. */
typedef struct nb_token_model_kind {
  const char *type; /* tokenizer.json's */
  const char *tell; /* a key that gives the kind away where an old file has no "type"; NULL: none */
  bool has_merges;  /* tokenizer.json must have them */
  bool has_scores;  /* tokenizer.json's vocabulary is a list of [text, score], in order of ids */
  bool reads_raw;   /* encode takes raw words; the others get them as characters */

  /* Makes a model from spec->parts' "model" and spec->merges. It keeps `vocab`, which outlives it and which added
   * tokens join later. *out is closed also after a failure. `where` names the file. */
  nibble_status (*open)(const char *where, const nb_tokenizer_spec *spec, const nb_vocab *vocab, void **out,
                        nibble_error *err);

  /* Appends the ids of a word, which is not empty; *ids is, and *word->pieces. NIBBLE_BAD_INPUT once the budget is
   * spent. */
  nibble_status (*encode)(void *model, const nb_word *word, nb_ids *ids, nb_budget *budget, nibble_error *err);
  int32_t (*spelled)(const void *model); /* nb_token_model_spelled; NULL: there is none */

  /* Where the part of a long word ends that begins at `at`: no id stands for text on both sides, so that the parts can
   * be encoded one by one, and those that come again are in the cache. NULL: words have no parts. */
  size_t (*part)(void *model, const nb_word *word, size_t at);
  void (*close)(void *model);
} nb_token_model_kind;

extern const nb_token_model_kind nb_bpe, nb_unigram, nb_wordpiece, nb_wordlevel, nb_words;

/* A model and the ids of words that it saw before. */
typedef struct nb_token_model nb_token_model;

/* The kind that the object "model" of a tokenizer.json asks for; an unknown one is refused by name. */
nibble_status nb_token_model_kind_of(const char *where, const cJSON *model, const nb_token_model_kind **out,
                                     nibble_error *err);

nibble_status nb_token_model_open(const char *where, const nb_tokenizer_spec *spec, const nb_vocab *vocab,
                                  nb_token_model **out, nibble_error *err);

/* Appends the ids of a word. */
nibble_status nb_token_model_encode(nb_token_model *model, const nb_word *word, nb_ids *ids, nb_budget *budget,
                                    nibble_error *err);

/* The same, and to *pieces, which is overwritten, the bytes of the word that each id stands for. They are the
 * reference's: they end behind the word where a model counts what it has put there itself. */
nibble_status nb_token_model_locate(nb_token_model *model, const nb_word *word, nb_ids *ids, nb_places *pieces,
                                    nb_budget *budget, nibble_error *err);

/* The id of a token that is spelled as the part of a text that it stands for; -1: the model has none. */
int32_t nb_token_model_spelled(const nb_token_model *model);
void nb_token_model_close(nb_token_model *model);

/* --- for the files of the kinds --- */

/* Copies the string under `key`; *out is NULL where it is absent. */
nibble_status nb_token_model_string(const char *where, const cJSON *model, const char *key, char **out,
                                    nibble_error *err);

/* The token that stands for what has none: the id of the one spelled `text`, if there is one. */
typedef struct nb_unknown {
  char *text; /* NULL: the model has none */
  int32_t id; /* -1: not in the vocabulary, which is an error once it is needed */
} nb_unknown;

/* Reads "unk_token". The second fails where it is missing. Free unknown->text. */
nibble_status nb_unknown_read(const char *where, const cJSON *model, const nb_vocab *vocab, nb_unknown *out,
                              nibble_error *err);
nibble_status nb_unknown_need(const char *where, const cJSON *model, const nb_vocab *vocab, nb_unknown *out,
                              nibble_error *err);

/* The error of a text that needs the token where it is not in the vocabulary. */
nibble_status nb_unknown_refuse(const nb_unknown *unknown, nibble_error *err);

/* Byte fallback: the ids of "<0x00>" to "<0xFF>", -1 where one is no token; and whether each byte of a text has one. */
void nb_fallback_find(const nb_vocab *vocab, int32_t ids[256]);
bool nb_fallback_covers(const int32_t ids[256], const char *text, size_t n);

/* Takes the steps of a walk through a trie from the budget, or fails. */
nibble_status nb_token_model_pay(nb_budget *budget, size_t steps, nibble_error *err);

#endif
