/* A trie of a vocabulary's tokens, to find those that a place in a text begins with. Chains without branches are one
 * edge (a radix tree), so that it has at most two nodes a token, whatever the tokens are:
 *
 *   a, able, abs        (root) ──a──► [a] ──b──► ( ) ──le──► [able]
 *                                                  └───s──► [abs]
 *
 * Nodes are numbered level by level, which puts the children of a node, and those of the next one, side by side. */
#ifndef NB_TOKENIZER_TRIE_H
#define NB_TOKENIZER_TRIE_H

#include "tokenizer/vocab.h"

typedef struct nb_trie_node {
  const char *edge; /* the bytes on the way here behind the first; the vocabulary's */
  uint32_t edge_length;
  uint32_t first; /* child; the last is before the next node's first */
  int32_t id;     /* of the token that ends here; -1: none does */
} nb_trie_node;

typedef struct nb_trie {
  nb_trie_node *nodes; /* [count + 1]: the last one's `first` ends the children of the one before */
  uint8_t *labels;     /* [count]: the first byte on the way to each */
  size_t count;
  uint32_t start[257]; /* the root's children by their first byte */
} nb_trie;

enum { NB_TRIE_ROOT = 0 };

/* Makes a trie of the vocabulary's tokens, which must outlive it; empty ones are left out, and of two that are spelled
 * alike the last counts. Free with nb_trie_free, also
 * after a failure. */
nibble_status nb_trie_make(nb_trie *trie, const nb_vocab *vocab, nibble_error *err);
void nb_trie_free(nb_trie *trie);

/* A walk along text[0, n), which stops at one token after the other. */
typedef struct nb_trie_walk {
  const char *text;
  size_t n;
  uint32_t node; /* where it stands: NB_TRIE_ROOT at first */
  size_t at;     /* bytes behind it */
  size_t steps;  /* bytes and branches that it has looked at */
  uint32_t edge; /* of this node's edge so many bytes are not behind it yet; 0 at first */
} nb_trie_walk;

/* The id of the next longer token that the text begins with, of the length walk->at; -1 if there is none. */
int32_t nb_trie_next(const nb_trie *trie, nb_trie_walk *walk);

/* Walks to where `prefix` leads, which may be in the middle of an edge; false if no token begins with it. The walk then
 * goes on from there along its own text. */
bool nb_trie_begin(const nb_trie *trie, nb_str prefix, nb_trie_walk *walk);

#endif
