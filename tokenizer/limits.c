#include "tokenizer/limits.h"

#include <string.h>

#include "model/json.h"
#include "tokenizer/vocab.h"

typedef struct reader {
  const char *where;
  const cJSON *json; /* the member that is read */
  nibble_status status;
  nibble_error *err;
} reader;

static const cJSON *begin(reader *r, const cJSON *parts, const char *key) {
  const cJSON *json = cJSON_GetObjectItemCaseSensitive(parts, key);
  r->json = json;
  if (!json || cJSON_IsNull(json) || r->status != NIBBLE_OK) return NULL;
  if (!cJSON_IsObject(json)) r->status = nb_fail(r->err, NIBBLE_BAD_INPUT, "%s: %s is no object", r->where, key);
  return r->status == NIBBLE_OK ? json : NULL;
}

static void read_size(reader *r, const cJSON *json, const char *key, size_t *out) {
  int64_t value = (int64_t)*out;
  if (r->status == NIBBLE_OK && !cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(json, key)))
    r->status = nb_json_int(r->where, json, key, (nb_range){0, INT64_MAX}, &value, r->err);
  *out = (size_t)value;
}

static void read_id(reader *r, const char *key, int32_t most, int32_t *out) {
  int64_t value = *out;
  if (r->status == NIBBLE_OK) r->status = nb_json_int(r->where, r->json, key, (nb_range){0, most}, &value, r->err);
  *out = (int32_t)value;
}

static void read_direction(reader *r, bool *left) {
  const char *name = "Right";
  if (r->status == NIBBLE_OK) r->status = nb_json_string(r->where, r->json, "direction", &name, r->err);
  *left = strcmp(name, "Left") == 0;
  if (r->status == NIBBLE_OK && !*left && strcmp(name, "Right") != 0)
    r->status =
        nb_fail(r->err, NIBBLE_BAD_INPUT, "%s: the direction '%.32s' is neither Left nor Right", r->where, name);
}

static void read_truncation(reader *r, nibble_encode_options *out) {
  static const char *const names[] = {[NIBBLE_TRUNCATE_LONGEST_FIRST] = "LongestFirst",
                                      [NIBBLE_TRUNCATE_ONLY_FIRST] = "OnlyFirst",
                                      [NIBBLE_TRUNCATE_ONLY_SECOND] = "OnlySecond"};
  const char *name = names[NIBBLE_TRUNCATE_LONGEST_FIRST];
  read_size(r, r->json, "max_length", &out->max_length);
  read_size(r, r->json, "stride", &out->stride);
  read_direction(r, &out->truncate_left);
  if (r->status == NIBBLE_OK) r->status = nb_json_string(r->where, r->json, "strategy", &name, r->err);
  for (int i = NIBBLE_TRUNCATE_LONGEST_FIRST; i <= NIBBLE_TRUNCATE_ONLY_SECOND; i++) {
    if (strcmp(name, names[i]) == 0) out->truncation = (nibble_truncate)i;
  }
  if (r->status == NIBBLE_OK && out->truncation == NIBBLE_TRUNCATE_NONE)
    r->status = nb_fail(r->err, NIBBLE_BAD_INPUT, "%s: the truncation '%.32s' is unknown", r->where, name);
}

/* "BatchLongest", or {"Fixed": tokens}. */
static void read_padding(reader *r, nibble_encode_options *out) {
  const cJSON *strategy = cJSON_GetObjectItemCaseSensitive(r->json, "strategy");
  const char *name = cJSON_GetStringValue(strategy);
  out->padding = NIBBLE_PAD_LONGEST;
  if (cJSON_HasObjectItem(strategy, "Fixed")) {
    out->padding = NIBBLE_PAD_FIXED;
    read_size(r, strategy, "Fixed", &out->pad_length);
  } else if (r->status == NIBBLE_OK && strategy && !(name && strcmp(name, "BatchLongest") == 0)) {
    r->status = nb_fail(r->err, NIBBLE_BAD_INPUT, "%s: the padding's strategy is unknown", r->where);
  }
  read_size(r, r->json, "pad_to_multiple_of", &out->pad_multiple_of);
  read_direction(r, &out->pad_left);
  read_id(r, "pad_id", NB_MAX_ID, &out->pad_id);
  read_id(r, "pad_type_id", INT32_MAX, &out->pad_type_id);
}

nibble_status nb_limits_read(const char *where, const cJSON *parts, nibble_encode_options *out, nibble_error *err) {
  reader r = {.where = where, .err = err};
  *out = (nibble_encode_options){.pad_id = -1};
  if (begin(&r, parts, "truncation")) read_truncation(&r, out);
  if (begin(&r, parts, "padding")) read_padding(&r, out);
  return r.status;
}
