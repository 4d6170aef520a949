/* Truncation and padding of a folder's tokenizer, as transformers 5.24 takes them: the length, the sides and the
 * padding token of tokenizer_config.json before those of tokenizer.json (tokenization_utils_base.py, __init__). */
#include "tokenizer/readers/folder_limits.h"

#include <string.h>

#include "model/json.h"

/* The member of the specification, made where there is none; NULL without memory. */
static cJSON *member(cJSON *parts, const char *key) {
  cJSON *json = cJSON_GetObjectItemCaseSensitive(parts, key);
  if (cJSON_IsObject(json)) return json;
  if (json) cJSON_DeleteItemFromObjectCaseSensitive(parts, key);
  return cJSON_AddObjectToObject(parts, key);
}

static bool set(cJSON *object, const char *key, cJSON *value) {
  cJSON_DeleteItemFromObjectCaseSensitive(object, key);
  if (value && cJSON_AddItemToObject(object, key, value)) return true;
  cJSON_Delete(value);
  return false;
}

/* "left" and "right" of tokenizer_config.json as tokenizer.json's. */
static nibble_status take_side(const nb_folder_limits *f, const char *key, const char *part) {
  const char *side = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(f->settings, key));
  if (!side) return NIBBLE_OK;
  bool left = strcmp(side, "left") == 0;
  if (!left && strcmp(side, "right") != 0)
    return nb_fail(f->err, NIBBLE_BAD_INPUT, "%s: %s is '%.32s', neither left nor right", f->where, key, side);
  cJSON *object = member(f->parts, part);
  return set(object, "direction", cJSON_CreateString(left ? "Left" : "Right")) ? NIBBLE_OK
                                                                               : nb_fail_memory(f->err, sizeof *object);
}

nibble_status nb_folder_limits_apply(const nb_folder_limits *f) {
  static const double none = 1e15; /* transformers writes 1e30 where there is no limit */
  const cJSON *length = cJSON_GetObjectItemCaseSensitive(f->settings, "model_max_length");
  nibble_status status = take_side(f, "truncation_side", "truncation");
  if (status == NIBBLE_OK && cJSON_IsNumber(length) && length->valuedouble >= 0 && length->valuedouble < none &&
      !set(member(f->parts, "truncation"), "max_length", cJSON_CreateNumber((double)(int64_t)length->valuedouble)))
    status = nb_fail_memory(f->err, sizeof *length);
  if (status == NIBBLE_OK && f->pad_id >= 0) {
    cJSON *padding = member(f->parts, "padding");
    bool ok =
        set(padding, "pad_id", cJSON_CreateNumber(f->pad_id)) && set(padding, "pad_type_id", cJSON_CreateNumber(0));
    if (ok && f->pads_left && !cJSON_HasObjectItem(padding, "direction"))
      ok = set(padding, "direction", cJSON_CreateString("Left"));
    if (!ok) status = nb_fail_memory(f->err, sizeof *padding);
  }
  bool pads = cJSON_IsObject(cJSON_GetObjectItemCaseSensitive(f->parts, "padding"));
  return status == NIBBLE_OK && pads ? take_side(f, "padding_side", "padding") : status;
}
