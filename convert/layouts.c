#include "convert/layouts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/str.h"
#include "convert/layouts/bnb.h"
#include "convert/layouts/gptq.h"

const nb_layout *const nb_layouts[] = {&nb_layout_bnb4, &nb_layout_bnb8, &nb_layout_gptq, NULL};

bool nb_layout_takes(const nb_layout *layout, const nb_rule *rule, int layer) {
  nb_kind kind = nb_role_info(rule->role)->kind;
  if (kind == NB_KIND_EXPERT) return layout->packs_experts;
  return kind != NB_KIND_LINEAR || !layout->blocks_only || (layer >= 0 && !(rule->stored & NB_UNLISTED));
}

bool nb_layout_is_named(const nb_layout *layout, const nb_quant_config *quant) {
  return quant->present && strcmp(layout->method, quant->method) == 0;
}

const nb_layout *nb_layout_of_config(const nb_quant_config *quant) {
  const nb_layout *const *row = nb_layouts;
  while (*row && !nb_layout_is_named(*row, quant)) row++;
  return *row;
}

const nb_layout *nb_layout_beside(const nb_checkpoint *c) {
  for (const nb_layout *const *row = nb_layouts; *row; row++) {
    for (size_t i = 0; (*row)->config_too && i < c->tensor_count; i++) {
      size_t n = strlen(c->tensors[i].name), m = strlen((*row)->main);
      if (n > m + 1 && c->tensors[i].name[n - m - 1] == '.' && nb_ends_with(c->tensors[i].name, (*row)->main))
        return *row;
    }
  }
  return NULL;
}

bool nb_layout_is_buffer(const char *name) {
  for (const nb_layout *const *row = nb_layouts; *row; row++) {
    for (int i = 0; (*row)->buffers && (*row)->buffers[i]; i++) {
      if (nb_ends_with(name, (*row)->buffers[i])) return true;
    }
  }
  return false;
}

nibble_status nb_layout_variant(const char *name, const nb_layout **layout, int *variant, nibble_error *err) {
  nb_buf names = {0};
  for (const nb_layout *const *row = nb_layouts; *row; row++) {
    for (int i = 0; (*row)->variants && (*row)->variants[i]; i++) {
      nb_buf_printf(&names, "%s%s", names.length ? " or " : "", (*row)->variants[i]);
      if (strcmp(name, (*row)->variants[i]) != 0) continue;
      *layout = *row;
      *variant = i;
      nb_buf_free(&names);
      return NIBBLE_OK;
    }
  }
  nibble_status status =
      nb_fail(err, NIBBLE_USAGE, "--layout %s: %s is wanted", name, names.failed ? "another" : names.data);
  nb_buf_free(&names);
  return status;
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
  if (status == NIBBLE_OK)
    status = nb_tensor_read(checkpoint, tensor, (nb_span){0, tensor->count}, tensor->dtype, copy, err);
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

nibble_status nb_weight_load_tensor(const nb_checkpoint *checkpoint, const nb_tensor *tensor, int64_t rows,
                                    int64_t cols, nb_weight *out, nibble_error *err) {
  *out = (nb_weight){0};
  const nb_layout *row = tensor->layout;
  nibble_status status = row ? row->load(checkpoint, tensor, out, err) : load_plain(checkpoint, tensor, out, err);
  const nb_packed *m = &out->packed;
  bool is_matrix = row || tensor->ndim == 2;
  if (status == NIBBLE_OK && (!is_matrix || m->rows != rows || m->cols != cols)) {
    status = nb_fail(err, NIBBLE_BAD_INPUT, "%s: tensor '%s' is [%lld, %lld], the config asks for [%lld, %lld]",
                     checkpoint->files[tensor->file].path, nb_tensor_weight_name(tensor), (long long)m->rows,
                     (long long)m->cols, (long long)rows, (long long)cols);
  }
  if (status != NIBBLE_OK) nb_weight_free(out);
  return status;
}

nibble_status nb_weight_load(const nb_checkpoint *checkpoint, const char *name, int64_t rows, int64_t cols,
                             nb_weight *out, nibble_error *err) {
  *out = (nb_weight){0};
  const nb_tensor *tensor = nb_checkpoint_find_weight(checkpoint, name);
  if (!tensor) return nb_fail(err, NIBBLE_BAD_INPUT, "%s: tensor '%s' is missing", checkpoint->path, name);
  return nb_weight_load_tensor(checkpoint, tensor, rows, cols, out, err);
}

void nb_weight_release(const nb_checkpoint *checkpoint, const nb_tensor *main) {
  nb_tensor_release(checkpoint, main, 0, main->count);
  if (!main->layout) return;
  for (const nb_part_name *part = main->layout->parts; part->suffix; part++) {
    const nb_tensor *t = nb_part_find(checkpoint, main, strlen(main->layout->main), part->suffix);
    if (t) nb_tensor_release(checkpoint, t, 0, t->count);
  }
}

void nb_weight_free(nb_weight *weight) {
  for (size_t i = 0; i < sizeof weight->owned / sizeof *weight->owned; i++) free(weight->owned[i]);
  *weight = (nb_weight){0};
}

nibble_status nb_layout_describe(const nb_checkpoint *checkpoint, const nb_tensor *tensor, nb_packed *out,
                                 nb_dtype *source_dtype, nibble_error *err) {
  if (source_dtype) *source_dtype = tensor->layout ? tensor->source_dtype : tensor->dtype;
  if (tensor->fault) return nb_fail(err, NIBBLE_BAD_INPUT, "%s", tensor->fault);
  if (!tensor->layout) return describe_plain(checkpoint, tensor, out, err);
  *out = *tensor->packed;
  return NIBBLE_OK;
}

bool nb_part_add(nb_part *parts, int *count, nb_str stem, const char *suffix, nb_part part) {
  size_t room = stem.length + strlen(suffix) + 1;
  if (!(part.name = malloc(room))) return false;
  snprintf(part.name, room, "%.*s%s", (int)stem.length, stem.data, suffix);
  parts[(*count)++] = part;
  return true;
}

int nb_layout_parts(const nb_packed *packed, nb_dtype source_dtype, const char *name, nb_part out[NB_MAX_PARTS]) {
  int count = 0;
  const nb_layout *const *row = nb_layouts;
  while (*row && !(*row)->holds(packed->format)) row++;
  if (*row && (*row)->add_parts(packed, source_dtype, name, out, &count)) return count;
  nb_layout_parts_free(out, count);
  return -1;
}

void nb_layout_parts_free(nb_part *parts, int count) {
  for (int i = 0; i < count; i++) free(parts[i].name);
}
