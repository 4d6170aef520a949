#include "base/base64.h"

#include <stdint.h>

static int value_of(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  return c == '+' ? 62 : c == '/' ? 63 : -1;
}

bool nb_base64_decode(const char *text, size_t n, char *out, size_t *length) {
  *length = 0;
  if (n % 4 != 0) return false;
  size_t padding = 0;
  while (padding < 2 && padding < n && text[n - 1 - padding] == '=') padding++;
  for (size_t i = 0; i < n; i += 4) {
    size_t kept = i + 4 == n ? 4 - padding : 4; /* characters of this group that stand for bits */
    uint32_t bits = 0;
    for (size_t k = 0; k < 4; k++) {
      int value = k < kept ? value_of(text[i + k]) : 0;
      if (value < 0) return false;
      bits = bits << 6 | (uint32_t)value;
    }
    if ((kept == 3 && bits & 0xff) || (kept == 2 && bits & 0xffff)) return false;
    for (size_t k = 0; k + 1 < kept; k++) out[(*length)++] = (char)(unsigned char)(bits >> (16 - 8 * k));
  }
  return true;
}

void nb_base64_encode(const void *bytes, size_t n, nb_buf *out) {
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const unsigned char *in = bytes;
  for (size_t i = 0; i < n && !out->failed; i += 3) {
    size_t left = n - i;
    uint32_t bits = (uint32_t)in[i] << 16 | (left > 1 ? (uint32_t)in[i + 1] << 8 : 0) | (left > 2 ? in[i + 2] : 0);
    char four[4];
    for (int k = 0; k < 4; k++) four[k] = digits[bits >> (18 - 6 * k) & 63];
    if (left < 2) four[2] = '=';
    if (left < 3) four[3] = '=';
    nb_buf_append(out, four, 4);
  }
}
