/* What the tokenizer asks of Unicode, answered as the reference answers it. Patterns and character classes come from
 * PCRE2 and utf8proc, whose tables are older than those of the reference's regular expressions and newer than those of
 * its normalization forms; tokenizer/unicode_data.c lists the differences (made by
 * scripts/golden/make_unicode.py). For patterns they are hidden by a shadow: a copy of the text, byte for byte as long,
 * in which a code point that our libraries do not know is replaced by an older one of the same kind. */
#ifndef NB_TOKENIZER_UNICODE_H
#define NB_TOKENIZER_UNICODE_H

#include <stdint.h>

#include "base/buf.h"

typedef struct nb_code_range {
  uint32_t first, last; /* code points, both inside */
  int32_t value;
} nb_code_range;

extern const nb_code_range nb_unicode_new[], nb_unicode_inert[], nb_unicode_lower[], nb_unicode_numeric[],
    nb_unicode_punct[], nb_unicode_other[], nb_unicode_nonspacing[], nb_unicode_mark[], nb_unicode_script[];
extern const size_t nb_unicode_new_count, nb_unicode_inert_count, nb_unicode_lower_count, nb_unicode_numeric_count,
    nb_unicode_punct_count, nb_unicode_other_count, nb_unicode_nonspacing_count, nb_unicode_mark_count,
    nb_unicode_script_count;

/* True if some code point of text[0, n) (valid UTF-8) needs a stand-in. */
bool nb_needs_shadow(const char *text, size_t n);

/* Replaces *out by the shadow of text[0, n): n bytes. */
void nb_make_shadow(const char *text, size_t n, nb_buf *out);

bool nb_is_space(uint32_t code);   /* White_Space */
bool nb_is_numeric(uint32_t code); /* general category N */
bool nb_is_punct(uint32_t code);   /* general category P, and ASCII's symbols */
bool nb_is_inert(uint32_t code);   /* passes every normalization form unchanged and lets nothing compose across it */

/* The code point that stands in for one which our libraries may not know; others stand for themselves. */
uint32_t nb_stand_in(uint32_t code);

/* The classes of the reference's own tables, which are older than its libraries: */
bool nb_is_other(uint32_t code);      /* general category C */
bool nb_is_nonspacing(uint32_t code); /* general category Mn; asked after NFD only */
bool nb_is_mark(uint32_t code);       /* general category M */

/* A number for the script as its UnicodeScripts sees it (kana are Han); 0: goes with any. */
int nb_script(uint32_t code);

/* Lower case of one code point: 1 or 2 code points in out. */
int nb_lower(uint32_t code, uint32_t out[2]);

#endif
