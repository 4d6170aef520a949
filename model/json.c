#include "model/json.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/stage.h"
#include "model/json_scan.h"

/* ---- parsing ---------------------------------------------------------------------------------------------------- */

enum {
  MAX_PLAIN_DIGITS = 15,
  MAX_CJSON_NUMBER = 60, /* cJSON copies a number into 64 bytes */
  MAX_VALUES = 1 << 24,  /* of two bytes each in the text, of 80 and more in memory; a million tensors have half */
};

/* A number that its double does not print as it was written. */
typedef struct spelling {
  size_t ordinal; /* among the text's numbers */
  const char *text;
  size_t length;
} spelling;

typedef struct spellings {
  nb_buf items; /* of spelling, in the text's order */
  size_t numbers;
  bool foreign; /* cJSON cannot read one of them */
} spellings;

static bool is_foreign(const char *text, size_t n) { return memchr(text, 'N', n) || n > MAX_CJSON_NUMBER; }

static void note_number(void *ctx, const char *text, size_t n) {
  spellings *s = ctx;
  spelling item = {.ordinal = s->numbers++, .text = text, .length = n};
  bool plain = n <= MAX_PLAIN_DIGITS && !(n > 1 && text[0] == '-' && text[1] == '0');
  for (size_t i = 0; plain && i < n; i++) plain = text[i] == '-' || (text[i] >= '0' && text[i] <= '9');
  if (plain) return;
  s->foreign = s->foreign || is_foreign(text, n) || memchr(text, 'I', n);
  nb_buf_append(&s->items, &item, sizeof item);
}

/* The text with numbers in it that cJSON reads: infinity is what overflows, NaN is set after parsing. NULL without
 * memory. */
static char *without_foreign(const char *text, size_t n, const spellings *s) {
  char *copy = malloc(n + 1);
  if (!copy) return NULL;
  memcpy(copy, text, n);
  copy[n] = 0;
  const spelling *items = (const void *)s->items.data;
  for (size_t i = 0; i < s->items.length / sizeof *items; i++) {
    const spelling *item = &items[i];
    char *to = copy + (item->text - text), after = to[item->length], number[32] = "0";
    if (!is_foreign(to, item->length) && !memchr(to, 'I', item->length)) continue;
    to[item->length] = 0;
    double value = strtod(to, NULL);
    to[item->length] = after;
    if (isinf(value))
      snprintf(number, sizeof number, "%s", value > 0 ? "1e999" : "-1e999");
    else if (!isnan(value))
      snprintf(number, sizeof number, "%.17g", value);
    memset(to, ' ', item->length);
    memcpy(to, number, strlen(number));
  }
  return copy;
}

/* Goes over the tree in the text's order, so the numbers come in the order of note_number. */
static bool keep_spellings(cJSON *item, const spelling **next, const spelling *end, size_t *ordinal) {
  for (; item && *next < end; item = item->next) {
    if (!cJSON_IsNumber(item)) {
      if (!keep_spellings(item->child, next, end, ordinal)) return false;
    } else if ((*ordinal)++ == (*next)->ordinal) {
      const spelling *s = (*next)++;
      if (!(item->valuestring = cJSON_malloc(s->length + 1))) return false;
      memcpy(item->valuestring, s->text, s->length);
      item->valuestring[s->length] = 0;
      if (s->text[0] == 'N') item->valuedouble = NAN;
    }
  }
  return true;
}

static nibble_status parse_scanned(const char *where, const char *text, size_t n, const spellings *spelled, cJSON **out,
                                   nibble_error *err) {
  char *copy = NULL;
  if (spelled->items.failed || (spelled->foreign && !(copy = without_foreign(text, n, spelled))))
    return nb_fail_memory(err, n);
  const char *end = NULL;
  errno = 0;
  *out = cJSON_ParseWithLengthOpts(copy ? copy : text, n, &end, false);
  bool no_memory = !*out && errno == ENOMEM; /* cJSON does not say, malloc does */
  size_t at = end ? (size_t)(end - (copy ? copy : text)) : 0;
  free(copy);
  if (no_memory) return nb_fail_memory(err, n);
  if (!*out) return nb_fail(err, NIBBLE_BAD_INPUT, "%s: not valid JSON at byte %zu", where, at);
  if (!spelled->items.length) return NIBBLE_OK;
  const spelling *next = (const void *)spelled->items.data;
  size_t ordinal = 0;
  if (keep_spellings(*out, &next, next + spelled->items.length / sizeof *next, &ordinal)) return NIBBLE_OK;
  cJSON_Delete(*out);
  *out = NULL;
  return nb_fail_memory(err, n);
}

nibble_status nb_json_parse(const char *where, const char *text, size_t n, cJSON **out, nibble_error *err) {
  spellings spelled = {0};
  nb_json_scan scan = {.text = text, .length = n, .most = MAX_VALUES, .number = note_number, .ctx = &spelled};
  nibble_status status = NIBBLE_OK;
  *out = NULL;
  if (!nb_json_scan_all(&scan))
    status = nb_fail(err, NIBBLE_BAD_INPUT, "%s: %s at byte %zu", where,
                     scan.fault ? scan.fault : "something follows the JSON value", scan.at);
  if (status == NIBBLE_OK) status = parse_scanned(where, text, n, &spelled, out, err);
  nb_buf_free(&spelled.items);
  return status;
}

nibble_status nb_json_load(const char *path, cJSON **out, nibble_error *err) {
  char *text;
  size_t n;
  *out = NULL;
  nibble_status status = nb_read_file(path, NB_JSON_MAX_BYTES, &text, &n, err);
  if (status != NIBBLE_OK) return status;
  status = nb_json_parse(path, text, n, out, err);
  free(text);
  return status;
}

/* From the last member to the first, so that one whose key is known already is not the last of that key. */
static bool drop_earlier(cJSON *object) {
  nb_strmap seen = {0};
  bool ok = true;
  cJSON *first = object->child, *item = first ? first->prev : NULL; /* cJSON's first item points to the last */
  while (ok && item) {
    cJSON *before = item == object->child ? NULL : item->prev;
    nb_strmap_result result = nb_strmap_add(&seen, item->string, strlen(item->string), 0);
    ok = result != NB_STRMAP_NO_MEMORY;
    if (result == NB_STRMAP_EXISTS) cJSON_Delete(cJSON_DetachItemViaPointer(object, item));
    item = before;
  }
  nb_strmap_free(&seen);
  return ok;
}

nibble_status nb_json_last_wins(cJSON *json, nibble_error *err) {
  if (cJSON_IsObject(json) && json->child && json->child->next && !drop_earlier(json))
    return nb_fail_memory(err, sizeof *json);
  for (cJSON *item = json ? json->child : NULL; item; item = item->next) {
    nibble_status status = item->child ? nb_json_last_wins(item, err) : NIBBLE_OK;
    if (status != NIBBLE_OK) return status;
  }
  return NIBBLE_OK;
}

/* ---- comparing --------------------------------------------------------------------------------------------------- */

bool nb_json_index(const cJSON *object, nb_strmap *out) {
  *out = (nb_strmap){0};
  for (const cJSON *item = object->child; item; item = item->next) {
    if (nb_strmap_add(out, item->string, strlen(item->string), (int64_t)(intptr_t)item) == NB_STRMAP_NO_MEMORY)
      return false;
  }
  return true;
}

const cJSON *nb_json_indexed(const nb_strmap *members, const char *name) {
  int64_t value = 0;
  nb_strmap_find(members, name, strlen(name), &value);
  return (const cJSON *)(intptr_t)value;
}

static bool same_objects(const cJSON *a, const cJSON *b, bool *same) {
  nb_strmap of_b;
  size_t count = 0;
  bool ok = nb_json_index(b, &of_b);
  *same = true;
  for (const cJSON *item = a->child; ok && *same && item; item = item->next, count++)
    ok = nb_json_same(item, nb_json_indexed(&of_b, item->string), same);
  *same = ok && *same && count == of_b.count;
  nb_strmap_free(&of_b);
  return ok;
}

static bool same_lists(const cJSON *a, const cJSON *b, bool *same) {
  const cJSON *x = a->child, *y = b->child;
  bool ok = true;
  *same = true;
  for (; ok && *same && x && y; x = x->next, y = y->next) ok = nb_json_same(x, y, same);
  *same = ok && *same && !x && !y;
  return ok;
}

bool nb_json_same(const cJSON *a, const cJSON *b, bool *same) {
  *same = a == b;
  if (!a || !b || (a->type & 0xff) != (b->type & 0xff)) return true;
  if (cJSON_IsObject(a)) return same_objects(a, b, same);
  if (cJSON_IsArray(a)) return same_lists(a, b, same);
  if (cJSON_IsNumber(a))
    *same = a->valuedouble == b->valuedouble || (isnan(a->valuedouble) && isnan(b->valuedouble));
  else
    *same = !cJSON_IsString(a) || strcmp(a->valuestring, b->valuestring) == 0;
  return true;
}

/* ---- printing --------------------------------------------------------------------------------------------------- */

const nb_json_layout nb_json_indented = {.newline = "\n", .outer = "", .indent = "  ", .comma = ",", .colon = ": "};

void nb_json_put_text(nb_buf *buf, const char *text, size_t n) {
  static const char shortcuts[] = "\"\"\\\\\bb\ff\nn\rr\tt"; /* pairs: the character, what follows its backslash */
  const char *end = text + n;
  nb_buf_puts(buf, "\"");
  for (; text < end; text += n) {
    utf8proc_int32_t code;
    utf8proc_ssize_t length = utf8proc_iterate((const utf8proc_uint8_t *)text, end - text, &code);
    const char *pair = shortcuts;
    n = length > 0 ? (size_t)length : 1;
    while (*pair && *pair != *text) pair += 2;
    if (*pair)
      nb_buf_printf(buf, "\\%c", pair[1]);
    else if (length <= 0)
      nb_buf_puts(buf, "\xEF\xBF\xBD");
    else if (code < 0x20)
      nb_buf_printf(buf, "\\u%04x", (unsigned)code);
    else
      nb_buf_append(buf, text, n);
  }
  nb_buf_puts(buf, "\"");
}

void nb_json_put_string(nb_buf *buf, const char *text) { nb_json_put_text(buf, text, strlen(text)); }

/* As few digits as give the same number again; cJSON stops at 15, which a float's double does not survive. */
static void format_number(char text[40], double v) {
  int digits = 15;
  do snprintf(text, 40, "%.*g", digits++, v);
  while (digits <= 17 && strtod(text, NULL) != v);
}

static void put_number(nb_buf *buf, const cJSON *number) {
  char text[40];
  double v = number->valuedouble;
  if (number->valuestring) {
    nb_buf_puts(buf, number->valuestring);
  } else if (!isfinite(v)) {
    nb_buf_puts(buf, "null");
  } else if (v == floor(v) && fabs(v) < 1e15) {
    nb_buf_printf(buf, "%.0f", v);
  } else {
    format_number(text, v);
    nb_buf_puts(buf, text);
  }
}

static void format_float(char text[40], double value) {
  if (isnan(value))
    snprintf(text, 40, "NaN");
  else if (isinf(value))
    snprintf(text, 40, "%sInfinity", value < 0 ? "-" : "");
  else if (value == floor(value) && fabs(value) < 1e16)
    snprintf(text, 40, "%.1f", value);
  else
    format_number(text, value);
}

bool nb_json_add_float(cJSON *object, const char *key, double value) {
  char text[40];
  format_float(text, value);
  return cJSON_AddRawToObject(object, key, text) != NULL;
}

void nb_json_put_float(nb_buf *buf, double value) {
  char text[40];
  format_float(text, value);
  nb_buf_puts(buf, text);
}

static void put_line(nb_buf *buf, const nb_json_layout *layout, int level) {
  if (!*layout->newline) return;
  nb_buf_puts(buf, layout->newline);
  nb_buf_puts(buf, layout->outer);
  for (int i = 0; i < level; i++) nb_buf_puts(buf, layout->indent);
}

static void put_value(nb_buf *buf, const cJSON *value, const nb_json_layout *layout, int level) {
  bool object = cJSON_IsObject(value);
  if (cJSON_IsString(value)) {
    nb_json_put_string(buf, value->valuestring);
  } else if (cJSON_IsNumber(value)) {
    put_number(buf, value);
  } else if (cJSON_IsRaw(value)) {
    nb_buf_puts(buf, value->valuestring);
  } else if (!object && !cJSON_IsArray(value)) {
    nb_buf_puts(buf, cJSON_IsTrue(value) ? "true" : cJSON_IsFalse(value) ? "false" : "null");
  } else {
    nb_buf_puts(buf, object ? "{" : "[");
    for (const cJSON *item = value->child; item; item = item->next) {
      if (item != value->child) nb_buf_puts(buf, layout->comma);
      put_line(buf, layout, level + 1);
      if (object) {
        nb_json_put_string(buf, item->string);
        nb_buf_puts(buf, layout->colon);
      }
      put_value(buf, item, layout, level + 1);
    }
    if (value->child) put_line(buf, layout, level);
    nb_buf_puts(buf, object ? "}" : "]");
  }
}

void nb_json_put(nb_buf *buf, const cJSON *value, const nb_json_layout *layout) { put_value(buf, value, layout, 0); }

nibble_status nb_json_save_in(const nb_folder *folder, const char *name, const cJSON *json, nibble_error *err) {
  nb_buf buf = {0};
  nb_json_put(&buf, json, &nb_json_indented);
  nb_buf_puts(&buf, "\n");
  nibble_status status = nb_write_file_in(folder, name, &buf, err);
  nb_buf_free(&buf);
  return status;
}

/* ---- getters ---------------------------------------------------------------------------------------------------- */

static const cJSON *find(const cJSON *object, const char *key) {
  const cJSON *item = cJSON_IsObject(object) ? cJSON_GetObjectItemCaseSensitive(object, key) : NULL;
  return item && !cJSON_IsNull(item) ? item : NULL;
}

nibble_status nb_json_int(const char *where, const cJSON *object, const char *key, nb_range range, int64_t *out,
                          nibble_error *err) {
  const cJSON *item = find(object, key);
  if (!item) return NIBBLE_OK;
  double v = item->valuedouble;
  if (!cJSON_IsNumber(item) || v != floor(v) || v < (double)range.least || v > (double)range.most)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: \"%s\" must be a whole number from %lld to %lld", where, key,
                   (long long)range.least, (long long)range.most);
  *out = (int64_t)v;
  return NIBBLE_OK;
}

nibble_status nb_json_need_int(const char *where, const cJSON *object, const char *key, nb_range range, int64_t *out,
                               nibble_error *err) {
  if (!find(object, key)) return nb_fail(err, NIBBLE_BAD_INPUT, "%s: \"%s\" is missing", where, key);
  return nb_json_int(where, object, key, range, out, err);
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
