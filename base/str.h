/* Questions about strings that the C library does not answer. */
#ifndef NB_BASE_STR_H
#define NB_BASE_STR_H

#include <stdbool.h>
#include <string.h>

/* True if `text` is `end` or has it behind something. */
static inline bool nb_ends_with(const char *text, const char *end) {
  size_t n = strlen(text), k = strlen(end);
  return n >= k && memcmp(text + n - k, end, k) == 0;
}

#endif
