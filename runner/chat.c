/* nibble_chat: a conversation that grows, and a model that reads only what is new of it. */
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/context.h"
#include "runner/conversation.h"
#include "runner/decoding.h"

enum { DEFAULT_CTX = 4096, STEP_TOKENS = 512 };

struct nibble_chat {
  nibble_context context;
  nb_decoding decoding;
  char *model;
  nb_chat_template chat;
  cJSON *first; /* the conversation as it was opened */
  cJSON *now;
  int64_t capacity, most; /* tokens of the conversation, and of an answer */
};

static nibble_status copy(const cJSON *from, cJSON **to, nibble_error *err) {
  cJSON *other = cJSON_Duplicate(from, true);
  if (!other) return nb_fail_memory(err, sizeof *other);
  cJSON_Delete(*to);
  *to = other;
  return NIBBLE_OK;
}

static nibble_status open_template(const nibble_chat_options *o, nibble_chat *c, nibble_error *err) {
  nibble_status status = nb_conversation_read(o->messages, o->tools, o->system, &c->first, err);
  if (status == NIBBLE_OK) status = copy(c->first, &c->now, err);
  if (status == NIBBLE_OK)
    status = nb_chat_template_open(&c->decoding.model.checkpoint, nb_conversation_has_tools(c->first), &c->chat, err);
  if (status == NIBBLE_OK && !c->chat.text)
    status = nb_fail(err, NIBBLE_BAD_INPUT, "%s: the model has no chat template", o->model);
  int32_t turn_end = -1;
  if (status == NIBBLE_OK) status = nb_conversation_turn_end(&c->chat, c->decoding.tokenizer, &turn_end, err);
  if (status == NIBBLE_OK && turn_end >= 0) status = nb_stop_tokens_add(&c->decoding.stops, turn_end, err);
  return status;
}

static nibble_status open_chat(const nibble_chat_options *o, nibble_chat *c, nibble_error *err) {
  c->context = *o->context;
  if (!(c->model = strdup(o->model))) return nb_fail_memory(err, strlen(o->model));
  nb_model_options load = {.context = &c->context,
                           .progress = &o->progress,
                           .llm_int8 = o->int8 == NIBBLE_INT8_LLM,
                           .activations = o->activations,
                           .head = o->head};
  nibble_status status = nb_decoding_open(&c->decoding, c->model, &load, err);
  if (status == NIBBLE_OK) status = open_template(o, c, err);
  if (status != NIBBLE_OK) return status;
  int64_t limit = c->decoding.model.checkpoint.config.max_position_embeddings;
  c->capacity = nb_min_i64(o->ctx > 0 ? o->ctx : DEFAULT_CTX, limit);
  c->most = o->max_new_tokens > 0 ? o->max_new_tokens : c->capacity;
  nb_sampling how = {.temperature = o->temperature, .top_k = o->top_k, .top_p = o->top_p, .seed = o->seed};
  return nb_decoding_reserve(&c->decoding, c->capacity, nb_min_i64(c->capacity, STEP_TOKENS), &how, err);
}

nibble_status nibble_chat_open(const nibble_chat_options *options, nibble_chat **out, nibble_error *err) {
  nibble_chat_options o = {0};
  static const nb_call_rules rules = {
      "nibble_chat_open", NB_SIZES(nibble_chat_options, progress), {0}, {NB_REQUIRED(nibble_chat_options, model)}};
  nb_call call = {.options = &o};
  nibble_status status = nb_call_begin(&call, &rules, options, out, err);
  nibble_chat *c = status == NIBBLE_OK ? nb_alloc(1, sizeof *c) : NULL;
  if (status == NIBBLE_OK) status = c ? open_chat(&o, c, err) : nb_fail_memory(err, sizeof *c);
  if (status == NIBBLE_OK) {
    *out = c;
  } else {
    nibble_chat_close(c);
  }
  return nb_call_end(&call, status);
}

void nibble_chat_close(nibble_chat *chat) {
  if (!chat) return;
  nb_decoding_close(&chat->decoding);
  nb_chat_template_free(&chat->chat);
  cJSON_Delete(chat->first);
  cJSON_Delete(chat->now);
  free(chat->model);
  free(chat);
}

/* The answer to the conversation; what was written stands in *text, also after a failure. */
static nibble_status answer(nibble_chat *c, nb_buf *text, nibble_error *err) {
  nb_ids ids = {0};
  nibble_status status = nb_conversation_encode(c->now, &c->chat, c->decoding.tokenizer, &ids, err);
  int64_t room = c->capacity - (int64_t)ids.length;
  if (status == NIBBLE_OK && ids.length == 0)
    status = nb_fail(err, NIBBLE_BAD_INPUT, "%s: its chat template makes nothing of the conversation", c->model);
  if (status == NIBBLE_OK && room <= 0)
    status = nb_fail(err, NIBBLE_USAGE, "the conversation has %zu tokens, and there is room for %lld", ids.length,
                     (long long)c->capacity);
  if (status == NIBBLE_OK)
    status = nb_decoding_run(&c->decoding, ids.data, (int64_t)ids.length, nb_min_i64(c->most, room), text, err);
  nb_ids_free(&ids);
  return status;
}

static nibble_status say(nibble_chat *c, const char *said, nibble_chat_answer *out, nibble_error *err) {
  nb_buf text = {0};
  nibble_status status = nb_conversation_add(c->now, "user", said, err);
  if (status != NIBBLE_OK) return status;
  status = answer(c, &text, err);
  nb_buf_append(&text, "", 0); /* so that an empty text is a string too */
  if (text.failed) status = nb_fail_memory(err, text.length);
  bool is_kept = status == NIBBLE_OK || status == NIBBLE_STOPPED;
  if (is_kept) { /* JSON holds no NUL: what is behind one is not said again */
    nibble_error why;
    nibble_status added = nb_conversation_add(c->now, "assistant", text.data, &why);
    if (added != NIBBLE_OK) status = nb_fail(err, added, "%s", why.message);
    is_kept = added == NIBBLE_OK;
  }
  if (!is_kept) nb_conversation_drop(c->now);
  const nb_decoding *d = &c->decoding;
  *out = (nibble_chat_answer){.activations = d->model.activations,
                              .prompt_tokens = d->prompt_tokens,
                              .new_tokens = d->new_tokens,
                              .stopped_at_eos = d->stopped_at_eos,
                              .prompt_seconds = d->prompt_seconds,
                              .generate_seconds = d->generate_seconds};
  if (status == NIBBLE_OK) {
    out->text = text.data;
    out->text_length = text.length;
    text.data = NULL;
  }
  nb_buf_free(&text);
  return status;
}

nibble_status nibble_chat_say(nibble_chat *chat, const char *text,
                              void (*piece)(void *ctx, const char *bytes, size_t n), void *ctx, nibble_chat_answer *out,
                              nibble_error *err) {
  static const nb_sizes sizes = NB_SIZES(nibble_chat_answer, text_length);
  nb_call call = {0};
  nibble_chat_answer r;
  nibble_status status = nb_result_clear(__func__, &sizes, out, err);
  if (status == NIBBLE_OK) status = nb_call_require(__func__, "chat", chat, err);
  if (status == NIBBLE_OK) status = nb_call_require(__func__, "text", text, err);
  if (status != NIBBLE_OK) return status;
  nb_call_begin_in(&call, &chat->context);
  chat->decoding.text = piece;
  chat->decoding.ctx = ctx;
  status = say(chat, text, &r, err);
  nb_result_fill(out, &r, sizeof r);
  return nb_call_end(&call, status);
}

nibble_status nibble_chat_reset(nibble_chat *chat, const char *system, nibble_error *err) {
  nibble_status status = nb_call_require(__func__, "chat", chat, err);
  if (status != NIBBLE_OK || !system) return status == NIBBLE_OK ? copy(chat->first, &chat->now, err) : status;
  cJSON *others = cJSON_Duplicate(chat->first, true), *fresh = NULL;
  status = others ? nb_conversation_read(NULL, NULL, system, &fresh, err) : nb_fail_memory(err, sizeof *others);
  if (status == NIBBLE_OK) { /* tools and the like stay */
    cJSON *messages = cJSON_DetachItemFromObjectCaseSensitive(fresh, "messages");
    if (!cJSON_ReplaceItemInObjectCaseSensitive(others, "messages", messages)) {
      cJSON_Delete(messages);
      status = nb_fail_memory(err, sizeof *messages);
    }
  }
  if (status == NIBBLE_OK) {
    cJSON_Delete(chat->first);
    chat->first = others;
    others = NULL;
    status = copy(chat->first, &chat->now, err);
  }
  cJSON_Delete(others);
  cJSON_Delete(fresh);
  return status;
}
