/* The part of `tokenize` that prints whole encodings: offsets, words, type ids and masks, of texts or pairs, cut and
 * padded. */
#ifndef NB_CLI_ENCODINGS_H
#define NB_CLI_ENCODINGS_H

#include "cli/cli.h"

typedef struct cli_encodings {
  nibble_tokenizer *tokenizer;
  const nibble_encode_options *options;
  const char *pair;   /* encoded behind each text; NULL: nothing */
  bool offsets, json; /* print offsets; print JSON */
  bool lines;         /* each line of the input by itself */
} cli_encodings;

/* Prints the encodings of text[0, n). */
nibble_status cli_print_encodings(const cli_encodings *e, const char *text, size_t n, nibble_error *err);

#endif
