#include "quant/calibrate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/parallel.h"
#include "kernels/gptq.h"
#include "quant/boundary.h"
#include "runner/block.h"

enum { ROW_BAND = 32 };

/* ---- the run ---------------------------------------------------------------------------------------------------- */

typedef struct run {
  const nb_calibration *c;
  const nb_config *config;
  nb_model_tensors tensors;
  nb_backend *backend;
  nb_activation activation;
  nb_block_scratch own;     /* as it was made */
  nb_block_scratch scratch; /* the same, but x, attended and gate are a sample's */
  nb_kv_cache *cache;
  nb_boundary x;     /* the residual stream */
  nb_boundary inner; /* inside a block what o_proj will see, then what down_proj will */
  nb_block block;
  int64_t layer;
  uint64_t done, total; /* layers */
} run;

/* Layers that share their input, and the part of the block that has it. */
typedef struct stage {
  nb_linear_slot slots[3];
  int count;
  nibble_status (*part)(const nb_block_run *run, nibble_error *err);
} stage;

static const stage stages[] = {
    {{NB_Q_PROJ, NB_K_PROJ, NB_V_PROJ}, 3, nb_block_attend},
    {{NB_O_PROJ}, 1, nb_block_project},
    {{NB_GATE_PROJ, NB_UP_PROJ}, 2, nb_block_gate},
    {{NB_DOWN_PROJ}, 1, nb_block_down},
};

enum { STAGES = sizeof stages / sizeof *stages };

/* A hook that adds a layer's input to a hessian and ends the part there, as the layer is yet to be solved. */
typedef struct gather {
  nb_hessian *hessian;
} gather;

static nibble_status see_input(void *ctx, const char *name, const float *x, int64_t rows, int64_t cols,
                               nibble_error *err) {
  (void)name, (void)err;
  const gather *g = ctx;
  nb_hessian_add(g->hessian, x, rows, cols);
  return NIBBLE_CHECK_FAILED;
}

static nb_block_run block_run(run *r, const nb_hook *hook) {
  return (nb_block_run){.config = r->config,
                        .block = &r->block,
                        .activation = r->activation,
                        .hook = hook,
                        .scratch = &r->scratch,
                        .cache = r->cache,
                        .layer = r->layer,
                        .sequences = 1,
                        .tokens = r->c->windows->seqlen,
                        .capacity = r->c->windows->seqlen};
}

static uint64_t bytes_of(const run *r, int64_t width) {
  return (uint64_t)(r->c->windows->seqlen * width) * sizeof(float);
}

static nibble_status load_x(run *r, int64_t sample, nibble_error *err) {
  r->scratch.x = nb_boundary_buffer(&r->x, sample);
  return nb_boundary_load(&r->x, sample, bytes_of(r, r->config->hidden_size), err);
}

static nibble_status save_x(run *r, int64_t sample, nibble_error *err) {
  return nb_boundary_save(&r->x, sample, bytes_of(r, r->config->hidden_size), err);
}

/* Brings one sample to where stage `number` begins, running what the stage before it left to be run: its layers are
 * solved now. */
static nibble_status enter_stage(run *r, int number, int64_t sample, nibble_error *err) {
  nb_block_run br = block_run(r, NULL);
  uint64_t attended = bytes_of(r, r->config->num_attention_heads * r->config->head_dim);
  r->scratch.attended = r->scratch.gate = nb_boundary_buffer(&r->inner, sample);
  nibble_status status = load_x(r, sample, err);
  if (status != NIBBLE_OK) return status;
  if (number == 1) {
    status = nb_block_attend(&br, err);
    if (status == NIBBLE_OK) status = nb_boundary_save(&r->inner, sample, attended, err);
  } else if (number == 2) {
    status = nb_boundary_load(&r->inner, sample, attended, err);
    if (status == NIBBLE_OK) status = nb_block_project(&br, err);
    if (status == NIBBLE_OK) status = save_x(r, sample, err);
  } else if (number == 3) {
    status = nb_block_gate(&br, err);
    if (status == NIBBLE_OK)
      status = nb_boundary_save(&r->inner, sample, bytes_of(r, r->config->intermediate_size), err);
  }
  return status;
}

/* The end of the block: x is what the next one gets. */
static nibble_status leave_block(run *r, nibble_error *err) {
  nb_block_run br = block_run(r, NULL);
  for (int64_t i = 0; i < r->c->windows->samples; i++) {
    r->scratch.gate = nb_boundary_buffer(&r->inner, i);
    nibble_status status = load_x(r, i, err);
    if (status == NIBBLE_OK) status = nb_boundary_load(&r->inner, i, bytes_of(r, r->config->intermediate_size), err);
    if (status == NIBBLE_OK) status = nb_block_down(&br, err);
    if (status == NIBBLE_OK) status = save_x(r, i, err);
    if (status != NIBBLE_OK) return status;
  }
  return NIBBLE_OK;
}

/* The stage's weights have done their part of the block. */
static void drop_weights(run *r, const stage *s) {
  for (int i = 0; i < s->count; i++) {
    nb_linear *linear = &r->block.linear[s->slots[i]];
    r->backend->matrix_free(r->backend, linear->matrix);
    nb_weight_free(&linear->source);
    linear->matrix = NULL;
  }
}

/* Runs all samples up to the stage's input, into the hessian unless that is NULL. */
static nibble_status run_stage(run *r, int number, nb_hessian *hessian, nibble_error *err) {
  gather g = {.hessian = hessian};
  nb_hook hook = {.see = see_input, .ctx = &g};
  nb_block_run br = block_run(r, &hook);
  for (int64_t i = 0; i < r->c->windows->samples; i++) {
    nibble_status status = enter_stage(r, number, i, err);
    if (status != NIBBLE_OK) return status;
    if (!hessian) continue;
    status = stages[number].part(&br, err);
    if (status != NIBBLE_CHECK_FAILED) return status;
  }
  if (number > 0) drop_weights(r, &stages[number - 1]);
  return NIBBLE_OK;
}

/* ---- one layer -------------------------------------------------------------------------------------------------- */

/* The name of the weight that is in `slot` of the current block; NULL if the model has none. */
static const char *weight_name(const run *r, nb_linear_slot slot) {
  char rule[64];
  snprintf(rule, sizeof rule, "layers.{}.%s.weight", nb_linear_names[slot]);
  for (size_t i = 0; i < r->tensors.count; i++) {
    const nb_model_tensor *t = &r->tensors.items[i];
    if (t->layer == r->layer && strcmp(t->rule->name, rule) == 0) return t->name;
  }
  return NULL;
}

static bool is_wanted(const run *r, nb_linear_slot slot) {
  const char *name = weight_name(r, slot);
  return name && r->c->wants(r->c->ctx, name);
}

typedef struct widen_job {
  const nb_packed *m;
  float *out;
} widen_job;

static void widen_band(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const widen_job *job = ctx;
  const nb_packed *m = job->m;
  nb_format_info(m->format)->dequantize(m, begin, end - begin, 0, m->cols, job->out + begin * m->cols, m->cols);
}

/* The layer's weights as float32, all finite. The caller's to free. */
static nibble_status widen(const run *r, const nb_linear *linear, const char *name, float **out, nibble_error *err) {
  const nb_packed *m = &linear->source.packed;
  uint64_t count = (uint64_t)(m->rows * m->cols);
  widen_job job = {.m = m, .out = nb_alloc_aligned(count, sizeof(float))};
  if (!job.out) return nb_fail_memory(err, count * sizeof(float));
  nb_parallel(m->rows, ROW_BAND, widen_band, &job);
  for (uint64_t i = 0; i < count; i++) {
    if (isfinite(job.out[i])) continue;
    free(job.out);
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: tensor '%s' is not finite at index %llu", r->c->checkpoint->path, name,
                   (unsigned long long)i);
  }
  *out = job.out;
  return NIBBLE_OK;
}

typedef struct values_job {
  const nb_rounded *rounded;
  float *out;
} values_job;

static void values_band(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const values_job *job = ctx;
  nb_rounded_values(job->rounded, begin, end, job->out + begin * job->rounded->cols);
}

/* Puts the solved layer in the place of the one in the checkpoint, whose pages are given back: as float32, since every
 * sample is multiplied with it once and packed weights would be unpacked each time. */
static nibble_status replace(run *r, nb_linear_slot slot, const nb_rounded *rounded, nibble_error *err) {
  nb_linear *linear = &r->block.linear[slot];
  const nb_tensor *tensor = nb_layout_find(r->c->checkpoint, weight_name(r, slot));
  nb_matrix_options options = {.as_it_lies = true};
  nb_weight weight = {.source_dtype = NB_F32};
  void *values;
  nibble_status status =
      nb_weight_own(&weight, (uint64_t)(rounded->rows * rounded->cols) * sizeof(float), &values, err);
  if (status != NIBBLE_OK) return status;
  weight.packed = (nb_packed){.format = NB_FORMAT_F32, .rows = rounded->rows, .cols = rounded->cols, .codes = values};
  values_job job = {.rounded = rounded, .out = values};
  nb_parallel(rounded->rows, ROW_BAND, values_band, &job);
  r->backend->matrix_free(r->backend, linear->matrix);
  nb_weight_free(&linear->source);
  if (tensor) nb_tensor_release(r->c->checkpoint, tensor, 0, tensor->count);
  linear->matrix = NULL;
  linear->source = weight;
  return r->backend->matrix_create(r->backend, &linear->source.packed, &options, &linear->matrix, err);
}

static nibble_status solve(run *r, nb_linear_slot slot, const nb_hessian *hessian, const nb_factor *factor,
                           nibble_error *err) {
  const char *name = weight_name(r, slot);
  float *w = NULL;
  nb_rounded rounded = {0};
  nibble_status status = widen(r, &r->block.linear[slot], name, &w, err);
  if (status == NIBBLE_OK)
    status = nb_gptq_solve(w, r->block.linear[slot].out, &r->c->grid, hessian, factor, &rounded, err);
  free(w);
  if (status == NIBBLE_OK) status = nb_workdir_save(r->c->workdir, name, &rounded, err);
  if (status == NIBBLE_OK) status = replace(r, slot, &rounded, err);
  if (status == NIBBLE_OK) {
    char what[96];
    snprintf(what, sizeof what, "block %lld/%lld %s loss %.1e", (long long)r->layer + 1,
             (long long)r->config->num_hidden_layers, nb_linear_names[slot], rounded.error);
    if (factor->is_indefinite)
      nb_warn(r->c->progress, "%s: no damping makes its Hessian positive definite; rounded to the nearest", name);
    if (rounded.mended > 0)
      nb_warn(r->c->progress, "%s: %lld groups have a scale out of its dtype's range", name, (long long)rounded.mended);
    nb_step(r->c->progress, what, ++r->done, r->total, "layers");
  }
  nb_rounded_free(&rounded);
  return status;
}

/* Takes the stage's layers from the work folder if all of them are there. */
static nibble_status load_finished(run *r, const stage *s, bool *all, nibble_error *err) {
  nb_rounded rounded[3] = {0};
  nibble_status status = NIBBLE_OK;
  *all = true;
  for (int i = 0; i < s->count && *all && status == NIBBLE_OK; i++) {
    if (!is_wanted(r, s->slots[i])) continue;
    status = nb_workdir_load(r->c->workdir, weight_name(r, s->slots[i]), &rounded[i], all, err);
    const nb_linear *linear = &r->block.linear[s->slots[i]];
    if (*all && (rounded[i].rows != linear->out || rounded[i].cols != linear->in)) *all = false;
  }
  for (int i = 0; i < s->count; i++) {
    if (status == NIBBLE_OK && *all && rounded[i].codes) {
      status = replace(r, s->slots[i], &rounded[i], err);
      nb_step(r->c->progress, weight_name(r, s->slots[i]), ++r->done, r->total, "layers");
    }
    nb_rounded_free(&rounded[i]);
  }
  return status;
}

static nibble_status solve_stage(run *r, int number, nibble_error *err) {
  const stage *s = &stages[number];
  bool finished, wanted = false;
  nb_hessian hessian = {0};
  nb_factor factor = {0};
  for (int i = 0; i < s->count; i++) wanted = wanted || is_wanted(r, s->slots[i]);
  nibble_status status = load_finished(r, s, &finished, err);
  if (status != NIBBLE_OK) return status;
  bool gathers = wanted && !finished;
  if (gathers) status = nb_hessian_create(&hessian, r->block.linear[s->slots[0]].in, err);
  if (status == NIBBLE_OK && (gathers || number > 0)) status = run_stage(r, number, gathers ? &hessian : NULL, err);
  if (status == NIBBLE_OK && gathers) {
    nb_factor_options options = {.group_size = r->c->grid.group_size, .order = r->c->order, .damp = r->c->damp};
    status = nb_hessian_factorize(&hessian, &options, &factor, err);
  }
  for (int i = 0; status == NIBBLE_OK && gathers && i < s->count; i++) {
    if (is_wanted(r, s->slots[i])) status = solve(r, s->slots[i], &hessian, &factor, err);
  }
  nb_factor_free(&factor);
  nb_hessian_free(&hessian);
  return status;
}

/* ---- all blocks ------------------------------------------------------------------------------------------------- */

/* Fills the first boundary with the embeddings of all windows. */
static nibble_status embed(run *r, nibble_error *err) {
  const nb_windows *w = r->c->windows;
  nb_matrix_options options = {.as_it_lies = true};
  nb_weight weight = {0};
  nb_matrix *matrix = NULL;
  const nb_model_tensor *table = NULL;
  for (size_t i = 0; i < r->tensors.count; i++) {
    if (strcmp(r->tensors.items[i].rule->name, "embed_tokens.weight") == 0) table = &r->tensors.items[i];
  }
  if (!table) return nb_fail(err, NIBBLE_BAD_INPUT, "%s: no token embedding", r->c->checkpoint->path);
  for (int64_t i = 0; i < w->samples * w->seqlen; i++) {
    if (w->ids[i] >= 0 && w->ids[i] < table->shape[0]) continue;
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: token id %d of the calibration text is not in the vocabulary of %lld",
                   r->c->checkpoint->path, w->ids[i], (long long)table->shape[0]);
  }
  nibble_status status = nb_weight_load(r->c->checkpoint, table->name, table->shape[0], table->shape[1], &weight, err);
  if (status == NIBBLE_OK) status = r->backend->matrix_create(r->backend, &weight.packed, &options, &matrix, err);
  for (int64_t i = 0; status == NIBBLE_OK && i < w->samples; i++) {
    r->backend->embed(r->backend, matrix, w->ids + i * w->seqlen, w->seqlen, nb_boundary_buffer(&r->x, i));
    status = save_x(r, i, err);
  }
  r->backend->matrix_free(r->backend, matrix);
  nb_weight_free(&weight);
  const nb_tensor *tensor = nb_layout_find(r->c->checkpoint, table->name);
  if (tensor) nb_tensor_release(r->c->checkpoint, tensor, 0, tensor->count);
  return status;
}

static nibble_status calibrate_block(run *r, nibble_error *err) {
  nb_matrix_options options = {.as_it_lies = true};
  nibble_status status = nb_block_load(r->c->checkpoint, &r->tensors, r->layer, r->backend, &options, &r->block, err);
  if (status != NIBBLE_OK) return status;
  for (int i = 0; status == NIBBLE_OK && i < STAGES; i++) status = solve_stage(r, i, err);
  if (status == NIBBLE_OK && r->layer + 1 < r->config->num_hidden_layers) status = leave_block(r, err);
  nb_block_free(&r->block);
  return status;
}

static nibble_status prepare(run *r, nibble_error *err) {
  const nb_windows *w = r->c->windows;
  const nb_config *c = r->config;
  const char *folder = r->c->workdir->path;
  uint64_t x_bytes = bytes_of(r, c->hidden_size);
  uint64_t inner_bytes = bytes_of(r, nb_max_i64(c->num_attention_heads * c->head_dim, c->intermediate_size));
  nibble_status status = nb_model_tensors_list(c, &r->tensors, err);
  if (status == NIBBLE_OK) status = nb_block_scratch_create(c, r->backend, w->seqlen, w->seqlen, &r->own, err);
  if (status == NIBBLE_OK) status = nb_block_cache_create(c, r->backend, 1, w->seqlen, &r->cache, err);
  if (status == NIBBLE_OK) status = r->backend->kv_reserve(r->backend, r->cache, 1, w->seqlen, err);
  r->scratch = r->own;
  uint64_t room = r->c->max_memory;
  if (status == NIBBLE_OK) status = nb_boundary_create(&r->x, r->backend, w->samples, x_bytes, room, folder, err);
  if (status == NIBBLE_OK && !r->x.is_spilled) room -= x_bytes * (uint64_t)w->samples;
  if (status == NIBBLE_OK)
    status = nb_boundary_create(&r->inner, r->backend, w->samples, inner_bytes, room, folder, err);
  for (r->layer = 0; status == NIBBLE_OK && r->layer < c->num_hidden_layers; r->layer++) {
    for (int i = 0; i < NB_LINEARS; i++) r->total += is_wanted(r, (nb_linear_slot)i);
  }
  return status == NIBBLE_OK ? embed(r, err) : status;
}

nibble_status nb_calibrate(const nb_calibration *calibration, nibble_error *err) {
  run r = {.c = calibration, .config = &calibration->checkpoint->config, .backend = nb_backend_cpu()};
  nibble_status status = nb_model_check_runnable(calibration->checkpoint, &r.activation, err);
  if (status == NIBBLE_OK) status = prepare(&r, err);
  for (r.layer = 0; status == NIBBLE_OK && r.layer < r.config->num_hidden_layers; r.layer++)
    status = calibrate_block(&r, err);
  nb_boundary_free(&r.x);
  nb_boundary_free(&r.inner);
  r.backend->kv_free(r.backend, r.cache);
  nb_block_scratch_free(&r.own);
  nb_model_tensors_free(&r.tensors);
  return status;
}
