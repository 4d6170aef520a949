/* A walk over JSON that is too large for a tree: a vocabulary, or a list of merges, has hundreds of thousands of small
 * values. cJSON takes most of a microsecond for each and keeps a hundred bytes of it; here they are looked at eight
 * bytes at a time, where they stand. What is skipped is not checked to be valid JSON: either cJSON reads it later, or
 * it stands in a table whose reader looks at all of it. */
#ifndef NB_TOKENIZER_READERS_JSON_WALK_H
#define NB_TOKENIZER_READERS_JSON_WALK_H

#include <stdbool.h>
#include <stddef.h>

#include "base/str.h"

typedef struct nb_walk {
  const char *text;
  size_t at, n; /* where it stands, and where the text ends */
} nb_walk;

/* Moves behind the white space that stands here. */
void nb_walk_space(nb_walk *s);

/* Moves behind `c` and the space around it; false if it is not there. */
bool nb_walk_take(nb_walk *s, char c);

/* Moves behind the string that begins here; *inside is what stands between its quotes, escapes and all. */
bool nb_walk_string(nb_walk *s, nb_str *inside);

/* The same if the string has no escape and no control character; else false, without a move. */
bool nb_walk_plain(nb_walk *s, nb_str *inside);

/* Moves behind the value that begins here and the space after it, to what ends it. */
bool nb_walk_value(nb_walk *s, nb_str *value);

/* Writes a string's inside to out, which has room for as many bytes, as what it stands for; its length, or -1 if there
 * is a control character or a damaged escape. */
long nb_walk_unescape(nb_str inside, char *out);

#endif
