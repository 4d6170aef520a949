/* The one way to run in parallel: a range cut into bands of fixed size, each given to whichever thread is free.
 * The cut does not depend on the number of threads, so neither does a result that is put together band by band. */
#ifndef NB_BASE_PARALLEL_H
#define NB_BASE_PARALLEL_H

#include "base/status.h"

/* Works on items [begin, end). `thread` is in [0, nb_threads()) and picks this thread's scratch memory. */
typedef void (*nb_band_fn)(void *ctx, int64_t begin, int64_t end, int thread);

/* Calls fn for every band [k*band, min(n, (k+1)*band)). Runs inline where there is one band or one thread, and when
 * called from inside a band. */
void nb_parallel(int64_t n, int64_t band, nb_band_fn fn, void *ctx);

/* The same for work that may take long: asks before each band whether to stop (base/stop.h). NIBBLE_STOPPED if bands
 * were left out, and what they were to compute is worth nothing. Functions that return nothing pass err = NULL, and who
 * called them asks nb_stop_check. */
nibble_status nb_parallel_stoppable(int64_t n, int64_t band, nb_band_fn fn, void *ctx, nibble_error *err);

/* Threads that nb_parallel uses where the calling thread asks for it; inside a band, those of the call around it. */
int nb_threads(void);

/* Sets their number for the calling thread (0: one a core) and returns what it was. Each thread has its own, so that
 * callers with other contexts (context.h) do not see it: public functions set it when they begin and put it back when
 * they end. */
int nb_threads_use(int threads);

#endif
