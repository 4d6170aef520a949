#include "base/strmap.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* FNV-1a with a seed and a final mix; the seed only has to be unknown to whoever wrote the file. */
static uint32_t hash_bytes(const char *key, size_t length) {
  static uint64_t seed;
  uint64_t s = __atomic_load_n(&seed, __ATOMIC_RELAXED);
  if (s == 0) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t fresh =
        ((uint64_t)now.tv_nsec << 20 ^ (uint64_t)now.tv_sec ^ (uint64_t)getpid() << 40 ^ (uint64_t)(uintptr_t)&now) |
        1u;
    __atomic_compare_exchange_n(&seed, &s, fresh, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    s = __atomic_load_n(&seed, __ATOMIC_RELAXED);
  }
  uint64_t h = 0xcbf29ce484222325u ^ s;
  for (size_t i = 0; i < length; i++) h = (h ^ (unsigned char)key[i]) * 0x100000001b3u;
  h ^= h >> 32;
  h *= 0x9e3779b97f4a7c15u;
  return (uint32_t)(h >> 32);
}

static nb_strmap_slot *probe(const nb_strmap *map, const char *key, size_t length, uint32_t hash) {
  for (size_t i = hash & (map->capacity - 1);; i = (i + 1) & (map->capacity - 1)) {
    nb_strmap_slot *slot = &map->slots[i];
    if (!slot->key || (slot->hash == hash && slot->length == length && memcmp(slot->key, key, length) == 0))
      return slot;
  }
}

static bool grow(nb_strmap *map) {
  nb_strmap bigger = {.capacity = map->capacity ? map->capacity * 2 : 64};
  bigger.slots = calloc(bigger.capacity, sizeof *bigger.slots);
  if (!bigger.slots) return false;
  for (size_t i = 0; i < map->capacity; i++) {
    const nb_strmap_slot *slot = &map->slots[i];
    if (slot->key) *probe(&bigger, slot->key, slot->length, slot->hash) = *slot;
  }
  bigger.count = map->count;
  free(map->slots);
  *map = bigger;
  return true;
}

nb_strmap_result nb_strmap_add(nb_strmap *map, const char *key, size_t length, int64_t value) {
  if (length > UINT32_MAX) return NB_STRMAP_NO_MEMORY;
  if (map->count * 2 >= map->capacity && !grow(map)) return NB_STRMAP_NO_MEMORY;
  uint32_t hash = hash_bytes(key, length);
  nb_strmap_slot *slot = probe(map, key, length, hash);
  if (slot->key) return NB_STRMAP_EXISTS;
  *slot = (nb_strmap_slot){.key = key, .length = (uint32_t)length, .hash = hash, .value = value};
  map->count++;
  return NB_STRMAP_ADDED;
}

bool nb_strmap_find(const nb_strmap *map, const char *key, size_t length, int64_t *value) {
  if (map->count == 0) return false;
  const nb_strmap_slot *slot = probe(map, key, length, hash_bytes(key, length));
  if (!slot->key) return false;
  *value = slot->value;
  return true;
}

void nb_strmap_free(nb_strmap *map) {
  free(map->slots);
  *map = (nb_strmap){0};
}
