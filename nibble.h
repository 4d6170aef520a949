/* nibble: makes large language models small, and proves that they still work.
 *
 * This is the whole public interface; the command line is written against it and nothing else. A caller fills an
 * options struct (zeroed fields mean the default), calls one function, and reads a result struct. Data goes in and out
 * as files: a MODEL is a Hugging Face folder, a .gguf file, or one .safetensors with its config.json beside it.
 *
 * The library never prints, exits or aborts. Every function that can fail returns a nibble_status and, when it is not
 * NIBBLE_OK, leaves one line in *err that names the file, the tensor and what is wrong. Strings passed in stay the
 * caller's; strings and handles passed out are released with the function named beside them. */
#ifndef NIBBLE_H
#define NIBBLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#pragma GCC visibility push(default)

#define NIBBLE_VERSION "0.1.0"

/* The values are the exit codes of the command line. */
typedef enum nibble_status {
  NIBBLE_OK = 0,
  NIBBLE_CHECK_FAILED = 1, /* a measured figure missed its threshold */
  NIBBLE_USAGE = 2,        /* an option or argument makes no sense */
  NIBBLE_BAD_INPUT = 3,    /* a file is damaged, hostile, or of another kind */
  NIBBLE_SYSTEM = 4,       /* disk, memory or permission */
} nibble_status;

enum { NIBBLE_MESSAGE_MAX = 1024 };

/* One line of explanation, always terminated, without a newline at its end. Unspecified while the status is NIBBLE_OK.
 */
typedef struct nibble_error {
  nibble_status status;
  char message[NIBBLE_MESSAGE_MAX];
} nibble_error;

/* Called now and then from the thread that called the library. `done` of `total` in `unit` ("bytes", "tokens");
 * `what` names the tensor or step and is valid during the call only. `warning` is called once for each warning. */
typedef struct nibble_progress {
  void (*step)(void *ctx, const char *what, uint64_t done, uint64_t total, const char *unit);
  void (*warning)(void *ctx, const char *message);
  void *ctx;
} nibble_progress;

/* Threads used by all later calls; 0 means one a core. Results never depend on it. */
void nibble_set_threads(int threads);

/* High-water mark of this process's resident memory, in bytes. */
uint64_t nibble_peak_rss(void);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif

#endif
