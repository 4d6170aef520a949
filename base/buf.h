/* A growing run of bytes, for text and headers of unknown length. It keeps a NUL after its last byte, so `data` of a
 * buffer that was written to can be used as a string. The first failure (no memory, or more than its limit) sticks in
 * `failed`; append as often as you like and look once. */
#ifndef NB_BASE_BUF_H
#define NB_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>

typedef struct nb_buf {
  char *data;
  size_t length, capacity; /* bytes; capacity counts the NUL */
  size_t limit;            /* the most bytes that it may come to hold; 0: as many as memory does */
  bool failed, is_full;    /* the second: by the limit. Nothing was appended then */
} nb_buf;

void nb_buf_append(nb_buf *buf, const void *bytes, size_t n);
void nb_buf_puts(nb_buf *buf, const char *text);
void nb_buf_printf(nb_buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));
void nb_buf_free(nb_buf *buf);

#endif
