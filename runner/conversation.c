#include "runner/conversation.h"

#include <stdlib.h>
#include <string.h>

static cJSON *messages_of(const cJSON *conversation) {
  return cJSON_GetObjectItemCaseSensitive(conversation, "messages");
}

/* ---- reading ---------------------------------------------------------------------------------------------------- */

/* Makes *json, a list of messages, a conversation. */
static nibble_status wrap(cJSON **json, nibble_error *err) {
  cJSON *whole = cJSON_CreateObject();
  if (!whole || !cJSON_AddItemToObject(whole, "messages", *json)) {
    cJSON_Delete(whole);
    return nb_fail_memory(err, sizeof *whole);
  }
  *json = whole;
  return NIBBLE_OK;
}

static nibble_status read_messages(const char *path, cJSON **out, nibble_error *err) {
  nibble_status status = nb_json_load(path, out, err);
  if (status == NIBBLE_OK) status = nb_json_last_wins(*out, err);
  if (status == NIBBLE_OK && cJSON_IsArray(*out)) status = wrap(out, err);
  if (status != NIBBLE_OK) return status;
  const cJSON *messages = messages_of(*out), *message;
  if (!cJSON_IsArray(messages))
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: neither a list of messages nor an object with one", path);
  cJSON_ArrayForEach(message, messages) {
    if (!cJSON_IsObject(message)) return nb_fail(err, NIBBLE_BAD_INPUT, "%s: a message that is no object", path);
  }
  return NIBBLE_OK;
}

static nibble_status read_tools(const char *path, cJSON *conversation, nibble_error *err) {
  cJSON *tools;
  nibble_status status = nb_json_load(path, &tools, err);
  if (status != NIBBLE_OK) return status;
  status = nb_json_last_wins(tools, err);
  if (status == NIBBLE_OK && !cJSON_IsArray(tools))
    status = nb_fail(err, NIBBLE_BAD_INPUT, "%s: no list of tools", path);
  if (status == NIBBLE_OK) {
    cJSON_DeleteItemFromObjectCaseSensitive(conversation, "tools");
    if (cJSON_AddItemToObject(conversation, "tools", tools)) return NIBBLE_OK;
    status = nb_fail_memory(err, sizeof *tools);
  }
  cJSON_Delete(tools);
  return status;
}

static cJSON *message_of(const char *role, const char *content) {
  cJSON *message = cJSON_CreateObject();
  if (cJSON_AddStringToObject(message, "role", role) && cJSON_AddStringToObject(message, "content", content))
    return message;
  cJSON_Delete(message);
  return NULL;
}

nibble_status nb_conversation_read(const char *messages, const char *tools, const char *system, cJSON **out,
                                   nibble_error *err) {
  *out = NULL;
  nibble_status status = NIBBLE_OK;
  if (messages) {
    status = read_messages(messages, out, err);
  } else {
    *out = cJSON_CreateArray();
    status = *out ? wrap(out, err) : nb_fail_memory(err, sizeof **out);
  }
  if (status == NIBBLE_OK && tools) status = read_tools(tools, *out, err);
  if (status == NIBBLE_OK && system) {
    cJSON *message = message_of("system", system);
    if (!message || !cJSON_InsertItemInArray(messages_of(*out), 0, message)) {
      cJSON_Delete(message);
      status = nb_fail_memory(err, strlen(system));
    }
  }
  if (status != NIBBLE_OK) {
    cJSON_Delete(*out);
    *out = NULL;
  }
  return status;
}

nibble_status nb_conversation_add(cJSON *conversation, const char *role, const char *content, nibble_error *err) {
  cJSON *message = message_of(role, content);
  if (message && cJSON_AddItemToArray(messages_of(conversation), message)) return NIBBLE_OK;
  cJSON_Delete(message);
  return nb_fail_memory(err, strlen(content));
}

void nb_conversation_drop(cJSON *conversation) {
  cJSON *messages = messages_of(conversation);
  cJSON_DeleteItemFromArray(messages, cJSON_GetArraySize(messages) - 1);
}

bool nb_conversation_has_tools(const cJSON *conversation) {
  const cJSON *tools = cJSON_GetObjectItemCaseSensitive(conversation, "tools");
  return tools && !cJSON_IsNull(tools);
}

/* ---- as transformers gives it to a template --------------------------------------------------------------------- */

static void drop_nulls(cJSON *message) {
  for (cJSON *next, *item = message->child; item; item = next) {
    next = item->next;
    if (cJSON_IsNull(item)) cJSON_Delete(cJSON_DetachItemViaPointer(message, item));
  }
}

/* What a model thought is known by three names. A template finds it by `thinking`, which comes first if it was not
 * there, and by `reasoning_content`. */
static bool name_reasoning(cJSON *message) {
  static const char *const names[] = {"reasoning_content", "thinking", "reasoning"};
  const cJSON *said = NULL;
  for (int i = 0; i < 3 && !said; i++) said = cJSON_GetObjectItemCaseSensitive(message, names[i]);
  if (!said) return true;
  if (!cJSON_GetObjectItemCaseSensitive(message, "thinking")) {
    cJSON *copy = cJSON_Duplicate(said, true);
    if (!copy || !cJSON_AddItemToObject(message, "thinking", copy)) {
      cJSON_Delete(copy);
      return false;
    }
    cJSON_DetachItemViaPointer(message, copy);
    if (!cJSON_InsertItemInArray(message, 0, copy)) {
      cJSON_Delete(copy);
      return false;
    }
  }
  if (cJSON_GetObjectItemCaseSensitive(message, "reasoning_content")) return true;
  cJSON *copy = cJSON_Duplicate(said, true);
  if (copy && cJSON_AddItemToObject(message, "reasoning_content", copy)) return true;
  cJSON_Delete(copy);
  return false;
}

nibble_status nb_conversation_render(const cJSON *conversation, const nb_chat_template *chat, bool add_prompt,
                                     nb_buf *out, nibble_error *err) {
  cJSON *all = cJSON_Duplicate(conversation, true), *message;
  bool ok = all != NULL;
  cJSON_ArrayForEach(message, messages_of(all)) {
    drop_nulls(message);
    ok = ok && name_reasoning(message);
  }
  static const char *const always[] = {"tools", "documents"};
  for (int i = 0; ok && i < 2; i++) ok = cJSON_HasObjectItem(all, always[i]) || cJSON_AddNullToObject(all, always[i]);
  if (ok) cJSON_DeleteItemFromObjectCaseSensitive(all, "add_generation_prompt");
  ok = ok && cJSON_AddBoolToObject(all, "add_generation_prompt", add_prompt);
  nibble_status status = ok ? nb_chat_template_render(chat, all, out, err) : nb_fail_memory(err, sizeof *all);
  cJSON_Delete(all);
  return status;
}

nibble_status nb_conversation_encode(const cJSON *conversation, const nb_chat_template *chat, nb_tokenizer *tokenizer,
                                     nb_ids *out, nibble_error *err) {
  nb_buf text = {0};
  if (cJSON_GetArraySize(messages_of(conversation)) == 0)
    return nb_fail(err, NIBBLE_USAGE, "a conversation without a message");
  nibble_status status = nb_conversation_render(conversation, chat, true, &text, err);
  if (status == NIBBLE_OK)
    status = nb_tokenizer_encode(tokenizer, text.data ? text.data : "", text.length, 0, out, err);
  nb_buf_free(&text);
  return status;
}

nibble_status nb_conversation_turn_end(const nb_chat_template *chat, nb_tokenizer *tokenizer, int32_t *out,
                                       nibble_error *err) {
  static const char answer[] = "Qxjkz";
  nb_buf text = {0};
  nb_ids ids = {0};
  cJSON *two;
  *out = -1;
  nibble_status status = nb_conversation_read(NULL, NULL, NULL, &two, err);
  if (status == NIBBLE_OK) status = nb_conversation_add(two, "user", "Hi", err);
  if (status == NIBBLE_OK) status = nb_conversation_add(two, "assistant", answer, err);
  nibble_error why; /* a template may want other conversations; that is no failure of this one */
  if (status == NIBBLE_OK && nb_conversation_render(two, chat, false, &text, &why) == NIBBLE_OK) {
    const char *end = text.data ? memmem(text.data, text.length, answer, strlen(answer)) : NULL;
    if (end) end += strlen(answer);
    size_t n = end ? text.length - (size_t)(end - text.data) : 0;
    if (n > 0) status = nb_tokenizer_encode(tokenizer, end, n, 0, &ids, err);
    if (status == NIBBLE_OK && ids.length > 0 && nb_tokenizer_is_special(tokenizer, ids.data[0])) *out = ids.data[0];
  }
  cJSON_Delete(two);
  nb_ids_free(&ids);
  nb_buf_free(&text);
  return status;
}
