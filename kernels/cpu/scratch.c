#include "kernels/cpu/scratch.h"

#include <stdlib.h>
#include <threads.h>

#include "base/checked.h"

static _Thread_local float *memory;
static _Thread_local int64_t capacity;

/* Its only use is that it frees the memory of a thread that ends. */
static tss_t at_exit;
static once_flag once = ONCE_FLAG_INIT;
static bool has_at_exit;

static void make_key(void) { has_at_exit = tss_create(&at_exit, free) == thrd_success; }

float *nb_scratch(int64_t floats) {
  if (floats <= capacity) return memory;
  call_once(&once, make_key);
  float *larger = nb_alloc_aligned((uint64_t)floats, sizeof(float));
  if (!larger) return NULL;
  if (has_at_exit && tss_set(at_exit, larger) != thrd_success) {
    free(larger);
    return NULL;
  }
  free(memory);
  memory = larger;
  capacity = floats;
  return memory;
}
