#include "quant/methods/grids.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "convert/layouts/gptq.h"
#include "kernels/gptq.h"

static const int64_t DEFAULT_GROUP_SIZE = 128;

enum { WORD_BITS = 32 };

/* ---- options ---------------------------------------------------------------------------------------------------- */

static bool is_bf16(const char *dtype) { return strcmp(dtype, "bfloat16") == 0 || strcmp(dtype, "bf16") == 0; }

nibble_status nb_grids_check(const nibble_quantize_options *o, nibble_error *err) {
  nb_format format;
  if (o->bits && !nb_gptq_format(o->bits, &format))
    return nb_fail(err, NIBBLE_USAGE, "--bits %d: 2, 3, 4 or 8 is wanted", o->bits);
  if (o->group_size < -1)
    return nb_fail(err, NIBBLE_USAGE, "--group-size %lld: -1 (one group a row), 32, 64 or 128 is wanted",
                   (long long)o->group_size);
  if (o->group_size > 0 && o->group_size % WORD_BITS != 0)
    return nb_fail(err, NIBBLE_USAGE, "--group-size %lld: a multiple of %d is wanted", (long long)o->group_size,
                   WORD_BITS);
  const nb_layout *layout = &nb_layout_gptq;
  int variant;
  nibble_status status = o->layout ? nb_layout_variant(o->layout, &layout, &variant, err) : NIBBLE_OK;
  if (status != NIBBLE_OK) return status;
  if (layout != &nb_layout_gptq)
    return nb_fail(err, NIBBLE_USAGE, "--layout %s: --method %s does not write it", o->layout, o->method);
  if (o->scale_dtype && !is_bf16(o->scale_dtype) && strcmp(o->scale_dtype, "float16") != 0 &&
      strcmp(o->scale_dtype, "f16") != 0)
    return nb_fail(err, NIBBLE_USAGE, "--scale-dtype %s: float16 or bfloat16 is wanted", o->scale_dtype);
  return NIBBLE_OK;
}

nb_grids nb_grids_of(const nibble_quantize_options *o, bool searches) {
  nb_grids g = {.grid = {.bits = o->bits ? o->bits : 4,
                         .group_size = o->group_size ? o->group_size : DEFAULT_GROUP_SIZE,
                         .sym = o->zeros != NIBBLE_ZEROS_FITTED,
                         .mse = o->scales ? o->scales == NIBBLE_SCALES_SEARCHED : searches,
                         .bf16_scales = o->scale_dtype && is_bf16(o->scale_dtype)}};
  nb_gptq_format(g.grid.bits, &g.format);
  const nb_layout *layout;
  if (o->layout) nb_layout_variant(o->layout, &layout, &g.variant, NULL);
  return g;
}

cJSON *nb_grids_settings(const nb_method_run *run) {
  const nb_grids *g = run->state;
  cJSON *json = cJSON_CreateObject();
  bool ok = json && cJSON_AddStringToObject(json, "method", run->method->name) &&
            cJSON_AddStringToObject(json, "layout", nb_layout_gptq.variants[g->variant]) &&
            cJSON_AddNumberToObject(json, "bits", g->grid.bits) &&
            cJSON_AddNumberToObject(json, "group_size", (double)g->grid.group_size) &&
            cJSON_AddBoolToObject(json, "sym", g->grid.sym) && cJSON_AddBoolToObject(json, "mse", g->grid.mse) &&
            cJSON_AddStringToObject(json, "scale_dtype", g->grid.bf16_scales ? "bfloat16" : "float16") &&
            nb_method_add_selection(run->options, json);
  if (ok) return json;
  cJSON_Delete(json);
  return NULL;
}

/* ---- one weight ------------------------------------------------------------------------------------------------- */

nibble_status nb_grids_target(const nb_method_run *run, const nb_source *source, nb_packed *out, nibble_error *err) {
  const nb_grids *g = run->state;
  int64_t rows = source->shape[0], cols = source->shape[1], size = g->grid.group_size;
  if (rows % WORD_BITS != 0 || cols % WORD_BITS != 0)
    return nb_fail(err, NIBBLE_BAD_INPUT,
                   "%s: tensor '%s' is [%lld, %lld]; the GPTQ layout packs multiples of %d both ways (--exclude "
                   "leaves it out)",
                   source->checkpoint->path, source->name, (long long)rows, (long long)cols, WORD_BITS);
  if (size <= 0 || size > cols) size = cols;
  *out = nb_packed_usual(g->format, rows, cols, size, false);
  out->scale.dtype = g->grid.bf16_scales ? NB_BF16 : NB_F16;
  return NIBBLE_OK;
}

static nibble_status write_zeros(const nb_grids *g, nb_writer *writer, const nb_grids_weight *w, const nb_part *part,
                                 size_t index, nibble_error *err) {
  int64_t words = part->shape[1];
  uint64_t bytes = (uint64_t)words * sizeof(uint32_t);
  uint32_t *packed = nb_alloc((uint64_t)words, sizeof *packed);
  nibble_status status = packed ? NIBBLE_OK : nb_fail_memory(err, bytes);
  for (int64_t i = 0; status == NIBBLE_OK && i < w->groups; i++) {
    nb_gptq_pack_zeros(w->zeros + i * w->rows, w->rows, g->grid.bits, g->variant == NB_GPTQ_V1, packed);
    status = nb_writer_write(writer, index, (uint64_t)i * bytes, packed, bytes, err);
  }
  free(packed);
  return status;
}

static nibble_status write_parts(const nb_grids *g, nb_writer *writer, const nb_pack_job *job, const nb_grids_weight *w,
                                 nibble_error *err) {
  size_t index = job->index;
  nibble_status status = NIBBLE_OK;
  for (int i = 0; status == NIBBLE_OK && i < job->part_count; i++, index++) {
    const nb_part *p = &job->parts[i];
    int64_t count = p->shape[0] * (p->ndim == 2 ? p->shape[1] : 1);
    uint64_t bytes = (uint64_t)count * nb_dtype_size(p->dtype);
    status = nb_writer_begin(writer, index, count, err);
    if (status != NIBBLE_OK) break;
    if (p->role == NB_PART_ZEROS) {
      status = write_zeros(g, writer, w, p, index, err);
      continue;
    }
    const void *data = p->role == NB_PART_CODES ? (const void *)w->words : p->role == NB_PART_SCALES ? w->scales : NULL;
    status = nb_writer_write(writer, index, 0, data ? data : w->g_idx, bytes, err);
  }
  return status;
}

nibble_status nb_grids_write(const nb_method_run *run, nb_packer *packer, const nb_pack_job *job,
                             const nb_grids_weight *weight, nb_pack_result *out, nibble_error *err) {
  const nb_source *source = job->source;
  nibble_status status = write_parts(run->state, nb_packer_writer(packer), job, weight, err);
  if (status != NIBBLE_OK) return status;
  out->error = weight->error;
  out->squares = weight->squares;
  status = nb_tensor_hash(source->checkpoint, source->tensor, out->hash, err);
  nb_tensor_release(source->checkpoint, source->tensor, 0, source->tensor->count);
  if (status != NIBBLE_OK) return status;
  bool ok = weight->mended == 0 || cJSON_AddNumberToObject(out->details, "mended_groups", (double)weight->mended);
  return ok ? NIBBLE_OK : nb_fail_memory(err, sizeof(cJSON));
}

/* ---- which weights ---------------------------------------------------------------------------------------------- */

bool nb_grids_reach(const nb_slot *slot) {
  const nb_model_tensor *t = slot->wanted;
  return slot->tensor && t->layer >= 0 && !t->is_bias && (t->kind == NB_KIND_LINEAR || t->kind == NB_KIND_EXPERT);
}

/* ---- config.json ------------------------------------------------------------------------------------------------ */

/* GPTQModel's way to leave modules out: "dynamic" with their names, as expressions, after "-:". NULL if there are
 * none. */
static bool name_kept(const nb_method_run *run, cJSON **out) {
  const nb_checkpoint *c = run->checkpoint;
  cJSON *dynamic = *out = NULL;
  bool ok = true;
  for (size_t i = 0; ok && i < c->promised.count; i++) {
    if (!nb_grids_reach(&c->slots[i]) || nb_method_wants(run, c->slots[i].tensor)) continue;
    if (!dynamic) ok = (dynamic = *out = cJSON_CreateObject()) != NULL;
    const nb_model_tensor *t = &c->promised.items[i];
    const nb_identity id = {
        .role = t->role, .rule = t->rule, .stack = t->stack, .layer = t->layer, .expert = t->expert};
    char *name = nb_identity_module_name(&c->config, &id);
    nb_buf key = {0};
    nb_buf_puts(&key, "-:^");
    for (const char *at = name, *end = name ? strrchr(name, '.') : NULL; at < end; at++)
      nb_buf_printf(&key, *at == '.' ? "\\%c" : "%c", *at);
    nb_buf_puts(&key, "$");
    ok = ok && name && !key.failed && cJSON_AddObjectToObject(dynamic, key.data);
    nb_buf_free(&key);
    free(name);
  }
  return ok;
}

static bool packs_head(const nb_method_run *run) {
  const nb_slot *head = nb_checkpoint_slot(run->checkpoint, NB_HEAD);
  return head && head->tensor && nb_method_wants(run, head->tensor);
}

static bool add_meta(const nb_grids *g, cJSON *json) {
  cJSON *meta = cJSON_AddObjectToObject(json, "meta");
  cJSON *quantizer = meta ? cJSON_AddArrayToObject(meta, "quantizer") : NULL;
  bool ok = quantizer && cJSON_AddItemToArray(quantizer, cJSON_CreateString("nibble:" NIBBLE_VERSION));
  /* GPTQModel takes asymmetric weights in version 1 only where one of the quantizers is its own from 0.9.0 on, after
   * which it stores zero points as we do: the name stands for the convention. */
  if (ok && !g->grid.sym && g->variant == NB_GPTQ_V1)
    ok = cJSON_AddItemToArray(quantizer, cJSON_CreateString("gptqmodel:7.7.0"));
  return ok;
}

cJSON *nb_grids_config(const nb_method_run *run) {
  const nb_grids *g = run->state;
  nb_layout_config config = {
      .quant = {.bits = g->grid.bits, .group_size = g->grid.group_size, .sym = g->grid.sym},
      .variant = g->variant,
      .desc_act = run->options->desc_act,
      .head = packs_head(run),
  };
  if (!name_kept(run, &config.kept)) {
    cJSON_Delete(config.kept);
    return NULL;
  }
  cJSON *json = run->method->layout->config(&config);
  if (json && add_meta(g, json)) return json;
  cJSON_Delete(json);
  return NULL;
}
