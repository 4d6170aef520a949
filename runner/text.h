/* Text from outside: read from a file, plain or gzip, or from standard input, and made valid UTF-8.
 * Text need not be UTF-8 to be accepted: every damaged sequence becomes U+FFFD, exactly as Python's
 * bytes.decode("utf-8", errors="replace") does, so that our token ids can be compared with a reference that takes
 * strings only. */
#ifndef NB_RUNNER_TEXT_H
#define NB_RUNNER_TEXT_H

#include <stdint.h>

#include "base/buf.h"
#include "base/status.h"

enum { NB_TEXT_MAX = 1 << 30 }; /* bytes a text may have: token offsets are 31-bit */

/* Appends the text of `path` ("-": standard input) to *out; gzip is told by its first bytes, not by the name.
 * NIBBLE_BAD_INPUT if it is missing, damaged, truncated, or more than NB_TEXT_MAX bytes when unpacked. Free *out with
 * nb_buf_free, also after a failure. */
nibble_status nb_text_read(const char *path, nb_buf *out, nibble_error *err);

/* Bytes at the start of text[0, n) that are valid UTF-8 (no surrogates, nothing overlong, nothing past U+10FFFF). */
size_t nb_utf8_valid(const char *text, size_t n);

/* Appends text[0, n) to *out with each damaged sequence replaced by U+FFFD. */
void nb_utf8_repair(const char *text, size_t n, nb_buf *out);

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

/* Writes the UTF-8 of a code point up to U+10FFFF; returns its 1 to 4 bytes. */
size_t nb_utf8_encode(uint32_t code, char out[4]);

#endif
