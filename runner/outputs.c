/* nibble_logits and nibble_hidden: what one forward pass computes, written to a file as it comes. */
#include <stdlib.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/context.h"
#include "base/stage.h"
#include "convert/sinks/safetensors.h"
#include "runner/session.h"

enum { STEP_TOKENS = 512 };

/* A safetensors file with one float32 tensor [1, rows, width], or [1, width]. */
typedef struct output {
  nb_stage stage;
  nb_writer *writer;
  int64_t width;
} output;

typedef struct output_shape {
  int ndim;
  int64_t rows, width;
} output_shape;

static nibble_status output_open(output *out, const nibble_logits_options *o, const char *name, const output_shape *s,
                                 nibble_error *err) {
  out->width = s->width;
  int64_t shape[3] = {1, s->ndim == 3 ? s->rows : s->width, s->width};
  nb_replace replace = {.force = o->force, .progress = &o->progress};
  nibble_status status = nb_stage_begin_file(&out->stage, o->out, &replace, err);
  if (status != NIBBLE_OK) return status;
  status = nb_writer_open_file(out->stage.fd, out->stage.path, &out->writer, err);
  if (status == NIBBLE_OK) status = nb_writer_declare(out->writer, name, NB_F32, shape, s->ndim, err);
  if (status == NIBBLE_OK) status = nb_writer_begin(out->writer, 0, s->rows * s->width, err);
  return status;
}

static nibble_status output_rows(output *out, int64_t first, int64_t rows, const float *values, nibble_error *err) {
  uint64_t row_bytes = (uint64_t)out->width * sizeof(float);
  return nb_writer_write(out->writer, 0, (uint64_t)first * row_bytes, values, (uint64_t)rows * row_bytes, err);
}

/* Finishes the file, or removes it where `status` says that something failed. */
static nibble_status output_close(output *out, nibble_status status, nibble_error *err) {
  if (out->writer && status == NIBBLE_OK) status = nb_writer_finish(out->writer, err);
  nb_writer_close(out->writer);
  if (status == NIBBLE_OK) return nb_stage_commit(&out->stage, false, err);
  nb_stage_abort(&out->stage, status, err);
  return status;
}

static nibble_status check_options(const nibble_logits_options *o, nibble_error *err) {
  if (o->id_count == 0) return nb_fail(err, NIBBLE_USAGE, "at least one token id is wanted");
  if (o->decoder_id_count > 0 && !o->decoder_ids)
    return nb_fail(err, NIBBLE_USAGE, "decoder_ids is required where decoder_id_count is not 0");
  if (o->id_count > INT32_MAX || o->decoder_id_count > INT32_MAX)
    return nb_fail(err, NIBBLE_USAGE, "too many token ids");
  return NIBBLE_OK;
}

/* ---- a model and a session for the ids -------------------------------------------------------------------------- */

typedef struct forward {
  const nibble_logits_options *options;
  nb_model model;
  nb_session *session;
  const int32_t *ids; /* of the stack with the head */
  int64_t count;
  int64_t step;       /* tokens at a time */
  nb_identity *place; /* NULL, or found by the name of the options' hook */
} forward;

/* LLM.int8 takes its outlier columns from the whole sequence, and what sees later tokens needs it. */
static int64_t step_tokens(const forward *f) {
  bool whole = f->options->int8 == NIBBLE_INT8_LLM || !nb_model_last(&f->model)->causal;
  return whole ? f->count : nb_min_i64(f->count, STEP_TOKENS);
}

static nibble_status check_decoder_ids(const forward *f, nibble_error *err) {
  const nibble_logits_options *o = f->options;
  bool both = f->model.stack_count > 1;
  if (both && o->decoder_id_count == 0)
    return nb_fail(err, NIBBLE_USAGE, "%s: it has an encoder and a decoder: --decoder-ids is required, too", o->model);
  if (!both && o->decoder_id_count > 0)
    return nb_fail(err, NIBBLE_USAGE, "%s: it has one stack: there is no decoder for --decoder-ids", o->model);
  return NIBBLE_OK;
}

static nibble_status no_activation(const nibble_logits_options *o, nibble_error *err) {
  return nb_fail(err, NIBBLE_USAGE, "%s: there is no activation '%s'; they are named like '%s'", o->model, o->hook,
                 "layers.0.mlp.down_proj.input");
}

static nibble_status forward_open(forward *f, const nb_hook *hook, nibble_error *err) {
  const nibble_logits_options *o = f->options;
  nb_model_options load = {.context = o->context,
                           .progress = &o->progress,
                           .llm_int8 = o->int8 == NIBBLE_INT8_LLM,
                           .activations = o->activations,
                           .head = o->head};
  nibble_status status = nb_model_load(o->model, &load, &f->model, err);
  if (status == NIBBLE_OK) status = nb_checkpoint_protect(&f->model.checkpoint, o->out, err);
  if (status == NIBBLE_OK) status = check_decoder_ids(f, err);
  if (status != NIBBLE_OK) return status;
  if (f->place && !nb_identify_activation(&f->model.checkpoint.config, o->hook, f->place)) return no_activation(o, err);
  bool both = f->model.stack_count > 1;
  f->ids = both ? o->decoder_ids : o->ids;
  f->count = (int64_t)(both ? o->decoder_id_count : o->id_count);
  f->step = step_tokens(f);
  nb_session_options room = {
      .capacity = f->count, .step_tokens = f->step, .encoder_capacity = (int64_t)o->id_count, .hook = hook};
  status = nb_session_create(&f->model, &room, &f->session, err);
  if (status == NIBBLE_OK && both) status = nb_session_encode(f->session, o->ids, (int64_t)o->id_count, err);
  return status;
}

static void forward_close(forward *f) {
  nb_session_free(f->session);
  nb_model_free(&f->model);
}

/* ---- logits ----------------------------------------------------------------------------------------------------- */

static nibble_status write_logits(forward *f, output *out, nibble_error *err) {
  enum { TILE = 64 };
  int64_t width = f->model.output_width;
  float *logits = nb_alloc((uint64_t)width * TILE, sizeof *logits);
  if (!logits) return nb_fail_memory(err, (uint64_t)width * TILE * sizeof *logits);
  bool first_only = f->model.checkpoint.config.head->first_only;
  nibble_status status = NIBBLE_OK;
  for (int64_t at = 0; status == NIBBLE_OK && at < f->count; at += f->step) {
    int64_t tokens = nb_min_i64(f->step, f->count - at), wanted = first_only ? 1 : tokens;
    status = nb_session_step(f->session, f->ids + at, tokens, err);
    for (int64_t t = 0; status == NIBBLE_OK && t < wanted; t += TILE) {
      int64_t n = nb_min_i64(TILE, wanted - t);
      int32_t rows[TILE];
      for (int64_t i = 0; i < n; i++) rows[i] = (int32_t)(t + i);
      status = nb_session_logits(f->session, rows, n, logits, err);
      if (status == NIBBLE_OK) status = output_rows(out, at + t, n, logits, err);
    }
    nb_step(&f->options->progress, "logits", (uint64_t)(at + tokens), (uint64_t)f->count, "tokens");
  }
  free(logits);
  return status;
}

static nibble_status run_logits(const nibble_logits_options *options, nibble_logits_result *out, nibble_error *err) {
  nibble_status status = check_options(options, err);
  if (status != NIBBLE_OK) return status;
  forward f = {.options = options};
  output file = {0};
  double start = nb_seconds();
  if ((status = forward_open(&f, NULL, err)) != NIBBLE_OK) goto done;
  const nb_head_row *head = f.model.checkpoint.config.head;
  output_shape shape = {
      .ndim = head->first_only ? 2 : 3, .rows = head->first_only ? 1 : f.count, .width = f.model.output_width};
  if ((status = output_open(&file, options, head->output, &shape, err)) == NIBBLE_OK)
    status = write_logits(&f, &file, err);
  status = output_close(&file, status, err);
  *out = (nibble_logits_result){.ndim = shape.ndim, .shape = {1, shape.rows, shape.width}};
  if (head->first_only) out->shape[1] = shape.width, out->shape[2] = 0;
  out->seconds = nb_seconds() - start;
done:
  forward_close(&f);
  return status;
}

nibble_status nibble_logits(const nibble_logits_options *options, nibble_logits_result *out, nibble_error *err) {
  nibble_logits_options o;
  nibble_logits_result r;
  static const nb_call_rules rules = {
      "nibble_logits",
      NB_SIZES(nibble_logits_options, progress),
      NB_SIZES(nibble_logits_result, seconds),
      {NB_REQUIRED(nibble_logits_options, model), NB_REQUIRED(nibble_logits_options, ids),
       NB_REQUIRED(nibble_logits_options, out)}};
  nb_call call = {.options = &o, .result = &r};
  nibble_status status = nb_call_begin(&call, &rules, options, out, err);
  if (status == NIBBLE_OK) status = run_logits(&o, &r, err);
  return nb_call_end(&call, status);
}

/* ---- hidden ----------------------------------------------------------------------------------------------------- */

typedef struct hidden_run {
  forward f;
  nb_identity place; /* of the activation */
  output file;
  int64_t rows;   /* of the file */
  int64_t first;  /* token that the step under way begins with, */
  int64_t tokens; /* and how many it has */
  bool seen;
} hidden_run;

static bool wants(void *ctx, const nb_point *point) {
  const nb_identity *p = &((hidden_run *)ctx)->place;
  return p->role == point->role && p->layer == point->layer && p->stack == point->stack && p->expert == point->expert;
}

/* An expert sees the rows that have chosen it, cross-attention those of the encoder: all that is seen of these is seen
 * at once, in one step. */
static nibble_status see(void *ctx, const nb_point *point, const float *x, int64_t rows, int64_t cols,
                         nibble_error *err) {
  (void)point;
  hidden_run *run = ctx;
  const nibble_logits_options *o = run->f.options;
  bool every = run->tokens > 0 && rows == run->tokens;
  output_shape shape = {.ndim = 3, .rows = every ? run->f.count : rows, .width = cols};
  if (run->seen && !every)
    return nb_fail(err, NIBBLE_USAGE, "%s: '%s' sees some of the tokens of each step; at most %d can be given",
                   o->model, o->hook, STEP_TOKENS);
  nibble_status status = run->seen ? NIBBLE_OK : output_open(&run->file, o, o->hook, &shape, err);
  run->rows = shape.rows;
  run->seen = true;
  return status == NIBBLE_OK ? output_rows(&run->file, every ? run->first : 0, rows, x, err) : status;
}

static nibble_status run_hidden(hidden_run *run, nibble_error *err) {
  const forward *f = &run->f;
  for (int64_t at = 0; at < f->count; at += f->step) {
    run->first = at;
    run->tokens = nb_min_i64(f->step, f->count - at);
    nibble_status status = nb_session_step(f->session, f->ids + at, run->tokens, err);
    if (status != NIBBLE_OK) return status;
    if (!run->seen) return no_activation(f->options, err);
  }
  return NIBBLE_OK;
}

static nibble_status hidden(const nibble_logits_options *options, nibble_logits_result *out, nibble_error *err) {
  nibble_status status = check_options(options, err);
  if (status != NIBBLE_OK) return status;
  hidden_run run = {.f = {.options = options}};
  run.f.place = &run.place;
  nb_hook hook = {.wants = wants, .see = see, .ctx = &run};
  double start = nb_seconds();
  if ((status = forward_open(&run.f, &hook, err)) == NIBBLE_OK) status = run_hidden(&run, err);
  if (run.seen) status = output_close(&run.file, status, err);
  *out = (nibble_logits_result){.ndim = 3, .shape = {1, run.rows, run.file.width}, .seconds = nb_seconds() - start};
  forward_close(&run.f);
  return status;
}

nibble_status nibble_hidden(const nibble_logits_options *options, nibble_logits_result *out, nibble_error *err) {
  nibble_logits_options o;
  nibble_logits_result r;
  static const nb_call_rules rules = {
      "nibble_hidden",
      NB_SIZES(nibble_logits_options, progress),
      NB_SIZES(nibble_logits_result, seconds),
      {NB_REQUIRED(nibble_logits_options, model), NB_REQUIRED(nibble_logits_options, ids),
       NB_REQUIRED(nibble_logits_options, hook), NB_REQUIRED(nibble_logits_options, out)}};
  nb_call call = {.options = &o, .result = &r};
  nibble_status status = nb_call_begin(&call, &rules, options, out, err);
  if (status == NIBBLE_OK) status = hidden(&o, &r, err);
  return nb_call_end(&call, status);
}
