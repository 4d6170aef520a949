#include "convert/sinks/safetensors.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/grow.h"
#include "base/stage.h"
#include "base/strmap.h"
#include "convert/reader.h"

static const uint64_t DEFAULT_SHARD = 5000000000u; /* what huggingface_hub cuts at */

enum { LENGTH_BYTES = 8, ALIGNMENT = 8 };

typedef struct entry {
  char *name;
  nb_dtype dtype;
  int ndim;
  int64_t shape[NB_MAX_DIMS];
  bool is_variable;
  uint64_t bytes;  /* the most it can be, until it is begun */
  uint64_t offset; /* in the shard's data; of a variable one only when it is begun */
  size_t shard;
  bool begun;
} entry;

typedef struct shard {
  char *path;
  int fd;               /* -1: not open */
  uint64_t data_start;  /* bytes before the data: the length and the padded header */
  uint64_t variable_at; /* where the next variable tensor lies */
  size_t first, count;  /* in nb_writer.order */
  _Atomic uint64_t left;
  bool done;
} shard;

struct nb_writer {
  nb_folder folder; /* its path is ours */
  int file;         /* the caller's descriptor of the one file to write, whose path is folder.path; -1: there is none */
  uint64_t max_shard_size;
  entry *entries; /* as declared */
  size_t count, capacity;
  size_t *order; /* entries by shard, then as they lie */
  shard *shards;
  size_t shard_count;
  size_t next; /* to be begun */
  nb_strmap names;
  _Atomic uint64_t written;
};

static nibble_status writer_new(int folder, int file, const char *path, nb_writer **out, nibble_error *err) {
  nb_writer *w = nb_alloc(1, sizeof *w);
  char *own = strdup(path);
  *out = w;
  if (w && own) {
    w->folder = (nb_folder){folder, own};
    w->file = file;
    return NIBBLE_OK;
  }
  free(own);
  free(w);
  *out = NULL;
  return nb_fail_memory(err, sizeof *w);
}

nibble_status nb_writer_open(const nb_folder *folder, uint64_t max_shard_size, nb_writer **out, nibble_error *err) {
  nibble_status status = writer_new(folder->fd, -1, folder->path, out, err);
  if (status == NIBBLE_OK) (*out)->max_shard_size = max_shard_size ? max_shard_size : DEFAULT_SHARD;
  return status;
}

nibble_status nb_writer_open_file(int fd, const char *path, nb_writer **out, nibble_error *err) {
  nibble_status status = writer_new(-1, fd, path, out, err);
  if (status == NIBBLE_OK) (*out)->max_shard_size = UINT64_MAX;
  return status;
}

static nibble_status append(nb_writer *w, entry e, const char *name, nibble_error *err) {
  if (!nb_name_is_safe(name))
    return nb_fail(err, NIBBLE_BAD_INPUT, "tensor '%s': not a name that a tensor may have", name);
  entry *entries = nb_grow(w->entries, &w->capacity, w->count + 1, sizeof *entries);
  if (!entries) return nb_fail_memory(err, w->count * sizeof *entries);
  w->entries = entries;
  if (!(e.name = strdup(name))) return nb_fail_memory(err, strlen(name) + 1);
  nb_strmap_result added = nb_strmap_add(&w->names, e.name, strlen(e.name), (int64_t)w->count);
  if (added != NB_STRMAP_ADDED) {
    free(e.name);
    return added == NB_STRMAP_EXISTS ? nb_fail(err, NIBBLE_BAD_INPUT, "tensor '%s' would be written twice", name)
                                     : nb_fail_memory(err, w->count);
  }
  w->entries[w->count++] = e;
  return NIBBLE_OK;
}

nibble_status nb_writer_declare(nb_writer *w, const char *name, nb_dtype dtype, const int64_t *shape, int ndim,
                                nibble_error *err) {
  entry e = {.dtype = dtype, .ndim = ndim};
  int64_t count;
  if (ndim < 0 || ndim > NB_MAX_DIMS || !nb_shape_count(shape, ndim, &count) || count > INT64_MAX / 8)
    return nb_fail(err, NIBBLE_BAD_INPUT, "tensor '%s': its shape cannot be written", name);
  if (ndim) memcpy(e.shape, shape, (size_t)ndim * sizeof *shape);
  e.bytes = (uint64_t)count * nb_dtype_size(dtype);
  return append(w, e, name, err);
}

nibble_status nb_writer_declare_upto(nb_writer *w, const char *name, int64_t most, nibble_error *err) {
  entry e = {.dtype = NB_U8, .ndim = 1, .shape = {most}, .is_variable = true, .bytes = (uint64_t)nb_max_i64(most, 0)};
  return append(w, e, name, err);
}

/* The order of the safetensors library's dtypes; its files hold the last of these first. */
static const nb_dtype dtype_order[] = {NB_BOOL, NB_U8,  NB_I8,  NB_F8_E5M2, NB_F8_E4M3, NB_I16, NB_U16, NB_F16,
                                       NB_BF16, NB_I32, NB_U32, NB_F32,     NB_F64,     NB_I64, NB_U64};

static int dtype_rank(nb_dtype dtype) {
  int rank = 0;
  while (dtype_order[rank] != dtype) rank++;
  return rank;
}

static int compare_entries(const void *a, const void *b, void *ctx) {
  const nb_writer *w = ctx;
  size_t i = *(const size_t *)a, j = *(const size_t *)b;
  const entry *x = &w->entries[i], *y = &w->entries[j];
  if (x->shard != y->shard) return x->shard < y->shard ? -1 : 1;
  if (x->is_variable != y->is_variable) return x->is_variable ? 1 : -1;
  if (x->is_variable) return i < j ? -1 : i > j;
  if (x->dtype != y->dtype) return dtype_rank(y->dtype) - dtype_rank(x->dtype);
  return strcmp(x->name, y->name);
}

/* Cuts as huggingface_hub's split_state_dict_into_shards_factory does: a tensor above the limit is a shard by itself,
 * numbered before the one that is being filled. */
static void cut_shards(nb_writer *w) {
  uint64_t filled = 0;
  size_t open_first = 0; /* tensors of the shard being filled have w->count for now */
  for (size_t i = 0; i < w->count; i++) {
    entry *e = &w->entries[i];
    e->shard = SIZE_MAX;
    if (e->bytes > w->max_shard_size) {
      e->shard = w->shard_count++;
      continue;
    }
    if (filled > w->max_shard_size - e->bytes) {
      for (; open_first < i; open_first++) {
        if (w->entries[open_first].shard == SIZE_MAX) w->entries[open_first].shard = w->shard_count;
      }
      w->shard_count++;
      filled = 0;
    }
    filled += e->bytes;
  }
  bool any = w->count == 0; /* a checkpoint without tensors is one file all the same */
  for (; open_first < w->count; open_first++) {
    if (w->entries[open_first].shard != SIZE_MAX) continue;
    w->entries[open_first].shard = w->shard_count;
    any = true;
  }
  w->shard_count += any;
}

/* The header of a shard as the library prints it. Variable tensors that are not begun count with the most they can
 * be, at the furthest they can lie: later figures are never longer. */
static void print_header(const nb_writer *w, const shard *s, nb_buf *buf) {
  nb_buf_puts(buf, "{\"__metadata__\":{\"format\":\"pt\"}");
  uint64_t at = 0;
  for (size_t i = s->first; i < s->first + s->count; i++) {
    const entry *e = &w->entries[w->order[i]];
    nb_buf_puts(buf, ",");
    nb_json_put_string(buf, e->name);
    nb_buf_printf(buf, ":{\"dtype\":\"%s\",\"shape\":[", nb_dtype_name(e->dtype));
    for (int d = 0; d < e->ndim; d++) nb_buf_printf(buf, "%s%lld", d ? "," : "", (long long)e->shape[d]);
    nb_buf_printf(buf, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)at, (unsigned long long)(at + e->bytes));
    at += e->bytes;
  }
  nb_buf_puts(buf, "}");
}

static char *shard_path(const nb_writer *w, size_t k) {
  char name[64] = "model.safetensors";
  if (w->file >= 0) return strdup(w->folder.path);
  if (w->shard_count > 1) snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", k + 1, w->shard_count);
  return nb_path_join(w->folder.path, name);
}

static nibble_status lay_out(nb_writer *w, nibble_error *err) {
  cut_shards(w);
  w->order = nb_alloc(w->count, sizeof *w->order);
  w->shards = nb_alloc(w->shard_count, sizeof *w->shards);
  if (!w->order || !w->shards) return nb_fail_memory(err, w->count * sizeof *w->order);
  for (size_t k = 0; k < w->shard_count; k++) w->shards[k].fd = -1;
  for (size_t i = 0; i < w->count; i++) w->order[i] = i;
  qsort_r(w->order, w->count, sizeof *w->order, compare_entries, w);
  for (size_t i = 0, k = 0; k < w->shard_count; k++) {
    shard *s = &w->shards[k];
    s->first = i;
    uint64_t at = 0, fixed = 0;
    for (; i < w->count && w->entries[w->order[i]].shard == k; i++) {
      entry *e = &w->entries[w->order[i]];
      e->offset = at;
      if (!nb_add_u64(at, e->bytes, &at) || at > INT64_MAX / 2)
        return nb_fail(err, NIBBLE_BAD_INPUT, "tensor '%s': the file would be too large", e->name);
      if (!e->is_variable) fixed = at;
    }
    s->count = i - s->first;
    s->variable_at = fixed;
    s->left = at;
    nb_buf header = {0};
    print_header(w, s, &header);
    if (!header.failed) s->data_start = LENGTH_BYTES + (header.length + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    nb_buf_free(&header);
    if (!s->data_start || !(s->path = shard_path(w, k))) return nb_fail_memory(err, header.length);
  }
  return NIBBLE_OK;
}

static const char *shard_name(const shard *s) { return strrchr(s->path, '/') + 1; }

static nibble_status open_shard(const nb_writer *w, shard *s, nibble_error *err) {
  if (s->fd >= 0) return NIBBLE_OK;
  if (w->file < 0) return nb_folder_create(&w->folder, shard_name(s), &s->fd, err);
  s->fd = fcntl(w->file, F_DUPFD_CLOEXEC, 0);
  return s->fd >= 0 ? NIBBLE_OK : nb_fail_errno(err, "%s: cannot write", s->path);
}

/* All of its bytes are there: the header goes in, and the descriptor is free for another shard. */
static nibble_status finish_shard(nb_writer *w, shard *s, nibble_error *err) {
  nb_buf buf = {0};
  nibble_status status = open_shard(w, s, err);
  if (status != NIBBLE_OK) return status;
  uint64_t length = s->data_start - LENGTH_BYTES;
  for (int i = 0; i < LENGTH_BYTES; i++) nb_buf_append(&buf, &(char){(char)(length >> 8 * i & 0xff)}, 1);
  print_header(w, s, &buf);
  while (!buf.failed && buf.length < s->data_start) nb_buf_puts(&buf, " ");
  if (buf.failed) {
    status = nb_fail_memory(err, buf.length);
  } else {
    status = nb_pwrite_all(s->fd, s->path, buf.data, buf.length, 0, err);
  }
  nb_buf_free(&buf);
  if (close(s->fd) != 0 && status == NIBBLE_OK) status = nb_fail_errno(err, "%s: cannot write", s->path);
  s->fd = -1;
  s->done = true;
  return status;
}

nibble_status nb_writer_begin(nb_writer *w, size_t index, int64_t count, nibble_error *err) {
  nibble_status status = w->shards ? NIBBLE_OK : lay_out(w, err);
  if (status != NIBBLE_OK) return status;
  if (index != w->next || index >= w->count)
    return nb_fail(err, NIBBLE_USAGE, "tensor number %zu is begun when it is number %zu's turn", index, w->next);
  entry *e = &w->entries[index];
  shard *s = &w->shards[e->shard];
  uint64_t bytes = count < 0 ? UINT64_MAX : (uint64_t)count * nb_dtype_size(e->dtype);
  if (e->is_variable ? bytes > e->bytes : bytes != e->bytes)
    return nb_fail(err, NIBBLE_USAGE, "tensor '%s': %lld elements, which is not what was declared", e->name,
                   (long long)count);
  w->next++;
  e->begun = true;
  /* A shard may be finished before an empty tensor of it is begun, so it is not opened for that. */
  if (bytes && (status = open_shard(w, s, err)) != NIBBLE_OK) return status;
  if (!e->is_variable) return NIBBLE_OK;
  uint64_t spared = e->bytes - bytes;
  e->offset = s->variable_at;
  e->bytes = bytes;
  e->shape[0] = count;
  s->variable_at += bytes;
  return spared && atomic_fetch_sub(&s->left, spared) == spared ? finish_shard(w, s, err) : NIBBLE_OK;
}

nibble_status nb_writer_write(nb_writer *w, size_t index, uint64_t offset, const void *bytes, uint64_t n,
                              nibble_error *err) {
  entry *e = &w->entries[index];
  shard *s = &w->shards[e->shard];
  if (!e->begun || !nb_range_inside(offset, n, e->bytes))
    return nb_fail(err, NIBBLE_USAGE, "tensor '%s': %llu bytes at %llu are outside of it", e->name,
                   (unsigned long long)n, (unsigned long long)offset);
  if (n == 0) return NIBBLE_OK;
  nibble_status status = nb_pwrite_all(s->fd, s->path, bytes, n, s->data_start + e->offset + offset, err);
  if (status != NIBBLE_OK) return status;
  atomic_fetch_add(&w->written, n);
  return atomic_fetch_sub(&s->left, n) == n ? finish_shard(w, s, err) : NIBBLE_OK;
}

static int compare_names(const void *a, const void *b, void *ctx) {
  const entry *entries = ctx;
  return strcmp(entries[*(const size_t *)a].name, entries[*(const size_t *)b].name);
}

/* Sorted, as transformers writes it. */
static nibble_status write_index(nb_writer *w, nibble_error *err) {
  nb_buf buf = {0};
  nb_buf_printf(&buf, "{\n  \"metadata\": {\n    \"total_size\": %llu\n  },\n  \"weight_map\": {",
                (unsigned long long)w->written);
  qsort_r(w->order, w->count, sizeof *w->order, compare_names, w->entries);
  for (size_t i = 0; i < w->count; i++) {
    const entry *e = &w->entries[w->order[i]];
    nb_buf_puts(&buf, i ? ",\n    " : "\n    ");
    nb_json_put_string(&buf, e->name);
    nb_buf_puts(&buf, ": ");
    nb_json_put_string(&buf, shard_name(&w->shards[e->shard]));
  }
  nb_buf_puts(&buf, "\n  }\n}\n");
  nibble_status status = nb_write_file_in(&w->folder, "model.safetensors.index.json", &buf, err);
  nb_buf_free(&buf);
  return status;
}

nibble_status nb_writer_finish(nb_writer *w, nibble_error *err) {
  nibble_status status = w->shards ? NIBBLE_OK : lay_out(w, err);
  for (size_t i = 0; status == NIBBLE_OK && i < w->count; i++) {
    const entry *e = &w->entries[i];
    if (!e->begun) status = nb_fail(err, NIBBLE_USAGE, "tensor '%s' was declared but not written", e->name);
  }
  for (size_t k = 0; status == NIBBLE_OK && k < w->shard_count; k++) {
    shard *s = &w->shards[k];
    if (s->done) continue;
    if (s->left)
      status = nb_fail(err, NIBBLE_USAGE, "%s: %llu bytes were not written", s->path, (unsigned long long)s->left);
    else
      status = finish_shard(w, s, err);
  }
  if (status == NIBBLE_OK && w->shard_count > 1) status = write_index(w, err);
  return status;
}

void nb_writer_close(nb_writer *w) {
  if (!w) return;
  nb_strmap_free(&w->names);
  for (size_t i = 0; i < w->count; i++) free(w->entries[i].name);
  for (size_t k = 0; w->shards && k < w->shard_count; k++) {
    if (w->shards[k].fd >= 0) close(w->shards[k].fd);
    free(w->shards[k].path);
  }
  free(w->entries);
  free(w->order);
  free(w->shards);
  free((char *)(uintptr_t)w->folder.path);
  free(w);
}

uint64_t nb_writer_bytes(const nb_writer *w) { return w->written; }
