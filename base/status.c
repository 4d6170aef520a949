#include "base/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *nibble_version(void) { return NIBBLE_VERSION; }

const char *nibble_status_name(nibble_status status) {
  switch (status) {
    case NIBBLE_OK: return "ok";
    case NIBBLE_CHECK_FAILED: return "check_failed";
    case NIBBLE_USAGE: return "usage";
    case NIBBLE_BAD_INPUT: return "bad_input";
    case NIBBLE_SYSTEM: return "system";
    case NIBBLE_STOPPED: return "stopped";
  }
  return "unknown";
}

nibble_status nb_fail(nibble_error *err, nibble_status status, const char *format, ...) {
  if (!err) return status;
  err->status = status;
  va_list args;
  va_start(args, format);
  vsnprintf(err->message, sizeof err->message, format, args);
  va_end(args);
  nibble_printable(err->message, "");
  return status;
}

nibble_status nb_fail_errno(nibble_error *err, const char *format, ...) {
  int saved = errno;
  if (!err) return NIBBLE_SYSTEM;
  err->status = NIBBLE_SYSTEM;
  va_list args;
  va_start(args, format);
  vsnprintf(err->message, sizeof err->message, format, args);
  va_end(args);
  size_t used = strlen(err->message);
  snprintf(err->message + used, sizeof err->message - used, ": %s", strerror(saved));
  nibble_printable(err->message, "");
  return NIBBLE_SYSTEM;
}

nibble_status nb_fail_memory(nibble_error *err, size_t bytes) {
  return nb_fail(err, NIBBLE_SYSTEM, "out of memory: %zu bytes were refused", bytes);
}

void nb_shared_error_set(nb_shared_error *shared, nibble_status status, const nibble_error *err) {
  if (__atomic_exchange_n(&shared->taken, 1, __ATOMIC_ACQ_REL)) return;
  shared->err = *err;
  shared->status = status;
}

nibble_status nb_shared_error_get(const nb_shared_error *shared, nibble_error *err) {
  if (shared->status != NIBBLE_OK && err) *err = shared->err;
  return shared->status;
}

void nb_warn(const nibble_progress *progress, const char *format, ...) {
  if (!progress || !progress->warning) return;
  char message[NIBBLE_MESSAGE_MAX];
  va_list args;
  va_start(args, format);
  vsnprintf(message, sizeof message, format, args);
  va_end(args);
  nibble_printable(message, "");
  progress->warning(progress->ctx, message);
}

void nb_step(const nibble_progress *progress, const char *what, uint64_t done, uint64_t total, const char *unit) {
  if (!progress || !progress->step) return;
  char name[NIBBLE_MESSAGE_MAX]; /* of a tensor, as a rule: it comes from a file */
  snprintf(name, sizeof name, "%s", what ? what : "");
  nibble_printable(name, "");
  progress->step(progress->ctx, name, done, total, unit);
}
