#include "template/arena.h"

#include <stdlib.h>

#include "base/checked.h"

enum { CHUNK = 1 << 16, ALIGN = 16 };

typedef struct nb_chunk {
  struct nb_chunk *next;
  _Alignas(ALIGN) char bytes[];
} nb_chunk;

void *nb_arena_take(nb_arena *a, size_t size) {
  if (size > a->limit - a->taken) {
    a->is_full = true;
    return NULL;
  }
  size_t padded = (size + ALIGN - 1) / ALIGN * ALIGN;
  if (padded > a->left) {
    size_t room = padded > CHUNK / 4 ? padded : CHUNK;
    nb_chunk *chunk = calloc(1, sizeof *chunk + room);
    if (!chunk) {
      a->has_failed = true;
      return NULL;
    }
    chunk->next = a->chunks;
    a->chunks = chunk;
    if (room == padded) { /* a chunk of its own: what is left of the one before is not lost */
      a->taken += size;
      return chunk->bytes;
    }
    a->free = chunk->bytes;
    a->left = room;
  }
  void *taken = a->free;
  a->free += padded;
  a->left -= padded;
  a->taken += size;
  return taken;
}

void *nb_arena_array(nb_arena *a, size_t count, size_t size) {
  uint64_t bytes;
  if (nb_mul_u64(count, size, &bytes) && bytes <= PTRDIFF_MAX) return nb_arena_take(a, (size_t)bytes);
  a->is_full = true;
  return NULL;
}

void nb_arena_free(nb_arena *a) {
  for (nb_chunk *next, *chunk = a->chunks; chunk; chunk = next) {
    next = chunk->next;
    free(chunk);
  }
  *a = (nb_arena){0};
}
