/* Arrays that grow item by item. */
#ifndef NB_BASE_GROW_H
#define NB_BASE_GROW_H

#include <stddef.h>

/* `items`, an array with room for *capacity items of `size` bytes, with room for `count`: as it was if that is enough,
 * else twice as large, or larger. NULL without memory; `items` is then still good. Free with free(). */
void *nb_grow(void *items, size_t *capacity, size_t count, size_t size);

#endif
