/* A hash table from byte strings to int64 values. Keys are not copied: they must outlive the map.
 * Used for tensor names and vocabularies, both of which come from files, so the hash is seeded per process: nobody can
 * prepare a file whose names all collide. */
#ifndef NB_BASE_STRMAP_H
#define NB_BASE_STRMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct nb_strmap_slot {
  const char *key; /* NULL: free */
  uint32_t length;
  uint32_t hash;
  int64_t value;
} nb_strmap_slot;

typedef struct nb_strmap {
  nb_strmap_slot *slots;
  size_t capacity, count; /* capacity is a power of two, or 0 */
} nb_strmap;

typedef enum nb_strmap_result { NB_STRMAP_ADDED, NB_STRMAP_EXISTS, NB_STRMAP_NO_MEMORY } nb_strmap_result;

/* Adds a key; an existing one keeps its value. */
nb_strmap_result nb_strmap_add(nb_strmap *map, const char *key, size_t length, int64_t value);

/* True, with *value set, if the key is there. */
bool nb_strmap_find(const nb_strmap *map, const char *key, size_t length, int64_t *value);

void nb_strmap_free(nb_strmap *map);

#endif
