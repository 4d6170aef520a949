/* Upper, lower and title case as Python has them: full mappings, of which some make several characters of one, and a
 * sigma that ends a word. */
#ifndef NB_TEMPLATE_CASE_H
#define NB_TEMPLATE_CASE_H

#include <stdint.h>

#include "base/buf.h"
#include "base/str.h"

typedef enum nb_case {
  NB_CASE_UPPER,
  NB_CASE_LOWER,
  NB_CASE_TITLE,   /* of one character; NB_CASE_TITLE of a text is str.title: each word's first, lower case behind it */
  NB_CASE_CAPITAL, /* str.capitalize: the first one's title case, lower case behind it */
  NB_CASE_SWAP,
} nb_case;

typedef struct nb_case_row {
  uint32_t code;
  const char *to[3]; /* by nb_case */
} nb_case_row;

extern const nb_case_row nb_case_rows[]; /* sorted by code */
extern const size_t nb_case_row_count;

void nb_put_case(nb_buf *out, nb_str text, nb_case how);

bool nb_is_cased(uint32_t code); /* a letter of some case */

#endif
