/* nibble_generate: a prompt goes in, text comes out token by token. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/context.h"
#include "convert/tokenizer_open.h"
#include "runner/sample.h"
#include "runner/session.h"
#include "runner/stop_tokens.h"

enum { DEFAULT_NEW_TOKENS = 128, STEP_TOKENS = 512 };

typedef struct generation {
  const nibble_generate_options *options;
  nibble_generate_result *result;
  nb_model model;
  nb_tokenizer *tokenizer;
  nb_session *session;
  nb_sampler sampler;
  nb_token_stream stream;
  nb_ids prompt;
  nb_buf text;
  float *logits; /* [vocab] */
  nb_stop_tokens stops;
  int64_t room; /* new tokens that may come */
} generation;

static nibble_status prepare(generation *g, nibble_error *err) {
  const nibble_generate_options *o = g->options;
  nb_model_options load = {.context = o->context,
                           .progress = &o->progress,
                           .llm_int8 = o->int8 == NIBBLE_INT8_LLM,
                           .int8_activations = o->activations == NIBBLE_ACTIVATIONS_INT8};
  nibble_status status = nb_model_load(o->model, &load, &g->model, err);
  if (status == NIBBLE_OK) status = nb_model_need_decoder(&g->model, err);
  if (status == NIBBLE_OK) status = nb_tokenizer_of(&g->model.checkpoint, &g->tokenizer, err);
  if (status == NIBBLE_OK) status = nb_stop_tokens_read(&g->model.checkpoint, &g->stops, err);
  if (status == NIBBLE_OK)
    status = nb_tokenizer_encode(g->tokenizer, o->prompt, strlen(o->prompt), NB_ADD_SPECIAL, &g->prompt, err);
  if (status != NIBBLE_OK) return status;
  const nb_config *c = &g->model.checkpoint.config;
  int64_t prompt = (int64_t)g->prompt.length;
  if (prompt == 0) return nb_fail(err, NIBBLE_USAGE, "the prompt has no token, and the tokenizer adds none");
  if (prompt >= c->max_position_embeddings)
    return nb_fail(err, NIBBLE_USAGE, "the prompt has %lld tokens, the model takes %lld", (long long)prompt,
                   (long long)c->max_position_embeddings);
  g->room =
      nb_min_i64(o->max_new_tokens > 0 ? o->max_new_tokens : DEFAULT_NEW_TOKENS, c->max_position_embeddings - prompt);
  nb_session_options room = {.capacity = prompt + g->room, .step_tokens = nb_min_i64(prompt, STEP_TOKENS)};
  if ((status = nb_session_create(&g->model, &room, &g->session, err)) != NIBBLE_OK) return status;
  if (!(g->logits = nb_alloc((uint64_t)c->vocab_size, sizeof *g->logits)))
    return nb_fail_memory(err, (uint64_t)c->vocab_size * sizeof *g->logits);
  g->stream = (nb_token_stream){.tokenizer = g->tokenizer, .flags = NB_SKIP_SPECIAL};
  nb_sampling how = {.temperature = o->temperature, .top_k = o->top_k, .top_p = o->top_p, .seed = o->seed};
  return nb_sampler_init(&g->sampler, &how, c->vocab_size, err);
}

/* Runs tokens through the model and leaves the logits after the last of them in g->logits. */
static nibble_status feed(generation *g, const int32_t *ids, int64_t count, nibble_error *err) {
  int64_t step = 0;
  for (int64_t at = 0; at < count; at += step) {
    step = nb_min_i64(nb_min_i64(STEP_TOKENS, (int64_t)g->prompt.length), count - at);
    nibble_status status = nb_session_step(g->session, ids + at, step, err);
    if (status != NIBBLE_OK) return status;
  }
  nibble_status status = nb_session_logits(g->session, &(int32_t){(int32_t)(step - 1)}, 1, g->logits, err);
  for (int64_t i = 0; status == NIBBLE_OK && i < g->model.checkpoint.config.vocab_size; i++) {
    if (isfinite(g->logits[i])) continue;
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: the model's output is not finite after %lld tokens", g->options->model,
                   (long long)(g->result->prompt_tokens + g->result->new_tokens));
  }
  return status;
}

static void hand_out(generation *g, size_t from) {
  const nibble_generate_options *o = g->options;
  if (o->text && g->text.length > from) o->text(o->ctx, g->text.data + from, g->text.length - from);
}

static nibble_status run(generation *g, nibble_error *err) {
  nibble_generate_result *r = g->result;
  double start = nb_seconds();
  r->prompt_tokens = (int64_t)g->prompt.length;
  nibble_status status = feed(g, g->prompt.data, r->prompt_tokens, err);
  double prompt_end = nb_seconds();
  r->prompt_seconds = prompt_end - start;
  while (status == NIBBLE_OK) {
    int32_t id = nb_sampler_next(&g->sampler, g->logits);
    r->stopped_at_eos = !g->options->ignore_eos && nb_stop_tokens_have(&g->stops, id);
    if (r->stopped_at_eos) break;
    size_t from = g->text.length;
    if ((status = nb_token_stream_push(&g->stream, id, &g->text, err)) != NIBBLE_OK) break;
    hand_out(g, from);
    if (++r->new_tokens == g->room) break;
    status = feed(g, &id, 1, err);
  }
  r->generate_seconds = nb_seconds() - prompt_end;
  return status;
}

static nibble_status generate(const nibble_generate_options *options, nibble_generate_result *out, nibble_error *err) {
  generation g = {.options = options, .result = out};
  double start = nb_seconds();
  nibble_status status = prepare(&g, err);
  out->load_seconds = nb_seconds() - start;
  if (status == NIBBLE_OK) status = run(&g, err);
  size_t from = g.text.length;
  if (status == NIBBLE_OK) status = nb_token_stream_end(&g.stream, &g.text, err);
  if (status == NIBBLE_OK) {
    hand_out(&g, from);
    if (!g.text.data) nb_buf_puts(&g.text, "");
    if (g.text.failed) status = nb_fail_memory(err, g.text.length);
  }
  if (status == NIBBLE_OK) {
    out->text = g.text.data;
    g.text.data = NULL;
  }
  nb_ids_free(&g.stream.window);
  nb_buf_free(&g.text);
  nb_sampler_free(&g.sampler);
  nb_session_free(g.session);
  nb_tokenizer_close(g.tokenizer);
  nb_ids_free(&g.prompt);
  free(g.logits);
  nb_stop_tokens_free(&g.stops);
  nb_model_free(&g.model);
  return status;
}

nibble_status nibble_generate(const nibble_generate_options *options, nibble_generate_result *out, nibble_error *err) {
  nibble_generate_options o;
  nibble_generate_result r;
  static const nb_call_rules rules = {
      "nibble_generate",
      NB_SIZES(nibble_generate_options, progress),
      NB_SIZES(nibble_generate_result, text),
      {NB_REQUIRED(nibble_generate_options, model), NB_REQUIRED(nibble_generate_options, prompt)}};
  nb_call call = {.options = &o, .result = &r};
  nibble_status status = nb_call_begin(&call, &rules, options, out, err);
  if (status == NIBBLE_OK) status = generate(&o, &r, err);
  return nb_call_end(&call, status);
}
