/* Text from outside: read from a file, plain or gzip, or from standard input. */
#ifndef NB_RUNNER_TEXT_H
#define NB_RUNNER_TEXT_H

#include "base/buf.h"
#include "base/status.h"

/* Appends the text of `path` ("-": standard input) to *out; gzip is told by its first bytes, not by the name.
 * NIBBLE_BAD_INPUT if it is missing, damaged, truncated, or more than NB_TEXT_MAX bytes when unpacked. Free *out with
 * nb_buf_free, also after a failure. */
nibble_status nb_text_read(const char *path, nb_buf *out, nibble_error *err);

#endif
