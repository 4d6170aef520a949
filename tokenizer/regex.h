/* The regular expressions of a tokenizer.json. They are written for Oniguruma's Ruby syntax, which the reference uses,
 * and run by PCRE2: a pattern is first rewritten where the two read the same characters differently, and what has no
 * counterpart is refused. What all searches in a text cost together is bounded by a budget (budget.h): a pattern that
 * explodes on some text is an error, not a hang. */
#ifndef NB_TOKENIZER_REGEX_H
#define NB_TOKENIZER_REGEX_H

#include "base/buf.h"
#include "base/status.h"
#include "base/str.h"
#include "tokenizer/budget.h"

typedef struct nb_regex nb_regex;

/* Compiles a pattern, or text that stands for itself if `literal`. Free with nb_regex_free (also of NULL). One thread
 * at a time may use it. */
nibble_status nb_regex_compile(const char *where, const char *pattern, bool literal, nb_regex **out, nibble_error *err);
void nb_regex_free(nb_regex *regex);

/* True if it must be matched against the text itself, not its shadow (tokenizer/unicode.h). */
bool nb_regex_is_literal(const nb_regex *regex);

/* A search for all matches in text[0, n), valid UTF-8. Set the first three members, leave the rest zero. */
typedef struct nb_search {
  const char *text;
  size_t n;
  nb_budget *budget; /* pays for it */
  size_t begin, end; /* the match that was found last, */
  bool found;        /* if there is one */
  size_t at;         /* where the search goes on: no match begins between the last one and here */
  bool matched;      /* there was a match before */
} nb_search;

/* Finds the next match. An empty one right behind the one before does not count, as in the reference.
 * NIBBLE_BAD_INPUT if the budget is spent. */
nibble_status nb_regex_next(nb_regex *regex, nb_search *search, nibble_error *err);

/* Appends `text` with `by` in place of every match that a fresh search finds in its subject: the text itself or its
 * shadow, which is as long. Ends early, without an error, once *out has failed. */
nibble_status nb_regex_replace(nb_regex *regex, nb_search *search, const char *text, const char *by, nb_buf *out,
                               nibble_error *err);

/* Appends the PCRE2 form of an Oniguruma pattern to *out; for nb_regex_compile and its tests. */
nibble_status nb_regex_translate(const char *where, const char *pattern, nb_buf *out, nibble_error *err);

#endif
