/* The merges of byte-pair encoding: pairs of neighbouring tokens and the token that they become, best first. Some files
 * list them; others score their tokens, from which the merges follow by a rule (tokenizer/pairs.h). */
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
  /* The rule: two tokens whose texts together are a third one's merge, the one of the least order[third] first, and of
   * those of one third token the shortest left one, or that of the least id. All three have an order. */
  int32_t *order;  /* by id; -1: none. NULL: the merges are those of the list */
  bool by_left_id; /* else the shortest */

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
