/* SIGINT, SIGTERM and SIGHUP. A command that makes files lets the library stop and clear up (cli_stop_is_asked);
 * whatever else runs leaves nothing behind, and ends at once. */
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"

/* timeout(1) and some shells signal a process twice, by its id and with its group. Who presses Ctrl-C again takes
 * longer. */
static const double AGAIN_SECONDS = 0.1;

static const struct {
  int number;
  const char *name;
} signals[] = {{SIGINT, "SIGINT"}, {SIGTERM, "SIGTERM"}, {SIGHUP, "SIGHUP"}};

enum { SIGNALS = sizeof signals / sizeof *signals, LINE = 256 };

static const char *command = "nibble";
static atomic_bool is_deferred, has_failed;
static atomic_int caught;
static _Atomic double caught_at; /* seconds */

static double now_seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

const char *cli_signal_name(int number) {
  for (int i = 0; i < SIGNALS; i++) {
    if (signals[i].number == number) return signals[i].name;
  }
  return "a signal";
}

/* In a handler: no stdio. */
static void end_at_once(int number) {
  char line[LINE], *end = line;
  end = stpcpy(end, isatty(STDERR_FILENO) ? "\r\033[K" : ""); /* over the progress bar */
  end = stpcpy(end, command);
  end = stpcpy(end, ": ");
  end = stpcpy(end, cli_signal_name(number));
  end = stpcpy(end, ": stopped; nothing is left behind\n");
  if (write(STDERR_FILENO, line, (size_t)(end - line)) < 0) _exit(NIBBLE_STOPPED + number);
  _exit(NIBBLE_STOPPED + number);
}

static void handle(int number) {
  int none = 0;
  if (!atomic_load(&is_deferred)) end_at_once(number);
  if (atomic_compare_exchange_strong(&caught, &none, number)) {
    atomic_store(&caught_at, now_seconds());
  } else if (now_seconds() - atomic_load(&caught_at) > AGAIN_SECONDS) {
    _exit(NIBBLE_STOPPED + number);
  }
}

void cli_signals_take(const char *name) {
  static bool are_taken;
  command = name;
  for (int i = 0; !are_taken && i < SIGNALS; i++) {
    struct sigaction before, action = {.sa_handler = handle}; /* without SA_RESTART: what waits for input ends */
    if (sigaction(signals[i].number, NULL, &before) == 0 && before.sa_handler != SIG_IGN)
      sigaction(signals[i].number, &action, NULL); /* nohup's wish is kept */
  }
  are_taken = true;
}

void cli_signals_defer(void) { atomic_store(&is_deferred, true); }

int cli_signal_caught(void) { return atomic_load(&caught); }

bool cli_signals_forget_interrupt(void) {
  int interrupt = SIGINT;
  return atomic_compare_exchange_strong(&caught, &interrupt, 0);
}

bool cli_stop_is_asked(void *ctx) {
  (void)ctx;
  return atomic_load(&caught) != 0 || atomic_load(&has_failed);
}

void cli_flush(void) {
  if (fflush(stdout) != 0 || ferror(stdout)) atomic_store(&has_failed, true);
}
