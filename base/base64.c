#include "base/base64.h"

#include <stdint.h>
#include <string.h>

/* What a character stands for; -1: it is none of the alphabet. Those above 0x7f are not here. */
static const int8_t values[128] = {
    -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
    -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 62, -1, -1, -1, 63, 52, 53, 54, 55,
    56, 57, 58, 59, 60, 61, -1, -1, -1, -1, -1, -1, -1, 0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12,
    13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, -1, -1, -1, -1, -1, -1, 26, 27, 28, 29, 30, 31, 32,
    33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, -1, -1, -1, -1, -1,
};

static int value_of(char c) { return (unsigned char)c < sizeof values ? values[(unsigned char)c] : -1; }

/* Three bytes from four characters. */
static bool decode_group(const char *text, char *out) {
  int a = value_of(text[0]), b = value_of(text[1]), c = value_of(text[2]), d = value_of(text[3]);
  if ((a | b | c | d) < 0) return false;
  uint32_t bits = (uint32_t)a << 18 | (uint32_t)b << 12 | (uint32_t)c << 6 | (uint32_t)d;
  for (int k = 0; k < 3; k++) out[k] = (char)(unsigned char)(bits >> (16 - 8 * k));
  return true;
}

bool nb_base64_decode(const char *text, size_t n, char *out, size_t *length) {
  *length = 0;
  if (n % 4 != 0) return false;
  if (n == 0) return true;
  size_t padding = text[n - 1] != '=' ? 0 : text[n - 2] != '=' ? 1 : 2, whole = n - 4;
  char last[4], group[3]; /* the last group: nothing is written behind what it stands for */
  memcpy(last, text + whole, sizeof last);
  memset(last + 4 - padding, 'A', padding); /* zeros */
  for (size_t i = 0; i < whole; i += 4, *length += 3) {
    if (!decode_group(text + i, out + *length)) return false;
  }
  if (!decode_group(last, group)) return false;
  for (size_t k = 3 - padding; k < 3; k++) {
    if (group[k] != 0) return false;
  }
  memcpy(out + *length, group, 3 - padding);
  *length += 3 - padding;
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
