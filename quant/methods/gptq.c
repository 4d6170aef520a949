/* gptq: calibrated. All the work is done when the method is opened (calibrate.h); finished layers lie in a work folder,
 * from where they are written. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/checked.h"
#include "base/parallel.h"
#include "convert/layouts/gptq.h"
#include "convert/manifest.h"
#include "kernels/gptq.h"
#include "quant/calibrate.h"
#include "quant/methods/grids.h"
#include "runner/device.h"
#include "runner/model.h"

static const int64_t DEFAULT_SAMPLES = 128, DEFAULT_SEQLEN = 2048;
static const uint64_t DEFAULT_MEMORY = 1ull << 30;
static const double DEFAULT_DAMP = 0.05;

enum { MAX_SEQLEN = 1 << 20, MAX_SAMPLES = 1 << 20, PACK_BAND = 64 };

/* Goes up whenever the same settings come to give other codes: half an artifact cannot be by one rule, half by another.
 * 2: grids are fitted to the weights that a block of columns begins with. */
enum { RULES = 2 };

typedef struct gptq {
  nb_grids grids; /* first, for grids.c */
  nb_windows windows;
  nb_workdir workdir;
} gptq;

/* ---- options ---------------------------------------------------------------------------------------------------- */

static bool is_random(const nibble_quantize_options *o) { return o->sampling == NIBBLE_SAMPLING_RANDOM; }

static double damp_of(const nibble_quantize_options *o) { return o->damp > 0 ? o->damp : DEFAULT_DAMP; }

static nibble_status check_gptq(const nibble_quantize_options *o, nibble_error *err) {
  nibble_status status = nb_grids_check(o, err);
  if (status != NIBBLE_OK) return status;
  if (!o->calib) return nb_fail(err, NIBBLE_USAGE, "--method gptq: --calib FILE is wanted, a text to calibrate on");
  if (o->nsamples < 0 || o->nsamples > MAX_SAMPLES || o->seqlen < 0 || o->seqlen > MAX_SEQLEN)
    return nb_fail(err, NIBBLE_USAGE, "--nsamples and --seqlen go from 1 to %d", MAX_SEQLEN);
  if (!(o->damp >= 0 && o->damp < 1)) return nb_fail(err, NIBBLE_USAGE, "--damp %g: from 0 to 1 is wanted", o->damp);
  if (o->seed && !is_random(o))
    return nb_fail(err, NIBBLE_USAGE, "--seed draws windows for --sampling random; without that nothing is drawn");
  return NIBBLE_OK;
}

/* ---- settings --------------------------------------------------------------------------------------------------- */

/* XXH3-128 over the configuration and all tensors' names and bytes. */
static nibble_status source_hash(const nb_checkpoint *c, char out[NB_HASH_CHARS], nibble_error *err) {
  char *config = cJSON_PrintUnformatted(c->config.json);
  XXH3_state_t *hash = XXH3_createState();
  nibble_status status = config && hash ? NIBBLE_OK : nb_fail_memory(err, sizeof(cJSON));
  XXH128_hash_t all = config ? XXH3_128bits(config, strlen(config)) : (XXH128_hash_t){0};
  for (size_t i = 0; status == NIBBLE_OK && i < c->tensor_count; i++) {
    const nb_tensor *t = &c->tensors[i];
    XXH3_128bits_reset(hash);
    status = nb_tensor_feed(c, t, hash, err);
    XXH128_hash_t parts[3] = {all, XXH3_128bits(t->name, strlen(t->name)), XXH3_128bits_digest(hash)};
    all = XXH3_128bits(parts, sizeof parts);
    nb_tensor_release(c, t, 0, t->count);
  }
  cJSON_free(config);
  XXH3_freeState(hash);
  nb_hash_print(all, out);
  return status;
}

static bool add_calibration(const nb_method_run *run, bool on_gpu, cJSON *json) {
  const nibble_quantize_options *o = run->options;
  const nb_windows *w = &((const gptq *)run->state)->windows;
  char hash[NB_HASH_CHARS];
  nb_hash_print(XXH3_128bits(w->ids, (size_t)(w->samples * w->seqlen) * sizeof *w->ids), hash);
  cJSON *calibration = cJSON_AddObjectToObject(json, "calibration");
  bool ok = calibration && cJSON_AddNumberToObject(calibration, "nsamples", (double)w->samples) &&
            cJSON_AddNumberToObject(calibration, "seqlen", (double)w->seqlen) &&
            cJSON_AddStringToObject(calibration, "sampling", is_random(o) ? "random" : "first") &&
            cJSON_AddNumberToObject(calibration, "text_tokens", (double)w->tokens) &&
            cJSON_AddStringToObject(calibration, "ids_xxh3_128", hash);
  if (ok && is_random(o)) ok = cJSON_AddNumberToObject(calibration, "seed", (double)o->seed);
  return ok && cJSON_AddStringToObject(json, "device", on_gpu ? "cuda" : "cpu") &&
         cJSON_AddBoolToObject(json, "desc_act", o->desc_act) && cJSON_AddNumberToObject(json, "damp", damp_of(o));
}

static nibble_status make_settings(nb_method_run *run, nibble_error *err) {
  /* A GPU rounds other codes than the CPU here and there, so a run is one's or the other's. */
  const nb_cuda_module *gpu = NULL;
  nibble_status status = nb_device_module(run->options->context, &gpu, err);
  if (status != NIBBLE_OK) return status;
  run->settings = nb_grids_settings(run);
  bool ok = run->settings && add_calibration(run, gpu != NULL, run->settings);
  return ok ? NIBBLE_OK : nb_fail_memory(err, sizeof(cJSON));
}

/* ---- opening ---------------------------------------------------------------------------------------------------- */

/* Calibration sees the linear layers of the blocks of one stack, and no others. */
static nibble_status check_reach(const nb_method_run *run, nibble_error *err) {
  const nb_checkpoint *c = run->checkpoint;
  nb_activation activation;
  size_t reached = 0;
  nibble_status status = nb_model_check_runnable(c, &activation, err);
  if (status != NIBBLE_OK) return status;
  if (c->config.family->stacks[1].rules)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: gptq calibrates models of one stack, not '%s'", c->path,
                   c->config.model_type);
  for (size_t i = 0; i < c->promised.count; i++)
    reached += nb_grids_reach(&c->slots[i]) && nb_method_wants(run, c->slots[i].tensor);
  if (reached == run->selection->quantized) return NIBBLE_OK;
  if (run->options->include)
    return nb_fail(err, NIBBLE_USAGE, "--include: gptq calibrates the linear layers of blocks, no output embeddings");
  return nb_fail(err, NIBBLE_USAGE, "%s: gptq calibrates the linear layers of blocks; --exclude leaves out %zu others",
                 c->path, run->selection->quantized - reached);
}

static nibble_status load_windows(const nb_method_run *run, nb_windows *out, nibble_error *err) {
  const nibble_quantize_options *o = run->options;
  int64_t positions = run->checkpoint->config.max_position_embeddings;
  nb_windows_options w = {.path = o->calib,
                          .checkpoint = run->checkpoint,
                          .samples = o->nsamples > 0 ? o->nsamples : DEFAULT_SAMPLES,
                          .seqlen = o->seqlen > 0 ? o->seqlen : nb_min_i64(DEFAULT_SEQLEN, positions),
                          .random = is_random(o),
                          .seed = o->seed};
  return nb_windows_load(&w, out, err);
}

static nibble_status open_workdir(const nibble_quantize_options *o, nb_workdir *out, nibble_error *err) {
  nb_workdir_rule rule = {.resume = o->resume, .force = o->force, .progress = &o->progress};
  nb_buf path = {0};
  size_t n = strlen(o->dst);
  while (n > 1 && o->dst[n - 1] == '/') n--;
  nb_buf_printf(&path, "%.*s.work", (int)n, o->dst);
  nibble_status status = path.failed ? nb_fail_memory(err, n) : NIBBLE_OK;
  if (status == NIBBLE_OK) status = nb_workdir_open(o->work_dir ? o->work_dir : path.data, &rule, out, err);
  nb_buf_free(&path);
  return status;
}

static nibble_status begin_workdir(const nb_method_run *run, const nb_workdir *workdir, nibble_error *err) {
  char hash[NB_HASH_CHARS];
  cJSON *settings = cJSON_Duplicate(run->settings, true);
  nibble_status status = source_hash(run->checkpoint, hash, err);
  if (status == NIBBLE_OK && (!cJSON_AddNumberToObject(settings, "rules_version", RULES) ||
                              !cJSON_AddStringToObject(settings, "source_xxh3_128", hash)))
    status = nb_fail_memory(err, sizeof(cJSON));
  if (status == NIBBLE_OK) status = nb_workdir_begin(workdir, settings, err);
  cJSON_Delete(settings);
  return status;
}

static bool wants(void *ctx, const nb_tensor *weight) { return nb_method_wants(ctx, weight); }

static nibble_status open_gptq(nb_method_run *run, nibble_error *err) {
  const nibble_quantize_options *o = run->options;
  gptq *g = run->state = nb_alloc(1, sizeof *g);
  if (!g) return nb_fail_memory(err, sizeof *g);
  *g = (gptq){.grids = nb_grids_of(o, true), .workdir.lock = -1};
  nibble_status status = check_reach(run, err);
  if (status == NIBBLE_OK) status = open_workdir(o, &g->workdir, err);
  if (status == NIBBLE_OK) status = load_windows(run, &g->windows, err);
  if (status == NIBBLE_OK) status = make_settings(run, err);
  if (status == NIBBLE_OK) status = begin_workdir(run, &g->workdir, err);
  if (status != NIBBLE_OK) return status;
  nb_calibration calibration = {.context = o->context,
                                .checkpoint = run->checkpoint,
                                .windows = &g->windows,
                                .workdir = &g->workdir,
                                .grid = g->grids.grid,
                                .order = o->desc_act ? NB_ORDER_ACTIVATION : NB_ORDER_GROUPS,
                                .damp = damp_of(o),
                                .max_memory = o->max_memory ? o->max_memory : DEFAULT_MEMORY,
                                .wants = wants,
                                .ctx = run,
                                .progress = &o->progress};
  return nb_calibrate(&calibration, err);
}

/* Layers are finished in one order, so those that are there come before all others. */
static void tell_of_workdir(const nb_method_run *run, nibble_error *err) {
  const nb_workdir *w = &((const gptq *)run->state)->workdir;
  long long count = (long long)nb_workdir_count(w), total = (long long)run->selection->quantized;
  char before[NIBBLE_MESSAGE_MAX];
  if (!err || count == 0) return;
  memcpy(before, err->message, sizeof before);
  if (count < total) {
    nb_fail(err, NIBBLE_STOPPED, "%s; %s keeps %lld of %lld layers: --resume goes on from layer %lld", before, w->path,
            count, total, count + 1);
  } else {
    nb_fail(err, NIBBLE_STOPPED, "%s; %s keeps all %lld layers: --resume goes on with writing them", before, w->path,
            count);
  }
}

/* Keeps the work folder for a later --resume unless the output stands. */
static void close_gptq(nb_method_run *run, nibble_status status, nibble_error *err) {
  gptq *g = run->state;
  if (!g) return;
  if (status == NIBBLE_STOPPED) tell_of_workdir(run, err);
  nb_windows_free(&g->windows);
  nb_workdir_close(&g->workdir, status == NIBBLE_OK);
  free(g);
}

/* ---- one weight ------------------------------------------------------------------------------------------------- */

static cJSON *describe(const nb_rounded *r) {
  cJSON *json = cJSON_CreateObject();
  /* Parts of the layer's outputs on the calibration text, beside what rounding to the nearest would have made. */
  bool ok = json && cJSON_AddNumberToObject(json, "output_error", sqrt(r->error)) &&
            cJSON_AddNumberToObject(json, "output_error_rtn", sqrt(r->rtn_error)) &&
            cJSON_AddNumberToObject(json, "damp", r->damp);
  if (ok && r->is_fallback) ok = cJSON_AddBoolToObject(json, "rounded_to_nearest", true);
  if (ok) return json;
  cJSON_Delete(json);
  return NULL;
}

typedef struct pack_job {
  const nb_rounded *rounded;
  int bits;
  uint32_t *words;
} pack_job;

static void pack_band(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const pack_job *job = ctx;
  const nb_rounded *r = job->rounded;
  nb_gptq_codes codes = {.data = r->codes + begin * r->cols, .rows = end - begin, .cols = r->cols, .bits = job->bits};
  nb_gptq_pack(&codes, job->words + begin, r->rows);
}

static nibble_status pack(const nb_method_run *run, nb_packer *packer, const nb_pack_job *job, const nb_rounded *r,
                          nb_pack_result *out, nibble_error *err) {
  const nb_grids *g = run->state;
  uint64_t words = (uint64_t)(nb_gptq_words(r->cols, g->grid.bits) * r->rows);
  pack_job band = {.rounded = r, .bits = g->grid.bits, .words = nb_alloc_aligned(words, sizeof(uint32_t))};
  if (!band.words) return nb_fail_memory(err, words * sizeof(uint32_t));
  nb_parallel(r->rows, PACK_BAND, pack_band, &band);
  nb_grids_weight weight = {.rows = r->rows,
                            .groups = r->groups,
                            .words = band.words,
                            .scales = r->scales,
                            .zeros = r->zeros,
                            .g_idx = r->g_idx,
                            .mended = r->mended,
                            .error = r->weight_error,
                            .squares = r->weight_squares};
  nibble_status status = nb_grids_write(run, packer, job, &weight, out, err);
  free(band.words);
  return status;
}

static nibble_status write_gptq(const nb_method_run *run, nb_packer *packer, const nb_pack_job *job,
                                nb_pack_result *out, nibble_error *err) {
  const gptq *g = run->state;
  const nb_source *source = job->source;
  nb_rounded rounded = {0};
  bool found;
  nb_layer_shape shape = {.rows = source->shape[0], .cols = source->shape[1], .grid = &g->grids.grid};
  nibble_status status = nb_workdir_load(&g->workdir, source->name, &shape, &rounded, &found, err);
  if (status == NIBBLE_OK && !found)
    status = nb_fail(err, NIBBLE_SYSTEM, "%s: the file of layer '%s' was damaged since it was written", g->workdir.path,
                     source->name);
  if (status == NIBBLE_OK && !(out->details = describe(&rounded))) status = nb_fail_memory(err, sizeof(cJSON));
  if (status == NIBBLE_OK) status = pack(run, packer, job, &rounded, out, err);
  nb_rounded_free(&rounded);
  return status;
}

/* ---- config.json ------------------------------------------------------------------------------------------------ */

static cJSON *config_gptq(const nb_method_run *run) {
  const nibble_quantize_options *o = run->options;
  cJSON *json = nb_grids_config(run), *meta = cJSON_GetObjectItemCaseSensitive(json, "meta");
  bool ok = meta && cJSON_AddNumberToObject(meta, "damp_percent", damp_of(o)) &&
            cJSON_AddBoolToObject(meta, "act_group_aware", !o->desc_act) &&
            cJSON_AddBoolToObject(meta, "true_sequential", true) && cJSON_AddBoolToObject(meta, "static_groups", false);
  if (ok) return json;
  cJSON_Delete(json);
  return NULL;
}

const nb_method nb_method_gptq = {.name = "gptq",
                                  .reads = NB_GRIDS_OPTIONS | NB_OPTION_DESC_ACT | NB_OPTION_DAMP | NB_OPTION_CALIB |
                                           NB_OPTION_NSAMPLES | NB_OPTION_SEQLEN | NB_OPTION_SAMPLING | NB_OPTION_SEED |
                                           NB_OPTION_MAX_MEMORY | NB_OPTION_WORK_DIR | NB_OPTION_RESUME,
                                  .layout = &nb_layout_gptq,
                                  .computes_on_gpu = true,
                                  .check = check_gptq,
                                  .open = open_gptq,
                                  .target = nb_grids_target,
                                  .write = write_gptq,
                                  .config = config_gptq,
                                  .close = close_gptq};
