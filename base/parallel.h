/* The one way to run in parallel: a range cut into bands of fixed size, each given to whichever thread is free.
 * The cut does not depend on the number of threads, so neither does a result that is put together band by band. */
#ifndef NB_BASE_PARALLEL_H
#define NB_BASE_PARALLEL_H

#include <stdint.h>

/* Works on items [begin, end). `thread` is in [0, nb_threads()) and picks this thread's scratch memory. */
typedef void (*nb_band_fn)(void *ctx, int64_t begin, int64_t end, int thread);

/* Calls fn for every band [k*band, min(n, (k+1)*band)). Runs inline where there is one band or one thread, and when
 * called from inside a band. */
void nb_parallel(int64_t n, int64_t band, nb_band_fn fn, void *ctx);

/* Calls fn in this thread, with the others standing by for the nb_parallel calls in it. For work that makes hundreds of
 * them, of some ten microseconds each, as decoding a token does: a thread that waits here spins for a moment, then
 * sleeps, and a loop does not wait for threads that have not begun when its bands run out. Between OpenMP's own loops
 * they spin for milliseconds, or not at all, as the environment says, and all wait for all: on an idle machine that is
 * a little slower, on a busy one up to twice. */
void nb_parallel_team(void (*fn)(void *ctx), void *ctx);

/* Threads that nb_parallel uses; set by nibble_set_threads. */
int nb_threads(void);

#endif
