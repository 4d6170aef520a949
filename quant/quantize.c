/* nibble_quantize: a checkpoint into one that transformers loads through bitsandbytes or GPTQModel. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/context.h"
#include "base/stage.h"
#include "base/stop.h"
#include "base/str.h"
#include "convert/sidefiles.h"
#include "quant/methods.h"
#include "runner/device.h"

/* A tensor of the output. */
typedef struct plan {
  nb_tensor stored; /* of a copied tensor: as it lies in the source */
  char *renamed;    /* its name in the output, where that is not the source's; else NULL */
  nb_source source; /* described only */
  nb_packed target; /* if parts */
  nb_part parts[NB_MAX_PARTS];
  int part_count; /* 0: copied */
  size_t index;   /* in the writer, of the first part */
} plan;

typedef struct quantizer {
  const nibble_quantize_options *options;
  const nb_method *method;
  nb_method_run run;
  nb_checkpoint checkpoint;
  nb_selection selection;
  plan *plans;
  size_t plan_count;
  nb_writer *writer;
  nb_packer *packer;
  nb_manifest *manifest;
  nb_stage stage;
  nibble_quantize_result *result;
} quantizer;

/* ---- what is asked for ---- */

static nibble_status check_options(quantizer *q, nibble_error *err) {
  const nibble_quantize_options *o = q->options;
  nibble_status status = nb_method_find(o->method, &q->method, err);
  if (status == NIBBLE_OK) status = nb_method_check(q->method, o, err);
  if (status != NIBBLE_OK || q->method->computes_on_gpu) return status;
  return nb_device_allow_cpu(o->context, q->method->name, err);
}

static nibble_status check_not_packed(const quantizer *q, nibble_error *err) {
  const nb_checkpoint *c = &q->checkpoint;
  for (size_t i = 0; i < c->tensor_count && !q->options->requantize; i++) {
    const nb_tensor *t = &c->tensors[i];
    if (!t->layout && !(t->is_blocks && q->selection.choices[i] == NB_CHOICE_QUANTIZE)) continue;
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: tensor '%s' is packed already; --requantize dequantizes it first",
                   c->files[t->file].path, t->name);
  }
  return NIBBLE_OK;
}

static bool packs_experts(const nb_method *method, uint32_t arg) {
  (void)arg;
  return method->layout->packs_experts;
}

/* A method that packs the weights of modules has no place for experts: transformers holds those of a layer in one
 * parameter. */
static void tell_of_experts(const quantizer *q) {
  const nb_checkpoint *c = &q->checkpoint;
  size_t count = 0;
  uint64_t bytes = 0;
  for (size_t i = 0; !q->method->layout->packs_experts && i < c->tensor_count; i++) {
    const nb_tensor *t = &c->tensors[i];
    if (nb_role_info(t->id.role)->kind != NB_KIND_EXPERT || t->is_part) continue;
    count += t->views ? t->view_count : 1;
    bytes += t->bytes;
  }
  if (!count) return;
  nb_buf others = {0};
  nb_method_names(&others, packs_experts, 0, "and");
  nb_warn(
      &q->options->progress,
      "%zu matrices of experts, %.1f MB, stay as they are: the layout of %s has no place for them (--method %s pack "
      "them)",
      count, (double)bytes / 1e6, q->method->name, others.failed ? "others" : others.data);
  nb_buf_free(&others);
}

/* Linear layers that are no part of a block (BERT's pooler, a classifier), or that the layout's readers do not know. */
static void tell_of_the_rest(const quantizer *q) {
  const nb_checkpoint *c = &q->checkpoint;
  const nb_layout *layout = q->method->layout;
  const nb_tensor *first = NULL;
  size_t count = 0;
  for (size_t i = 0; i < c->tensor_count; i++) {
    const nb_tensor *t = &c->tensors[i];
    if (!t->id.rule || t->is_part || t->id.is_bias || nb_role_info(t->id.role)->kind != NB_KIND_LINEAR) continue;
    if (nb_layout_takes(layout, t->id.rule, t->id.layer)) continue;
    if (count++ == 0) first = t;
  }
  if (first)
    nb_warn(
        &q->options->progress,
        "%zu weights of linear layers stay as they are, '%s' the first: what loads the layout of %s looks elsewhere",
        count, nb_tensor_weight_name(first), layout->name);
}

static nibble_status open_source(quantizer *q, nibble_error *err) {
  const nibble_quantize_options *o = q->options;
  nb_checkpoint *c = &q->checkpoint;
  nb_select_options choice = {o->include, o->exclude, q->method->layout};
  nibble_status status = nb_checkpoint_open(o->src, c, err);
  if (status != NIBBLE_OK) return status;
  if (!c->config.json || !c->config.json->child)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: there is no config.json, and without one nothing loads the result",
                   o->src);
  if ((status = nb_checkpoint_complete(c, err)) != NIBBLE_OK) return status;
  if ((status = nb_checkpoint_protect(c, o->dst, err)) != NIBBLE_OK) return status;
  if (o->calib && (status = nb_stage_spare(o->dst, o->calib, err)) != NIBBLE_OK) return status;
  nb_checkpoint_warn(c, &o->progress);
  if (!c->config.family && !o->unknown_family)
    return nb_fail(err, NIBBLE_BAD_INPUT,
                   "%s: the family of model_type \"%s\" is not known, so nobody can tell which weights are linear "
                   "layers' or how they lie; --unknown-family guesses by their names",
                   o->src, c->config.model_type);
  if (!c->config.family)
    nb_warn(&o->progress,
            "%s: the family of model_type \"%s\" is not known: every 2-D weight that is not named like an embedding, a "
            "norm or a head is taken for a linear layer's",
            o->src, c->config.model_type);
  if (c->foreign)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: it is packed by '%s', which cannot be undone here", c->path, c->foreign);
  if ((status = nb_select(c, &choice, &q->selection, err)) != NIBBLE_OK) return status;
  tell_of_experts(q);
  tell_of_the_rest(q);
  return check_not_packed(q, err);
}

/* ---- what will be written ---- */

static nibble_status plan_tensor(quantizer *q, const nb_tensor *t, bool quantize, size_t *next, nibble_error *err) {
  plan *p = &q->plans[q->plan_count];
  q->plan_count++;
  p->stored = nb_tensor_as_stored(t);
  nibble_status status = nb_source_describe(&q->checkpoint, quantize ? t : &p->stored, &p->source, err);
  if (status != NIBBLE_OK) return status;
  p->index = *next;
  if (q->method->layout->names_modules && t->id.rule && t->id.rule->stored & NB_MODULE_LAST) {
    p->renamed = nb_identity_module_name(&q->checkpoint.config, &t->id);
    if (!p->renamed) return nb_fail_memory(err, strlen(p->source.name));
  }
  const char *name = p->renamed ? p->renamed : p->source.name;
  if (!quantize) {
    bool kept = t->id.rule && t->id.rule->stored & NB_KEEP_F32 && p->source.dtype == NB_F16;
    if (kept && q->method->widens_kept) p->source.dtype = NB_F32;
    ++*next;
    return nb_writer_declare(q->writer, name, p->source.dtype, p->source.shape, p->source.ndim, err);
  }
  if ((status = q->method->target(&q->run, &p->source, &p->target, err)) != NIBBLE_OK) return status;
  p->part_count = nb_layout_parts(&p->target, p->source.dtype, name, p->parts);
  if (p->part_count < 0) return nb_fail_memory(err, sizeof p->parts);
  for (int i = 0; status == NIBBLE_OK && i < p->part_count; i++, ++*next) {
    const nb_part *part = &p->parts[i];
    bool upto = part->role == NB_PART_STATE && p->target.second.block_cols;
    status = upto ? nb_writer_declare_upto(q->writer, part->name, part->shape[0], err)
                  : nb_writer_declare(q->writer, part->name, part->dtype, part->shape, part->ndim, err);
  }
  return status;
}

/* One line for all of them. */
static void warn_of_short_groups(const quantizer *q) {
  const plan *first = NULL;
  size_t count = 0;
  for (size_t i = 0; i < q->plan_count; i++) {
    const plan *p = &q->plans[i];
    if (!p->target.groups || p->target.cols % p->target.scale.block_cols == 0) continue;
    if (count++ == 0) first = p;
  }
  if (!first) return;
  nb_warn(&q->options->progress,
          "the last group of %zu weights is shorter than %lld: their inputs are no multiple of it (%s: %lld)", count,
          (long long)first->target.scale.block_cols, first->source.name, (long long)first->target.cols);
}

static nibble_status plan_output(quantizer *q, nibble_error *err) {
  const nb_checkpoint *c = &q->checkpoint;
  nibble_quantize_result *r = q->result;
  size_t next = 0;
  if (!(q->plans = nb_alloc(nb_checkpoint_count(c), sizeof *q->plans)))
    return nb_fail_memory(err, nb_checkpoint_count(c) * sizeof *q->plans);
  for (size_t i = 0; i < nb_checkpoint_count(c); i++) {
    nb_choice choice = q->selection.choices[i];
    if (choice == NB_CHOICE_DROP) continue;
    nibble_status status = plan_tensor(q, nb_checkpoint_at(c, i), choice == NB_CHOICE_QUANTIZE, &next, err);
    if (status != NIBBLE_OK) return status;
    const nb_source *source = &q->plans[q->plan_count - 1].source;
    r->parameters += nb_dtype_is_float(source->dtype) ? source->count : 0;
    r->quantized_parameters += choice == NB_CHOICE_QUANTIZE ? source->count : 0;
  }
  for (int i = 0; i < c->file_count; i++) r->source_bytes += c->files[i].map.size;
  r->quantized_tensors = (int64_t)q->selection.quantized;
  warn_of_short_groups(q);
  return NIBBLE_OK;
}

/* ---- writing it ---- */

/* Puts a calibrated layer among the worst if it belongs there. */
static void rank_layer(nibble_quantize_result *r, const char *name, const cJSON *details) {
  const cJSON *error = cJSON_GetObjectItemCaseSensitive(details, "output_error");
  const cJSON *rtn = cJSON_GetObjectItemCaseSensitive(details, "output_error_rtn");
  if (!error || !rtn) return;
  int at = r->worst_layer_count;
  while (at > 0 && r->worst_layers[at - 1].error < error->valuedouble) at--;
  if (at == NIBBLE_WORST_LAYERS) return;
  if (r->worst_layer_count < NIBBLE_WORST_LAYERS) r->worst_layer_count++;
  for (int i = r->worst_layer_count - 1; i > at; i--) r->worst_layers[i] = r->worst_layers[i - 1];
  nibble_layer_error *layer = &r->worst_layers[at];
  *layer = (nibble_layer_error){.error = error->valuedouble, .rtn_error = rtn->valuedouble};
  snprintf(layer->tensor, sizeof layer->tensor, "%s", name);
}

/* The details join the manifest's entry, which takes them over. */
static nibble_status record(quantizer *q, const plan *p, const nb_pack_result *packed, nibble_error *err) {
  cJSON *details = packed->details;
  nibble_quantize_result *r = q->result;
  const char *name = p->source.name;
  if (p->part_count == 0) return nb_manifest_add(q->manifest, name, packed->hash, NULL, err);
  double error = packed->squares > 0 ? sqrt(packed->error / packed->squares) : 0;
  if (error >= r->worst_relative_error) {
    r->worst_relative_error = error;
    snprintf(r->worst_tensor, sizeof r->worst_tensor, "%s", name);
  }
  rank_layer(r, name, details);
  if (!details) details = cJSON_CreateObject();
  bool ok = details && cJSON_AddStringToObject(details, "format", nb_format_info(p->target.format)->name) &&
            cJSON_AddNumberToObject(details, "relative_error", error);
  if (ok) return nb_manifest_add(q->manifest, name, packed->hash, details, err);
  cJSON_Delete(details);
  return nb_fail_memory(err, sizeof(cJSON));
}

static nibble_status write_tensors(quantizer *q, nibble_error *err) {
  double error = 0, squares = 0;
  nibble_status status = NIBBLE_OK;
  for (size_t i = 0; status == NIBBLE_OK && i < q->plan_count; i++) {
    plan *p = &q->plans[i];
    nb_source source;
    nb_pack_result packed = {0};
    const nb_pack_job job = {&source, &p->target, p->parts, p->part_count, p->index};
    if ((status = nb_stop_check(err)) != NIBBLE_OK) return status;
    status = nb_source_open(&q->checkpoint, p->source.tensor, &source, err);
    if (!p->part_count) source.dtype = p->source.dtype;
    if (status == NIBBLE_OK) {
      status = p->part_count ? q->method->write(&q->run, q->packer, &job, &packed, err)
                             : nb_pack_copy(q->packer, &source, p->index, &packed, err);
    }
    nb_source_close(&source);
    if (status != NIBBLE_OK) {
      cJSON_Delete(packed.details);
      return status;
    }
    error += packed.error;
    squares += packed.squares;
    status = record(q, p, &packed, err);
  }
  q->result->relative_error = squares > 0 ? sqrt(error / squares) : 0;
  return status;
}

static nibble_status save_config(const quantizer *q, nibble_error *err) {
  cJSON *changes = cJSON_CreateObject();
  cJSON *config = q->method->config(&q->run);
  nibble_status status = NIBBLE_OK;
  if (q->method->layout->config_too && config)
    status = nb_json_save_in(&q->stage.folder, q->method->layout->config_too, config, err);
  if (status != NIBBLE_OK) {
    cJSON_Delete(config);
    cJSON_Delete(changes);
    return status;
  }
  if (changes && config && cJSON_AddItemToObject(changes, "quantization_config", config)) {
    status = nb_config_save(&q->checkpoint.config, changes, &q->stage.folder, err);
  } else {
    cJSON_Delete(config);
    status = nb_fail_memory(err, sizeof(cJSON));
  }
  cJSON_Delete(changes);
  return status;
}

static nibble_status begin_manifest(quantizer *q, nibble_error *err) {
  nibble_status status = nb_manifest_begin("quantize", &q->checkpoint, &q->manifest, err);
  if (status != NIBBLE_OK) return status;
  cJSON *settings = nb_manifest_settings(q->manifest);
  const cJSON *item;
  cJSON_ArrayForEach(item, q->run.settings) {
    cJSON *copy = cJSON_Duplicate(item, true);
    if (!copy || !cJSON_AddItemToObject(settings, item->string, copy)) return nb_fail_memory(err, sizeof(cJSON));
  }
  return NIBBLE_OK;
}

static int add_bytes(void *ctx, int folder, const char *name) {
  struct stat info;
  if (nb_ends_with(name, ".safetensors") && fstatat(folder, name, &info, 0) == 0)
    *(uint64_t *)ctx += (uint64_t)info.st_size;
  return 0;
}

/* Bytes of the weight files in a folder. */
static uint64_t weight_file_bytes(const nb_folder *folder) {
  uint64_t bytes = 0;
  nb_folder_list(folder->fd, add_bytes, &bytes);
  return bytes;
}

static nibble_status write_output(quantizer *q, nibble_error *err) {
  const nibble_quantize_options *o = q->options;
  nb_replace replace = {.force = o->force, .progress = &o->progress};
  nibble_status status = nb_stage_begin(&q->stage, o->dst, &replace, err);
  if (status != NIBBLE_OK) return status;
  q->run = (nb_method_run){q->method, o, &q->checkpoint, &q->selection, NULL, NULL};
  if ((status = q->method->open(&q->run, err)) != NIBBLE_OK) return status;
  if ((status = nb_writer_open(&q->stage.folder, o->max_shard_size, &q->writer, err)) != NIBBLE_OK) return status;
  if ((status = begin_manifest(q, err)) != NIBBLE_OK) return status;
  if ((status = plan_output(q, err)) != NIBBLE_OK) return status;
  int64_t total = 0;
  for (size_t i = 0; i < q->plan_count; i++) total += q->plans[i].source.count;
  if ((status = nb_packer_open(o->context, q->writer, &o->progress, total, &q->packer, err)) != NIBBLE_OK)
    return status;
  if ((status = write_tensors(q, err)) != NIBBLE_OK) return status;
  if ((status = nb_writer_finish(q->writer, err)) != NIBBLE_OK) return status;
  if ((status = nb_sidefiles_copy(&q->checkpoint, &q->stage.folder, &o->progress, err)) != NIBBLE_OK) return status;
  if ((status = save_config(q, err)) != NIBBLE_OK) return status;
  if ((status = nb_manifest_save(q->manifest, &q->stage.folder, err)) != NIBBLE_OK) return status;
  q->result->file_bytes = weight_file_bytes(&q->stage.folder);
  return nb_stage_commit(&q->stage, !o->no_sync, err);
}

static nibble_status quantize(const nibble_quantize_options *options, nibble_quantize_result *out, nibble_error *err) {
  double start = nb_seconds();
  quantizer q = {.options = options, .result = out};
  nibble_status status = check_options(&q, err);
  if (status == NIBBLE_OK) status = open_source(&q, err);
  if (status == NIBBLE_OK) status = write_output(&q, err);
  cJSON_Delete(q.run.settings);
  nb_packer_close(q.packer);
  nb_writer_close(q.writer);
  nb_stage_abort(&q.stage, status, err);
  if (q.run.method && q.method->close) q.method->close(&q.run, status, err);
  nb_manifest_free(q.manifest);
  for (size_t i = 0; i < q.plan_count; i++) {
    nb_layout_parts_free(q.plans[i].parts, q.plans[i].part_count);
    nb_source_close(&q.plans[i].source);
    free(q.plans[i].renamed);
  }
  free(q.plans);
  nb_selection_free(&q.selection);
  nb_checkpoint_close(&q.checkpoint);
  out->seconds = nb_seconds() - start;
  return status;
}

nibble_status nibble_quantize(const nibble_quantize_options *options, nibble_quantize_result *out, nibble_error *err) {
  nibble_quantize_options o;
  nibble_quantize_result r;
  static const nb_call_rules rules = {
      "nibble_quantize",
      NB_SIZES(nibble_quantize_options, progress),
      NB_SIZES(nibble_quantize_result, seconds),
      {NB_REQUIRED(nibble_quantize_options, src), NB_REQUIRED(nibble_quantize_options, dst)}};
  nb_call call = {.options = &o, .result = &r};
  nibble_status status = nb_call_begin(&call, &rules, options, out, err);
  if (status == NIBBLE_OK) status = quantize(&o, &r, err);
  return nb_call_end(&call, status);
}
