/* What a file says of a tokenizer, in memory: what every reader makes, and what a tokenizer is made of.
 *
 *   tokenizer.json ──► nb_tokenizer_spec_read ────┐          ┌──► nb_tokenizer_make ──► nb_tokenizer
 *   .gguf ──► nb_gguf_tokenizer (convert/) ────────┴──► spec ─┴──► nb_tokenizer_spec_write ──► tokenizer.json
 *
 * The vocabulary and the merges, nearly all of it, are arrays. What is left is a dozen small parts, each with options
 * that its own file alone understands; it stays the tree that tokenizer.json is. */
#ifndef NB_TOKENIZER_SPEC_H
#define NB_TOKENIZER_SPEC_H

#include <cjson/cJSON.h>

#include "tokenizer/merges.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/vocab.h"

/* SentencePiece's mark of a space, which stands for it inside tokens. */
#define NB_METASPACE "\u2581"

typedef struct nb_tokenizer_spec {
  nb_vocab vocab;
  nb_merges merges; /* none where the kind of model has none */
  cJSON *parts;     /* tokenizer.json's object; its "model" without "vocab" and "merges" */
  cJSON *named;     /* special tokens that the file gives a name, {"bos_token": "<s>"}; NULL: none */
  bool clean_up;    /* decoded text loses the spaces before punctuation and contractions */
} nb_tokenizer_spec;

/* Reads the text of a tokenizer.json; `where` names it in messages. *out needs nb_tokenizer_spec_free, also after a
 * failure. */
nibble_status nb_tokenizer_spec_read(const char *where, const char *text, size_t n, nb_tokenizer_spec *out,
                                     nibble_error *err);

/* Appends tokenizer.json, laid out as the tokenizers library does, so that the two can be compared byte by byte. The
 * specification's merges are listed, as those of a tokenizer.json and of a .gguf are. */
void nb_tokenizer_spec_write(const nb_tokenizer_spec *spec, nb_buf *out);

/* Makes a tokenizer, which takes the vocabulary over. */
nibble_status nb_tokenizer_make(const char *where, nb_tokenizer_spec *spec, nb_tokenizer **out, nibble_error *err);

void nb_tokenizer_spec_free(nb_tokenizer_spec *spec);

#endif
