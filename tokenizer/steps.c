#include "tokenizer/steps.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "model/json.h"

static void add_by_row(nb_step_reader *r, nb_step_fn add, void *ctx) {
  for (size_t i = 0; i < r->types.count; i++) {
    const char *type, *row = (const char *)r->types.rows + i * r->types.row_size;
    memcpy(&type, row, sizeof type);
    if (strcmp(r->type, type) != 0) continue;
    add(r, row, ctx);
    return;
  }
  r->status = nb_fail(r->err, NIBBLE_BAD_INPUT, "%s: %s '%s' is not supported", r->where, r->group, r->type);
}

static void each(nb_step_reader *r, const cJSON *json, int depth, nb_step_fn add, void *ctx) {
  const cJSON *type = cJSON_IsObject(json) ? cJSON_GetObjectItemCaseSensitive(json, "type") : NULL;
  if (!cJSON_IsString(type)) {
    r->status = nb_fail(r->err, NIBBLE_BAD_INPUT, "%s: a %s has no \"type\"", r->where, r->group);
    return;
  }
  r->type = type->valuestring;
  r->json = json;
  const cJSON *list = cJSON_GetObjectItemCaseSensitive(json, r->list);
  if (strcmp(r->type, "Sequence") != 0 || !cJSON_IsArray(list) || depth == NB_MAX_STEPS) {
    add_by_row(r, add, ctx);
    return;
  }
  for (const cJSON *item = list->child; item && r->status == NIBBLE_OK; item = item->next)
    each(r, item, depth + 1, add, ctx);
}

nibble_status nb_steps_each(nb_step_reader *r, const cJSON *parts, nb_step_fn add, void *ctx) {
  const cJSON *json = cJSON_GetObjectItemCaseSensitive(parts, r->group);
  if (json && !cJSON_IsNull(json)) each(r, json, 0, add, ctx);
  return r->status;
}

void nb_step_fail(nb_step_reader *r, const char *format, ...) {
  if (r->status != NIBBLE_OK) return;
  char message[NIBBLE_MESSAGE_MAX];
  va_list args;
  va_start(args, format);
  vsnprintf(message, sizeof message, format, args);
  va_end(args);
  r->status = nb_fail(r->err, NIBBLE_BAD_INPUT, "%s: %s %s %s", r->where, r->group, r->type, message);
}

bool nb_step_room(nb_step_reader *r, int count) {
  if (count == NB_MAX_STEPS)
    r->status = nb_fail(r->err, NIBBLE_BAD_INPUT, "%s: %s has more than %d steps", r->where, r->group, NB_MAX_STEPS);
  return r->status == NIBBLE_OK;
}

void nb_step_bool(nb_step_reader *r, const char *key, bool *out) {
  if (r->status == NIBBLE_OK) r->status = nb_json_bool(r->where, r->json, key, out, r->err);
}

void nb_step_count(nb_step_reader *r, const char *key, int64_t *out) {
  if (r->status == NIBBLE_OK) r->status = nb_json_int(r->where, r->json, key, (nb_range){0, INT32_MAX}, out, r->err);
}

void nb_step_text(nb_step_reader *r, const char *key, const char **out) {
  if (r->status == NIBBLE_OK) r->status = nb_json_string(r->where, r->json, key, out, r->err);
}

void nb_step_string(nb_step_reader *r, const char *key, size_t limit, char **out) {
  const cJSON *text = cJSON_GetObjectItemCaseSensitive(r->json, key);
  size_t n = cJSON_IsString(text) ? strlen(text->valuestring) : 0;
  if (!cJSON_IsString(text))
    nb_step_fail(r, "has no string \"%s\"", key);
  else if (n > limit)
    nb_step_fail(r, "has a \"%s\" of %zu bytes, more than the %zu allowed", key, n, limit);
  if (r->status == NIBBLE_OK && !(*out = strdup(text->valuestring))) r->status = nb_fail_memory(r->err, n);
}

void nb_step_char(nb_step_reader *r, const char *key, char **out) {
  const cJSON *text = cJSON_GetObjectItemCaseSensitive(r->json, key);
  size_t length = 0;
  if (cJSON_IsString(text) && text->valuestring[0]) nb_utf8_decode(text->valuestring, &length);
  if (cJSON_IsString(text) && strlen(text->valuestring) != length) length = 0;
  if (cJSON_IsString(text) && length == 0) nb_step_fail(r, "has a \"%s\" that is not one character", key);
  nb_step_string(r, key, length, out);
}

void nb_step_pattern(nb_step_reader *r, nb_regex **out) {
  const cJSON *pattern = nb_json_object(r->json, "pattern");
  const cJSON *text = cJSON_GetObjectItemCaseSensitive(pattern, "String");
  const cJSON *regex = cJSON_GetObjectItemCaseSensitive(pattern, "Regex");
  const cJSON *used = cJSON_IsString(text) ? text : regex;
  if (!cJSON_IsString(used)) nb_step_fail(r, "has no \"pattern\" of a String or a Regex");
  if (r->status == NIBBLE_OK) r->status = nb_regex_compile(r->where, used->valuestring, used == text, out, r->err);
}
