/* The regular expressions of a tokenizer.json. They are written for Oniguruma's Ruby syntax, which the reference uses,
 * and run by PCRE2: a pattern is first rewritten where the two read the same characters differently, and what has no
 * counterpart is refused. Matching costs are bounded: a pattern that explodes on some text is an error, not a hang. */
#ifndef NB_TOKENIZER_REGEX_H
#define NB_TOKENIZER_REGEX_H

#include "base/buf.h"
#include "base/status.h"

typedef struct nb_regex nb_regex;

/* Compiles a pattern, or text that stands for itself if `literal`. Free with nb_regex_free (also of NULL). */
nibble_status nb_regex_compile(const char *where, const char *pattern, bool literal, nb_regex **out, nibble_error *err);
void nb_regex_free(nb_regex *regex);

/* True if it must be matched against the text itself, not its shadow. */
bool nb_regex_is_literal(const nb_regex *regex);

/* Where a search over one text stands; zero it first. */
typedef struct nb_regex_cursor {
  size_t at;
  bool matched;    /* there was a match, */
  size_t last_end; /* which ended here */
} nb_regex_cursor;

/* The next match in text[0, n), valid UTF-8: *found, *begin and *end are set. An empty match right behind the one
 * before does not count, as in the reference. NIBBLE_BAD_INPUT if it costs too much. */
nibble_status nb_regex_next(const nb_regex *regex, const char *text, size_t n, nb_regex_cursor *cursor, bool *found,
                            size_t *begin, size_t *end, nibble_error *err);

/* Appends the PCRE2 form of an Oniguruma pattern to *out; for nb_regex_compile and its tests. */
nibble_status nb_regex_translate(const char *where, const char *pattern, nb_buf *out, nibble_error *err);

#endif
