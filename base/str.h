/* Strings, as far as the C library does not go. */
#ifndef NB_BASE_STR_H
#define NB_BASE_STR_H

#include <stdbool.h>
#include <string.h>

/* Bytes that somebody else owns, any bytes; there may be no NUL behind them. */
typedef struct nb_str {
  const char *data;
  size_t length;
} nb_str;

static inline bool nb_str_is(nb_str s, const char *text) {
  return s.length == strlen(text) && memcmp(s.data, text, s.length) == 0;
}

/* True if `text` is `end` or has it behind something. */
static inline bool nb_ends_with(const char *text, const char *end) {
  size_t n = strlen(text), k = strlen(end);
  return n >= k && memcmp(text + n - k, end, k) == 0;
}

/* The value of a hexadecimal digit; -1 if it is none. */
static inline int nb_hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  c |= 32; /* lower case */
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

#endif
