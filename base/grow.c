#include "base/grow.h"

#include <stdlib.h>

#include "base/checked.h"

void *nb_grow(void *items, size_t *capacity, size_t count, size_t size) {
  if (count <= *capacity) return items;
  uint64_t bytes, room = *capacity ? *capacity : 64;
  while (room < count && room <= UINT64_MAX / 2) room *= 2;
  if (room < count || !nb_mul_u64(room, size, &bytes) || bytes > PTRDIFF_MAX) return NULL;
  void *grown = realloc(items, (size_t)bytes);
  if (grown) *capacity = (size_t)room;
  return grown;
}
