/* Errors as values. A function that can fail returns a nibble_status and takes `nibble_error *err` last; it fails with
 *   return nb_fail(err, NIBBLE_BAD_INPUT, "%s: tensor '%s': offset %llu is past the end", path, name, at);
 * and a caller passes a failure on unchanged. A message is one line, whatever the names in it hold: see
 * base/printable.h.
 * err may be NULL where the caller wants the status only. */
#ifndef NB_BASE_STATUS_H
#define NB_BASE_STATUS_H

#include "nibble.h"

/* Fills *err (cut at NIBBLE_MESSAGE_MAX, what is not printable replaced by '?') and returns `status`. */
nibble_status nb_fail(nibble_error *err, nibble_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* As nb_fail with NIBBLE_SYSTEM, followed by ": " and the text of `errno` as it was at the call. */
nibble_status nb_fail_errno(nibble_error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* NIBBLE_SYSTEM for an allocation of `bytes` that malloc refused. */
nibble_status nb_fail_memory(nibble_error *err, size_t bytes);

/* The first failure of work that runs in parallel bands. Zero it, hand it to every band, look at `status` afterwards.
 */
typedef struct nb_shared_error {
  int taken;
  nibble_status status;
  nibble_error err;
} nb_shared_error;

/* Keeps a failure, if it is the first; safe from any thread. */
void nb_shared_error_set(nb_shared_error *shared, nibble_status status, const nibble_error *err);

/* After the bands: the kept status, its message copied to *err. */
nibble_status nb_shared_error_get(const nb_shared_error *shared, nibble_error *err);

/* Reports a warning to `progress` (which may be NULL, as may its callback). */
void nb_warn(const nibble_progress *progress, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Reports a step to `progress` (which may be NULL, as may its callback). */
void nb_step(const nibble_progress *progress, const char *what, uint64_t done, uint64_t total, const char *unit);

#endif
