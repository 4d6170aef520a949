/* Whether the caller wants the work at hand to stop. A context may have a function that says so
 * (nibble_context_set_stop); a public function hands it to the calling thread when it begins (base/context.h), and
 * loops ask it at each band: a piece of a tensor, a layer, a window, a token.
 *
 *   for (...) {
 *     if ((status = nb_stop_check(err)) != NIBBLE_OK) goto done;
 *     ...
 *   }
 *   status = nb_parallel_stoppable(n, band, fn, ctx, err);     asks before each band (base/parallel.h)
 *
 * Once it has said yes, that is the answer for the rest of the call, so that nothing which was left unfinished is ever
 * taken for a result. */
#ifndef NB_BASE_STOP_H
#define NB_BASE_STOP_H

#include "base/status.h"

typedef struct nb_stop_hook {
  bool (*ask)(void *ctx); /* from any thread; NULL: never */
  void *ctx;
  int asked_for; /* it has said yes */
} nb_stop_hook;

/* Makes `stop` (NULL: none) the calling thread's, and returns what that was. */
nb_stop_hook *nb_stop_use(nb_stop_hook *stop);
nb_stop_hook *nb_stop_current(void);

/* True if the calling thread's work is to stop. */
bool nb_stop_asked(void);

/* NIBBLE_STOPPED if the calling thread's work is to stop. Whoever keeps something then says so in its place. */
nibble_status nb_stop_check(nibble_error *err);

#endif
