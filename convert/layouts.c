#include "convert/layouts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/str.h"
#include "convert/layout_bnb.h"
#include "convert/layout_gptq.h"
#include "kernels/gptq.h"

typedef struct layout {
  const char *name;
  bool (*owns)(const nb_checkpoint *checkpoint, const nb_tensor *main);
  bool (*is_part)(const nb_checkpoint *checkpoint, const nb_tensor *tensor);
  nibble_status (*describe)(const nb_checkpoint *checkpoint, const nb_tensor *main, nb_packed *out,
                            nb_dtype *source_dtype, nibble_error *err);
  nibble_status (*load)(const nb_checkpoint *checkpoint, const nb_tensor *main, nb_weight *out, nibble_error *err);
} layout;

/* The first row that owns a weight reads it; plain owns what is left. */
static const layout layouts[] = {
    {"bitsandbytes 4-bit", nb_bnb4_owns, nb_bnb4_is_part, nb_bnb4_describe, nb_bnb4_load},
    {"bitsandbytes int8", nb_bnb8_owns, nb_bnb8_is_part, nb_bnb8_describe, nb_bnb8_load},
    {"gptq", nb_gptq_owns, nb_gptq_is_part, nb_gptq_describe, nb_gptq_load},
};

enum { LAYOUTS = sizeof layouts / sizeof *layouts };

static const layout *layout_of(const nb_checkpoint *checkpoint, const nb_tensor *tensor) {
  for (int i = 0; i < LAYOUTS; i++) {
    if (layouts[i].owns(checkpoint, tensor)) return &layouts[i];
  }
  return NULL;
}

const nb_tensor *nb_part_find(const nb_checkpoint *checkpoint, const nb_tensor *main, size_t cut, const char *suffix) {
  /* On the stack, so that want of memory is not taken for a missing part; longer names are no layout's. */
  char name[NB_MAX_PART_NAME];
  size_t keep = strlen(main->name) - cut;
  if (keep + strlen(suffix) >= sizeof name) return NULL;
  snprintf(name, sizeof name, "%.*s%s", (int)keep, main->name, suffix);
  return nb_checkpoint_find(checkpoint, name);
}

nibble_status nb_part_missing(const nb_checkpoint *checkpoint, const nb_tensor *main, const char *suffix,
                              nibble_error *err) {
  return nb_fail(err, NIBBLE_BAD_INPUT, "%s: tensor '%s' is packed, but its '%s' is missing",
                 checkpoint->files[main->file].path, main->name, suffix);
}

nibble_status nb_tensor_fail(const nb_checkpoint *checkpoint, const nb_tensor *tensor, const char *what,
                             nibble_error *err) {
  return nb_fail(err, NIBBLE_BAD_INPUT, "%s: tensor '%s' %s", checkpoint->files[tensor->file].path, tensor->name, what);
}

nibble_status nb_weight_own(nb_weight *weight, uint64_t bytes, void **out, nibble_error *err) {
  for (size_t i = 0; i < sizeof weight->owned / sizeof *weight->owned; i++) {
    if (weight->owned[i]) continue;
    *out = weight->owned[i] = nb_alloc_aligned(bytes ? bytes : 1, 1);
    return *out ? NIBBLE_OK : nb_fail_memory(err, (size_t)bytes);
  }
  return nb_fail(err, NIBBLE_SYSTEM, "a weight has more than four buffers of its own");
}

nibble_status nb_weight_view(const nb_checkpoint *checkpoint, const nb_tensor *tensor, nb_weight *weight,
                             const void **out, nibble_error *err) {
  const void *bytes = nb_tensor_view(checkpoint, tensor);
  size_t size = tensor->is_blocks ? 1 : nb_dtype_size(tensor->dtype);
  if (bytes && (uintptr_t)bytes % size == 0) {
    *out = bytes;
    return NIBBLE_OK;
  }
  void *copy;
  nibble_status status = nb_weight_own(weight, (uint64_t)tensor->count * nb_dtype_size(tensor->dtype), &copy, err);
  if (status == NIBBLE_OK) status = nb_tensor_read(checkpoint, tensor, 0, tensor->count, tensor->dtype, copy, err);
  *out = copy;
  return status;
}

static nibble_status describe_plain(const nb_checkpoint *checkpoint, const nb_tensor *tensor, nb_packed *out,
                                    nibble_error *err) {
  *out = (nb_packed){.rows = 1, .cols = tensor->count};
  if (tensor->ndim >= 2 && tensor->shape[0] > 0) {
    out->rows = tensor->shape[0];
    out->cols = tensor->count / out->rows;
  }
  if (tensor->is_blocks) {
    out->format = tensor->format;
    return NIBBLE_OK;
  }
  if (nb_format_of_dtype(tensor->dtype, &out->format)) return NIBBLE_OK;
  char what[64];
  snprintf(what, sizeof what, "is of dtype %s, which is no weight's", nb_dtype_name(tensor->dtype));
  return nb_tensor_fail(checkpoint, tensor, what, err);
}

/* GGUF blocks whose rows lie interleaved are put back in order as they are: rows are whole blocks. */
static nibble_status own_rows_in_order(const nb_checkpoint *checkpoint, const nb_tensor *tensor, nb_weight *out,
                                       nibble_error *err) {
  uint64_t row_bytes = tensor->bytes / (uint64_t)tensor->shape[0];
  int64_t head_rows = tensor->shape[0] / tensor->permute_heads, half = head_rows / 2;
  void *copy;
  nibble_status status = nb_weight_own(out, tensor->bytes, &copy, err);
  if (status != NIBBLE_OK) return status;
  const char *from = nb_tensor_raw(checkpoint, tensor);
  for (int64_t row = 0; row < tensor->shape[0]; row++) {
    int64_t head = row / head_rows, within = row % head_rows;
    int64_t source = head * head_rows + within % half * 2 + within / half;
    memcpy((char *)copy + (uint64_t)row * row_bytes, from + (uint64_t)source * row_bytes, row_bytes);
  }
  out->packed.codes = copy;
  return NIBBLE_OK;
}

static nibble_status load_plain(const nb_checkpoint *checkpoint, const nb_tensor *tensor, nb_weight *out,
                                nibble_error *err) {
  nibble_status status = describe_plain(checkpoint, tensor, &out->packed, err);
  if (status != NIBBLE_OK) return status;
  out->source_dtype = tensor->dtype;
  if (!tensor->is_blocks) return nb_weight_view(checkpoint, tensor, out, &out->packed.codes, err);
  if (tensor->permute_heads > 0) return own_rows_in_order(checkpoint, tensor, out, err);
  out->packed.codes = nb_tensor_raw(checkpoint, tensor);
  return NIBBLE_OK;
}

const nb_tensor *nb_layout_find(const nb_checkpoint *checkpoint, const char *name) {
  const nb_tensor *tensor = nb_checkpoint_find(checkpoint, name);
  static const char weight[] = "weight";
  if (tensor || !nb_ends_with(name, weight)) return tensor;
  char main[NB_MAX_PART_NAME];
  int keep = (int)nb_min_i64((int64_t)(strlen(name) - (sizeof weight - 1)), sizeof main);
  if (snprintf(main, sizeof main, "%.*sqweight", keep, name) >= (int)sizeof main) return NULL;
  tensor = nb_checkpoint_find(checkpoint, main);
  return tensor && nb_gptq_owns(checkpoint, tensor) ? tensor : NULL;
}

char *nb_layout_weight_name(const nb_checkpoint *checkpoint, const nb_tensor *tensor) {
  static const char suffix[] = ".qweight";
  size_t n = strlen(tensor->name), m = sizeof suffix - 1;
  char *name = strdup(tensor->name);
  if (name && nb_ends_with(name, suffix) && nb_layout_is_packed(checkpoint, tensor)) strcpy(name + n - m, ".weight");
  return name;
}

nibble_status nb_weight_load(const nb_checkpoint *checkpoint, const char *name, int64_t rows, int64_t cols,
                             nb_weight *out, nibble_error *err) {
  *out = (nb_weight){0};
  const nb_tensor *tensor = nb_layout_find(checkpoint, name);
  if (!tensor) return nb_fail(err, NIBBLE_BAD_INPUT, "%s: tensor '%s' is missing", checkpoint->path, name);
  const layout *row = layout_of(checkpoint, tensor);
  nibble_status status = row ? row->load(checkpoint, tensor, out, err) : load_plain(checkpoint, tensor, out, err);
  const nb_packed *m = &out->packed;
  bool is_matrix = row || tensor->ndim == 2;
  if (status == NIBBLE_OK && (!is_matrix || m->rows != rows || m->cols != cols)) {
    status = nb_fail(err, NIBBLE_BAD_INPUT, "%s: tensor '%s' is [%lld, %lld], the config asks for [%lld, %lld]",
                     checkpoint->files[tensor->file].path, name, (long long)m->rows, (long long)m->cols,
                     (long long)rows, (long long)cols);
  }
  if (status != NIBBLE_OK) nb_weight_free(out);
  return status;
}

void nb_weight_free(nb_weight *weight) {
  for (size_t i = 0; i < sizeof weight->owned / sizeof *weight->owned; i++) free(weight->owned[i]);
  *weight = (nb_weight){0};
}

bool nb_layout_is_part(const nb_checkpoint *checkpoint, const nb_tensor *tensor) {
  for (int i = 0; i < LAYOUTS; i++) {
    if (layouts[i].is_part(checkpoint, tensor)) return true;
  }
  return false;
}

bool nb_layout_is_packed(const nb_checkpoint *checkpoint, const nb_tensor *tensor) {
  return layout_of(checkpoint, tensor) != NULL;
}

nibble_status nb_layout_describe(const nb_checkpoint *checkpoint, const nb_tensor *tensor, nb_packed *out,
                                 nb_dtype *source_dtype, nibble_error *err) {
  const layout *row = layout_of(checkpoint, tensor);
  nb_dtype dtype = tensor->dtype;
  nibble_status status =
      row ? row->describe(checkpoint, tensor, out, &dtype, err) : describe_plain(checkpoint, tensor, out, err);
  if (source_dtype) *source_dtype = dtype;
  return status;
}

bool nb_part_add(nb_part *parts, int *count, nb_part_role role, const char *name, size_t keep, const char *suffix,
                 nb_dtype dtype, int64_t rows) {
  size_t room = keep + strlen(suffix) + 1;
  nb_part *part = &parts[*count];
  *part = (nb_part){.role = role, .name = malloc(room), .dtype = dtype, .ndim = 1, .shape = {rows, 0}};
  if (!part->name) return false;
  snprintf(part->name, room, "%.*s%s", (int)keep, name, suffix);
  ++*count;
  return true;
}

int nb_layout_parts(const nb_packed *packed, nb_dtype source_dtype, const char *name, nb_part out[NB_MAX_PARTS]) {
  int count = 0;
  bool ok = packed->format == NB_FORMAT_INT8    ? nb_bnb8_add_parts(packed, name, out, &count)
            : nb_gptq_bits(packed->format) != 0 ? nb_gptq_add_parts(packed, name, out, &count)
                                                : nb_bnb4_add_parts(packed, source_dtype, name, out, &count);
  if (ok) return count;
  nb_layout_parts_free(out, count);
  return -1;
}

void nb_layout_parts_free(nb_part *parts, int count) {
  for (int i = 0; i < count; i++) free(parts[i].name);
}
