/* pytorch_model.bin: a zip archive with one folder of any name, in which data.pkl is the pickled state dict, data/KEY
 * are the storages, and byteorder says how their numbers lie. torch/serialization.py, _save(). */
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "convert/pickle.h"
#include "convert/reader.h"
#include "convert/zip.h"

enum {
  MAX_PICKLE = 64 << 20,
  /* Views of one storage are written out one by one. Tied weights double a file at most; a file whose tensors claim
   * more than this many times its size is made to fill the disk. */
  MAX_SHARING = 8,
  SHARING_SLACK = 1 << 20,
};

bool nb_torch_probe(const uint8_t head[NB_PROBE_BYTES], uint64_t file_size) {
  (void)file_size;
  return memcmp(head, "PK\3\4", 4) == 0 || (head[0] == 0x80 && head[1] == 2 && memcmp(head + 2, "\x8a\x0a", 2) == 0);
}

/* The name of the archive's folder, with its slash: that of the one data.pkl. */
static nibble_status find_folder(const char *path, const nb_zip *zip, char **out, nibble_error *err) {
  const char *found = NULL, *slash;
  for (size_t i = 0; i < zip->count; i++) {
    const char *name = zip->members[i].name;
    if (!(slash = strchr(name, '/')) || strcmp(slash, "/data.pkl") != 0) continue;
    if (found) return nb_fail(err, NIBBLE_BAD_INPUT, "%s: both '%s' and '%s' are in it", path, found, name);
    found = name;
  }
  if (!found) return nb_fail(err, NIBBLE_BAD_INPUT, "%s: a zip archive without data.pkl: torch did not write it", path);
  *out = strndup(found, (size_t)(strchr(found, '/') + 1 - found));
  return *out ? NIBBLE_OK : nb_fail_memory(err, strlen(found));
}

/* The member `folder` + `below` + `name`; *out is NULL if there is none. */
static nibble_status find_member(const nb_zip *zip, const char *folder, const char *below, const char *name,
                                 const nb_zip_member **out, nibble_error *err) {
  nb_buf path = {0};
  nb_buf_puts(&path, folder);
  nb_buf_puts(&path, below);
  nb_buf_puts(&path, name);
  nibble_status status = path.failed ? nb_fail_memory(err, path.length) : NIBBLE_OK;
  if (status == NIBBLE_OK) *out = nb_zip_find(zip, path.data);
  nb_buf_free(&path);
  return status;
}

static bool is_contiguous(const nb_tensor *t) {
  int64_t expected = 1;
  for (int d = t->ndim - 1; d >= 0; d--) {
    if (t->shape[d] != 1 && t->stride[d] != expected) return false;
    expected *= t->shape[d];
  }
  return true;
}

/* Elements from the first to the last of a view, whose extents are all above 0; false if two indexes could meet in one
 * element (an expanded view: a few bytes would become as many as its author likes) or the sum overflows. */
static bool view_span(const nb_tensor *t, int64_t *span) {
  bool used[NB_MAX_DIMS] = {false};
  *span = 1;
  for (int n = 0; n < t->ndim; n++) {
    int next = -1; /* by rising stride */
    for (int d = 0; d < t->ndim; d++) {
      if (!used[d] && (next < 0 || t->stride[d] < t->stride[next])) next = d;
    }
    used[next] = true;
    int64_t reach;
    if (t->shape[next] == 1) continue;
    if (t->stride[next] < *span || __builtin_mul_overflow(t->stride[next], t->shape[next] - 1, &reach) ||
        __builtin_add_overflow(*span, reach, span))
      return false;
  }
  return true;
}

static nibble_status add_tensor(nb_checkpoint *c, int file, const nb_zip *zip, const char *folder,
                                const nb_pickle_tensor *p, nibble_error *err) {
  const char *path = c->files[file].path;
  const nb_zip_member *m = NULL;
  nibble_status status = find_member(zip, folder, "data/", p->storage, &m, err);
  if (status != NIBBLE_OK) return status;
  if (!m)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: tensor '%s': its storage '%s' is missing", path, p->name, p->storage);
  if ((uint64_t)p->storage_bytes != m->size)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: tensor '%s': its storage has %llu bytes, the pickle says %lld", path,
                   p->name, (unsigned long long)m->size, (long long)p->storage_bytes);
  nb_tensor t = {.name = p->name, .dtype = p->dtype, .ndim = p->ndim, .file = file};
  memcpy(t.shape, p->shape, sizeof t.shape);
  memcpy(t.stride, p->stride, sizeof t.stride);
  int64_t count, span = 0, size = (int64_t)nb_dtype_size(p->dtype), elements = p->storage_bytes / size;
  if (!nb_shape_count(t.shape, t.ndim, &count))
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: tensor '%s': its shape is too large", path, p->name);
  if (count > 0 && !view_span(&t, &span))
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: tensor '%s': its strides let elements overlap", path, p->name);
  if (p->storage_offset > elements || span > elements - p->storage_offset)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: tensor '%s': reaches past the end of its storage", path, p->name);
  t.offset = m->offset + (uint64_t)(p->storage_offset * size);
  t.bytes = (uint64_t)(span * size);
  t.is_strided = count > 0 && !is_contiguous(&t);
  return nb_checkpoint_add_tensor(c, &t, err);
}

static nibble_status add_tensors(nb_checkpoint *c, int file, const nb_zip *zip, const char *folder,
                                 const nb_pickle *pickle, nibble_error *err) {
  uint64_t total = 0;
  for (size_t i = 0; i < pickle->count; i++) {
    nibble_status status = add_tensor(c, file, zip, folder, &pickle->tensors[i], err);
    if (status != NIBBLE_OK) return status;
    total += c->tensors[c->tensor_count - 1].bytes;
    if (total / MAX_SHARING > c->files[file].map.size + SHARING_SLACK)
      return nb_fail(err, NIBBLE_BAD_INPUT, "%s: tensor '%s': the tensors claim more than %d times the file's size",
                     c->files[file].path, pickle->tensors[i].name, MAX_SHARING);
  }
  return NIBBLE_OK;
}

static nibble_status check_byteorder(const char *path, const nb_mapfile *map, const nb_zip *zip, const char *folder,
                                     nibble_error *err) {
  const nb_zip_member *m = NULL;
  nibble_status status = find_member(zip, folder, "", "byteorder", &m, err);
  if (status != NIBBLE_OK || !m) return status; /* torch before 2.1 does not say, and means little */
  if (m->size == 6 && memcmp(map->data + m->offset, "little", 6) == 0) return NIBBLE_OK;
  return nb_fail(err, NIBBLE_BAD_INPUT, "%s: its numbers are not little-endian", path);
}

nibble_status nb_torch_open(nb_checkpoint *c, const char *path, nibble_error *err) {
  int file;
  nibble_status status = nb_checkpoint_add_file(c, path, &file, err);
  if (status != NIBBLE_OK) return status;
  const nb_mapfile *map = &c->files[file].map;
  if (map->size < 1 || map->data[0] != 'P')
    return nb_fail(err, NIBBLE_BAD_INPUT,
                   "%s: torch's old format, of before version 1.6: load it with torch and save it again", path);
  nb_zip zip = {0};
  nb_pickle pickle = {0};
  char *folder = NULL;
  const nb_zip_member *m = NULL;
  if ((status = nb_zip_open(path, map, &zip, err)) != NIBBLE_OK) goto done;
  if ((status = find_folder(path, &zip, &folder, err)) != NIBBLE_OK) goto done;
  if ((status = check_byteorder(path, map, &zip, folder, err)) != NIBBLE_OK) goto done;
  if ((status = find_member(&zip, folder, "", "data.pkl", &m, err)) != NIBBLE_OK) goto done;
  if (m->size > MAX_PICKLE) {
    status = nb_fail(err, NIBBLE_BAD_INPUT, "%s: data.pkl has %llu bytes, more than any state dict", path,
                     (unsigned long long)m->size);
    goto done;
  }
  if ((status = nb_zip_check(path, map, &zip, err)) != NIBBLE_OK) goto done;
  if ((status = nb_pickle_read(path, map->data + m->offset, (size_t)m->size, &pickle, err)) != NIBBLE_OK) goto done;
  c->skipped_values += pickle.skipped;
  if (pickle.count == 0) {
    status = nb_fail(err, NIBBLE_BAD_INPUT, "%s: its dict holds no tensor (a training state, not a model's?)", path);
    goto done;
  }
  status = add_tensors(c, file, &zip, folder, &pickle, err);
done:
  nb_pickle_free(&pickle);
  nb_zip_close(&zip);
  free(folder);
  return status;
}
