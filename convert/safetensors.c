/* safetensors: u64 length of a JSON header, the header, then the tensors' bytes without a gap.
 * https://github.com/huggingface/safetensors, section "Format"; the limits are those of its reference reader. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "convert/reader.h"

enum { LENGTH_BYTES = 8, MAX_HEADER = 100000000 };

static uint64_t read_u64(const uint8_t *p) {
  uint64_t v = 0;
  for (int i = 7; i >= 0; i--) v = v << 8 | p[i];
  return v;
}

bool nb_safetensors_probe(const uint8_t head[NB_PROBE_BYTES], uint64_t file_size) {
  return file_size >= LENGTH_BYTES + 2 && head[LENGTH_BYTES] == '{';
}

static bool is_count(const cJSON *item, double *out) {
  if (!cJSON_IsNumber(item)) return false;
  *out = item->valuedouble;
  return *out >= 0 && *out <= 0x1p53 && *out == floor(*out);
}

static bool read_shape(const cJSON *array, nb_tensor *tensor) {
  if (!cJSON_IsArray(array)) return false;
  for (const cJSON *item = array->child; item; item = item->next) {
    double extent;
    if (tensor->ndim == NB_MAX_DIMS || !is_count(item, &extent)) return false;
    tensor->shape[tensor->ndim++] = (int64_t)extent;
  }
  return true;
}

static nibble_status add_entry(nb_checkpoint *c, int file, uint64_t data_start, const cJSON *entry, nibble_error *err) {
  const char *path = c->files[file].path;
  nb_tensor tensor = {.name = entry->string, .file = file};
  const cJSON *named = cJSON_GetObjectItemCaseSensitive(entry, "dtype");
  const char *dtype = cJSON_IsString(named) ? named->valuestring : "";
  if (!nb_dtype_parse(dtype, &tensor.dtype) || strcmp(nb_dtype_name(tensor.dtype), dtype) != 0)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: tensor '%s': dtype '%s' is not known", path, entry->string, dtype);
  if (!read_shape(cJSON_GetObjectItemCaseSensitive(entry, "shape"), &tensor))
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: tensor '%s': \"shape\" must be at most %d whole numbers", path,
                   entry->string, NB_MAX_DIMS);
  const cJSON *offsets = cJSON_GetObjectItemCaseSensitive(entry, "data_offsets");
  double begin, end;
  if (!cJSON_IsArray(offsets) || cJSON_GetArraySize(offsets) != 2 || !is_count(offsets->child, &begin) ||
      !is_count(offsets->child->next, &end) || begin > end)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: tensor '%s': \"data_offsets\" must be [begin, end]", path,
                   entry->string);
  tensor.offset = data_start + (uint64_t)begin;
  tensor.bytes = (uint64_t)(end - begin);
  return nb_checkpoint_add_tensor(c, &tensor, err);
}

/* The reference reader refuses overlaps and gaps too: a file could hide anything in them. */
static nibble_status check_cover(nb_checkpoint *c, int file, size_t first, uint64_t data_start, nibble_error *err) {
  const nb_checkpoint_file *f = &c->files[file];
  size_t count = c->tensor_count - first;
  nb_tensor *tensors = count ? c->tensors + first : NULL;
  if (count) qsort(tensors, count, sizeof *tensors, nb_tensor_compare);
  uint64_t at = data_start;
  for (size_t i = 0; i < count; i++) {
    if (tensors[i].offset < at)
      return nb_fail(err, NIBBLE_BAD_INPUT, "%s: tensor '%s' overlaps '%s'", f->path, tensors[i].name,
                     i ? tensors[i - 1].name : "");
    if (tensors[i].offset > at)
      return nb_fail(err, NIBBLE_BAD_INPUT, "%s: tensor '%s': the %llu bytes before it belong to no tensor", f->path,
                     tensors[i].name, (unsigned long long)(tensors[i].offset - at));
    at += tensors[i].bytes;
  }
  if (at != f->map.size)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: the last %llu bytes belong to no tensor", f->path,
                   (unsigned long long)(f->map.size - at));
  return NIBBLE_OK;
}

nibble_status nb_safetensors_open(nb_checkpoint *c, const char *path, nibble_error *err) {
  int file;
  nibble_status status = nb_checkpoint_add_file(c, path, &file, err);
  if (status != NIBBLE_OK) return status;
  const nb_mapfile *map = &c->files[file].map;
  if (map->size < LENGTH_BYTES) return nb_fail(err, NIBBLE_BAD_INPUT, "%s: too short for a safetensors file", path);
  uint64_t header = read_u64(map->data);
  if (header > MAX_HEADER)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: its header claims %llu bytes, more than the %d that one may have", path,
                   (unsigned long long)header, MAX_HEADER);
  if (header > map->size - LENGTH_BYTES)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: truncated: its header claims %llu bytes, the file has %llu", path,
                   (unsigned long long)header, (unsigned long long)map->size);
  cJSON *json = NULL;
  status = nb_json_parse(path, (const char *)map->data + LENGTH_BYTES, (size_t)header, &json, err);
  if (status != NIBBLE_OK) return status;
  size_t first = c->tensor_count;
  if (!cJSON_IsObject(json)) status = nb_fail(err, NIBBLE_BAD_INPUT, "%s: its header is not a JSON object", path);
  for (const cJSON *entry = json->child; status == NIBBLE_OK && entry; entry = entry->next) {
    if (strcmp(entry->string, "__metadata__") != 0)
      status = add_entry(c, file, LENGTH_BYTES + header, entry, err);
    else if (!cJSON_IsObject(entry))
      status = nb_fail(err, NIBBLE_BAD_INPUT, "%s: \"__metadata__\" is not an object", path);
  }
  if (status == NIBBLE_OK) status = check_cover(c, file, first, LENGTH_BYTES + header, err);
  cJSON_Delete(json);
  return status;
}
