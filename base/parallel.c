#include "base/parallel.h"

#include <sched.h>
#include <stdatomic.h>
#include <threads.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/clock.h"
#include "nibble.h"

/* Decoding one token starts two hundred parallel loops of some ten microseconds, so that how a thread waits for the
 * next one decides the speed. The threads here spin for a moment, then sleep: on an idle machine a loop starts in less
 * than a microsecond, on a loaded one nobody burns what others need. And a loop never waits for a thread that has not
 * begun: whoever comes too late finds the loop closed. (OpenMP's libgomp spins for milliseconds or not at all, as the
 * environment says before the program starts, and waits for all threads; decoding took up to four times as long.) */

enum { MAX_WORKERS = 1023, PAUSES = 32 };
static const double spin_seconds = 50e-6;

typedef struct loop {
  nb_band_fn fn;
  void *ctx;
  int64_t n, band, bands;
  int threads;
  _Alignas(64) atomic_llong next; /* band that nobody has taken */
} loop;

/* What workers watch lies apart from what they write. */
static struct {
  _Alignas(64) atomic_uint epoch;   /* loops that were opened */
  _Atomic(loop *) open;             /* NULL: closed */
  _Alignas(64) atomic_int inside;   /* workers that may be looking at `open` */
  _Alignas(64) atomic_int sleepers; /* workers that wait for `opened`, or are about to */
  atomic_bool leader_sleeps;        /* so does the thread that opened the loop, for `left` */
  mtx_t mutex;                      /* of the two conditions */
  cnd_t opened, left;
  mtx_t leading; /* held by the thread whose loop it is */
  int workers;   /* started; written under `leading` */
  bool is_usable;
} team;

static once_flag once = ONCE_FLAG_INIT;
static _Thread_local int this_thread = -1; /* inside a band: its number */
static int wanted_threads, processors;

static void make_team(void) {
  cpu_set_t set;
  processors = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : (int)sysconf(_SC_NPROCESSORS_ONLN);
  team.is_usable = mtx_init(&team.mutex, mtx_plain) == thrd_success &&
                   mtx_init(&team.leading, mtx_plain) == thrd_success && cnd_init(&team.opened) == thrd_success &&
                   cnd_init(&team.left) == thrd_success;
}

void nibble_set_threads(int threads) { wanted_threads = threads; }

int nb_threads(void) {
  call_once(&once, make_team);
  return wanted_threads > 0 ? wanted_threads : processors;
}

static void work(loop *l, int thread) {
  int outer = this_thread;
  this_thread = thread;
  for (int64_t b; (b = atomic_fetch_add_explicit(&l->next, 1, memory_order_relaxed)) < l->bands;)
    l->fn(l->ctx, b * l->band, nb_min_i64(l->n, (b + 1) * l->band), thread);
  this_thread = outer;
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

static int run_worker(void *arg) {
  int thread = (int)(intptr_t)arg;
  for (unsigned seen = 0;;) {
    seen = wait_for_loop(seen);
    atomic_fetch_add(&team.inside, 1);
    loop *l = atomic_load(&team.open);
    if (l && thread < l->threads) work(l, thread);
    if (atomic_fetch_sub(&team.inside, 1) != 1 || !atomic_load(&team.leader_sleeps)) continue;
    mtx_lock(&team.mutex);
    cnd_signal(&team.left);
    mtx_unlock(&team.mutex);
  }
  return 0;
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

static void start_workers(int threads) {
  while (team.workers + 1 < threads && team.workers < MAX_WORKERS) {
    thrd_t id;
    if (thrd_create(&id, run_worker, (void *)(intptr_t)(team.workers + 1)) != thrd_success) return;
    thrd_detach(id);
    team.workers++;
  }
}

void nb_parallel(int64_t n, int64_t band, nb_band_fn fn, void *ctx) {
  loop l = {.fn = fn, .ctx = ctx, .n = n, .band = band, .bands = nb_ceil_div(n, band), .threads = nb_threads()};
  bool alone = l.bands <= 1 || l.threads == 1 || this_thread >= 0 || !team.is_usable;
  /* Another thread of the caller's may have a loop open. */
  if (alone || mtx_trylock(&team.leading) != thrd_success) {
    work(&l, this_thread >= 0 ? this_thread : 0);
    return;
  }
  start_workers(l.threads);
  atomic_store(&team.open, &l);
  atomic_fetch_add(&team.epoch, 1);
  if (atomic_load(&team.sleepers) > 0) {
    mtx_lock(&team.mutex);
    cnd_broadcast(&team.opened);
    mtx_unlock(&team.mutex);
  }
  work(&l, 0);
  atomic_store(&team.open, NULL);
  wait_for_workers();
  mtx_unlock(&team.leading);
}
