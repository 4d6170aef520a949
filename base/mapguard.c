#include "base/mapguard.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SLOTS = 1024 };

/* `begin` is 0 in a free slot. The handler reads begin and end only; the rest belongs to whoever holds the lock. */
typedef struct guarded {
  _Atomic uintptr_t begin, end;
  char *path;
  bool is_settled;
  dev_t device;
  ino_t inode;
  off_t size;
  struct timespec modified;
} guarded;

static guarded slots[SLOTS];
static atomic_bool lost;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static uintptr_t page_size;

/* Puts zeros in the place of all pages from the lost one on: what follows the end of a truncated file is lost, too. */
static void on_bus_error(int signal_number, siginfo_t *info, void *context) {
  (void)context;
  uintptr_t at = (uintptr_t)info->si_addr / page_size * page_size;
  for (int i = 0; i < SLOTS; i++) {
    uintptr_t begin = atomic_load(&slots[i].begin), end = atomic_load(&slots[i].end);
    if (!begin || at < begin || at >= end) continue;
    void *page = (void *)at;
    if (mmap(page, end - at, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED) break;
    atomic_store(&lost, true);
    return;
  }
  signal(signal_number, SIG_DFL); /* not ours: happens again, and ends the process */
}

static void install(void) {
  struct sigaction old, action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};
  page_size = (uintptr_t)sysconf(_SC_PAGESIZE);
  sigemptyset(&action.sa_mask);
  if (sigaction(SIGBUS, NULL, &old) == 0 && !(old.sa_flags & SA_SIGINFO) && old.sa_handler == SIG_DFL)
    sigaction(SIGBUS, &action, NULL);
}

void nb_mapguard_add(const void *data, uint64_t size, const char *path, const struct stat *info) {
  pthread_once(&once, install);
  char *copy = strdup(path);
  if (!copy) return;
  pthread_mutex_lock(&lock);
  int i = 0;
  while (i < SLOTS && slots[i].path) i++;
  if (i < SLOTS) {
    guarded *g = &slots[i];
    g->path = copy;
    g->is_settled = false;
    g->device = info->st_dev;
    g->inode = info->st_ino;
    g->size = info->st_size;
    g->modified = info->st_mtim;
    atomic_store(&g->end, (uintptr_t)data + (uintptr_t)size);
    atomic_store(&g->begin, (uintptr_t)data);
  }
  pthread_mutex_unlock(&lock);
  if (i == SLOTS) free(copy);
}

/* A file that was replaced by another of its name is still whole in the map; one that was written to is not. */
static bool has_changed(const guarded *g) {
  struct stat now;
  if (g->is_settled) return false;
  if (stat(g->path, &now) != 0 || now.st_dev != g->device || now.st_ino != g->inode) return false;
  return now.st_size != g->size || now.st_mtim.tv_sec != g->modified.tv_sec ||
         now.st_mtim.tv_nsec != g->modified.tv_nsec;
}

void nb_mapguard_remove(const void *data) {
  pthread_mutex_lock(&lock);
  for (int i = 0; i < SLOTS; i++) {
    guarded *g = &slots[i];
    if (!g->path || atomic_load(&g->begin) != (uintptr_t)data) continue;
    if (has_changed(g)) atomic_store(&lost, true);
    atomic_store(&g->begin, 0);
    free(g->path);
    g->path = NULL;
  }
  pthread_mutex_unlock(&lock);
}

bool nb_mapguard_lost(void) {
  pthread_mutex_lock(&lock);
  for (int i = 0; i < SLOTS && !atomic_load(&lost); i++) {
    if (slots[i].path && has_changed(&slots[i])) atomic_store(&lost, true);
  }
  pthread_mutex_unlock(&lock);
  return atomic_load(&lost);
}

nibble_status nb_mapguard_check(nibble_error *err) {
  if (!nb_mapguard_lost()) return NIBBLE_OK;
  return nb_fail(err, NIBBLE_BAD_INPUT, "an input file changed while it was read");
}

void nb_mapguard_settle(void) {
  pthread_mutex_lock(&lock);
  for (int i = 0; i < SLOTS; i++) slots[i].is_settled = true;
  atomic_store(&lost, false);
  pthread_mutex_unlock(&lock);
}

void nb_mapguard_forget(void) { atomic_store(&lost, false); }

bool nibble_input_changed(void) {
  bool changed = nb_mapguard_lost();
  nb_mapguard_forget();
  return changed;
}
