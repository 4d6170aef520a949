/* SentencePiece's precompiled normalization: texts and what becomes of them, in a double-array trie (the format of
 * darts-clone) with the replacements behind it:
 *
 *   u32 bytes of the trie | trie, u32 units | replacements, each ends with a NUL
 *
 * A walk from unit p with the offset o(p) along byte b stands on unit q = p ^ o(p) ^ b, if q's label is b. If q has a
 * leaf, it is at q ^ o(q): the place of the replacement. The first, shortest text that matches counts, as in the
 * reference (the crate spm_precompiled). */
#ifndef NB_TOKENIZER_CHARSMAP_H
#define NB_TOKENIZER_CHARSMAP_H

#include "base/status.h"
#include "base/str.h"

typedef struct nb_charsmap nb_charsmap;

/* Reads a map from its base64; `where` names it in messages. Free with nb_charsmap_free (also of NULL). */
nibble_status nb_charsmap_read(const char *where, const char *base64, nb_charsmap **out, nibble_error *err);
void nb_charsmap_free(nb_charsmap *map);

/* What becomes of text[0, n): *found tells whether the map has a text that it begins with. NIBBLE_BAD_INPUT where the
 * map points outside itself. */
nibble_status nb_charsmap_find(const nb_charsmap *map, nb_str text, bool *found, nb_str *by, nibble_error *err);

/* The same for the longest text of the map that text[0, n) begins with, as SentencePiece itself looks; *used are its
 * bytes, 0 if there is none. */
nibble_status nb_charsmap_longest(const nb_charsmap *map, nb_str text, size_t *used, nb_str *by, nibble_error *err);

/* True if the map has no text that this byte, ASCII, begins. */
bool nb_charsmap_keeps(const nb_charsmap *map, unsigned char byte);

#endif
