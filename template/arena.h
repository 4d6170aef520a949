/* Memory that is given back all at once, with a limit: the tree of a template, and the values of one rendering. */
#ifndef NB_TEMPLATE_ARENA_H
#define NB_TEMPLATE_ARENA_H

#include <stdbool.h>
#include <stddef.h>

typedef struct nb_arena {
  struct nb_chunk *chunks;
  char *free;               /* in the first chunk, and */
  size_t left;              /* bytes behind it */
  size_t taken, limit;      /* bytes; limit: the most that may be taken */
  bool is_full, has_failed; /* the first take that failed: by the limit, or because the system has no memory */
} nb_arena;

/* `size` bytes of zeros, aligned for any value; NULL if there are none. */
void *nb_arena_take(nb_arena *arena, size_t size);

/* The same for `count` items. */
void *nb_arena_array(nb_arena *arena, size_t count, size_t size);

void nb_arena_free(nb_arena *arena);

#endif
