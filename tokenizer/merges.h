/* The merges of byte-pair encoding: pairs of neighbouring tokens and the token that they become, best first. Some files
 * list them; others score their tokens, from which the merges follow. */
#ifndef NB_TOKENIZER_MERGES_H
#define NB_TOKENIZER_MERGES_H

#include "base/buf.h"
#include "tokenizer/vocab.h"

typedef struct nb_merge {
  int32_t left, right, whole; /* ids */
} nb_merge;

typedef struct nb_merges {
  nb_merge *list; /* [count]; a merge's rank is its index. Of two merges of one pair the later counts */
  size_t count, capacity;
  size_t skip;  /* bytes that the joined token leaves out of the right one (its continuing_subword_prefix) */
  nb_buf whole; /* scratch of nb_merges_add */
} nb_merges;

/* Adds a merge whose three tokens are known. */
nibble_status nb_merges_append(nb_merges *merges, nb_merge merge, nibble_error *err);

/* Adds the merge of two tokens, given by their texts. False, with *err alone, if one of the three is no token. */
nibble_status nb_merges_add(nb_merges *merges, const nb_vocab *vocab, nb_str left, nb_str right, bool *known,
                            nibble_error *err);

/* Makes the merges that SentencePiece's scores stand for; `where` names the file in messages. */
nibble_status nb_merges_from_scores(nb_merges *merges, const nb_vocab *vocab, const char *where, nibble_error *err);

void nb_merges_free(nb_merges *merges);

#endif
