#include "base/parallel.h"

#include <omp.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/stop.h"

/* Threads, their waiting and the sharing out of bands are OpenMP's, whatever another scheduler would gain: cli/main.c
 * bounds how long they spin. */
static _Thread_local int wanted_threads;

int nb_threads_use(int threads) {
  int before = wanted_threads;
  wanted_threads = threads;
  return before;
}

int nb_threads(void) { return wanted_threads > 0 ? wanted_threads : omp_get_num_procs(); }

static void *wait_for_it(void *gate) {
  pthread_mutex_lock(gate);
  pthread_mutex_unlock(gate);
  return NULL;
}

/* How many threads the system gives at once, this one counted. */
static int threads_to_be_had(int wanted) {
  pthread_t *made = malloc((size_t)wanted * sizeof *made);
  pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
  int n = 1;
  pthread_mutex_lock(&gate);
  while (made && n < wanted && pthread_create(&made[n], NULL, wait_for_it, &gate) == 0) n++;
  pthread_mutex_unlock(&gate);
  for (int i = 1; i < n; i++) pthread_join(made[i], NULL);
  free(made);
  return n;
}

/* OpenMP's runtime ends the process where it is refused a thread, so the system is asked before it is; glibc keeps the
 * stacks of threads that have ended for those that come next. The runtime has a team for each thread that calls. */
static int team(void) {
  static _Thread_local int asked_for, given;
  int wanted = nb_threads();
  if (wanted > asked_for) given = threads_to_be_had(asked_for = wanted);
  return wanted < given ? wanted : given;
}

void nb_parallel(int64_t n, int64_t band, nb_band_fn fn, void *ctx) {
  int64_t bands = nb_ceil_div(n, band);
  if (bands <= 1 || nb_threads() == 1 || omp_in_parallel()) {
    for (int64_t b = 0; b < bands; b++)
      fn(ctx, b * band, nb_min_i64(n, (b + 1) * band), omp_in_parallel() ? omp_get_thread_num() : 0);
    return;
  }
  int wanted = wanted_threads;
  nb_stop_hook *stop = nb_stop_current();
#pragma omp parallel for schedule(dynamic, 1) num_threads(team())
  for (int64_t b = 0; b < bands; b++) {
    wanted_threads = wanted; /* of this thread of the team, which a band may ask for */
    nb_stop_use(stop);
    fn(ctx, b * band, nb_min_i64(n, (b + 1) * band), omp_get_thread_num());
  }
}

typedef struct stoppable {
  nb_band_fn fn;
  void *ctx;
  int is_stopped;
} stoppable;

static void stoppable_band(void *ctx, int64_t begin, int64_t end, int thread) {
  stoppable *s = ctx;
  if (nb_stop_asked()) {
    __atomic_store_n(&s->is_stopped, 1, __ATOMIC_RELAXED);
  } else {
    s->fn(s->ctx, begin, end, thread);
  }
}

nibble_status nb_parallel_stoppable(int64_t n, int64_t band, nb_band_fn fn, void *ctx, nibble_error *err) {
  stoppable s = {.fn = fn, .ctx = ctx};
  nb_parallel(n, band, stoppable_band, &s);
  return s.is_stopped ? nb_stop_check(err) : NIBBLE_OK;
}
