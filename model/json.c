#include "model/json.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/stage.h"

enum { MAX_JSON_BYTES = 256 << 20 };

nibble_status nb_json_parse(const char *where, const char *text, size_t n, cJSON **out, nibble_error *err) {
  const char *end = NULL;
  errno = 0;
  *out = cJSON_ParseWithLengthOpts(text, n, &end, false);
  if (!*out) {
    if (errno == ENOMEM) return nb_fail_memory(err, n); /* cJSON does not say, malloc does */
    size_t at = end ? (size_t)(end - text) : 0;
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: not valid JSON (or nested too deeply) at byte %zu", where, at);
  }
  while (end < text + n && strchr(" \t\r\n", *end) && *end) end++;
  if (end < text + n && *end) {
    cJSON_Delete(*out);
    *out = NULL;
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: something follows the JSON value at byte %zu", where,
                   (size_t)(end - text));
  }
  return NIBBLE_OK;
}

nibble_status nb_json_load(const char *path, cJSON **out, nibble_error *err) {
  char *text;
  size_t n;
  *out = NULL;
  nibble_status status = nb_read_file(path, MAX_JSON_BYTES, &text, &n, err);
  if (status != NIBBLE_OK) return status;
  status = nb_json_parse(path, text, n, out, err);
  free(text);
  return status;
}

void nb_json_put_string(nb_buf *buf, const char *text) {
  cJSON item = {.type = cJSON_String};
  item.valuestring = (char *)(uintptr_t)text; /* printed only */
  char *quoted = cJSON_PrintUnformatted(&item);
  if (!quoted) {
    buf->failed = true;
    return;
  }
  nb_buf_puts(buf, quoted);
  cJSON_free(quoted);
}

/* As few digits as give the same number again; cJSON stops at 15, which a float's double does not survive. */
static void put_number(nb_buf *buf, double v) {
  char text[40];
  int digits = 15;
  if (v == floor(v) && fabs(v) < 1e15) {
    nb_buf_printf(buf, "%.0f", v);
    return;
  }
  do snprintf(text, sizeof text, "%.*g", digits++, v);
  while (digits <= 17 && strtod(text, NULL) != v);
  nb_buf_puts(buf, isfinite(v) ? text : "null");
}

/* cJSON indents with tabs; Hugging Face files use two spaces, and a diff against them should be short. */
static void write_value(nb_buf *buf, const cJSON *value, int indent) {
  if (cJSON_IsString(value)) {
    nb_json_put_string(buf, value->valuestring);
    return;
  }
  if (cJSON_IsNumber(value)) {
    put_number(buf, value->valuedouble);
    return;
  }
  if (!cJSON_IsArray(value) && !cJSON_IsObject(value)) {
    char *text = cJSON_PrintUnformatted(value);
    if (!text) {
      buf->failed = true;
      return;
    }
    nb_buf_puts(buf, text);
    cJSON_free(text);
    return;
  }
  bool object = cJSON_IsObject(value);
  if (!value->child) {
    nb_buf_puts(buf, object ? "{}" : "[]");
    return;
  }
  nb_buf_puts(buf, object ? "{\n" : "[\n");
  for (const cJSON *item = value->child; item; item = item->next) {
    nb_buf_printf(buf, "%*s", 2 * (indent + 1), "");
    if (object) {
      nb_json_put_string(buf, item->string);
      nb_buf_puts(buf, ": ");
    }
    write_value(buf, item, indent + 1);
    nb_buf_puts(buf, item->next ? ",\n" : "\n");
  }
  nb_buf_printf(buf, "%*s%c", 2 * indent, "", object ? '}' : ']');
}

nibble_status nb_json_save(const char *path, const cJSON *json, nibble_error *err) {
  nb_buf buf = {0};
  write_value(&buf, json, 0);
  nb_buf_puts(&buf, "\n");
  nibble_status status = buf.failed ? nb_fail_memory(err, buf.length) : nb_write_file(path, buf.data, buf.length, err);
  nb_buf_free(&buf);
  return status;
}

static const cJSON *find(const cJSON *object, const char *key) {
  const cJSON *item = cJSON_IsObject(object) ? cJSON_GetObjectItemCaseSensitive(object, key) : NULL;
  return item && !cJSON_IsNull(item) ? item : NULL;
}

nibble_status nb_json_int(const char *where, const cJSON *object, const char *key, int64_t min, int64_t max,
                          int64_t *out, nibble_error *err) {
  const cJSON *item = find(object, key);
  if (!item) return NIBBLE_OK;
  double v = item->valuedouble;
  if (!cJSON_IsNumber(item) || v != floor(v) || v < (double)min || v > (double)max)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: \"%s\" must be a whole number from %lld to %lld", where, key,
                   (long long)min, (long long)max);
  *out = (int64_t)v;
  return NIBBLE_OK;
}

nibble_status nb_json_need_int(const char *where, const cJSON *object, const char *key, int64_t min, int64_t max,
                               int64_t *out, nibble_error *err) {
  if (!find(object, key)) return nb_fail(err, NIBBLE_BAD_INPUT, "%s: \"%s\" is missing", where, key);
  return nb_json_int(where, object, key, min, max, out, err);
}

nibble_status nb_json_double(const char *where, const cJSON *object, const char *key, double *out, nibble_error *err) {
  const cJSON *item = find(object, key);
  if (!item) return NIBBLE_OK;
  if (!cJSON_IsNumber(item) || !isfinite(item->valuedouble))
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: \"%s\" must be a number", where, key);
  *out = item->valuedouble;
  return NIBBLE_OK;
}

nibble_status nb_json_bool(const char *where, const cJSON *object, const char *key, bool *out, nibble_error *err) {
  const cJSON *item = find(object, key);
  if (!item) return NIBBLE_OK;
  if (!cJSON_IsBool(item)) return nb_fail(err, NIBBLE_BAD_INPUT, "%s: \"%s\" must be true or false", where, key);
  *out = cJSON_IsTrue(item);
  return NIBBLE_OK;
}

nibble_status nb_json_string(const char *where, const cJSON *object, const char *key, const char **out,
                             nibble_error *err) {
  const cJSON *item = find(object, key);
  if (!item) return NIBBLE_OK;
  if (!cJSON_IsString(item)) return nb_fail(err, NIBBLE_BAD_INPUT, "%s: \"%s\" must be a string", where, key);
  *out = item->valuestring;
  return NIBBLE_OK;
}

const cJSON *nb_json_object(const cJSON *object, const char *key) {
  const cJSON *item = find(object, key);
  return cJSON_IsObject(item) ? item : NULL;
}
