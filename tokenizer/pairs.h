/* The merges of a BPE model, to be looked up by the two tokens that lie side by side. A list of merges becomes a hash
 * table. Merges that follow from a rule are looked up in the vocabulary as a text asks for them, and remembered:
 * listing them would take longer than all else at opening, and most are never asked for. */
#ifndef NB_TOKENIZER_PAIRS_H
#define NB_TOKENIZER_PAIRS_H

#include "tokenizer/merges.h"

typedef struct nb_pairs nb_pairs;

/* What becomes of a pair. */
typedef struct nb_joined {
  uint64_t rank; /* the least one is joined first */
  int32_t whole; /* -1: nothing */
} nb_joined;

/* `vocab` must outlive it, `merges` need not; `where` names the file. Free with nb_pairs_free (also of NULL). */
nibble_status nb_pairs_make(const char *where, const nb_merges *merges, const nb_vocab *vocab, nb_pairs **out,
                            nibble_error *err);

/* One thread at a time may call it. */
nb_joined nb_pairs_find(nb_pairs *pairs, int32_t left, int32_t right);

void nb_pairs_free(nb_pairs *pairs);

#endif
