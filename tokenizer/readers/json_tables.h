/* The large tables of a tokenizer.json, which its model has: the vocabulary, with scores or without, and the merges.
 * Each is read straight from the text; cJSON gets the file without them. */
#ifndef NB_TOKENIZER_READERS_JSON_TABLES_H
#define NB_TOKENIZER_READERS_JSON_TABLES_H

#include "tokenizer/spec.h"

/* A table's value in the text of a file, which is valid UTF-8. */
typedef struct nb_json_table {
  const char *where, *text; /* the file's name and text */
  size_t begin, end;        /* bytes of the text; begin is 0 where the file has none */
} nb_json_table;

/* {"text": id, ...} */
nibble_status nb_json_read_vocab(const nb_json_table *table, nb_vocab *vocab, nibble_error *err);

/* [["text", -1.5], ...], in order of ids. */
nibble_status nb_json_read_scored(const nb_json_table *table, nb_vocab *vocab, nibble_error *err);

/* [["a", "b"], ...] or ["a b", ...], of tokens that the vocabulary has. */
nibble_status nb_json_read_merges(const nb_json_table *table, nb_tokenizer_spec *spec, nibble_error *err);

#endif
