/* nibble_bench: tokens per second of a whole model, measured as llama-bench does. */
#include <math.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/context.h"
#include "runner/session.h"

enum { STEP_TOKENS = 512, DEFAULT_PROMPT = 512, DEFAULT_GEN = 128, DEFAULT_REPETITIONS = 3, MAX_REPETITIONS = 1000 };

typedef struct bench_run {
  nb_session *session;
  int32_t *ids;  /* [prompt], any tokens will do */
  float *logits; /* [vocab] */
  int64_t prompt, gen;
} bench_run;

static nibble_status read_prompt(bench_run *run, nibble_error *err) {
  nb_session_truncate(run->session, 0);
  nibble_status status = NIBBLE_OK;
  int32_t last = 0;
  for (int64_t at = 0; status == NIBBLE_OK && at < run->prompt; at += STEP_TOKENS) {
    int64_t tokens = nb_min_i64(STEP_TOKENS, run->prompt - at);
    status = nb_session_step(run->session, run->ids + at, tokens, err);
    last = (int32_t)(tokens - 1);
  }
  return status == NIBBLE_OK ? nb_session_logits(run->session, &last, 1, run->logits, err) : status;
}

static nibble_status generate(bench_run *run, nibble_error *err) {
  nb_session_truncate(run->session, 0);
  nibble_status status = NIBBLE_OK;
  for (int64_t i = 0; status == NIBBLE_OK && i < run->gen; i++) {
    status = nb_session_step(run->session, &run->ids[i % run->prompt], 1, err);
    if (status == NIBBLE_OK) status = nb_session_logits(run->session, &(int32_t){0}, 1, run->logits, err);
  }
  return status;
}

/* Mean and deviation of tokens per second over the repetitions; the first run warms caches and does not count. */
static nibble_status measure(bench_run *run, nibble_status (*once)(bench_run *, nibble_error *), int64_t tokens,
                             int64_t repetitions, double *mean, double *deviation, nibble_error *err) {
  double sum = 0, squares = 0;
  for (int64_t i = 0; i <= repetitions; i++) {
    double start = nb_seconds();
    nibble_status status = once(run, err);
    if (status != NIBBLE_OK) return status;
    double speed = (double)tokens / (nb_seconds() - start);
    if (i == 0) continue;
    sum += speed;
    squares += speed * speed;
  }
  double n = (double)repetitions;
  *mean = sum / n;
  *deviation = n > 1 ? sqrt(fmax(0, (squares - sum * sum / n) / (n - 1))) : 0;
  return NIBBLE_OK;
}

static nibble_status run_bench(const nibble_bench_options *o, nibble_bench_result *out, nibble_error *err) {
  bench_run run = {.prompt = o->prompt ? o->prompt : DEFAULT_PROMPT, .gen = o->gen ? o->gen : DEFAULT_GEN};
  int64_t repetitions = o->repetitions ? o->repetitions : DEFAULT_REPETITIONS;
  if (run.prompt < 1 || run.gen < 1 || repetitions < 1 || repetitions > MAX_REPETITIONS)
    return nb_fail(err, NIBBLE_USAGE, "tokens and repetitions are counted from 1");
  nb_model model = {0};
  double start = nb_seconds();
  nibble_status status = nb_model_load(o->model,
                                       &(nb_model_options){.context = o->context,
                                                           .progress = &o->progress,
                                                           .llm_int8 = o->int8 == NIBBLE_INT8_LLM,
                                                           .activations = o->activations,
                                                           .head = o->head},
                                       &model, err);
  if (status != NIBBLE_OK) goto done;
  if ((status = nb_model_need_decoder(&model, err)) != NIBBLE_OK) goto done;
  out->load_seconds = nb_seconds() - start;
  out->weight_bytes = model.weight_bytes;
  out->activations = model.activations;
  const nb_config *c = &model.checkpoint.config;
  int64_t longest = nb_max_i64(run.prompt, run.gen);
  if (longest > c->max_position_embeddings) {
    status = nb_fail(err, NIBBLE_USAGE, "%lld tokens, but the model takes %lld", (long long)longest,
                     (long long)c->max_position_embeddings);
    goto done;
  }
  nb_session_options room = {.capacity = longest, .step_tokens = nb_min_i64(run.prompt, STEP_TOKENS)};
  if ((status = nb_session_create(&model, &room, &run.session, err)) != NIBBLE_OK) goto done;
  run.ids = nb_alloc((uint64_t)run.prompt, sizeof *run.ids);
  run.logits = nb_alloc((uint64_t)c->vocab_size, sizeof *run.logits);
  if (!run.ids || !run.logits) {
    status = nb_fail_memory(err, (uint64_t)c->vocab_size * sizeof *run.logits);
    goto done;
  }
  for (int64_t i = 0; i < run.prompt; i++) run.ids[i] = (int32_t)((i * 7919 + 13) % c->vocab_size);
  status =
      measure(&run, read_prompt, run.prompt, repetitions, &out->prompt_tokens_per_second, &out->prompt_stddev, err);
  if (status == NIBBLE_OK)
    status = measure(&run, generate, run.gen, repetitions, &out->gen_tokens_per_second, &out->gen_stddev, err);
done:
  nb_session_free(run.session);
  free(run.ids);
  free(run.logits);
  nb_model_free(&model);
  return status;
}

nibble_status nibble_bench(const nibble_bench_options *options, nibble_bench_result *out, nibble_error *err) {
  nibble_bench_options o;
  nibble_bench_result r;
  static const nb_call_rules rules = {"nibble_bench",
                                      NB_SIZES(nibble_bench_options, progress),
                                      NB_SIZES(nibble_bench_result, weight_bytes),
                                      {NB_REQUIRED(nibble_bench_options, model)}};
  nb_call call = {.options = &o, .result = &r};
  nibble_status status = nb_call_begin(&call, &rules, options, out, err);
  if (status == NIBBLE_OK) status = run_bench(&o, &r, err);
  return nb_call_end(&call, status);
}
