/* UTF-8. Text need not be valid to be accepted: every damaged sequence becomes U+FFFD, exactly as Python's
 * bytes.decode("utf-8", errors="replace") does, so that our token ids can be compared with a reference that takes
 * strings only. */
#ifndef NB_BASE_UTF8_H
#define NB_BASE_UTF8_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

/* Bytes at the start of text[0, n) that are valid UTF-8 (no surrogates, nothing overlong, nothing past U+10FFFF). */
size_t nb_utf8_valid(const char *text, size_t n);

/* Appends text[0, n) to *out with each damaged sequence replaced by U+FFFD. */
void nb_utf8_repair(const char *text, size_t n, nb_buf *out);

/* Bytes of the code point at text[0, n), n > 0, or of the damaged sequence there that becomes one U+FFFD. */
size_t nb_utf8_step(const char *text, size_t n);

/* The code point at text[0], which must be valid UTF-8; *length is set to its 1 to 4 bytes. */
static inline uint32_t nb_utf8_decode(const char *text, size_t *length) {
  const unsigned char *s = (const unsigned char *)text;
  if (s[0] < 0x80) {
    *length = 1;
    return s[0];
  }
  if (s[0] < 0xe0) {
    *length = 2;
    return (s[0] & 0x1fu) << 6 | (s[1] & 0x3fu);
  }
  if (s[0] < 0xf0) {
    *length = 3;
    return (s[0] & 0x0fu) << 12 | (s[1] & 0x3fu) << 6 | (s[2] & 0x3fu);
  }
  *length = 4;
  return (s[0] & 0x07u) << 18 | (s[1] & 0x3fu) << 12 | (s[2] & 0x3fu) << 6 | (s[3] & 0x3fu);
}

/* True for the first byte of a character. */
static inline bool nb_utf8_begins(char byte) { return ((unsigned char)byte & 0xc0) != 0x80; }

/* Writes the UTF-8 of a code point up to U+10FFFF; returns its 1 to 4 bytes. */
size_t nb_utf8_encode(uint32_t code, char out[4]);

#endif
