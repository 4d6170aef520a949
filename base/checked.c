#include "base/checked.h"

#include <stdlib.h>
#include <sys/mman.h>

enum { CACHE_LINE = 64, HUGE_PAGE = 2 << 20 };

void *nb_alloc(uint64_t count, uint64_t size) {
  uint64_t bytes;
  if (!nb_mul_u64(count, size, &bytes) || bytes > PTRDIFF_MAX) return NULL;
  return calloc(1, bytes ? (size_t)bytes : 1);
}

void *nb_alloc_aligned(uint64_t count, uint64_t size) {
  uint64_t bytes;
  if (!nb_mul_u64(count, size, &bytes) || bytes > PTRDIFF_MAX - CACHE_LINE) return NULL;
  bytes = (bytes + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
  return aligned_alloc(CACHE_LINE, bytes ? (size_t)bytes : CACHE_LINE);
}

void *nb_alloc_table(uint64_t count, uint64_t size) {
  uint64_t bytes;
  if (!nb_mul_u64(count, size, &bytes) || bytes > PTRDIFF_MAX - HUGE_PAGE) return NULL;
  if (bytes / 2 < HUGE_PAGE) return malloc(bytes ? (size_t)bytes : 1);
  bytes = (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
  void *table = aligned_alloc(HUGE_PAGE, (size_t)bytes);
  if (table) madvise(table, (size_t)bytes, MADV_HUGEPAGE); /* a hint: small pages will do */
  return table;
}
