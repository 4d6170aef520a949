/* nibble_logits and nibble_hidden: what one forward pass computes, written to a file as it comes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/stage.h"
#include "convert/writer.h"
#include "runner/forward.h"

enum { STEP_TOKENS = 512 };

/* A safetensors file with one float32 tensor [1, tokens, width]. */
typedef struct output {
  nb_stage stage;
  nb_writer *writer;
  int64_t width;
} output;

static nibble_status output_open(output *out, const nibble_logits_options *o, const char *name, int64_t width,
                                 nibble_error *err) {
  out->width = width;
  int64_t shape[3] = {1, (int64_t)o->id_count, width};
  nibble_status status = nb_stage_begin_file(&out->stage, o->out, o->force, err);
  if (status != NIBBLE_OK) return status;
  status = nb_writer_open(NULL, out->stage.path, 0, &out->writer, err);
  if (status == NIBBLE_OK) status = nb_writer_declare(out->writer, name, NB_F32, shape, 3, err);
  if (status == NIBBLE_OK) status = nb_writer_begin(out->writer, 0, shape[1] * width, err);
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
  nb_stage_abort(&out->stage);
  return status;
}

static nibble_status check_options(const nibble_logits_options *o, nibble_error *err) {
  if (o->id_count == 0) return nb_fail(err, NIBBLE_USAGE, "at least one token id is wanted");
  if (o->id_count > INT32_MAX) return nb_fail(err, NIBBLE_USAGE, "too many token ids");
  return NIBBLE_OK;
}

/* LLM.int8 takes its outlier columns from the whole sequence. */
static int64_t step_tokens(const nibble_logits_options *o) {
  return o->int8 == NIBBLE_INT8_LLM ? (int64_t)o->id_count : nb_min_i64((int64_t)o->id_count, STEP_TOKENS);
}

/* ---- logits ----------------------------------------------------------------------------------------------------- */

static nibble_status write_logits(nb_session *session, const nibble_logits_options *o, int64_t step, int64_t vocab,
                                  output *out, nibble_error *err) {
  enum { TILE = 64 };
  float *logits = nb_alloc((uint64_t)vocab * TILE, sizeof *logits);
  if (!logits) return nb_fail_memory(err, (uint64_t)vocab * TILE * sizeof *logits);
  nibble_status status = NIBBLE_OK;
  int64_t count = (int64_t)o->id_count;
  for (int64_t at = 0; status == NIBBLE_OK && at < count; at += step) {
    int64_t tokens = nb_min_i64(step, count - at);
    status = nb_session_step(session, o->ids + at, tokens, err);
    for (int64_t t = 0; status == NIBBLE_OK && t < tokens; t += TILE) {
      int64_t n = nb_min_i64(TILE, tokens - t);
      int32_t rows[TILE];
      for (int64_t i = 0; i < n; i++) rows[i] = (int32_t)(t + i);
      status = nb_session_logits(session, rows, n, logits, err);
      if (status == NIBBLE_OK) status = output_rows(out, at + t, n, logits, err);
    }
    nb_step(&o->progress, "logits", (uint64_t)(at + tokens), o->id_count, "tokens");
  }
  free(logits);
  return status;
}

nibble_status nibble_logits(const nibble_logits_options *options, nibble_logits_result *out, nibble_error *err) {
  *out = (nibble_logits_result){0};
  nibble_status status = check_options(options, err);
  if (status != NIBBLE_OK) return status;
  nb_model model = {0};
  nb_session *session = NULL;
  output file = {0};
  double start = nb_seconds();
  nb_model_options load = {.llm_int8 = options->int8 == NIBBLE_INT8_LLM,
                           .int8_activations = options->activations == NIBBLE_ACTIVATIONS_INT8};
  if ((status = nb_model_load(options->model, &load, &model, err)) != NIBBLE_OK) goto done;
  int64_t vocab = model.checkpoint.config.vocab_size, step = step_tokens(options);
  nb_session_options room = {.capacity = (int64_t)options->id_count, .step_tokens = step};
  if ((status = nb_session_create(&model, &room, &session, err)) != NIBBLE_OK) goto done;
  if ((status = output_open(&file, options, "logits", vocab, err)) == NIBBLE_OK)
    status = write_logits(session, options, step, vocab, &file, err);
  status = output_close(&file, status, err);
  *out = (nibble_logits_result){.shape = {1, (int64_t)options->id_count, vocab}, .seconds = nb_seconds() - start};
done:
  nb_session_free(session);
  nb_model_free(&model);
  return status;
}

/* ---- hidden ----------------------------------------------------------------------------------------------------- */

typedef struct hidden_run {
  const nibble_logits_options *options;
  output file;
  int64_t first; /* token that the step under way begins with */
  bool seen;
} hidden_run;

static bool wants(void *ctx, const char *name) {
  const hidden_run *run = ctx;
  return strcmp(name, run->options->hook) == 0;
}

static nibble_status see(void *ctx, const char *name, const float *x, int64_t rows, int64_t cols, nibble_error *err) {
  hidden_run *run = ctx;
  nibble_status status = run->seen ? NIBBLE_OK : output_open(&run->file, run->options, name, cols, err);
  run->seen = true;
  return status == NIBBLE_OK ? output_rows(&run->file, run->first, rows, x, err) : status;
}

static nibble_status run_hidden(nb_session *session, hidden_run *run, int64_t step, nibble_error *err) {
  const nibble_logits_options *o = run->options;
  int64_t count = (int64_t)o->id_count;
  for (int64_t at = 0; at < count; at += step) {
    run->first = at;
    nibble_status status = nb_session_step(session, o->ids + at, nb_min_i64(step, count - at), err);
    if (status != NIBBLE_OK) return status;
    if (!run->seen)
      return nb_fail(err, NIBBLE_USAGE, "%s: there is no activation '%s'; they are named like '%s'", o->model, o->hook,
                     "layers.0.mlp.down_proj.input");
  }
  return NIBBLE_OK;
}

nibble_status nibble_hidden(const nibble_logits_options *options, nibble_logits_result *out, nibble_error *err) {
  *out = (nibble_logits_result){0};
  nibble_status status = check_options(options, err);
  if (status != NIBBLE_OK) return status;
  nb_model model = {0};
  nb_session *session = NULL;
  hidden_run run = {.options = options};
  nb_hook hook = {.wants = wants, .see = see, .ctx = &run};
  double start = nb_seconds();
  nb_model_options load = {.llm_int8 = options->int8 == NIBBLE_INT8_LLM,
                           .int8_activations = options->activations == NIBBLE_ACTIVATIONS_INT8};
  if ((status = nb_model_load(options->model, &load, &model, err)) != NIBBLE_OK) goto done;
  int64_t step = step_tokens(options);
  nb_session_options room = {.capacity = (int64_t)options->id_count, .step_tokens = step, .hook = &hook};
  if ((status = nb_session_create(&model, &room, &session, err)) != NIBBLE_OK) goto done;
  status = run_hidden(session, &run, step, err);
  if (run.seen) status = output_close(&run.file, status, err);
  *out =
      (nibble_logits_result){.shape = {1, (int64_t)options->id_count, run.file.width}, .seconds = nb_seconds() - start};
done:
  nb_session_free(session);
  nb_model_free(&model);
  return status;
}
