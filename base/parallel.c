#include "base/parallel.h"

#include <omp.h>
#include <stdatomic.h>
#include <threads.h>

#include "base/checked.h"
#include "base/clock.h"
#include "nibble.h"

static int wanted_threads;

void nibble_set_threads(int threads) { wanted_threads = threads; }

int nb_threads(void) { return wanted_threads > 0 ? wanted_threads : omp_get_num_procs(); }

/* ---- a team: OpenMP's threads, which wait for loops here and not in libgomp -------------------------------------- */

enum { PAUSES = 32 };
static const double spin_seconds = 50e-6;

typedef struct loop {
  nb_band_fn fn;
  void *ctx;
  int64_t n, band, bands;
  _Alignas(64) atomic_llong next; /* band that nobody has taken */
} loop;

/* What workers watch lies apart from what they write. */
static struct {
  _Alignas(64) atomic_uint epoch;   /* loops that were opened */
  _Atomic(loop *) open;             /* NULL: none is */
  atomic_bool over;                 /* the team parts */
  _Alignas(64) atomic_int inside;   /* workers that may be looking at `open` */
  _Alignas(64) atomic_int sleepers; /* workers that wait for `opened`, or are about to */
  atomic_bool leader_sleeps;        /* so does the leader, for `left` */
  mtx_t mutex;                      /* of the two conditions */
  cnd_t opened, left;
  mtx_t in_use; /* held while there is a team */
  bool is_usable;
} team;

static once_flag once = ONCE_FLAG_INIT;
static _Thread_local bool leads;       /* this thread leads the team */
static _Thread_local int band_of = -1; /* inside a band: this thread's number */

static void make_team(void) {
  team.is_usable = mtx_init(&team.mutex, mtx_plain) == thrd_success &&
                   mtx_init(&team.in_use, mtx_plain) == thrd_success && cnd_init(&team.opened) == thrd_success &&
                   cnd_init(&team.left) == thrd_success;
}

static void work(loop *l, int thread) {
  int outer = band_of;
  band_of = thread;
  for (int64_t b; (b = atomic_fetch_add_explicit(&l->next, 1, memory_order_relaxed)) < l->bands;)
    l->fn(l->ctx, b * l->band, nb_min_i64(l->n, (b + 1) * l->band), thread);
  band_of = outer;
}

static void pause_a_little(void) {
  for (int i = 0; i < PAUSES; i++) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
  }
}

/* A worker counts itself in before it looks for the loop, and the leader closes the loop before it looks at the count:
 * one of the two sees the other. The same holds for `sleepers` and `epoch`, `leader_sleeps` and `inside`. */

static unsigned wait_for_loop(unsigned seen) {
  double start = nb_seconds();
  while (nb_seconds() - start < spin_seconds) {
    unsigned now = atomic_load(&team.epoch);
    if (now != seen) return now;
    pause_a_little();
  }
  mtx_lock(&team.mutex);
  atomic_fetch_add(&team.sleepers, 1);
  while (atomic_load(&team.epoch) == seen) cnd_wait(&team.opened, &team.mutex);
  atomic_fetch_sub(&team.sleepers, 1);
  mtx_unlock(&team.mutex);
  return atomic_load(&team.epoch);
}

static void serve(unsigned seen, int thread) {
  while (!atomic_load(&team.over)) {
    seen = wait_for_loop(seen);
    atomic_fetch_add(&team.inside, 1);
    loop *l = atomic_load(&team.open);
    if (l) work(l, thread);
    if (atomic_fetch_sub(&team.inside, 1) != 1 || !atomic_load(&team.leader_sleeps)) continue;
    mtx_lock(&team.mutex);
    cnd_signal(&team.left);
    mtx_unlock(&team.mutex);
  }
}

static void wait_for_workers(void) {
  double start = nb_seconds();
  while (atomic_load(&team.inside) > 0) {
    if (nb_seconds() - start < spin_seconds) {
      pause_a_little();
      continue;
    }
    mtx_lock(&team.mutex);
    atomic_store(&team.leader_sleeps, true);
    while (atomic_load(&team.inside) > 0) cnd_wait(&team.left, &team.mutex);
    atomic_store(&team.leader_sleeps, false);
    mtx_unlock(&team.mutex);
  }
}

static void tell_workers(loop *l) {
  atomic_store(&team.open, l);
  atomic_fetch_add(&team.epoch, 1);
  if (atomic_load(&team.sleepers) == 0) return;
  mtx_lock(&team.mutex);
  cnd_broadcast(&team.opened);
  mtx_unlock(&team.mutex);
}

static void run_in_team(int64_t n, int64_t band, nb_band_fn fn, void *ctx) {
  loop l = {.fn = fn, .ctx = ctx, .n = n, .band = band, .bands = nb_ceil_div(n, band)};
  tell_workers(&l);
  work(&l, 0);
  atomic_store(&team.open, NULL);
  wait_for_workers();
}

void nb_parallel_team(void (*fn)(void *ctx), void *ctx) {
  call_once(&once, make_team);
  if (nb_threads() == 1 || omp_in_parallel() || !team.is_usable || mtx_trylock(&team.in_use) != thrd_success) {
    fn(ctx);
    return;
  }
  atomic_store(&team.over, false);
  unsigned seen = atomic_load(&team.epoch);
#pragma omp parallel num_threads(nb_threads())
  {
    if (omp_get_thread_num() == 0) {
      leads = true;
      fn(ctx);
      leads = false;
      atomic_store(&team.over, true);
      tell_workers(NULL);
    } else {
      serve(seen, omp_get_thread_num());
    }
  }
  mtx_unlock(&team.in_use);
}

/* ---- one loop ---------------------------------------------------------------------------------------------------- */

void nb_parallel(int64_t n, int64_t band, nb_band_fn fn, void *ctx) {
  int64_t bands = nb_ceil_div(n, band);
  if (leads && bands > 1 && band_of < 0) {
    run_in_team(n, band, fn, ctx);
    return;
  }
  if (bands <= 1 || nb_threads() == 1 || omp_in_parallel()) {
    for (int64_t b = 0; b < bands; b++)
      fn(ctx, b * band, nb_min_i64(n, (b + 1) * band), omp_in_parallel() ? omp_get_thread_num() : 0);
    return;
  }
#pragma omp parallel for schedule(dynamic, 1) num_threads(nb_threads())
  for (int64_t b = 0; b < bands; b++) fn(ctx, b * band, nb_min_i64(n, (b + 1) * band), omp_get_thread_num());
}
