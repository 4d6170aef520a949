#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/context.h"
#include "convert/checkpoint.h"
#include "convert/layouts.h"
#include "model/heads.h"

enum { MAX_MISSING_LISTED = 8, MAX_FORMATS = NB_FORMAT_COUNT + NB_DTYPE_COUNT };

/* The public struct first, so that one pointer serves both; what its strings point into comes along. */
typedef struct inspection {
  nibble_inspection public;
  nb_checkpoint checkpoint;
} inspection;

static void add_to_total(nibble_inspection *in, const char *format, int64_t parameters, uint64_t bytes) {
  size_t i = 0;
  while (i < in->format_count && strcmp(in->formats[i].format, format) != 0) i++;
  if (i == in->format_count) {
    if (i == MAX_FORMATS) return;
    in->formats[in->format_count++] = (nibble_format_total){.format = format};
  }
  in->formats[i].tensors++;
  in->formats[i].parameters += parameters;
  in->formats[i].bytes += bytes;
}

static nibble_status describe_tensor(inspection *in, const nb_tensor *t, nibble_tensor_info *info, nibble_error *err) {
  const char *path = in->checkpoint.files[t->file].path, *slash = strrchr(path, '/');
  *info = (nibble_tensor_info){.name = t->name,
                               .dtype = nb_tensor_type_name(t),
                               .ndim = t->ndim,
                               .bytes = t->bytes,
                               .file = slash ? slash + 1 : path};
  memcpy(info->shape, t->shape, sizeof t->shape);
  info->format = info->dtype;
  in->public.tensor_bytes += t->bytes;
  if (t->is_part) {
    info->format = "part";
    return NIBBLE_OK;
  }
  bool is_float = t->is_blocks || t->opaque || nb_dtype_is_float(t->dtype);
  int64_t parameters = is_float ? t->count : 0; /* position ids and the like are no parameters */
  uint64_t bytes = t->bytes;
  if (t->layout) {
    nb_packed packed;
    nibble_status status = nb_layout_describe(&in->checkpoint, t, &packed, NULL, err);
    if (status != NIBBLE_OK) return status;
    info->format = nb_format_info(packed.format)->name;
    parameters = packed.rows * packed.cols;
    bytes = (uint64_t)nb_packed_bytes(&packed);
  }
  in->public.parameters += parameters;
  add_to_total(&in->public, info->format, parameters, bytes);
  return NIBBLE_OK;
}

/* Compares the names with what the config promises. A tensor of several matrices is one too many only if none of them
 * is promised. */
static nibble_status compare_with_config(inspection *in, nibble_error *err) {
  nibble_inspection *p = &in->public;
  const nb_checkpoint *c = &in->checkpoint;
  if (!c->config.family) return NIBBLE_OK;
  bool *placed = nb_alloc(c->tensor_count + 1, sizeof *placed);
  if (!placed) return nb_fail_memory(err, c->tensor_count * sizeof *placed);
  for (size_t i = 0; i < c->promised.count; i++) {
    const nb_tensor *t = c->slots[i].tensor;
    if (t) {
      placed[nb_checkpoint_index(c, t->whole ? t->whole : t)] = true;
      continue;
    }
    p->missing_count++;
    if (p->missing_listed < MAX_MISSING_LISTED && (p->missing[p->missing_listed] = strdup(c->slots[i].wanted->name)))
      p->missing_listed++;
  }
  for (size_t i = 0; i < c->tensor_count; i++) p->extra_count += !placed[i] && !c->tensors[i].is_part;
  free(placed);
  return NIBBLE_OK;
}

static nibble_status inspect(const nibble_inspect_options *options, nibble_inspection **out, nibble_error *err) {
  inspection *in = nb_alloc(1, sizeof *in);
  if (!in) return nb_fail_memory(err, sizeof *in);
  nibble_inspection *p = &in->public;
  nibble_status status = nb_checkpoint_open(options->model, &in->checkpoint, err);
  if (status != NIBBLE_OK) goto done;
  const nb_checkpoint *c = &in->checkpoint;
  p->kind = c->kind;
  p->model_type = c->config.model_type ? c->config.model_type : "";
  p->architecture = c->config.architecture ? c->config.architecture : "";
  p->known_family = c->config.family != NULL;
  p->runnable = p->known_family && c->config.head->kind != NB_HEAD_OTHER;
  p->quant_method = c->config.quant.present ? c->config.quant.method : "";
  p->tensors = nb_alloc(c->tensor_count, sizeof *p->tensors);
  p->formats = nb_alloc(MAX_FORMATS, sizeof *p->formats);
  p->missing = nb_alloc(MAX_MISSING_LISTED, sizeof *p->missing);
  if (!p->tensors || !p->formats || !p->missing) {
    status = nb_fail_memory(err, c->tensor_count * sizeof *p->tensors);
    goto done;
  }
  for (p->tensor_count = 0; p->tensor_count < c->tensor_count; p->tensor_count++) {
    status = describe_tensor(in, &c->tensors[p->tensor_count], &p->tensors[p->tensor_count], err);
    if (status != NIBBLE_OK) goto done;
  }
  for (int i = 0; i < c->file_count; i++) p->file_bytes += c->files[i].map.size;
  status = compare_with_config(in, err);
done:
  if (status == NIBBLE_OK) {
    *out = p;
  } else {
    nibble_inspection_free(p);
  }
  return status;
}

nibble_status nibble_inspect(const nibble_inspect_options *options, nibble_inspection **out, nibble_error *err) {
  nibble_inspect_options o;
  static const nb_call_rules rules = {
      "nibble_inspect", NB_SIZES(nibble_inspect_options, model), {0}, {NB_REQUIRED(nibble_inspect_options, model)}};
  nb_call call = {.options = &o};
  nibble_status status = nb_call_begin(&call, &rules, options, out, err);
  if (status == NIBBLE_OK) status = inspect(&o, out, err);
  return nb_call_end(&call, status);
}

void nibble_inspection_free(nibble_inspection *inspected) {
  if (!inspected) return;
  inspection *in = (inspection *)inspected;
  for (size_t i = 0; i < inspected->missing_listed; i++) free(inspected->missing[i]);
  free(inspected->missing);
  free(inspected->tensors);
  free(inspected->formats);
  nb_checkpoint_close(&in->checkpoint);
  free(in);
}
