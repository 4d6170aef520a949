/* Perplexity of a model on a text, by the two conventions that published figures follow. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/context.h"
#include "convert/tokenizer_open.h"
#include "runner/session.h"
#include "runner/text.h"

enum { DEFAULT_CTX = 512, BATCH_ROWS = 512 };

/* One run over the windows of a text. */
typedef struct ppl_run {
  const nibble_ppl_options *options;
  nb_session *session;
  const int32_t *ids;
  int64_t ctx, stride, windows, batch;
  int64_t step;                   /* tokens of each window that are run at a time; ctx if batch > 1 */
  int32_t bos;                    /* put in the place of each window's first token; -1: none */
  int32_t *input, *rows, *target; /* [batch * ctx] */
  double *log_prob;               /* [batch * ctx] */
  double sum, squares;            /* of negative log-likelihoods */
  int64_t predictions;
} ppl_run;

/* The first position of a window whose prediction counts: with a stride the positions that earlier windows scored are
 * context only; llama-perplexity scores the second half, where every prediction has at least half a window to go by. */
static int64_t first_scored(const ppl_run *run, int64_t window) {
  if (run->options->convention == NIBBLE_CONVENTION_LLAMA_CPP) return run->ctx / 2;
  return window == 0 ? 0 : nb_max_i64(0, run->ctx - 1 - run->stride);
}

/* Tokens [at, at + tokens) of `count` windows. */
static nibble_status run_step(ppl_run *run, int64_t first, int64_t count, int64_t at, int64_t tokens,
                              nibble_error *err) {
  int64_t n = 0;
  for (int64_t w = 0; w < count; w++) {
    const int32_t *window = run->ids + (first + w) * run->stride;
    int64_t end = nb_min_i64(at + tokens, run->ctx - 1);
    for (int64_t t = nb_max_i64(at, first_scored(run, first + w)); t < end; t++, n++) {
      run->rows[n] = (int32_t)(w * tokens + t - at);
      run->target[n] = window[t + 1];
    }
  }
  nibble_status status = nb_session_step(run->session, run->input + at, tokens, err);
  nb_predictions predictions = {n, run->rows, run->target, run->log_prob, NULL};
  if (status == NIBBLE_OK) status = nb_session_log_probs(run->session, &predictions, err);
  for (int64_t i = 0; status == NIBBLE_OK && i < n; i++) {
    if (!isfinite(run->log_prob[i]))
      return nb_fail(err, NIBBLE_BAD_INPUT, "%s: the model's output is not finite in window %lld", run->options->model,
                     (long long)(first + run->rows[i] / tokens));
    run->sum -= run->log_prob[i];
    run->squares += run->log_prob[i] * run->log_prob[i];
  }
  run->predictions += n;
  return status;
}

static nibble_status run_batch(ppl_run *run, int64_t first, int64_t count, nibble_error *err) {
  for (int64_t w = 0; w < count; w++) {
    const int32_t *window = run->ids + (first + w) * run->stride;
    memcpy(run->input + w * run->ctx, window, (size_t)run->ctx * sizeof *window);
    if (run->bos >= 0) run->input[w * run->ctx] = run->bos;
  }
  nb_session_restart(run->session, count);
  nibble_status status = NIBBLE_OK;
  for (int64_t at = 0; status == NIBBLE_OK && at < run->ctx; at += run->step)
    status = run_step(run, first, count, at, nb_min_i64(run->step, run->ctx - at), err);
  return status;
}

static nibble_status run_windows(ppl_run *run, nibble_error *err) {
  uint64_t rows = (uint64_t)(run->batch * run->ctx);
  run->input = nb_alloc(rows, sizeof *run->input);
  run->rows = nb_alloc(rows, sizeof *run->rows);
  run->target = nb_alloc(rows, sizeof *run->target);
  run->log_prob = nb_alloc(rows, sizeof *run->log_prob);
  if (!run->input || !run->rows || !run->target || !run->log_prob)
    return nb_fail_memory(err, rows * sizeof *run->log_prob);
  nibble_status status = NIBBLE_OK;
  for (int64_t w = 0; status == NIBBLE_OK && w < run->windows; w += run->batch) {
    int64_t count = nb_min_i64(run->batch, run->windows - w);
    status = run_batch(run, w, count, err);
    nb_step(&run->options->progress, "perplexity", (uint64_t)((w + count) * run->ctx),
            (uint64_t)(run->windows * run->ctx), "tokens");
  }
  return status;
}

static nibble_status check_options(const nibble_ppl_options *o, const nb_config *config, ppl_run *run,
                                   nibble_error *err) {
  run->ctx = o->ctx ? o->ctx : DEFAULT_CTX;
  run->stride = o->stride ? o->stride : run->ctx;
  if (run->ctx < 2 || run->ctx > config->max_position_embeddings)
    return nb_fail(err, NIBBLE_USAGE, "--ctx %lld: from 2 to the model's max_position_embeddings, %lld, is wanted",
                   (long long)run->ctx, (long long)config->max_position_embeddings);
  if (run->stride < 1 || run->stride > run->ctx)
    return nb_fail(err, NIBBLE_USAGE, "--stride %lld: from 1 to --ctx is wanted", (long long)run->stride);
  if (o->stride && o->convention == NIBBLE_CONVENTION_LLAMA_CPP)
    return nb_fail(err, NIBBLE_USAGE, "--stride belongs to --convention hf");
  return NIBBLE_OK;
}

/* The token that the tokenizer puts before any text; -1: none. */
static nibble_status find_bos(nb_tokenizer *tokenizer, const nb_ids *ids, int32_t *out, nibble_error *err) {
  nb_ids alone = {0};
  nibble_status status = nb_tokenizer_encode(tokenizer, "", 0, NB_ADD_SPECIAL, &alone, err);
  bool has_one = alone.length && ids->length && ids->data[0] == alone.data[0];
  *out = has_one ? ids->data[0] : -1;
  nb_ids_free(&alone);
  return status;
}

/* The text's ids; run->bos is set where llama.cpp's convention wants one at the start of each window. */
static nibble_status read_ids(const nibble_ppl_options *o, const nb_checkpoint *checkpoint, ppl_run *run, nb_ids *ids,
                              nibble_error *err) {
  nb_buf text = {0};
  nb_tokenizer *tokenizer = NULL;
  nibble_status status = nb_text_read(o->text, &text, err);
  if (status == NIBBLE_OK) status = nb_tokenizer_of(checkpoint, &tokenizer, err);
  if (status == NIBBLE_OK)
    status = nb_tokenizer_encode(tokenizer, text.length ? text.data : "", text.length, NB_ADD_SPECIAL, ids, err);
  run->bos = -1;
  if (status == NIBBLE_OK && o->convention == NIBBLE_CONVENTION_LLAMA_CPP)
    status = find_bos(tokenizer, ids, &run->bos, err);
  nb_tokenizer_close(tokenizer);
  nb_buf_free(&text);
  if (status != NIBBLE_OK) return status;
  int64_t tokens = (int64_t)ids->length;
  if (tokens < run->ctx)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: %lld tokens, but one window takes %lld", o->text, (long long)tokens,
                   (long long)run->ctx);
  run->ids = ids->data;
  run->windows = (tokens - run->ctx) / run->stride + 1;
  if (o->chunks > 0) run->windows = nb_min_i64(run->windows, o->chunks);
  return NIBBLE_OK;
}

static void finish(const ppl_run *run, nibble_ppl_result *out) {
  double n = (double)run->predictions, mean = run->sum / n;
  double variance = run->squares / n - mean * mean;
  out->perplexity = exp(mean);
  out->perplexity_stderr = run->predictions > 1 ? out->perplexity * sqrt(fmax(0, variance) / (n - 1)) : 0;
  out->tokens = run->predictions;
  out->chunks = run->windows;
  out->tokens_per_second = (double)(run->windows * run->ctx) / out->seconds;
}

static nibble_status measure(const nibble_ppl_options *o, nibble_ppl_result *out, nibble_error *err) {
  double start = nb_seconds();
  ppl_run run = {.options = o};
  nb_ids ids = {0};
  nb_model model = {0};
  const nb_config *config = &model.checkpoint.config;
  nibble_status status = nb_model_load(o->model,
                                       &(nb_model_options){.context = o->context,
                                                           .progress = &o->progress,
                                                           .llm_int8 = o->int8 == NIBBLE_INT8_LLM,
                                                           .activations = o->activations,
                                                           .head = o->head},
                                       &model, err);
  if (status != NIBBLE_OK) goto done;
  out->load_seconds = nb_seconds() - start;
  if ((status = nb_model_need_decoder(&model, err)) != NIBBLE_OK) goto done;
  if ((status = check_options(o, config, &run, err)) != NIBBLE_OK) goto done;
  if ((status = read_ids(o, &model.checkpoint, &run, &ids, err)) != NIBBLE_OK) goto done;
  /* Short windows go together, long ones in steps: scratch is for BATCH_ROWS rows at most. LLM.int8 takes its outlier
   * columns from all rows of a step, so each window is a step of its own there. */
  bool whole = o->int8 == NIBBLE_INT8_LLM;
  run.batch = whole ? 1 : nb_min_i64(run.windows, nb_max_i64(1, BATCH_ROWS / run.ctx));
  run.step = whole ? run.ctx : nb_min_i64(run.ctx, BATCH_ROWS);
  nb_session_options session = {.sequences = run.batch, .capacity = run.ctx, .step_tokens = run.step};
  if ((status = nb_session_create(&model, &session, &run.session, err)) != NIBBLE_OK) goto done;
  double computing = nb_seconds();
  if ((status = run_windows(&run, err)) != NIBBLE_OK) goto done;
  out->seconds = nb_seconds() - computing;
  finish(&run, out);
  out->weight_bytes = model.weight_bytes;
  for (int i = 0; i < model.checkpoint.file_count; i++) out->file_bytes += model.checkpoint.files[i].map.size;
done:
  nb_session_free(run.session);
  free(run.input);
  free(run.rows);
  free(run.target);
  free(run.log_prob);
  nb_model_free(&model);
  nb_ids_free(&ids);
  return status;
}

nibble_status nibble_ppl(const nibble_ppl_options *options, nibble_ppl_result *out, nibble_error *err) {
  nibble_ppl_options o;
  nibble_ppl_result r;
  static const nb_call_rules rules = {"nibble_ppl",
                                      NB_SIZES(nibble_ppl_options, progress),
                                      NB_SIZES(nibble_ppl_result, file_bytes),
                                      {NB_REQUIRED(nibble_ppl_options, model), NB_REQUIRED(nibble_ppl_options, text)}};
  nb_call call = {.options = &o, .result = &r};
  nibble_status status = nb_call_begin(&call, &rules, options, out, err);
  if (status == NIBBLE_OK) status = measure(&o, &r, err);
  return nb_call_end(&call, status);
}
