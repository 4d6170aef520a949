/* What Python's strings can do, on UTF-8. Lengths and places are in characters where they say so. */
#ifndef NB_TEMPLATE_TEXT_H
#define NB_TEMPLATE_TEXT_H

#include <stdint.h>

#include "base/str.h"

/* str.isspace of one character, which is also the \s of Python's patterns. */
bool nb_text_is_space(uint32_t code);

/* Bytes of white space at the start and at the end of a text. */
size_t nb_text_space_before(nb_str text);
size_t nb_text_space_after(nb_str text);

size_t nb_text_characters(nb_str text);

/* The byte at which character `at` begins; text.length if there are fewer. */
size_t nb_text_offset(nb_str text, size_t at);

/* True for a character that repr shows as it is. */
bool nb_text_is_printable(uint32_t code);

/* Where `part` begins in text from byte `from` on, the first time or, for nb_text_rfind, the last; SIZE_MAX if it does
 * not. An empty part is everywhere. */
size_t nb_text_find(nb_str text, nb_str part, size_t from);
size_t nb_text_rfind(nb_str text, nb_str part);

/* Bytes of the end of a line (as str.splitlines knows them) at text[at]; 0 if no line ends there. */
size_t nb_text_line_end(nb_str text, size_t at);

/* The part of a text without the first `before` and the last `after` bytes. */
static inline nb_str nb_text_cut(nb_str text, size_t before, size_t after) {
  return (nb_str){text.data + before, text.length - before - after};
}

#endif
