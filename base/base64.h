/* Base64 (RFC 4648, section 4): the standard alphabet, padded to whole groups of four. */
#ifndef NB_BASE_BASE64_H
#define NB_BASE_BASE64_H

#include <stddef.h>

#include "base/buf.h"

/* The bytes that n characters of base64 stand for at most. */
static inline size_t nb_base64_room(size_t n) { return n / 4 * 3; }

/* Decodes text[0, n) to out, which has nb_base64_room(n) bytes and may be the text's own memory; *length is how many it
 * became. False if the text is not base64: a character outside the alphabet, missing padding, or bits set where the
 * padding leaves none. */
bool nb_base64_decode(const char *text, size_t n, char *out, size_t *length);

/* Appends the base64 of bytes[0, n). */
void nb_base64_encode(const void *bytes, size_t n, nb_buf *out);

#endif
