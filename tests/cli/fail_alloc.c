/* Preloaded into a program, lets the nth request for memory fail: NIBBLE_FAIL_ALLOC=n alone, and with NIBBLE_FAIL_ALL=1
 * every one after it. NIBBLE_COUNT_ALLOCS=FILE counts them instead, and writes how many there were when the program
 * ends. For tests; glibc only, whose own functions it calls. */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

static atomic_long calls;
static atomic_long fail_at; /* 0: not read yet; -1: never */
static bool fail_all;

__attribute__((constructor)) static void begin(void) {
  const char *n = getenv("NIBBLE_FAIL_ALLOC");
  fail_all = getenv("NIBBLE_FAIL_ALL") != NULL;
  atomic_store(&calls, 0);
  atomic_store(&fail_at, n ? atol(n) : -1);
}

__attribute__((destructor)) static void end(void) {
  const char *path = getenv("NIBBLE_COUNT_ALLOCS");
  int file = path ? open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600) : -1;
  if (file < 0) return;
  dprintf(file, "%ld\n", atomic_load(&calls));
  close(file);
}

static bool fails(void) {
  long n = atomic_fetch_add(&calls, 1) + 1, at = atomic_load(&fail_at);
  if (at <= 0 || !(n == at || (fail_all && n > at))) return false;
  errno = ENOMEM;
  return true;
}

void *malloc(size_t size) { return fails() ? NULL : __libc_malloc(size); }
void *calloc(size_t count, size_t size) { return fails() ? NULL : __libc_calloc(count, size); }
void *realloc(void *old, size_t size) { return fails() ? NULL : __libc_realloc(old, size); }
void *aligned_alloc(size_t alignment, size_t size) { return fails() ? NULL : __libc_memalign(alignment, size); }
void *memalign(size_t alignment, size_t size) { return fails() ? NULL : __libc_memalign(alignment, size); }

int posix_memalign(void **out, size_t alignment, size_t size) {
  void *memory = fails() ? NULL : __libc_memalign(alignment, size);
  if (!memory) return ENOMEM;
  *out = memory;
  return 0;
}
