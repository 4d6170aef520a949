#include "quant/gptq_method.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/checked.h"
#include "base/parallel.h"
#include "convert/manifest.h"
#include "kernels/gptq.h"
#include "runner/device.h"

static const int64_t DEFAULT_GROUP_SIZE = 128, DEFAULT_SAMPLES = 128, DEFAULT_SEQLEN = 2048;
static const uint64_t DEFAULT_MEMORY = 1ull << 30;
static const double DEFAULT_DAMP = 0.05;

enum { WORD_BITS = 32, MAX_SEQLEN = 1 << 20, MAX_SAMPLES = 1 << 20, READ_BAND = 64 };

/* Goes up whenever the same settings come to give other codes: half an artifact cannot be by one rule, half by another.
 * 2: grids are fitted to the weights that a block of columns begins with. */
enum { RULES = 2 };

/* ---- options ---------------------------------------------------------------------------------------------------- */

bool nb_gptq_method_is(const char *method) {
  return method && (strcmp(method, "gptq") == 0 || strcmp(method, "rtn") == 0);
}

static bool is_bf16(const char *dtype) { return strcmp(dtype, "bfloat16") == 0 || strcmp(dtype, "bf16") == 0; }

static bool is_rtn(const nibble_quantize_options *o) { return strcmp(o->method, "rtn") == 0; }

nibble_status nb_gptq_method_check(const nibble_quantize_options *o, nibble_error *err) {
  nb_format format;
  if (o->double_quant || o->block_size)
    return nb_fail(err, NIBBLE_USAGE, "--double-quant and --block-size belong to nf4 and fp4, not to %s", o->method);
  if (o->bits && !nb_gptq_format(o->bits, &format))
    return nb_fail(err, NIBBLE_USAGE, "--bits %d: 2, 3, 4 or 8 is wanted", o->bits);
  if (o->group_size < -1)
    return nb_fail(err, NIBBLE_USAGE, "--group-size %lld: -1 (one group a row), 32, 64 or 128 is wanted",
                   (long long)o->group_size);
  if (o->group_size > 0 && o->group_size % WORD_BITS != 0)
    return nb_fail(err, NIBBLE_USAGE, "--group-size %lld: a multiple of %d is wanted", (long long)o->group_size,
                   WORD_BITS);
  if (o->layout && strcmp(o->layout, "gptq") != 0 && strcmp(o->layout, "gptq_v2") != 0)
    return nb_fail(err, NIBBLE_USAGE, "--layout %s: gptq or gptq_v2 is wanted", o->layout);
  if (o->scale_dtype && !is_bf16(o->scale_dtype) && strcmp(o->scale_dtype, "float16") != 0 &&
      strcmp(o->scale_dtype, "f16") != 0)
    return nb_fail(err, NIBBLE_USAGE, "--scale-dtype %s: float16 or bfloat16 is wanted", o->scale_dtype);
  bool calibrates = o->calib || o->nsamples || o->seqlen || o->random_sampling || o->seed || o->damp != 0 ||
                    o->desc_act || o->max_memory || o->work_dir || o->resume;
  if (is_rtn(o) && calibrates)
    return nb_fail(err, NIBBLE_USAGE, "rtn rounds without calibration: --calib and what belongs to it are gptq's");
  if (is_rtn(o)) return NIBBLE_OK;
  if (!o->calib) return nb_fail(err, NIBBLE_USAGE, "--method gptq: --calib FILE is wanted, a text to calibrate on");
  if (o->nsamples < 0 || o->nsamples > MAX_SAMPLES || o->seqlen < 0 || o->seqlen > MAX_SEQLEN)
    return nb_fail(err, NIBBLE_USAGE, "--nsamples and --seqlen go from 1 to %d", MAX_SEQLEN);
  if (!(o->damp >= 0 && o->damp < 1)) return nb_fail(err, NIBBLE_USAGE, "--damp %g: from 0 to 1 is wanted", o->damp);
  if (o->seed && !o->random_sampling)
    return nb_fail(err, NIBBLE_USAGE, "--seed draws windows for --sampling random; without that nothing is drawn");
  return NIBBLE_OK;
}

/* ---- settings --------------------------------------------------------------------------------------------------- */

/* XXH3-128 over the configuration and all tensors' names and bytes. False without memory. */
static bool source_hash(const nb_checkpoint *c, char out[NB_HASH_CHARS]) {
  char *config = cJSON_PrintUnformatted(c->config.json);
  if (!config) return false;
  XXH128_hash_t all = XXH3_128bits(config, strlen(config));
  free(config);
  for (size_t i = 0; i < c->tensor_count; i++) {
    const nb_tensor *t = &c->tensors[i];
    XXH128_hash_t name = XXH3_128bits(t->name, strlen(t->name));
    XXH128_hash_t data = XXH3_128bits(nb_tensor_raw(c, t), (size_t)t->bytes);
    XXH128_hash_t parts[3] = {all, name, data};
    all = XXH3_128bits(parts, sizeof parts);
    nb_tensor_release(c, t, 0, t->count);
  }
  nb_hash_print(all, out);
  return true;
}

static bool add_calibration(const nb_gptq_method *m, bool on_gpu, cJSON *json) {
  const nibble_quantize_options *o = m->options;
  const nb_windows *w = &m->windows;
  char hash[NB_HASH_CHARS];
  nb_hash_print(XXH3_128bits(w->ids, (size_t)(w->samples * w->seqlen) * sizeof *w->ids), hash);
  cJSON *calibration = cJSON_AddObjectToObject(json, "calibration");
  bool ok = calibration && cJSON_AddNumberToObject(calibration, "nsamples", (double)w->samples) &&
            cJSON_AddNumberToObject(calibration, "seqlen", (double)w->seqlen) &&
            cJSON_AddStringToObject(calibration, "sampling", o->random_sampling ? "random" : "first") &&
            cJSON_AddNumberToObject(calibration, "text_tokens", (double)w->tokens) &&
            cJSON_AddStringToObject(calibration, "ids_xxh3_128", hash);
  if (ok && o->random_sampling) ok = cJSON_AddNumberToObject(calibration, "seed", (double)o->seed);
  return ok && cJSON_AddStringToObject(json, "device", on_gpu ? "cuda" : "cpu") &&
         cJSON_AddBoolToObject(json, "desc_act", o->desc_act) &&
         cJSON_AddNumberToObject(json, "damp", o->damp > 0 ? o->damp : DEFAULT_DAMP);
}

static nibble_status make_settings(nb_gptq_method *m, nibble_error *err) {
  const nibble_quantize_options *o = m->options;
  const nb_cuda_module *gpu =
      NULL; /* it rounds other codes than the CPU here and there, so a run is one's or the other's */
  nibble_status status = m->is_rtn ? NIBBLE_OK : nb_device_module(o->context, &gpu, err);
  if (status != NIBBLE_OK) return status;
  cJSON *json = m->settings = cJSON_CreateObject();
  bool ok = json && cJSON_AddStringToObject(json, "method", o->method) &&
            cJSON_AddStringToObject(json, "layout", m->v2 ? "gptq_v2" : "gptq") &&
            cJSON_AddNumberToObject(json, "bits", m->grid.bits) &&
            cJSON_AddNumberToObject(json, "group_size", (double)m->grid.group_size) &&
            cJSON_AddBoolToObject(json, "sym", m->grid.sym) && cJSON_AddBoolToObject(json, "mse", m->grid.mse) &&
            cJSON_AddStringToObject(json, "scale_dtype", m->grid.bf16_scales ? "bfloat16" : "float16");
  if (ok && o->include) ok = cJSON_AddStringToObject(json, "include", o->include);
  if (ok && o->exclude) ok = cJSON_AddStringToObject(json, "exclude", o->exclude);
  if (ok && !m->is_rtn) ok = add_calibration(m, gpu != NULL, json);
  return ok ? NIBBLE_OK : nb_fail_memory(err, sizeof(cJSON));
}

/* ---- opening ---------------------------------------------------------------------------------------------------- */

static bool wants(void *ctx, const nb_tensor *weight) {
  const nb_gptq_method *m = ctx;
  return m->selection->choices[weight - m->checkpoint->tensors] == NB_CHOICE_QUANTIZE;
}

/* True for a linear layer of a block, which calibration sees. */
static bool is_reached(const nb_slot *slot) {
  const nb_model_tensor *t = slot->wanted;
  return slot->tensor && t->layer >= 0 && !t->is_bias && (t->kind == NB_KIND_LINEAR || t->kind == NB_KIND_EXPERT);
}

/* Calibration sees the linear layers of the blocks of one stack, and no others. */
static nibble_status check_reach(const nb_gptq_method *m, nibble_error *err) {
  const nb_checkpoint *c = m->checkpoint;
  nb_activation activation;
  size_t reached = 0;
  nibble_status status = nb_model_check_runnable(c, &activation, err);
  if (status != NIBBLE_OK) return status;
  if (c->config.family->stacks[1].rules)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: gptq calibrates models of one stack, not '%s'", c->path,
                   c->config.model_type);
  for (size_t i = 0; i < c->promised.count; i++)
    reached += is_reached(&c->slots[i]) && wants((void *)(uintptr_t)m, c->slots[i].tensor);
  if (reached == m->selection->quantized) return NIBBLE_OK;
  if (m->options->include)
    return nb_fail(err, NIBBLE_USAGE, "--include: gptq calibrates the linear layers of blocks, no output embeddings");
  return nb_fail(err, NIBBLE_USAGE, "%s: gptq calibrates the linear layers of blocks; --exclude leaves out %zu others",
                 c->path, m->selection->quantized - reached);
}

static nibble_status load_windows(nb_gptq_method *m, nibble_error *err) {
  const nibble_quantize_options *o = m->options;
  int64_t positions = m->checkpoint->config.max_position_embeddings;
  nb_windows_options w = {.path = o->calib,
                          .tokenizer = o->src,
                          .samples = o->nsamples > 0 ? o->nsamples : DEFAULT_SAMPLES,
                          .seqlen = o->seqlen > 0 ? o->seqlen : nb_min_i64(DEFAULT_SEQLEN, positions),
                          .random = o->random_sampling,
                          .seed = o->seed};
  return nb_windows_load(&w, &m->windows, err);
}

static nibble_status open_workdir(nb_gptq_method *m, nibble_error *err) {
  const nibble_quantize_options *o = m->options;
  char hash[NB_HASH_CHARS];
  nb_buf path = {0};
  cJSON *settings = cJSON_Duplicate(m->settings, true);
  size_t n = strlen(o->dst);
  while (n > 1 && o->dst[n - 1] == '/') n--;
  nb_buf_printf(&path, "%.*s.work", (int)n, o->dst);
  nibble_status status = NIBBLE_OK;
  if (path.failed || !settings || !source_hash(m->checkpoint, hash) ||
      !cJSON_AddNumberToObject(settings, "rules_version", RULES) ||
      !cJSON_AddStringToObject(settings, "source_xxh3_128", hash))
    status = nb_fail_memory(err, sizeof(cJSON));
  if (status == NIBBLE_OK)
    status = nb_workdir_open(o->work_dir ? o->work_dir : path.data, settings, o->resume, &m->workdir, err);
  cJSON_Delete(settings);
  nb_buf_free(&path);
  return status;
}

nibble_status nb_gptq_method_open(const nibble_quantize_options *o, const nb_checkpoint *checkpoint,
                                  const nb_selection *selection, nb_gptq_method *out, nibble_error *err) {
  *out = (nb_gptq_method){.options = o, .checkpoint = checkpoint, .selection = selection, .is_rtn = is_rtn(o)};
  nb_gptq_method *m = out;
  m->v2 = o->layout && strcmp(o->layout, "gptq_v2") == 0;
  m->grid = (nb_grid){.bits = o->bits ? o->bits : 4,
                      .group_size = o->group_size ? o->group_size : DEFAULT_GROUP_SIZE,
                      .sym = !o->asym,
                      .mse = o->scales ? o->scales == NIBBLE_SCALES_SEARCHED : !m->is_rtn,
                      .bf16_scales = o->scale_dtype && is_bf16(o->scale_dtype)};
  nb_gptq_format(m->grid.bits, &m->format);
  nibble_status status = NIBBLE_OK;
  if (!m->is_rtn) status = check_reach(m, err);
  if (status == NIBBLE_OK && !m->is_rtn) status = load_windows(m, err);
  if (status == NIBBLE_OK) status = make_settings(m, err);
  if (status != NIBBLE_OK || m->is_rtn) return status;
  if ((status = open_workdir(m, err)) != NIBBLE_OK) return status;
  nb_calibration calibration = {.context = o->context,
                                .checkpoint = checkpoint,
                                .windows = &m->windows,
                                .workdir = &m->workdir,
                                .grid = m->grid,
                                .order = o->desc_act ? NB_ORDER_ACTIVATION : NB_ORDER_GROUPS,
                                .damp = o->damp > 0 ? o->damp : DEFAULT_DAMP,
                                .max_memory = o->max_memory ? o->max_memory : DEFAULT_MEMORY,
                                .wants = wants,
                                .ctx = m,
                                .progress = &o->progress};
  return nb_calibrate(&calibration, err);
}

void nb_gptq_method_close(nb_gptq_method *method, bool is_done) {
  nb_windows_free(&method->windows);
  nb_workdir_close(&method->workdir, is_done);
  cJSON_Delete(method->settings);
  *method = (nb_gptq_method){0};
}

/* ---- one weight ------------------------------------------------------------------------------------------------- */

nibble_status nb_gptq_method_target(const nb_gptq_method *m, const nb_source *source, nb_packed *out,
                                    nibble_error *err) {
  int64_t rows = source->shape[0], cols = source->shape[1], size = m->grid.group_size;
  if (rows % WORD_BITS != 0 || cols % WORD_BITS != 0)
    return nb_fail(err, NIBBLE_BAD_INPUT,
                   "%s: tensor '%s' is [%lld, %lld]; the GPTQ layout packs multiples of %d both ways (--exclude "
                   "leaves it out)",
                   source->checkpoint->path, source->name, (long long)rows, (long long)cols, WORD_BITS);
  if (size <= 0 || size > cols) size = cols;
  *out = nb_packed_usual(m->format, rows, cols, size, false);
  out->scale.dtype = m->grid.bf16_scales ? NB_BF16 : NB_F16;
  return NIBBLE_OK;
}

typedef struct read_job {
  const nb_source *source;
  float *out;
  nb_shared_error error;
} read_job;

static void read_band(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  read_job *job = ctx;
  const nb_source *s = job->source;
  int64_t cols = s->shape[1], first = begin * cols, count = (end - begin) * cols;
  uint64_t bytes = (uint64_t)count * nb_dtype_size(s->dtype);
  nibble_error err;
  void *values = nb_alloc_aligned(bytes, 1);
  nibble_status status = values ? nb_source_read(s, first, count, values, &err) : nb_fail_memory(&err, bytes);
  if (status == NIBBLE_OK) nb_to_f32(s->dtype, values, (size_t)count, job->out + first);
  for (int64_t i = first; status == NIBBLE_OK && i < first + count; i++) {
    if (isfinite(job->out[i])) continue;
    status = nb_fail(&err, NIBBLE_BAD_INPUT, "%s: tensor '%s' is not finite at index %lld", s->checkpoint->path,
                     s->name, (long long)i);
  }
  if (status != NIBBLE_OK) nb_shared_error_set(&job->error, status, &err);
  free(values);
}

static nibble_status round_source(const nb_gptq_method *m, const nb_source *source, nb_rounded *out,
                                  nibble_error *err) {
  read_job job = {.source = source, .out = nb_alloc_aligned((uint64_t)source->count, sizeof(float))};
  if (!job.out) return nb_fail_memory(err, (size_t)source->count * sizeof(float));
  nb_parallel(source->shape[0], READ_BAND, read_band, &job);
  nibble_status status = nb_shared_error_get(&job.error, err);
  nb_source_release(source, 0, source->count);
  if (status == NIBBLE_OK) status = nb_rtn_solve(job.out, source->shape[0], source->shape[1], &m->grid, out, err);
  free(job.out);
  if (status == NIBBLE_OK && out->mended > 0)
    nb_warn(&m->options->progress, "%s: %lld groups have a scale out of its dtype's range", source->name,
            (long long)out->mended);
  return status;
}

static nibble_status write_zeros(const nb_gptq_method *m, nb_writer *writer, const nb_rounded *r, const nb_part *part,
                                 size_t index, nibble_error *err) {
  int64_t words = part->shape[1];
  uint64_t bytes = (uint64_t)words * sizeof(uint32_t);
  uint32_t *packed = nb_alloc((uint64_t)words, sizeof *packed);
  nibble_status status = packed ? NIBBLE_OK : nb_fail_memory(err, bytes);
  for (int64_t g = 0; status == NIBBLE_OK && g < r->groups; g++) {
    nb_gptq_pack_zeros(r->zeros + g * r->rows, r->rows, m->grid.bits, !m->v2, packed);
    status = nb_writer_write(writer, index, (uint64_t)g * bytes, packed, bytes, err);
  }
  free(packed);
  return status;
}

typedef struct pack_job {
  const nb_rounded *rounded;
  int bits;
  uint32_t *words;
} pack_job;

static void pack_band(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const pack_job *job = ctx;
  nb_gptq_pack(job->rounded->codes, job->rounded->rows, job->rounded->cols, job->bits, begin, end, job->words);
}

static nibble_status write_rounded(const nb_gptq_method *m, nb_writer *writer, const nb_rounded *r,
                                   const nb_part *parts, int part_count, size_t index, nibble_error *err) {
  uint64_t words = (uint64_t)(nb_gptq_words(r->cols, m->grid.bits) * r->rows);
  pack_job job = {.rounded = r, .bits = m->grid.bits, .words = nb_alloc_aligned(words, sizeof(uint32_t))};
  if (!job.words) return nb_fail_memory(err, words * sizeof(uint32_t));
  nb_parallel(r->rows, READ_BAND, pack_band, &job);
  nibble_status status = NIBBLE_OK;
  for (int i = 0; status == NIBBLE_OK && i < part_count; i++, index++) {
    const nb_part *p = &parts[i];
    int64_t count = p->shape[0] * (p->ndim == 2 ? p->shape[1] : 1);
    uint64_t bytes = (uint64_t)count * nb_dtype_size(p->dtype);
    status = nb_writer_begin(writer, index, count, err);
    if (status != NIBBLE_OK) break;
    if (p->role == NB_PART_ZEROS) {
      status = write_zeros(m, writer, r, p, index, err);
      continue;
    }
    const void *data = p->role == NB_PART_CODES    ? (const void *)job.words
                       : p->role == NB_PART_SCALES ? r->scales
                                                   : NULL;
    status = nb_writer_write(writer, index, 0, data ? data : r->g_idx, bytes, err);
  }
  free(job.words);
  return status;
}

static cJSON *describe(const nb_gptq_method *m, const nb_rounded *r) {
  cJSON *json = cJSON_CreateObject();
  bool ok = json != NULL;
  /* Parts of the layer's outputs on the calibration text, beside what rounding to the nearest would have made. */
  if (ok && !m->is_rtn)
    ok = cJSON_AddNumberToObject(json, "output_error", sqrt(r->error)) &&
         cJSON_AddNumberToObject(json, "output_error_rtn", sqrt(r->rtn_error));
  if (ok && !m->is_rtn) ok = cJSON_AddNumberToObject(json, "damp", r->damp);
  if (ok && r->is_fallback) ok = cJSON_AddBoolToObject(json, "rounded_to_nearest", true);
  if (ok && r->mended > 0) ok = cJSON_AddNumberToObject(json, "mended_groups", (double)r->mended);
  if (ok) return json;
  cJSON_Delete(json);
  return NULL;
}

nibble_status nb_gptq_method_write(const nb_gptq_method *m, nb_writer *writer, const nb_source *source,
                                   const nb_part *parts, int part_count, size_t index, nb_pack_result *out,
                                   cJSON **details, nibble_error *err) {
  nb_rounded rounded = {0};
  bool found = true;
  nibble_status status = m->is_rtn ? round_source(m, source, &rounded, err)
                                   : nb_workdir_load(&m->workdir, source->name, &rounded, &found, err);
  if (status == NIBBLE_OK && (!found || rounded.rows != source->shape[0] || rounded.cols != source->shape[1]))
    status = nb_fail(err, NIBBLE_SYSTEM, "%s: the file of layer '%s' was damaged since it was written",
                     m->workdir.path ? m->workdir.path : "", source->name);
  if (status == NIBBLE_OK) status = write_rounded(m, writer, &rounded, parts, part_count, index, err);
  if (status == NIBBLE_OK && !(*details = describe(m, &rounded))) status = nb_fail_memory(err, sizeof(cJSON));
  if (status == NIBBLE_OK) {
    nb_tensor_hash(source->checkpoint, source->tensor, out->hash);
    nb_tensor_release(source->checkpoint, source->tensor, 0, source->tensor->count);
    out->error = rounded.weight_error;
    out->squares = rounded.weight_squares;
  }
  nb_rounded_free(&rounded);
  return status;
}

/* ---- config.json ------------------------------------------------------------------------------------------------ */

/* GPTQModel's way to leave modules out: "dynamic" with their names, as expressions, after "-:". */
static bool add_kept(const nb_gptq_method *m, cJSON *json) {
  const nb_checkpoint *c = m->checkpoint;
  cJSON *dynamic = NULL;
  bool ok = true;
  for (size_t i = 0; ok && i < c->promised.count; i++) {
    if (!is_reached(&c->slots[i]) || wants((void *)(uintptr_t)m, c->slots[i].tensor)) continue;
    if (!dynamic) ok = (dynamic = cJSON_AddObjectToObject(json, "dynamic")) != NULL;
    const char *name = c->promised.items[i].name, *end = strrchr(name, '.');
    nb_buf key = {0};
    nb_buf_puts(&key, "-:^");
    for (; name < end; name++) nb_buf_printf(&key, *name == '.' ? "\\%c" : "%c", *name);
    nb_buf_puts(&key, "$");
    ok = ok && !key.failed && cJSON_AddObjectToObject(dynamic, key.data);
    nb_buf_free(&key);
  }
  return ok;
}

static bool add_meta(const nb_gptq_method *m, cJSON *json) {
  const nibble_quantize_options *o = m->options;
  cJSON *meta = cJSON_AddObjectToObject(json, "meta");
  cJSON *quantizer = meta ? cJSON_AddArrayToObject(meta, "quantizer") : NULL;
  bool ok = quantizer && cJSON_AddItemToArray(quantizer, cJSON_CreateString("nibble:" NIBBLE_VERSION));
  /* GPTQModel takes asymmetric weights in version 1 only where one of the quantizers is its own from 0.9.0 on, after
   * which it stores zero points as we do: the name stands for the convention. */
  if (ok && !m->grid.sym && !m->v2) ok = cJSON_AddItemToArray(quantizer, cJSON_CreateString("gptqmodel:7.7.0"));
  if (!ok || m->is_rtn) return ok;
  return cJSON_AddNumberToObject(meta, "damp_percent", o->damp > 0 ? o->damp : DEFAULT_DAMP) &&
         cJSON_AddBoolToObject(meta, "act_group_aware", !o->desc_act) &&
         cJSON_AddBoolToObject(meta, "true_sequential", true) && cJSON_AddBoolToObject(meta, "static_groups", false);
}

cJSON *nb_gptq_method_config(const nb_gptq_method *m) {
  const char *format = m->v2 ? "gptq_v2" : "gptq";
  cJSON *json = cJSON_CreateObject();
  bool ok = json && cJSON_AddNumberToObject(json, "bits", m->grid.bits) &&
            cJSON_AddNumberToObject(json, "group_size", (double)m->grid.group_size) &&
            cJSON_AddBoolToObject(json, "desc_act", m->options->desc_act) &&
            cJSON_AddBoolToObject(json, "sym", m->grid.sym) && cJSON_AddBoolToObject(json, "lm_head", false) &&
            cJSON_AddStringToObject(json, "method", "gptq") && cJSON_AddStringToObject(json, "quant_method", "gptq") &&
            cJSON_AddStringToObject(json, "format", format) &&
            cJSON_AddStringToObject(json, "checkpoint_format", format) &&
            cJSON_AddStringToObject(json, "pack_dtype", "int32") && add_kept(m, json) && add_meta(m, json);
  if (ok) return json;
  cJSON_Delete(json);
  return NULL;
}
