#include "base/checked.h"

#include <stdlib.h>

enum { CACHE_LINE = 64 };

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
