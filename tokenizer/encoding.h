/* Whole encodings: tokens with offsets, type ids and masks, of one text or two, cut and padded, as tokenizers 0.23
 * makes them (tokenizer/encoding.rs, utils/truncation.rs, utils/padding.rs, processors/).
 *
 *   text ──► nb_tokenizer_locate ──► sequence ──► pieces of max_length ──► template ──► encodings ──► padding
 *   pair ──► nb_tokenizer_locate ──► sequence ──► pieces of max_length ──┘
 *
 * Where both texts were cut, every piece of the one comes with every piece of the other. */
#ifndef NB_TOKENIZER_ENCODING_H
#define NB_TOKENIZER_ENCODING_H

#include "tokenizer/steps.h"
#include "tokenizer/tokenizer.h"

/* White space at the ends of a token's text, in characters. */
typedef struct nb_edges {
  uint32_t left, right;
} nb_edges;

/* The tokens of one text, without special ones around them. Zero it first. */
typedef struct nb_sequence {
  nibble_token *tokens;
  nb_edges *edges; /* theirs, where the tokenizer trims offsets; else NULL */
  size_t length, token_capacity, edge_capacity;
  bool failed; /* memory ran out */
} nb_sequence;

/* `edges`: NULL: not asked for, which is so for all of a sequence's tokens or for none. */
void nb_sequence_add(nb_sequence *sequence, nibble_token token, const nb_edges *edges);
void nb_sequence_free(nb_sequence *sequence);

/* Appends the tokens of a text; offsets are in characters. */
nibble_status nb_tokenizer_locate(nb_tokenizer *tokenizer, nb_str text, nb_sequence *out, nibble_error *err);

const nb_post *nb_tokenizer_post(const nb_tokenizer *tokenizer);

/* What the tokenizer's files say of truncation and padding (tokenizer/limits.h). */
const nibble_encode_options *nb_tokenizer_limits(const nb_tokenizer *tokenizer);

/* nibble_tokenizer_encode_batch, of options that are whole. *out is zero after a failure. */
nibble_status nb_tokenizer_encode_batch(nb_tokenizer *tokenizer, const nibble_text_pair *texts, size_t count,
                                        const nibble_encode_options *options, nibble_encodings *out, nibble_error *err);

#endif
