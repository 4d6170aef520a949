#include "kernels/cuda/memory.h"

#include <stdlib.h>

#include "kernels/cuda/device.h"

enum { ALIGNMENT = 256, PAGE = 2 << 20, MOST_SHARED = 16, SMALL = 64 << 10 };

static const uint64_t largest_shared = 256 << 20; /* larger chunks are one block's own */

/* What is taken from CUDA at a time. Blocks are laid behind each other, and the place of one that is gone stays empty,
 * so that queued work cannot meet another's data there; the chunk goes with the last of them, when cudaFree waits. */
typedef struct chunk {
  char *memory;
  uint64_t bytes, used;
  uint64_t block; /* all are of this size, but for small ones, which go wherever there is room */
  int64_t blocks;
} chunk;

static chunk *chunks;
static int64_t chunk_count, chunk_room;

static uint64_t round_up(uint64_t bytes, uint64_t unit) { return (bytes + unit - 1) / unit * unit; }

/* Room for as few blocks of this size as leave at most a hundredth and a half of the pages empty, or else for that
 * number of them that leaves least. Widths and heights of models are multiples of large powers of two: few do. */
static uint64_t chunk_bytes(uint64_t block) {
  uint64_t best = round_up(block, PAGE), empty = best - block;
  for (uint64_t n = 2; n <= MOST_SHARED && n * block <= largest_shared && empty * 200 > best * 3; n++) {
    uint64_t whole = round_up(n * block, PAGE), left = whole - n * block;
    if (left * best >= empty * whole) continue;
    best = whole;
    empty = left;
  }
  return best;
}

static chunk *new_chunk(uint64_t bytes, uint64_t block) {
  if (chunk_count == chunk_room) {
    int64_t room = chunk_room > 0 ? 2 * chunk_room : 64;
    chunk *more = (chunk *)realloc(chunks, (size_t)room * sizeof *more);
    if (!more) return NULL;
    chunks = more;
    chunk_room = room;
  }
  chunk c = {};
  c.bytes = bytes, c.block = block;
  if (cudaMalloc((void **)&c.memory, (size_t)bytes) != cudaSuccess) {
    cudaGetLastError();
    return NULL;
  }
  chunks[chunk_count] = c;
  return &chunks[chunk_count++];
}

void *nb_device_alloc(uint64_t bytes) {
  if (bytes > INT64_MAX) return NULL;
  bytes = round_up(bytes > 0 ? bytes : 1, ALIGNMENT);
  chunk *c = NULL;
  for (int64_t i = 0; i < chunk_count && !c; i++) {
    bool is_for_it = bytes <= SMALL || bytes == chunks[i].block;
    if (is_for_it && chunks[i].bytes - chunks[i].used >= bytes) c = &chunks[i];
  }
  if (!c) c = new_chunk(chunk_bytes(bytes), bytes);
  if (!c) c = new_chunk(bytes, bytes); /* no more than what is asked for, where memory is short */
  if (!c) return NULL;
  void *at = c->memory + c->used;
  c->used += bytes;
  c->blocks++;
  return at;
}

void nb_device_free(void *memory) {
  for (int64_t i = 0; memory && i < chunk_count; i++) {
    chunk *c = &chunks[i];
    if ((char *)memory < c->memory || (char *)memory >= c->memory + c->bytes) continue;
    if (--c->blocks > 0) return;
    cudaFree(c->memory);
    *c = chunks[--chunk_count];
    return;
  }
}

uint64_t nb_device_taken(void) {
  uint64_t bytes = 0;
  for (int64_t i = 0; i < chunk_count; i++) bytes += chunks[i].bytes;
  return bytes;
}
