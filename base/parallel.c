#include "base/parallel.h"

#include <omp.h>

#include "base/checked.h"
#include "nibble.h"

/* Threads, their waiting and the sharing out of bands are OpenMP's, whatever another scheduler would gain: cli/main.c
 * bounds how long they spin. */
static int wanted_threads;

void nibble_set_threads(int threads) { wanted_threads = threads; }

int nb_threads(void) { return wanted_threads > 0 ? wanted_threads : omp_get_num_procs(); }

void nb_parallel(int64_t n, int64_t band, nb_band_fn fn, void *ctx) {
  int64_t bands = nb_ceil_div(n, band);
  if (bands <= 1 || nb_threads() == 1 || omp_in_parallel()) {
    for (int64_t b = 0; b < bands; b++)
      fn(ctx, b * band, nb_min_i64(n, (b + 1) * band), omp_in_parallel() ? omp_get_thread_num() : 0);
    return;
  }
#pragma omp parallel for schedule(dynamic, 1) num_threads(nb_threads())
  for (int64_t b = 0; b < bands; b++) fn(ctx, b * band, nb_min_i64(n, (b + 1) * band), omp_get_thread_num());
}
