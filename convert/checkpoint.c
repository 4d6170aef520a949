#include "convert/checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/grow.h"
#include "base/printable.h"
#include "base/stage.h"
#include "base/str.h"
#include "convert/bind.h"
#include "convert/gguf.h"
#include "convert/layouts.h"
#include "convert/reader.h"
#include "convert/sidefiles.h"
#include "model/json_text.h"

static const nb_reader readers[] = {
    {.kind = "safetensors", .probe = nb_safetensors_probe, .open = nb_safetensors_open},
    {.kind = "gguf", .self_contained = true, .probe = nb_gguf_probe, .open = nb_gguf_open},
    {.kind = "pytorch", .probe = nb_torch_probe, .open = nb_torch_open},
};

/* What a folder is looked through for, the order being transformers'. */
static const struct {
  const char *name;
  bool is_index;
} folder_files[] = {
    {"model.safetensors", false},
    {"model.safetensors.index.json", true},
    {"pytorch_model.bin", false},
    {"pytorch_model.bin.index.json", true},
};

bool nb_checkpoint_has_weights(const char *path) {
  struct stat info;
  if (stat(path, &info) != 0) return false;
  if (!S_ISDIR(info.st_mode)) return !nb_ends_with(path, ".json");
  bool found = false;
  for (size_t i = 0; i < sizeof folder_files / sizeof *folder_files && !found; i++) {
    char *file = nb_path_join(path, folder_files[i].name);
    found = file && access(file, F_OK) == 0;
    free(file);
  }
  return found;
}

static nibble_status find_reader(const char *path, const nb_reader **out, nibble_error *err) {
  uint8_t head[NB_PROBE_BYTES] = {0};
  nb_mapfile map;
  nibble_status status = nb_mapfile_open(path, &map, err);
  if (status != NIBBLE_OK) return status;
  uint64_t size = map.size;
  if (size) memcpy(head, map.data, size < sizeof head ? (size_t)size : sizeof head);
  nb_mapfile_close(&map);
  for (size_t i = 0; i < sizeof readers / sizeof *readers; i++) {
    if (readers[i].probe(head, size)) {
      *out = &readers[i];
      return NIBBLE_OK;
    }
  }
  return nb_fail(err, NIBBLE_BAD_INPUT, "%s: not a checkpoint in a format that is known (safetensors, torch, GGUF)",
                 path);
}

nibble_status nb_checkpoint_add_file(nb_checkpoint *c, const char *path, int *index, nibble_error *err) {
  nb_checkpoint_file *files = realloc(c->files, ((size_t)c->file_count + 1) * sizeof *files);
  if (!files) return nb_fail_memory(err, ((size_t)c->file_count + 1) * sizeof *files);
  c->files = files;
  nb_checkpoint_file file = {.path = strdup(path)};
  if (!file.path) return nb_fail_memory(err, strlen(path) + 1);
  nibble_status status = nb_mapfile_open(path, &file.map, err);
  if (status != NIBBLE_OK) {
    free(file.path);
    return status;
  }
  *index = c->file_count;
  files[c->file_count++] = file;
  return NIBBLE_OK;
}

bool nb_name_is_safe(const char *name) {
  if (!*name || *name == '/' || !nb_is_printable(name)) return false;
  for (const char *part = name;; part++) {
    size_t n = strcspn(part, "/\\");
    if (n == 2 && part[0] == '.' && part[1] == '.') return false;
    part += n;
    if (!*part) return true;
  }
}

static nibble_status check_tensor(const nb_checkpoint *c, nb_tensor *t, nibble_error *err) {
  const nb_checkpoint_file *f = &c->files[t->file];
  if (!nb_name_is_safe(t->name))
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: tensor '%s': not a name that a tensor may have", f->path, t->name);
  if (!nb_shape_count(t->shape, t->ndim, &t->count) || t->count > INT64_MAX / 8)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: tensor '%s': its shape is too large", f->path, t->name);
  if (!nb_range_inside(t->offset, t->bytes, f->map.size))
    return nb_fail(err, NIBBLE_BAD_INPUT,
                   "%s: tensor '%s': its bytes [%llu, %llu) reach past the end of the file (%llu bytes; truncated?)",
                   f->path, t->name, (unsigned long long)t->offset, (unsigned long long)(t->offset + t->bytes),
                   (unsigned long long)f->map.size);
  uint64_t need = (uint64_t)t->count * nb_dtype_size(t->dtype);
  if (!t->is_blocks && !t->opaque && !t->is_strided && need != t->bytes)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: tensor '%s': its shape takes %llu bytes, but %llu are stored", f->path,
                   t->name, (unsigned long long)need, (unsigned long long)t->bytes);
  if (t->permute_heads && (t->ndim < 1 || t->shape[0] % t->permute_heads || t->shape[0] / t->permute_heads % 2))
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: tensor '%s': %lld rows do not divide into %lld heads", f->path, t->name,
                   (long long)(t->ndim < 1 ? 0 : t->shape[0]), (long long)t->permute_heads);
  return NIBBLE_OK;
}

nibble_status nb_checkpoint_add_tensor(nb_checkpoint *c, const nb_tensor *tensor, nibble_error *err) {
  nb_tensor copy = *tensor;
  nibble_status status = check_tensor(c, &copy, err);
  if (status != NIBBLE_OK) return status;
  nb_tensor *tensors = nb_grow(c->tensors, &c->tensor_capacity, c->tensor_count + 1, sizeof *tensors);
  if (!tensors) return nb_fail_memory(err, c->tensor_count * sizeof *tensors);
  c->tensors = tensors;
  if (!(copy.name = strdup(tensor->name))) return nb_fail_memory(err, strlen(tensor->name) + 1);
  c->tensors[c->tensor_count++] = copy;
  return NIBBLE_OK;
}

int nb_tensor_compare(const void *a, const void *b) {
  const nb_tensor *x = a, *y = b;
  if (x->file != y->file) return x->file < y->file ? -1 : 1;
  if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
  if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1;
  return strcmp(x->name, y->name);
}

static nibble_status index_names(nb_checkpoint *c, nibble_error *err) {
  if (c->tensor_count) qsort(c->tensors, c->tensor_count, sizeof *c->tensors, nb_tensor_compare);
  for (size_t i = 0; i < c->tensor_count; i++) {
    const nb_tensor *t = &c->tensors[i], *other;
    switch (nb_strmap_add(&c->by_name, t->name, strlen(t->name), (int64_t)i)) {
      case NB_STRMAP_ADDED: break;
      case NB_STRMAP_NO_MEMORY: return nb_fail_memory(err, c->tensor_count * sizeof(nb_strmap_slot));
      case NB_STRMAP_EXISTS:
        other = nb_checkpoint_find(c, t->name);
        return nb_fail(err, NIBBLE_BAD_INPUT, "%s: tensor '%s' is there twice%s%s", c->files[t->file].path, t->name,
                       other->file == t->file ? "" : ", also in ",
                       other->file == t->file ? "" : c->files[other->file].path);
    }
  }
  return NIBBLE_OK;
}

/* After all shards are open: each tensor must be in the very shard that the index names. */
static nibble_status check_index(const nb_checkpoint *c, const char *path, const nb_shard_index *index,
                                 nibble_error *err) {
  for (const cJSON *item = index->weight_map->child; item; item = item->next) {
    const nb_tensor *t = nb_checkpoint_find(c, item->string);
    const char *file = t ? strrchr(c->files[t->file].path, '/') : NULL;
    if (!file || strcmp(file + 1, item->valuestring) != 0)
      return nb_fail(err, NIBBLE_BAD_INPUT, "%s: tensor '%s' is not in '%s', where the index says it is", path,
                     item->string, item->valuestring);
  }
  return NIBBLE_OK;
}

static nibble_status open_file(nb_checkpoint *c, const char *path, nibble_error *err) {
  const nb_reader *reader = NULL;
  nibble_status status = find_reader(path, &reader, err);
  if (status != NIBBLE_OK) return status;
  if (c->kind && strcmp(c->kind, reader->kind) != 0)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: a %s file among %s shards", path, reader->kind, c->kind);
  c->kind = reader->kind;
  if (reader->self_contained) {
    free(c->folder);
    c->folder = NULL;
  }
  return reader->open(c, path, err);
}

static nibble_status open_shards(nb_checkpoint *c, const char *path, nb_shard_index *index, nibble_error *err) {
  cJSON *json;
  nibble_status status = nb_json_load(path, &json, err);
  if (status == NIBBLE_OK) status = nb_shard_index_parse(path, json, index, err);
  for (size_t i = 0; status == NIBBLE_OK && i < index->shard_count; i++) {
    char *shard = nb_path_join(c->folder, index->shards[i]);
    if (!shard) {
      status = nb_fail_memory(err, strlen(c->folder));
    } else if (access(shard, F_OK) != 0) {
      status = nb_fail(err, NIBBLE_BAD_INPUT, "%s: its shard '%s' is missing", path, index->shards[i]);
    } else {
      status = open_file(c, shard, err);
    }
    free(shard);
  }
  return status;
}

static nibble_status open_folder(nb_checkpoint *c, nibble_error *err) {
  nibble_status status = NIBBLE_OK;
  char *path = NULL;
  nb_shard_index index = {0};
  bool is_index = false;
  for (size_t i = 0; i < sizeof folder_files / sizeof *folder_files && !path; i++) {
    is_index = folder_files[i].is_index;
    if (!(path = nb_path_join(c->folder, folder_files[i].name))) return nb_fail_memory(err, strlen(c->folder));
    if (access(path, F_OK) != 0) {
      free(path);
      path = NULL;
    }
  }
  if (!path)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: no model.safetensors, pytorch_model.bin or index of either in it",
                   c->folder);
  status = is_index ? open_shards(c, path, &index, err) : open_file(c, path, err);
  if (status == NIBBLE_OK) status = index_names(c, err);
  if (status == NIBBLE_OK && is_index) status = check_index(c, path, &index, err);
  nb_shard_index_free(&index);
  free(path);
  return status;
}

/* AutoGPTQ's models say how they are packed in quantize_config.json alone: it is taken as what transformers came to
 * write into config.json. */
static nibble_status adopt_config(nb_checkpoint *c, const nb_layout *layout, const char *path, nibble_error *err) {
  static const char key[] = "quantization_config";
  cJSON *json = NULL, *changes = cJSON_CreateObject();
  nb_buf text = {0};
  nb_config adopted;
  char *beside = nb_path_join(c->folder, layout->config_too);
  nibble_status status = NIBBLE_OK;
  if (!beside || !changes) status = nb_fail_memory(err, strlen(c->folder));
  if (status != NIBBLE_OK || access(beside, F_OK) != 0) goto done;
  if ((status = nb_json_load(beside, &json, err)) != NIBBLE_OK) goto done;
  if ((status = nb_json_last_wins(json, err)) != NIBBLE_OK) goto done;
  if (!cJSON_IsObject(json)) {
    status = nb_fail(err, NIBBLE_BAD_INPUT, "%s: %s is not a JSON object", c->folder, layout->config_too);
    goto done;
  }
  if ((!cJSON_HasObjectItem(json, "quant_method") && !cJSON_AddStringToObject(json, "quant_method", layout->method)) ||
      !cJSON_AddItemToObject(changes, key, json)) {
    status = nb_fail_memory(err, sizeof *json);
    goto done;
  }
  json = NULL; /* the changes' */
  status = nb_json_text_change(path, c->config.text, strlen(c->config.text), changes, &text, err);
  if (status == NIBBLE_OK) status = nb_config_parse(path, text.data, text.length, &adopted, err);
  if (status != NIBBLE_OK) goto done;
  nb_config_free(&c->config);
  c->config = adopted;
done:
  nb_buf_free(&text);
  cJSON_Delete(json);
  cJSON_Delete(changes);
  free(beside);
  return status;
}

static nibble_status load_config(nb_checkpoint *c, nibble_error *err) {
  char *path = nb_path_join(c->folder, "config.json");
  if (!path) return nb_fail_memory(err, strlen(c->folder));
  nibble_status status = NIBBLE_OK;
  if (access(path, F_OK) == 0) {
    status = nb_config_load(path, &c->config, err);
    const nb_layout *layout = nb_layout_beside(c);
    if (status == NIBBLE_OK && layout && !cJSON_HasObjectItem(c->config.json, "quantization_config"))
      status = adopt_config(c, layout, path, err);
  } else {
    c->config = (nb_config){.json = cJSON_CreateObject(), .model_type = "", .architecture = "", .dtype = NB_F32};
    c->config.quant = (nb_quant_config){.method = "", .quant_type = ""};
    if (!c->config.json) status = nb_fail_memory(err, sizeof(cJSON));
  }
  free(path);
  return status;
}

static char *folder_of(const char *path) {
  const char *slash = strrchr(path, '/');
  if (!slash) return strdup(".");
  return slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
}

nibble_status nb_checkpoint_open_loose(const char *path, nb_checkpoint *out, nibble_error *err) {
  *out = (nb_checkpoint){.path = strdup(path)};
  nibble_status status = NIBBLE_OK;
  struct stat info;
  if (!out->path) {
    status = nb_fail_memory(err, strlen(path) + 1);
    goto done;
  }
  if (stat(path, &info) != 0) {
    status = nb_fail_input(path, err);
    goto done;
  }
  bool is_folder = S_ISDIR(info.st_mode);
  if (!(out->folder = is_folder ? strdup(path) : folder_of(path))) {
    status = nb_fail_memory(err, strlen(path) + 1);
    goto done;
  }
  if (is_folder) {
    status = open_folder(out, err);
  } else {
    status = open_file(out, path, err);
    if (status == NIBBLE_OK) status = index_names(out, err);
  }
  if (status == NIBBLE_OK && out->folder) status = load_config(out, err);
  if (status == NIBBLE_OK) status = nb_bind(out, err);
done:
  if (status != NIBBLE_OK) nb_checkpoint_close(out);
  return status;
}

nibble_status nb_checkpoint_open(const char *path, nb_checkpoint *out, nibble_error *err) {
  nibble_status status = nb_checkpoint_open_loose(path, out, err);
  if (status == NIBBLE_OK && (status = nb_bind_check(out, err)) != NIBBLE_OK) nb_checkpoint_close(out);
  return status;
}

void nb_checkpoint_close(nb_checkpoint *c) {
  nb_strmap_free(&c->by_name);
  nb_bind_free(c);
  for (size_t i = 0; i < c->tensor_count; i++) free(c->tensors[i].name);
  free(c->tensors);
  for (int i = 0; i < c->file_count; i++) {
    nb_mapfile_close(&c->files[i].map);
    free(c->files[i].path);
  }
  free(c->files);
  nb_config_free(&c->config);
  nb_gguf_free(c->gguf);
  free(c->folder);
  free(c->path);
  *c = (nb_checkpoint){0};
}

/* The name in the checkpoint's folder that `path`, a real path, is or lies below; NULL if it is not in the folder. Cuts
 * the path up. */
static const char *name_inside(const nb_checkpoint *c, char *path) {
  struct stat folder, above;
  if (!c->folder || stat(c->folder, &folder) != 0) return NULL;
  for (char *slash; (slash = strrchr(path, '/'));) {
    *slash = 0;
    if (stat(*path ? path : "/", &above) == 0 && above.st_dev == folder.st_dev && above.st_ino == folder.st_ino)
      return slash + 1;
  }
  return NULL;
}

nibble_status nb_checkpoint_protect(const nb_checkpoint *c, const char *dst, nibble_error *err) {
  nibble_status status = nb_stage_spare(dst, c->path, err);
  for (int i = 0; status == NIBBLE_OK && i < c->file_count; i++) status = nb_stage_spare(dst, c->files[i].path, err);
  if (status != NIBBLE_OK) return status;
  char *path = realpath(dst, NULL); /* NULL: there is nothing to replace */
  if (!path && errno == ENOMEM) return nb_fail_memory(err, strlen(dst));
  const char *name = path ? name_inside(c, path) : NULL;
  if (name && nb_sidefiles_have(name))
    status = nb_fail(err, NIBBLE_USAGE, "%s: the output would replace a part of the source, %s", dst, c->path);
  free(path);
  return status;
}

const nb_tensor *nb_checkpoint_find(const nb_checkpoint *c, const char *name) {
  int64_t index;
  return nb_strmap_find(&c->by_name, name, strlen(name), &index) ? &c->tensors[index] : NULL;
}
