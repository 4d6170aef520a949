#include "tokenizer/steps.h"

#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "model/json.h"

static nibble_status each(nb_step_reader r, const cJSON *json, int depth, nb_step_fn add, void *ctx) {
  const cJSON *type = cJSON_IsObject(json) ? cJSON_GetObjectItemCaseSensitive(json, "type") : NULL;
  if (!cJSON_IsString(type)) return nb_fail(r.err, NIBBLE_BAD_INPUT, "%s: a %s has no \"type\"", r.where, r.name);
  r.type = type->valuestring;
  const cJSON *list = cJSON_GetObjectItemCaseSensitive(json, r.list);
  if (strcmp(r.type, "Sequence") != 0 || !cJSON_IsArray(list) || depth == NB_MAX_STEPS) return add(&r, json, ctx);
  nibble_status status = NIBBLE_OK;
  for (const cJSON *item = list->child; item && status == NIBBLE_OK; item = item->next)
    status = each(r, item, depth + 1, add, ctx);
  return status;
}

nibble_status nb_steps_each(const nb_step_reader *group, const cJSON *json, nb_step_fn add, void *ctx) {
  return json && !cJSON_IsNull(json) ? each(*group, json, 0, add, ctx) : NIBBLE_OK;
}

nibble_status nb_step_unknown(const nb_step_reader *r) {
  return nb_fail(r->err, NIBBLE_BAD_INPUT, "%s: %s '%s' is not supported", r->where, r->name, r->type);
}

nibble_status nb_step_room(const nb_step_reader *r, int count) {
  if (count < NB_MAX_STEPS) return NIBBLE_OK;
  return nb_fail(r->err, NIBBLE_BAD_INPUT, "%s: %s has more than %d steps", r->where, r->name, NB_MAX_STEPS);
}

nibble_status nb_step_pattern(const nb_step_reader *r, const cJSON *json, nb_regex **out) {
  const cJSON *pattern = nb_json_object(json, "pattern");
  const cJSON *text = cJSON_GetObjectItemCaseSensitive(pattern, "String");
  const cJSON *regex = cJSON_GetObjectItemCaseSensitive(pattern, "Regex");
  if (cJSON_IsString(text)) return nb_regex_compile(r->where, text->valuestring, true, out, r->err);
  if (cJSON_IsString(regex)) return nb_regex_compile(r->where, regex->valuestring, false, out, r->err);
  return nb_fail(r->err, NIBBLE_BAD_INPUT, "%s: %s %s has no \"pattern\" of a String or a Regex", r->where, r->name,
                 r->type);
}

nibble_status nb_step_string(const nb_step_reader *r, const cJSON *json, const char *key, size_t limit, char **out) {
  *out = NULL;
  const cJSON *text = cJSON_GetObjectItemCaseSensitive(json, key);
  if (!cJSON_IsString(text))
    return nb_fail(r->err, NIBBLE_BAD_INPUT, "%s: %s %s has no string \"%s\"", r->where, r->name, r->type, key);
  size_t n = strlen(text->valuestring);
  if (n > limit)
    return nb_fail(r->err, NIBBLE_BAD_INPUT, "%s: %s %s has a \"%s\" of %zu bytes, more than the %zu allowed", r->where,
                   r->name, r->type, key, n, limit);
  *out = strdup(text->valuestring);
  return *out ? NIBBLE_OK : nb_fail_memory(r->err, n);
}

nibble_status nb_step_char(const nb_step_reader *r, const cJSON *json, const char *key, char **out) {
  nibble_status status = nb_step_string(r, json, key, 4, out);
  if (status != NIBBLE_OK) return status;
  size_t length = 0;
  if (**out) nb_utf8_decode(*out, &length);
  if (length > 0 && (*out)[length] == 0) return NIBBLE_OK;
  free(*out);
  *out = NULL;
  return nb_fail(r->err, NIBBLE_BAD_INPUT, "%s: %s %s has a \"%s\" that is not one character", r->where, r->name,
                 r->type, key);
}
