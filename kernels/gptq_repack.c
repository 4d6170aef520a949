/* GPTQ's words in bands of rows; gptq.h shows them. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/checked.h"
#include "base/parallel.h"
#include "kernels/cpu/isa.h"
#include "kernels/gptq.h"

enum {
  CHUNK = 32,        /* columns whose codes fill whole words, and that an item of work takes */
  ROW_MULTIPLE = 16, /* of the widest vectors */
  TOGETHER = 4       /* vectors of rows that a kernel works on */
};

typedef struct repack_job {
  const nb_packed *from;
  const nb_packed *to;
  int bits;
} repack_job;

int nb_gptq_band(void) { return TOGETHER * nb_isa_floats(nb_isa_current()); }

bool nb_gptq_repackable(const nb_packed *w) {
  return nb_gptq_bits(w->format) != 0 && !w->band && w->rows % ROW_MULTIPLE == 0 && w->cols % CHUNK == 0;
}

/* One chunk of columns that stay in their order: whole words are copied. */
static void copy_chunk(const repack_job *job, int64_t chunk) {
  const nb_packed *from = job->from;
  int64_t count = nb_gptq_words(from->cols, job->bits), word = chunk * job->bits;
  for (int64_t row = 0; row < from->rows; row += job->to->band) {
    int64_t width;
    uint32_t *to = (uint32_t *)job->to->codes + nb_gptq_at(job->to, row, count, &width);
    const uint32_t *words = (const uint32_t *)from->codes + row;
    for (int64_t w = word; w < word + job->bits; w++)
      memcpy(to + w * width, words + w * from->rows, (size_t)width * sizeof *to);
  }
}

/* One chunk of sorted columns: codes are taken out of their words and put into others, a band of rows at a time. */
static void sort_chunk(const repack_job *job, int64_t chunk) {
  const nb_packed *from = job->from;
  int64_t count = nb_gptq_words(from->cols, job->bits);
  const uint32_t mask = (1u << job->bits) - 1;
  for (int64_t row = 0; row < from->rows; row += job->to->band) {
    int64_t width;
    uint32_t *to = (uint32_t *)job->to->codes + nb_gptq_at(job->to, row, count, &width);
    to += chunk * job->bits * width;
    memset(to, 0, (size_t)(job->bits * width) * sizeof *to);
    for (int i = 0; i < CHUNK; i++) {
      int64_t bit = (int64_t)job->to->order[chunk * CHUNK + i] * job->bits, put = (int64_t)i * job->bits;
      int shift = (int)(bit % 32), shift_to = (int)(put % 32);
      const uint32_t *low = (const uint32_t *)from->codes + bit / 32 * from->rows + row;
      const uint32_t *high = shift + job->bits > 32 ? low + from->rows : low;
      uint32_t *word = to + put / 32 * width, *next = shift_to + job->bits > 32 ? word + width : NULL;
      for (int64_t r = 0; r < width; r++) {
        uint64_t both = low[r] | (uint64_t)high[r] << 32;
        uint32_t code = (uint32_t)(both >> shift) & mask;
        word[r] |= code << shift_to;
        if (next) next[r] |= code >> (32 - shift_to);
      }
    }
  }
}

static void repack_words(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const repack_job *job = ctx;
  for (int64_t chunk = begin; chunk < end; chunk++) {
    if (job->to->order) {
      sort_chunk(job, chunk);
    } else {
      copy_chunk(job, chunk);
    }
  }
}

static void repack_groups(const nb_packed *from, const nb_packed *to) {
  size_t size = nb_dtype_size(from->scale.dtype);
  for (int64_t row = 0; row < from->rows; row += to->band) {
    int64_t width, at = nb_gptq_at(to, row, from->groups, &width);
    for (int64_t g = 0; g < from->groups; g++, at += width) {
      memcpy((char *)to->scale.data + (size_t)at * size,
             (const char *)from->scale.data + (size_t)(g * from->rows + row) * size, (size_t)width * size);
      memcpy((uint8_t *)to->zeros + at, from->zeros + g * from->rows + row, (size_t)width);
    }
  }
}

/* Sorts the columns by group. Returns how many the first group has; 0 if not all have as many (the last: what is left).
 */
static int64_t sort_columns(const nb_packed *w, int32_t *order) {
  int64_t size = 0;
  for (int64_t c = 0; c < w->cols; c++) size += w->g_idx[c] == 0;
  if (size == 0 || nb_ceil_div(w->cols, size) != w->groups) return 0;
  int64_t *next = nb_alloc((uint64_t)w->groups, sizeof *next);
  bool even = next != NULL;
  for (int64_t g = 0; even && g < w->groups; g++) next[g] = g * size;
  for (int64_t c = 0; even && c < w->cols; c++) {
    int64_t g = w->g_idx[c];
    even = next[g] < nb_min_i64((g + 1) * size, w->cols);
    if (even) order[next[g]++] = (int32_t)c;
  }
  free(next);
  return even ? size : 0;
}

/* Memory that is read from end to end for every token: in large pages where it fills some, which also come four times
 * as fast. */
static void *large_pages(size_t bytes) {
  const size_t page = 2 << 20;
  void *memory = NULL;
  if (bytes < page) return nb_alloc_aligned(bytes, 1);
  if (posix_memalign(&memory, page, bytes) != 0) return NULL;
  madvise(memory, bytes / page * page, MADV_HUGEPAGE);
  return memory;
}

static size_t whole_lines(int64_t bytes) { return ((size_t)bytes + 63) / 64 * 64; }

bool nb_gptq_repack(const nb_packed *w, nb_packed *out, void **memory) {
  repack_job job = {.from = w, .to = out, .bits = nb_gptq_bits(w->format)};
  size_t codes = whole_lines(nb_gptq_words(w->cols, job.bits) * w->rows * (int64_t)sizeof(uint32_t));
  size_t scales = whole_lines(w->groups * w->rows * (int64_t)nb_dtype_size(w->scale.dtype));
  size_t zeros = whole_lines(w->groups * w->rows), columns = w->g_idx ? (size_t)w->cols * sizeof(int32_t) : 0;
  char *at = large_pages(codes + scales + zeros + 2 * columns);
  if (!at) return false;
  *out = *w;
  out->band = nb_gptq_band();
  out->codes = at;
  out->scale.data = at += codes;
  out->zeros = (const uint8_t *)(at += scales);
  if (w->g_idx) {
    int32_t *order = (int32_t *)(void *)(at + zeros);
    int64_t size = sort_columns(w, order);
    if (size > 0) {
      out->scale.block_cols = size;
      out->order = order;
      out->g_idx = NULL;
    } else {
      out->g_idx = memcpy(order + w->cols, w->g_idx, columns);
    }
  }
  nb_parallel(w->cols / CHUNK, 1, repack_words, &job);
  repack_groups(w, out);
  *memory = (void *)out->codes;
  return true;
}
