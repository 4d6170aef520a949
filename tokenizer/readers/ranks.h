/* Vocabularies of ranked byte strings, as tiktoken has them: a text's bytes are joined into the best-ranked token,
 * again and again. The tokens become spellings in the byte-level alphabet (tokenizer/bytes.h), and the ranks become
 * merges. */
#ifndef NB_TOKENIZER_READERS_RANKS_H
#define NB_TOKENIZER_READERS_RANKS_H

#include "base/buf.h"
#include "tokenizer/spec.h"

typedef struct nb_rank {
  size_t begin, length; /* the token's place in nb_ranks.bytes */
  int32_t id;
} nb_rank;

/* Tokens in the file's order. Zero it first. */
typedef struct nb_ranks {
  nb_rank *list;
  size_t count, capacity;
  nb_buf bytes;
} nb_ranks;

/* Adds the token that n characters of base64 stand for. NIBBLE_BAD_INPUT if they are no base64 or more than
 * NB_TOKEN_MAX bytes; `line` is where it stands in the file, for messages. */
nibble_status nb_ranks_add(nb_ranks *ranks, const char *where, size_t line, nb_str base64, int32_t id,
                           nibble_error *err);

/* A special token: it has an id, and is none of the ranked. */
typedef struct nb_named_id {
  const char *text;
  int32_t id;
} nb_named_id;

/* Fills the vocabulary with the tokens and with `count` special ones, and the merges of the former. NIBBLE_BAD_INPUT if
 * an id or a token comes twice, or nothing has some id below the tokens' largest. */
nibble_status nb_ranks_finish(const nb_ranks *ranks, const char *where, const nb_named_id *named, size_t count,
                              nb_tokenizer_spec *out, nibble_error *err);

/* Makes the other parts: words are cut by `pattern` after normalization form C, if `nfc`. Takes `added` over. */
nibble_status nb_ranks_parts(const char *pattern, bool nfc, cJSON *added, nb_tokenizer_spec *out, nibble_error *err);

void nb_ranks_free(nb_ranks *ranks);

#endif
