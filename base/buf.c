#include "base/buf.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/grow.h"

static bool reserve(nb_buf *buf, size_t extra) {
  if (buf->failed) return false;
  if (buf->limit > 0 && (buf->length > buf->limit || extra > buf->limit - buf->length)) {
    buf->failed = buf->is_full = true;
    return false;
  }
  if (extra > SIZE_MAX / 4 - buf->length) {
    buf->failed = true;
    return false;
  }
  size_t need = buf->length + extra + 1;
  if (need <= buf->capacity) return true;
  char *data = nb_grow(buf->data, &buf->capacity, need, 1);
  if (data) buf->data = data;
  buf->failed = !data;
  return data != NULL;
}

void nb_buf_append(nb_buf *buf, const void *bytes, size_t n) {
  if (!reserve(buf, n)) return;
  if (n) memcpy(buf->data + buf->length, bytes, n);
  buf->length += n;
  buf->data[buf->length] = 0;
}

void nb_buf_puts(nb_buf *buf, const char *text) { nb_buf_append(buf, text, strlen(text)); }

void nb_buf_printf(nb_buf *buf, const char *format, ...) {
  va_list args, again;
  va_start(args, format);
  va_copy(again, args);
  int n = vsnprintf(NULL, 0, format, args);
  va_end(args);
  if (n < 0) {
    buf->failed = true;
  } else if (reserve(buf, (size_t)n)) {
    vsnprintf(buf->data + buf->length, (size_t)n + 1, format, again);
    buf->length += (size_t)n;
  }
  va_end(again);
}

void nb_buf_free(nb_buf *buf) {
  free(buf->data);
  *buf = (nb_buf){0};
}
