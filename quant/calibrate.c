#include "quant/calibrate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/parallel.h"
#include "base/stop.h"
#include "quant/rtn.h"
#include "quant/stops.h"
#include "runner/program.h"

enum { ROW_BAND = 32 };

/* ---- the run ---------------------------------------------------------------------------------------------------- */

typedef struct run {
  const nb_calibration *c;
  const nb_config *config;
  nb_backend *backend;
  nb_activation activation;
  nb_frame own;   /* as it was made */
  nb_frame frame; /* the same, but what a sample holds between stops is the boundaries' */
  nb_kv_cache *cache;
  nb_boundary x;                    /* the residual stream */
  nb_boundary inner[NB_STOP_SLOTS]; /* what else is held inside a block */
  int64_t inner_width[NB_STOP_SLOTS];
  uint64_t room; /* bytes that boundaries may still hold in memory */
  nb_block block;
  nb_stops stops; /* of this block */
  int rest;       /* step of the block that the samples have come to */
  int64_t layer;
  uint64_t done, total; /* layers */
} run;

static nb_run block_run(run *r) {
  int64_t seqlen = r->c->windows->seqlen;
  return (nb_run){.config = r->config,
                  .block = &r->block,
                  .activation = r->activation,
                  .frame = &r->frame,
                  .cache = r->cache,
                  .layer = (int)r->layer,
                  .sequences = 1,
                  .tokens = seqlen,
                  .capacity = seqlen,
                  .causal = r->config->family->stacks[0].causal && r->config->is_causal};
}

static uint64_t bytes_of(const run *r, int64_t width) {
  return (uint64_t)(r->c->windows->seqlen * width) * sizeof(float);
}

static nb_boundary *boundary_of(run *r, const nb_held *held) {
  return held->reg == NB_X ? &r->x : &r->inner[held->slot];
}

static uint64_t held_bytes(const run *r, const nb_held *held) {
  return bytes_of(r, nb_register_width(r->config, held->reg));
}

/* Puts the registers that are held at a stop where the sample's lie, and brings them there if `load`. */
static nibble_status bind(run *r, const nb_stop *stop, int64_t sample, bool load, nibble_error *err) {
  nibble_status status = NIBBLE_OK;
  for (int i = 0; status == NIBBLE_OK && i < stop->held_count; i++) {
    const nb_held *held = &stop->held[i];
    r->frame.reg[held->reg] = nb_boundary_buffer(boundary_of(r, held), sample);
    if (load) status = nb_boundary_load(boundary_of(r, held), sample, held_bytes(r, held), err);
  }
  return status;
}

static nibble_status save(run *r, const nb_stop *stop, int64_t sample, nibble_error *err) {
  nibble_status status = NIBBLE_OK;
  for (int i = 0; status == NIBBLE_OK && i < stop->held_count; i++) {
    const nb_held *held = &stop->held[i];
    if (held->is_new) status = nb_boundary_save(boundary_of(r, held), sample, held_bytes(r, held), err);
  }
  return status;
}

/* Brings one sample from where it rests to the stop, and holds there what is needed from it on. */
static nibble_status advance(run *r, const nb_stop *stop, int64_t sample, nibble_error *err) {
  nb_run br = block_run(r);
  const nb_stop *before = stop > r->stops.items ? stop - 1 : stop;
  r->frame = r->own;
  nibble_status status = bind(r, before, sample, true, err);
  if (status != NIBBLE_OK || stop == before) return status;
  if ((status = bind(r, stop, sample, false, err)) != NIBBLE_OK) return status;
  status = nb_run_steps(&br, &r->block.program, before->rest, stop->rest, err);
  return status == NIBBLE_OK ? save(r, stop, sample, err) : status;
}

/* Brings a sample that rests at the stop to the input of its layers. */
static nibble_status approach(run *r, const nb_stop *stop, int64_t sample, nibble_error *err) {
  nb_run br = block_run(r);
  r->frame = r->own;
  nibble_status status = bind(r, stop, sample, true, err);
  return status == NIBBLE_OK ? nb_run_steps(&br, &r->block.program, stop->rest, stop->pc, err) : status;
}

/* The layers have done their part of the block. */
static void drop_weights(run *r, const nb_stop *stop) {
  for (int i = 0; i < stop->layer_count; i++) {
    nb_module *m = stop->layers[i];
    r->backend->matrix_free(r->backend, m->matrix);
    nb_weight_free(&m->source);
    m->matrix = NULL;
  }
}

static nibble_status advance_all(run *r, const nb_stop *stop, nibble_error *err) {
  nibble_status status = NIBBLE_OK;
  if (stop == r->stops.items) return NIBBLE_OK;
  for (int64_t i = 0; status == NIBBLE_OK && i < r->c->windows->samples; i++) status = advance(r, stop, i, err);
  drop_weights(r, stop - 1);
  return status;
}

/* The inputs of a stop's layers, of all samples; of an expert's the rows that have chosen it. */
static nibble_status gather(run *r, const nb_stop *stop, const nb_batch *batch, nb_hessian *hessian,
                            nibble_error *err) {
  nibble_status status = NIBBLE_OK;
  for (int64_t i = 0; status == NIBBLE_OK && i < r->c->windows->samples; i++) {
    if ((status = approach(r, stop, i, err)) != NIBBLE_OK) return status;
    nb_run br = block_run(r);
    status = nb_batch_input(&br, stop, batch, hessian, err);
    if (status == NIBBLE_OK) status = nb_stop_check(err);
  }
  return status;
}

/* ---- one layer -------------------------------------------------------------------------------------------------- */

static bool is_wanted(const run *r, const nb_module *m) { return r->c->wants(r->c->ctx, m->tensor); }

typedef struct widen_job {
  const nb_packed *m;
  float *out;
} widen_job;

static void widen_band(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const widen_job *job = ctx;
  const nb_packed *m = job->m;
  nb_format_info(m->format)->dequantize((nb_tile){m, begin, end - begin, 0, m->cols}, job->out + begin * m->cols,
                                        m->cols);
}

/* The layer's weights as float32, all finite. The caller's to free. */
static nibble_status widen(const run *r, const nb_module *module, float **out, nibble_error *err) {
  const nb_packed *m = &module->source.packed;
  uint64_t count = (uint64_t)(m->rows * m->cols);
  widen_job job = {.m = m, .out = nb_alloc_aligned(count, sizeof(float))};
  if (!job.out) return nb_fail_memory(err, count * sizeof(float));
  nb_parallel(m->rows, ROW_BAND, widen_band, &job);
  for (uint64_t i = 0; i < count; i++) {
    if (isfinite(job.out[i])) continue;
    free(job.out);
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: tensor '%s' is not finite at index %llu", r->c->checkpoint->path,
                   nb_tensor_weight_name(module->tensor), (unsigned long long)i);
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
static nibble_status replace(run *r, nb_module *m, const nb_rounded *rounded, nibble_error *err) {
  nb_matrix_options options = {.as_it_lies = true};
  nb_weight weight = {.source_dtype = NB_F32};
  void *values;
  nibble_status status =
      nb_weight_own(&weight, (uint64_t)(rounded->rows * rounded->cols) * sizeof(float), &values, err);
  if (status != NIBBLE_OK) return status;
  weight.packed = (nb_packed){.format = NB_FORMAT_F32, .rows = rounded->rows, .cols = rounded->cols, .codes = values};
  values_job job = {.rounded = rounded, .out = values};
  nb_parallel(rounded->rows, ROW_BAND, values_band, &job);
  r->backend->matrix_free(r->backend, m->matrix);
  nb_weight_free(&m->source);
  nb_tensor_release(r->c->checkpoint, m->tensor, 0, m->tensor->count);
  m->matrix = NULL;
  m->source = weight;
  return r->backend->matrix_create(r->backend, &m->source.packed, &options, &m->matrix, err);
}

static void tell(run *r, const nb_module *m, const nb_factor *factor, const nb_rounded *rounded) {
  char what[96];
  const char *name = nb_tensor_weight_name(m->tensor);
  snprintf(what, sizeof what, "block %lld/%lld %s loss %.1e", (long long)r->layer + 1,
           (long long)r->config->num_hidden_layers, nb_role_info(m->role)->name, rounded->error);
  if (!factor->upper)
    nb_warn(r->c->progress, "%s: no token of the calibration text has chosen this expert; rounded to the nearest",
            name);
  else if (factor->is_indefinite)
    nb_warn(r->c->progress, "%s: no damping makes its Hessian positive definite; rounded to the nearest", name);
  if (rounded->mended > 0)
    nb_warn(r->c->progress, "%s: %lld groups have a scale out of its dtype's range", name, (long long)rounded->mended);
  nb_step(r->c->progress, what, ++r->done, r->total, "layers");
}

/* Without a token there is no Hessian, and the weights are rounded to the nearest. */
static nibble_status solve(run *r, nb_module *m, const nb_hessian *hessian, const nb_factor *factor,
                           nibble_error *err) {
  float *w = NULL;
  nb_rounded rounded = {0};
  nibble_status status = widen(r, m, &w, err);
  nb_dense_layer layer = {w, m->out, m->in};
  if (status == NIBBLE_OK && factor->upper)
    status = nb_gptq_solve(&layer, &r->c->grid, hessian, factor, &rounded, err);
  else if (status == NIBBLE_OK)
    status = nb_rtn_solve(&layer, &r->c->grid, &rounded, err);
  rounded.is_fallback = rounded.is_fallback || !factor->upper;
  free(w);
  if (status == NIBBLE_OK) status = nb_workdir_save(r->c->workdir, nb_tensor_weight_name(m->tensor), &rounded, err);
  if (status == NIBBLE_OK) status = replace(r, m, &rounded, err);
  if (status == NIBBLE_OK) tell(r, m, factor, &rounded);
  nb_rounded_free(&rounded);
  return status;
}

/* Takes those layers of a batch from the work folder that are there. to_solve[i]: the others, and any_left of them. */
static nibble_status load_finished(run *r, const nb_batch *batch, bool to_solve[NB_MAX_GROUP], bool *any_left,
                                   nibble_error *err) {
  nibble_status status = NIBBLE_OK;
  *any_left = false;
  for (int i = 0; i < batch->count && status == NIBBLE_OK; i++) {
    nb_module *m = batch->layers[i];
    const char *name = nb_tensor_weight_name(m->tensor);
    nb_layer_shape shape = {.rows = m->out, .cols = m->in, .grid = &r->c->grid};
    nb_rounded rounded = {0};
    bool found = false;
    to_solve[i] = is_wanted(r, m);
    if (to_solve[i]) status = nb_workdir_load(r->c->workdir, name, &shape, &rounded, &found, err);
    if (status == NIBBLE_OK && found) {
      to_solve[i] = false;
      status = replace(r, m, &rounded, err);
      nb_step(r->c->progress, name, ++r->done, r->total, "layers");
    }
    *any_left = *any_left || to_solve[i];
    nb_rounded_free(&rounded);
  }
  return status;
}

/* The layers that share an input: one Hessian, and each solved on it. */
static nibble_status solve_batch(run *r, const nb_stop *stop, const nb_batch *batch, nibble_error *err) {
  bool to_solve[NB_MAX_GROUP], any_left = false;
  nb_hessian hessian = {0};
  nb_factor factor = {0};
  nibble_status status = nb_stop_check(err);
  if (status == NIBBLE_OK) status = load_finished(r, batch, to_solve, &any_left, err);
  if (status != NIBBLE_OK || !any_left) return status;
  status = nb_hessian_create(r->c->context, batch->layers[0]->in, &hessian, err);
  if (status == NIBBLE_OK) status = gather(r, stop, batch, &hessian, err);
  if (status == NIBBLE_OK && hessian.tokens > 0) {
    nb_factor_options options = {.group_size = r->c->grid.group_size, .order = r->c->order, .damp = r->c->damp};
    status = nb_hessian_factorize(&hessian, &options, &factor, err);
  }
  for (int i = 0; status == NIBBLE_OK && i < batch->count; i++) {
    if (to_solve[i]) status = solve(r, batch->layers[i], &hessian, &factor, err);
  }
  nb_factor_free(&factor);
  nb_hessian_free(&hessian);
  return status;
}

/* ---- all blocks ------------------------------------------------------------------------------------------------- */

/* The ids of the calibration text against the embedding's rows. */
static nibble_status check_ids(const run *r, nibble_error *err) {
  const nb_windows *w = r->c->windows;
  int64_t rows = r->config->vocab_size;
  for (int64_t i = 0; i < w->samples * w->seqlen; i++) {
    if (w->ids[i] >= 0 && w->ids[i] < rows) continue;
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: token id %d of the calibration text is not in the vocabulary of %lld",
                   r->c->checkpoint->path, w->ids[i], (long long)rows);
  }
  return NIBBLE_OK;
}

/* Fills the first boundary with the embeddings of all windows. */
static nibble_status embed(run *r, nibble_error *err) {
  const nb_windows *w = r->c->windows;
  nb_loader loader = {r->c->checkpoint, r->backend, &(nb_matrix_options){.as_it_lies = true}};
  nb_block tables = {0};
  int32_t *numbers = nb_alloc(2 * (uint64_t)w->seqlen, sizeof *numbers);
  if (!numbers) return nb_fail_memory(err, (size_t)w->seqlen * sizeof *numbers);
  for (int64_t i = 0; i < w->seqlen; i++) numbers[i] = (int32_t)i;
  nibble_status status = check_ids(r, err);
  if (status == NIBBLE_OK) status = nb_embedding_load(&loader, 0, &tables, err);
  if (status == NIBBLE_OK)
    status = nb_frame_grow(&r->own, r->config, nb_program_registers(&tables.program), w->seqlen, err);
  for (int64_t i = 0; status == NIBBLE_OK && i < w->samples; i++) {
    nb_run br = block_run(r);
    r->frame = r->own;
    r->frame.reg[NB_X] = nb_boundary_buffer(&r->x, i);
    br.ids = w->ids + i * w->seqlen;
    br.positions = numbers;
    br.types = numbers + w->seqlen;
    status = nb_run_all(&br, &tables.program, err);
    if (status == NIBBLE_OK) status = nb_boundary_save(&r->x, i, bytes_of(r, r->config->hidden_size), err);
  }
  for (int i = 0; i < tables.modules.count; i++)
    nb_tensor_release(r->c->checkpoint, tables.modules.items[i].tensor, 0, tables.modules.items[i].tensor->count);
  nb_block_free(&tables);
  free(numbers);
  return status;
}

/* A boundary of `width` floats a token, which takes what it holds in memory from the room for that. */
static nibble_status make_boundary(run *r, int64_t width, nb_boundary *out, nibble_error *err) {
  *out = (nb_boundary){.backend = r->backend,
                       .samples = r->c->windows->samples,
                       .sample_bytes = bytes_of(r, width),
                       .folder = r->c->workdir->path};
  nibble_status status = nb_boundary_create(out, r->room, err);
  if (status == NIBBLE_OK && !out->is_spilled) r->room -= out->sample_bytes * (uint64_t)out->samples;
  return status;
}

/* Room for what this block's stops hold beside X. */
static nibble_status make_inner(run *r, nibble_error *err) {
  nibble_status status = NIBBLE_OK;
  for (int i = 0; status == NIBBLE_OK && i < NB_STOP_SLOTS; i++) {
    int64_t width = nb_stops_width(&r->stops, r->config, i);
    if (width <= r->inner_width[i]) continue;
    nb_boundary_free(&r->inner[i]);
    status = make_boundary(r, width, &r->inner[i], err);
    r->inner_width[i] = width;
  }
  return status;
}

static nibble_status calibrate_block(run *r, nibble_error *err) {
  nb_loader loader = {r->c->checkpoint, r->backend, &(nb_matrix_options){.as_it_lies = true}};
  nibble_status status = nb_block_load(&loader, 0, r->layer, &r->block, err);
  if (status != NIBBLE_OK) return status;
  status = nb_stops_find(&r->block, r->config->num_experts, &r->stops, err);
  if (status == NIBBLE_OK)
    status = nb_frame_grow(&r->own, r->config, nb_program_registers(&r->block.program), r->c->windows->seqlen, err);
  if (status == NIBBLE_OK) status = make_inner(r, err);
  for (int i = 0; status == NIBBLE_OK && i < r->stops.count; i++) {
    const nb_stop *stop = &r->stops.items[i];
    bool is_last = i == r->stops.count - 1; /* the end of the block, where X is what the next one gets */
    if (is_last && r->layer + 1 == r->config->num_hidden_layers) break;
    status = advance_all(r, stop, err);
    for (int k = 0; status == NIBBLE_OK && k < stop->batch_count; k++)
      status = solve_batch(r, stop, &stop->batches[k], err);
  }
  nb_stops_free(&r->stops);
  nb_block_free(&r->block);
  return status;
}

/* How many layers there are to solve. */
static uint64_t count_layers(const run *r) {
  const nb_checkpoint *c = r->c->checkpoint;
  uint64_t count = 0;
  for (size_t i = 0; i < c->promised.count; i++) {
    const nb_slot *slot = &c->slots[i];
    bool linear = nb_kind_is_linear(slot->wanted->kind) && !slot->wanted->is_bias && slot->wanted->layer >= 0;
    count += linear && slot->tensor && r->c->wants(r->c->ctx, slot->tensor);
  }
  return count;
}

static nibble_status prepare(run *r, nibble_error *err) {
  const nb_windows *w = r->c->windows;
  const nb_config *c = r->config;
  nb_model_stack stack = {.family = &c->family->stacks[0]};
  nb_attention_shape shape = {
      .sequences = 1, .kv_heads = c->num_key_value_heads, .head_dim = c->head_dim, .capacity = w->seqlen};
  r->own.backend = r->backend;
  r->total = count_layers(r);
  r->room = r->c->max_memory;
  nibble_status status = nb_frame_positions(&r->own, c, &stack, w->seqlen, err);
  if (status == NIBBLE_OK) status = r->backend->kv_create(r->backend, &shape, &r->cache, err);
  if (status == NIBBLE_OK) status = r->backend->kv_reserve(r->backend, r->cache, 1, w->seqlen, err);
  if (status == NIBBLE_OK) status = make_boundary(r, c->hidden_size, &r->x, err);
  return status == NIBBLE_OK ? embed(r, err) : status;
}

nibble_status nb_calibrate(const nb_calibration *calibration, nibble_error *err) {
  run r = {.c = calibration, .config = &calibration->checkpoint->config, .backend = nb_backend_cpu()};
  r.x.fd = -1;
  for (int i = 0; i < NB_STOP_SLOTS; i++) r.inner[i].fd = -1;
  nibble_status status = nb_model_check_runnable(calibration->checkpoint, &r.activation, err);
  if (status == NIBBLE_OK) status = prepare(&r, err);
  for (r.layer = 0; status == NIBBLE_OK && r.layer < r.config->num_hidden_layers; r.layer++)
    status = calibrate_block(&r, err);
  nb_boundary_free(&r.x);
  for (int i = 0; i < NB_STOP_SLOTS; i++) nb_boundary_free(&r.inner[i]);
  r.backend->kv_free(r.backend, r.cache);
  nb_frame_free(&r.own);
  return status;
}
