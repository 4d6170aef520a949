#include "base/utf8.h"

#include <string.h>

/* Bytes of the valid sequence at s[0, n), or minus those of the part that a decoder replaces by one U+FFFD: the
 * longest start of a valid sequence (Unicode 15, section 3.9, table 3-7 and "substitution of maximal subparts"). */
static int sequence(const unsigned char *s, size_t n) {
  unsigned char low = 0x80, high = 0xbf;
  int length;
  if (s[0] < 0x80) return 1;
  if (s[0] < 0xc2 || s[0] > 0xf4) return -1;
  if (s[0] < 0xe0) {
    length = 2;
  } else if (s[0] < 0xf0) {
    length = 3;
    if (s[0] == 0xe0) low = 0xa0;
    if (s[0] == 0xed) high = 0x9f;
  } else {
    length = 4;
    if (s[0] == 0xf0) low = 0x90;
    if (s[0] == 0xf4) high = 0x8f;
  }
  for (int i = 1; i < length; i++) {
    if ((size_t)i >= n || s[i] < low || s[i] > high) return -i;
    low = 0x80;
    high = 0xbf;
  }
  return length;
}

size_t nb_utf8_valid(const char *text, size_t n) {
  const unsigned char *s = (const unsigned char *)text;
  size_t i = 0;
  while (i < n) {
    uint64_t eight[4];
    for (; i + sizeof eight <= n; i += sizeof eight) {
      memcpy(eight, s + i, sizeof eight);
      if ((eight[0] | eight[1] | eight[2] | eight[3]) & 0x8080808080808080u) break;
    }
    while (i + 8 <= n) {
      memcpy(eight, s + i, 8);
      if (eight[0] & 0x8080808080808080u) break;
      i += 8;
    }
    if (i >= n) break;
    int length = sequence(s + i, n - i);
    if (length < 0) return i;
    i += (size_t)length;
  }
  return n;
}

size_t nb_utf8_step(const char *text, size_t n) {
  int length = sequence((const unsigned char *)text, n);
  return (size_t)(length < 0 ? -length : length);
}

void nb_utf8_repair(const char *text, size_t n, nb_buf *out) {
  size_t i = 0;
  for (;;) {
    size_t good = nb_utf8_valid(text + i, n - i);
    nb_buf_append(out, text + i, good);
    i += good;
    if (i == n) return;
    nb_buf_append(out, "\xef\xbf\xbd", 3);
    i += nb_utf8_step(text + i, n - i);
  }
}

size_t nb_utf8_encode(uint32_t code, char out[4]) {
  if (code < 0x80) {
    out[0] = (char)code;
    return 1;
  }
  if (code < 0x800) {
    out[0] = (char)(0xc0 | code >> 6);
    out[1] = (char)(0x80 | (code & 0x3f));
    return 2;
  }
  if (code < 0x10000) {
    out[0] = (char)(0xe0 | code >> 12);
    out[1] = (char)(0x80 | (code >> 6 & 0x3f));
    out[2] = (char)(0x80 | (code & 0x3f));
    return 3;
  }
  out[0] = (char)(0xf0 | code >> 18);
  out[1] = (char)(0x80 | (code >> 12 & 0x3f));
  out[2] = (char)(0x80 | (code >> 6 & 0x3f));
  out[3] = (char)(0x80 | (code & 0x3f));
  return 4;
}
