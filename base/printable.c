#include "base/printable.h"

#include <string.h>

#include "base/utf8.h"
#include "nibble.h"

static bool shows(uint32_t code) {
  static const struct {
    uint32_t first, last;
  } others[] = {{0, 0x1f},        {0x7f, 0x9f},     {0x61c, 0x61c},
                {0x200e, 0x200f}, {0x2028, 0x202e}, {0x2066, 0x2069}}; /* lines, paragraphs: 2028, 2029; else bidi */
  for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
    if (code >= others[i].first && code <= others[i].last) return false;
  }
  return true;
}

int nb_printable_character(const char *text, size_t n) {
  size_t length;
  if (nb_utf8_valid(text, n < 4 ? n : 4) == 0) return -1; /* no character has more bytes */
  bool good = shows(nb_utf8_decode(text, &length));
  return good ? (int)length : -(int)length;
}

bool nb_is_printable(const char *text) {
  for (size_t n = strlen(text); n > 0;) {
    int length = nb_printable_character(text, n);
    if (length < 0) return false;
    text += length;
    n -= (size_t)length;
  }
  return true;
}

void nibble_printable(char *text, const char *keep) {
  char *to = text;
  if (!text) return;
  for (size_t n = strlen(text); n > 0;) {
    int length = nb_printable_character(text, n);
    size_t bytes = (size_t)(length < 0 ? -length : length);
    if (length > 0 || (keep && strchr(keep, *text))) {
      memmove(to, text, bytes);
      to += bytes;
    } else {
      *to++ = '?';
    }
    text += bytes;
    n -= bytes;
  }
  *to = 0;
}
