/* How a tokenizer's specification is made from a GGUF file's metadata, between the two files that do it:
 * gguf_tokenizer.c reads vocabulary and switches, gguf_tokenizer_kinds.c makes the steps for the kind of model. */
#ifndef NB_CONVERT_GGUF_TOKENIZER_H
#define NB_CONVERT_GGUF_TOKENIZER_H

#include "convert/gguf.h"
#include "convert/gguf_pretokenizers.h"
#include "tokenizer/spec.h"

enum { NB_GGUF_SPELL_MORE = 2 }; /* bytes by which a token may become longer than the file spells it */

typedef struct nb_gguf_tokenizer_reader nb_gguf_tokenizer_reader;

/* A value of tokenizer.ggml.model. The switches are defaults for files that do not say. */
typedef struct nb_gguf_tokenizer_kind {
  const char *name;
  bool has_pre; /* tokenizer.ggml.pre says how words are cut */
  bool has_cls; /* the class token stands before a text, and the separator behind */
  bool add_bos, add_eos, add_space_prefix;

  /* Writes a token of this type as the tokenizer spells it; returns its length, at most NB_GGUF_SPELL_MORE longer. */
  size_t (*spell)(nb_str token, int type, char *out);

  /* Makes what follows the vocabulary: merges and parts. */
  nibble_status (*finish)(nb_gguf_tokenizer_reader *r);
} nb_gguf_tokenizer_kind;

struct nb_gguf_tokenizer_reader {
  const nb_gguf *gguf;
  nibble_error *err;
  nb_tokenizer_spec *spec;
  const nb_gguf_tokenizer_kind *kind;
  const nb_pretokenizer *words; /* NULL: the kind has none */
  int32_t bos, eos, unknown;    /* ids; -1: none. The first two are what stands around a text */
  bool add_bos, add_eos, add_space_prefix, lowercase, strip_accents;
};

/* NULL if the kind is not known; the names of those that are, for messages. */
const nb_gguf_tokenizer_kind *nb_gguf_tokenizer_kind_of(nb_str name);
extern const char nb_gguf_tokenizer_kind_names[];

/* True for tokens that are found in a text before anything else. */
bool nb_gguf_token_is_added(const nb_vocab *vocab, int32_t id);

/* Reads tokenizer.ggml.merges; *any says whether the file has them. */
nibble_status nb_gguf_read_merges(nb_gguf_tokenizer_reader *r, bool *any);

/* Fails if the file gives its tokens no scores. */
nibble_status nb_gguf_need_scores(const nb_gguf_tokenizer_reader *r);

#endif
