/* nibble_generate: a prompt goes in, text comes out token by token. */
#include <string.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/context.h"
#include "runner/conversation.h"
#include "runner/decoding.h"

enum { DEFAULT_NEW_TOKENS = 128, STEP_TOKENS = 512 };

/* The ids of the prompt as a user's message, behind the others. */
static nibble_status encode_chat(const nibble_generate_options *o, nb_decoding *d, nb_ids *out, nibble_error *err) {
  cJSON *conversation;
  nb_chat_template chat = {0};
  int32_t turn_end = -1;
  nibble_status status = nb_conversation_read(o->messages, o->tools, o->system, &conversation, err);
  if (status == NIBBLE_OK && o->prompt) status = nb_conversation_add(conversation, "user", o->prompt, err);
  if (status == NIBBLE_OK)
    status = nb_chat_template_open(&d->model.checkpoint, nb_conversation_has_tools(conversation), &chat, err);
  if (status == NIBBLE_OK && !chat.text)
    status = nb_fail(err, NIBBLE_BAD_INPUT, "%s: the model has no chat template", o->model);
  if (status == NIBBLE_OK) status = nb_conversation_encode(conversation, &chat, d->tokenizer, out, err);
  if (status == NIBBLE_OK) status = nb_conversation_turn_end(&chat, d->tokenizer, &turn_end, err);
  if (status == NIBBLE_OK && turn_end >= 0) status = nb_stop_tokens_add(&d->stops, turn_end, err);
  nb_chat_template_free(&chat);
  cJSON_Delete(conversation);
  return status;
}

static nibble_status encode(const nibble_generate_options *o, nb_decoding *d, nb_ids *out, nibble_error *err) {
  bool has_template;
  nibble_error why; /* a template that cannot be read is no matter of a plain prompt */
  if (o->chat) return encode_chat(o, d, out, err);
  if (nb_chat_template_exists(&d->model.checkpoint, &has_template, &why) == NIBBLE_OK && has_template)
    nb_warn(&o->progress, "the model has a chat template; the prompt is put into it by --chat");
  return nb_tokenizer_encode(d->tokenizer, o->prompt, strlen(o->prompt), NB_ADD_SPECIAL, out, err);
}

static nibble_status prepare(const nibble_generate_options *o, nb_decoding *d, nb_ids *prompt, int64_t *most,
                             nibble_error *err) {
  nb_model_options load = {.context = o->context,
                           .progress = &o->progress,
                           .llm_int8 = o->int8 == NIBBLE_INT8_LLM,
                           .activations = o->activations,
                           .head = o->head};
  nibble_status status = nb_decoding_open(d, o->model, &load, err);
  if (status == NIBBLE_OK) status = encode(o, d, prompt, err);
  if (status != NIBBLE_OK) return status;
  int64_t length = (int64_t)prompt->length, limit = d->model.checkpoint.config.max_position_embeddings;
  if (length == 0) return nb_fail(err, NIBBLE_USAGE, "the prompt has no token, and the tokenizer adds none");
  if (length >= limit)
    return nb_fail(err, NIBBLE_USAGE, "the prompt has %lld tokens, the model takes %lld", (long long)length,
                   (long long)limit);
  *most = nb_min_i64(o->max_new_tokens > 0 ? o->max_new_tokens : DEFAULT_NEW_TOKENS, limit - length);
  d->ignore_eos = o->ignore_eos;
  d->text = o->text;
  d->ctx = o->ctx;
  nb_sampling how = {.temperature = o->temperature, .top_k = o->top_k, .top_p = o->top_p, .seed = o->seed};
  return nb_decoding_reserve(d, length + *most, nb_min_i64(length, STEP_TOKENS), &how, err);
}

static nibble_status generate(const nibble_generate_options *o, nibble_generate_result *out, nibble_error *err) {
  nb_decoding d = {0};
  nb_ids prompt = {0};
  nb_buf text = {0};
  int64_t most = 0;
  double start = nb_seconds();
  nibble_status status = prepare(o, &d, &prompt, &most, err);
  out->load_seconds = nb_seconds() - start;
  out->activations = d.model.activations;
  if (status == NIBBLE_OK) status = nb_decoding_run(&d, prompt.data, (int64_t)prompt.length, most, &text, err);
  out->prompt_tokens = d.prompt_tokens;
  out->new_tokens = d.new_tokens;
  out->stopped_at_eos = d.stopped_at_eos;
  out->prompt_seconds = d.prompt_seconds;
  out->generate_seconds = d.generate_seconds;
  if (status == NIBBLE_OK) {
    nb_buf_append(&text, "", 0); /* so that an empty text is a string too */
    if (text.failed) status = nb_fail_memory(err, text.length);
  }
  if (status == NIBBLE_OK) {
    out->text = text.data;
    out->text_length = text.length;
    text.data = NULL;
  }
  nb_buf_free(&text);
  nb_ids_free(&prompt);
  nb_decoding_close(&d);
  return status;
}

static nibble_status check(const nibble_generate_options *o, nibble_error *err) {
  const char *without = o->system ? "system" : o->messages ? "messages" : o->tools ? "tools" : NULL;
  if (without && !o->chat)
    return nb_fail(err, NIBBLE_USAGE, "nibble_generate: %s is for a chat template, and chat is not set", without);
  return o->prompt || o->messages ? NIBBLE_OK : nb_call_require("nibble_generate", "prompt", o->prompt, err);
}

nibble_status nibble_generate(const nibble_generate_options *options, nibble_generate_result *out, nibble_error *err) {
  nibble_generate_options o = {0};
  nibble_generate_result r;
  static const nb_call_rules rules = {"nibble_generate",
                                      NB_SIZES(nibble_generate_options, progress),
                                      NB_SIZES(nibble_generate_result, text),
                                      {NB_REQUIRED(nibble_generate_options, model)}};
  nb_call call = {.options = &o, .result = &r};
  nibble_status status = nb_call_begin(&call, &rules, options, out, err);
  if (status == NIBBLE_OK) status = check(&o, err);
  if (status == NIBBLE_OK) status = generate(&o, &r, err);
  return nb_call_end(&call, status);
}
