#include "template/value.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "template/render.h"
#include "template/text.h"

const nb_val nb_none = {.type = NB_V_NONE};
const nb_val nb_true = {.type = NB_V_BOOL, .truth = true}, nb_false = {.type = NB_V_BOOL, .truth = false};

const char *nb_val_type_name(const nb_val *v) {
  static const char *const names[] = {[NB_V_UNDEFINED] = "Undefined", [NB_V_NONE] = "NoneType",
                                      [NB_V_BOOL] = "bool",           [NB_V_INT] = "int",
                                      [NB_V_FLOAT] = "float",         [NB_V_STRING] = "str",
                                      [NB_V_LIST] = "list",           [NB_V_TUPLE] = "tuple",
                                      [NB_V_DICT] = "dict",           [NB_V_VIEW] = "view of a dict",
                                      [NB_V_GENERATOR] = "generator", [NB_V_RANGE] = "range",
                                      [NB_V_NAMESPACE] = "namespace", [NB_V_LOOP] = "loop",
                                      [NB_V_MACRO] = "macro",         [NB_V_FUNCTION] = "function"};
  return names[v->type];
}

bool nb_val_is_true(const nb_val *v) {
  switch (v->type) {
    case NB_V_UNDEFINED:
    case NB_V_NONE: return false;
    case NB_V_BOOL: return v->truth;
    case NB_V_INT: return v->integer != 0;
    case NB_V_FLOAT: return v->real != 0;
    case NB_V_STRING: return v->text.length > 0;
    case NB_V_LIST:
    case NB_V_TUPLE:
    case NB_V_VIEW: return v->list.count > 0;
    case NB_V_DICT: return v->dict->count > 0;
    case NB_V_RANGE: return v->range.count > 0;
    default: return true; /* an object, whatever it holds */
  }
}

/* ---- failures and bounds ---------------------------------------------------------------------------------------- */

const nb_val *nb_render_fail(nb_render *r, const char *format, ...) {
  char message[NIBBLE_MESSAGE_MAX];
  va_list args;
  va_start(args, format);
  vsnprintf(message, sizeof message, format, args);
  va_end(args);
  if (r->status == NIBBLE_OK)
    r->status = nb_fail(r->err, NIBBLE_BAD_INPUT, "%s: line %u: %s", r->where, r->line, message);
  return NULL;
}

const nb_val *nb_render_no_memory(nb_render *r) {
  if (r->arena.is_full) return nb_render_fail(r, "takes more than %d MiB of memory", NB_RENDER_MEMORY >> 20);
  if (r->status == NIBBLE_OK) r->status = nb_fail_memory(r->err, r->arena.taken);
  return NULL;
}

bool nb_work(nb_render *r, uint64_t units) {
  if (units <= (uint64_t)r->work) {
    r->work -= (int64_t)units;
    return true;
  }
  nb_render_fail(r, "does more work than a template may");
  return false;
}

bool nb_render_enter(nb_render *r) {
  if (r->depth < NB_RENDER_DEPTH) {
    r->depth++;
    return true;
  }
  nb_render_fail(r, "calls and values are nested too deep");
  return false;
}

/* ---- making ----------------------------------------------------------------------------------------------------- */

const nb_val *nb_new(nb_render *r, nb_val value) {
  nb_val *v = nb_work(r, 2) ? nb_arena_take(&r->arena, sizeof *v) : NULL;
  if (!v && r->status != NIBBLE_OK) return NULL;
  if (!v) return nb_render_no_memory(r);
  *v = value;
  return v;
}

const nb_val *nb_new_int(nb_render *r, int64_t value) {
  return nb_new(r, (nb_val){.type = NB_V_INT, .integer = value});
}

const nb_val *nb_new_float(nb_render *r, double value) {
  return nb_new(r, (nb_val){.type = NB_V_FLOAT, .real = value});
}

const nb_val *nb_new_text(nb_render *r, nb_str text) { return nb_new(r, (nb_val){.type = NB_V_STRING, .text = text}); }

const nb_val *nb_new_copy(nb_render *r, nb_str text) {
  if (!nb_work_bytes(r, text.length)) return NULL;
  char *copy = nb_arena_take(&r->arena, text.length + 1);
  if (!copy) return nb_render_no_memory(r);
  if (text.length) memcpy(copy, text.data, text.length);
  return nb_new_text(r, (nb_str){copy, text.length});
}

const nb_val *nb_new_undefined(nb_render *r, const char *format, ...) {
  char message[256];
  va_list args;
  va_start(args, format);
  vsnprintf(message, sizeof message, format, args);
  va_end(args);
  const nb_val *text = nb_new_copy(r, (nb_str){message, strlen(message)});
  return text ? nb_new(r, (nb_val){.type = NB_V_UNDEFINED, .text = text->text}) : NULL;
}

const nb_val *nb_new_taken(nb_render *r, nb_buf *buf) {
  const nb_val *v = NULL;
  if (buf->failed) {
    if (r->status == NIBBLE_OK) r->status = nb_fail_memory(r->err, buf->length);
  } else {
    v = nb_new_copy(r, (nb_str){buf->data, buf->length});
  }
  nb_buf_free(buf);
  return v;
}

bool nb_list_new(nb_render *r, size_t count, nb_list *out) {
  *out = (nb_list){nb_arena_array(&r->arena, count ? count : 1, sizeof *out->items), count};
  if (!out->items) nb_render_no_memory(r);
  return out->items && nb_work(r, count);
}

const nb_val *nb_new_list(nb_render *r, nb_val_type type, nb_list list) {
  nb_val value = {.type = type, .list = list};
  if (type == NB_V_GENERATOR && !(value.at = nb_arena_take(&r->arena, sizeof *value.at))) return nb_render_no_memory(r);
  return nb_new(r, value);
}

const nb_val *nb_new_pair(nb_render *r, const nb_val *a, const nb_val *b) {
  nb_list list;
  if (!a || !b || !nb_list_new(r, 2, &list)) return NULL;
  list.items[0] = a;
  list.items[1] = b;
  return nb_new_list(r, NB_V_TUPLE, list);
}

/* ---- dicts ------------------------------------------------------------------------------------------------------ */

nb_dict *nb_dict_new(nb_render *r, size_t capacity) {
  nb_dict *dict = nb_arena_take(&r->arena, sizeof *dict);
  if (dict) dict->pairs = nb_arena_array(&r->arena, capacity ? capacity : 1, sizeof *dict->pairs);
  if (!dict || !dict->pairs) {
    nb_render_no_memory(r);
    return NULL;
  }
  dict->capacity = capacity ? capacity : 1;
  return dict;
}

const nb_val *nb_new_dict(nb_render *r, nb_dict *dict) {
  return dict ? nb_new(r, (nb_val){.type = NB_V_DICT, .dict = dict}) : NULL;
}

static bool find_pair(nb_render *r, const nb_dict *dict, const nb_val *key, size_t *at) {
  if (key->type == NB_V_LIST || key->type == NB_V_DICT) {
    nb_render_fail(r, "unhashable type: '%s'", nb_val_type_name(key));
    return false;
  }
  for (*at = 0; *at < dict->count; ++*at) {
    const nb_val *k = dict->pairs[*at].key;
    bool same = false;
    if (k->type == NB_V_STRING && key->type == NB_V_STRING) {
      same = k->text.length == key->text.length && memcmp(k->text.data, key->text.data, k->text.length) == 0;
      if (!nb_work_bytes(r, same ? k->text.length : 0)) return false;
    } else if (!nb_equal(r, k, key, &same)) {
      return false;
    }
    if (same) break;
  }
  return true;
}

bool nb_dict_set(nb_render *r, nb_dict *dict, const nb_val *key, const nb_val *value) {
  size_t at;
  if (!find_pair(r, dict, key, &at)) return false;
  if (at < dict->count) {
    dict->pairs[at].value = value;
    return true;
  }
  if (dict->count == dict->capacity) {
    nb_pair *pairs = nb_arena_array(&r->arena, 2 * dict->capacity, sizeof *pairs);
    if (!pairs) return nb_render_no_memory(r) != NULL;
    memcpy(pairs, dict->pairs, dict->count * sizeof *pairs);
    dict->pairs = pairs;
    dict->capacity *= 2;
  }
  dict->pairs[dict->count++] = (nb_pair){key, value};
  return true;
}

bool nb_dict_get(nb_render *r, const nb_dict *dict, const nb_val *key, const nb_val **out) {
  size_t at;
  if (!find_pair(r, dict, key, &at)) return false;
  *out = at < dict->count ? dict->pairs[at].value : NULL;
  return true;
}

const nb_val *nb_dict_find(nb_render *r, const nb_dict *dict, const char *key) {
  const nb_val name = {.type = NB_V_STRING, .text = {key, strlen(key)}}, *found = NULL;
  return nb_dict_get(r, dict, &name, &found) ? found : NULL;
}

/* ---- going through ---------------------------------------------------------------------------------------------- */

static bool characters(nb_render *r, nb_str text, nb_list *out) {
  if (!nb_list_new(r, nb_text_characters(text), out)) return false;
  size_t n;
  for (size_t i = 0, at = 0; i < out->count; i++, at += n) {
    nb_utf8_decode(text.data + at, &n);
    if (!(out->items[i] = nb_new_text(r, (nb_str){text.data + at, n}))) return false;
  }
  return true;
}

static bool keys(nb_render *r, const nb_dict *dict, nb_list *out) {
  if (!nb_list_new(r, dict->count, out)) return false;
  for (size_t i = 0; i < dict->count; i++) out->items[i] = dict->pairs[i].key;
  return true;
}

const nb_val *nb_range_at(nb_render *r, const nb_val *v, size_t i) { /* what lies on the way may overflow */
  return nb_new_int(r, (int64_t)((uint64_t)v->range.start + i * (uint64_t)v->range.step));
}

static bool numbers(nb_render *r, const nb_val *v, nb_list *out) {
  if (!nb_list_new(r, (size_t)v->range.count, out)) return false;
  for (size_t i = 0; i < out->count; i++)
    if (!(out->items[i] = nb_range_at(r, v, i))) return false;
  return true;
}

bool nb_items(nb_render *r, const nb_val *v, nb_list *out) {
  *out = (nb_list){0};
  switch (v->type) {
    case NB_V_UNDEFINED: return true;
    case NB_V_STRING: return characters(r, v->text, out);
    case NB_V_DICT: return keys(r, v->dict, out);
    case NB_V_RANGE: return numbers(r, v, out);
    case NB_V_LIST:
    case NB_V_TUPLE:
    case NB_V_VIEW: *out = v->list; return nb_work(r, 1);
    case NB_V_GENERATOR:
      if (*v->at < v->list.count) *out = (nb_list){v->list.items + *v->at, v->list.count - *v->at};
      *v->at = v->list.count;
      return true;
    default: nb_render_fail(r, "'%s' object is not iterable", nb_val_type_name(v)); return false;
  }
}

int64_t nb_length(nb_render *r, const nb_val *v) {
  switch (v->type) {
    case NB_V_UNDEFINED: return 0;
    case NB_V_STRING: return nb_work_bytes(r, v->text.length) ? (int64_t)nb_text_characters(v->text) : -1;
    case NB_V_LIST:
    case NB_V_TUPLE:
    case NB_V_VIEW: return (int64_t)v->list.count;
    case NB_V_DICT: return (int64_t)v->dict->count;
    case NB_V_RANGE: return v->range.count;
    default: nb_render_fail(r, "object of type '%s' has no len()", nb_val_type_name(v)); return -1;
  }
}

/* ---- comparing -------------------------------------------------------------------------------------------------- */

static bool lists_equal(nb_render *r, nb_list a, nb_list b, bool *out) {
  *out = a.count == b.count;
  for (size_t i = 0; *out && i < a.count; i++)
    if (!nb_equal(r, a.items[i], b.items[i], out)) return false;
  return true;
}

static bool dicts_equal(nb_render *r, const nb_dict *a, const nb_dict *b, bool *out) {
  *out = a->count == b->count;
  for (size_t i = 0; *out && i < a->count; i++) {
    const nb_val *other;
    if (!nb_dict_get(r, b, a->pairs[i].key, &other)) return false;
    *out = other != NULL;
    if (other && !nb_equal(r, a->pairs[i].value, other, out)) return false;
  }
  return true;
}

static bool equal(nb_render *r, const nb_val *a, const nb_val *b, bool *out) {
  *out = false;
  if (nb_val_is_number(a) && nb_val_is_number(b)) {
    bool whole = nb_val_is_int(a) && nb_val_is_int(b);
    *out = whole ? nb_val_int(a) == nb_val_int(b) : nb_val_real(a) == nb_val_real(b);
    return true;
  }
  if (a->type != b->type) return true;
  switch (a->type) {
    case NB_V_UNDEFINED:
    case NB_V_NONE: *out = true; return true;
    case NB_V_STRING:
      *out = a->text.length == b->text.length && memcmp(a->text.data, b->text.data, a->text.length) == 0;
      return nb_work_bytes(r, a->text.length);
    case NB_V_LIST:
    case NB_V_TUPLE:
    case NB_V_VIEW: return lists_equal(r, a->list, b->list, out);
    case NB_V_DICT: return dicts_equal(r, a->dict, b->dict, out);
    case NB_V_RANGE: {
      int64_t n = a->range.count;
      *out = n == b->range.count && (n == 0 || a->range.start == b->range.start) &&
             (n <= 1 || a->range.step == b->range.step);
      return true;
    }
    default: *out = a == b; return true;
  }
}

bool nb_equal(nb_render *r, const nb_val *a, const nb_val *b, bool *out) {
  if (!nb_work(r, 2) || !nb_render_enter(r)) return false;
  bool ok = equal(r, a, b, out);
  nb_render_leave(r);
  return ok;
}

static bool lists_less(nb_render *r, nb_list a, nb_list b, const char *op, bool *out) {
  for (size_t i = 0; i < a.count && i < b.count; i++) {
    bool same;
    if (!nb_equal(r, a.items[i], b.items[i], &same)) return false;
    if (!same) return nb_less(r, a.items[i], b.items[i], op, out);
  }
  *out = a.count < b.count;
  return true;
}

static int compare_texts(nb_str a, nb_str b) { /* the order of UTF-8 is that of its characters */
  size_t n = a.length < b.length ? a.length : b.length;
  int order = n ? memcmp(a.data, b.data, n) : 0;
  return order ? order : (a.length > b.length) - (a.length < b.length);
}

bool nb_less(nb_render *r, const nb_val *a, const nb_val *b, const char *op, bool *out) {
  *out = false;
  if (nb_val_is_number(a) && nb_val_is_number(b)) {
    bool whole = nb_val_is_int(a) && nb_val_is_int(b);
    *out = whole ? nb_val_int(a) < nb_val_int(b) : nb_val_real(a) < nb_val_real(b);
    return nb_work(r, 1);
  }
  if (a->type == NB_V_STRING && b->type == NB_V_STRING) {
    *out = compare_texts(a->text, b->text) < 0;
    return nb_work_bytes(r, a->text.length < b->text.length ? a->text.length : b->text.length);
  }
  if (a->type == b->type && (a->type == NB_V_LIST || a->type == NB_V_TUPLE)) {
    if (!nb_render_enter(r)) return false;
    bool ok = lists_less(r, a->list, b->list, op, out);
    nb_render_leave(r);
    return ok;
  }
  const nb_val *undefined = a->type == NB_V_UNDEFINED ? a : b;
  if (undefined->type == NB_V_UNDEFINED) {
    nb_render_fail(r, "%.*s", (int)undefined->text.length, undefined->text.data);
  } else {
    nb_render_fail(r, "'%s' not supported between instances of '%s' and '%s'", op, nb_val_type_name(a),
                   nb_val_type_name(b));
  }
  return false;
}

bool nb_contains(nb_render *r, const nb_val *container, const nb_val *item, bool *out) {
  *out = false;
  if (container->type == NB_V_STRING) {
    if (item->type != NB_V_STRING) {
      nb_render_fail(r, "'in <string>' requires string as left operand, not %s", nb_val_type_name(item));
      return false;
    }
    *out = nb_text_find(container->text, item->text, 0) != SIZE_MAX;
    return nb_work_bytes(r, container->text.length + item->text.length);
  }
  if (container->type == NB_V_DICT) {
    const nb_val *found;
    if (!nb_dict_get(r, container->dict, item, &found)) return false;
    *out = found != NULL;
    return true;
  }
  nb_list items;
  if (!nb_items(r, container, &items)) return false;
  for (size_t i = 0; !*out && i < items.count; i++)
    if (!nb_equal(r, items.items[i], item, out)) return false;
  return true;
}

/* ---- from JSON -------------------------------------------------------------------------------------------------- */

/* A number is whole if it was written so; model/json.h keeps the spelling of what is not plain. */
static const nb_val *number_of_json(nb_render *r, const cJSON *json) {
  const char *spelling = json->valuestring;
  if (!spelling) {
    double value = json->valuedouble;
    bool is_whole = fabs(value) <= 0x1p53 && value == (double)(int64_t)value;
    return is_whole ? nb_new_int(r, (int64_t)value) : nb_new_float(r, value);
  }
  if (spelling[strspn(spelling, "-0123456789")]) return nb_new_float(r, json->valuedouble);
  errno = 0;
  int64_t value = strtoll(spelling, NULL, 10);
  if (errno == ERANGE) return nb_render_fail(r, "a whole number of more than 64 bits");
  return nb_new_int(r, value);
}

static const nb_val *list_of_json(nb_render *r, const cJSON *json) {
  nb_list list;
  size_t count = 0;
  for (const cJSON *item = json->child; item; item = item->next) count++;
  if (!nb_list_new(r, count, &list)) return NULL;
  size_t i = 0;
  for (const cJSON *item = json->child; item; item = item->next)
    if (!(list.items[i++] = nb_val_of_json(r, item))) return NULL;
  return nb_new_list(r, NB_V_LIST, list);
}

static const nb_val *dict_of_json(nb_render *r, const cJSON *json) {
  nb_dict *dict = nb_dict_new(r, 4);
  for (const cJSON *item = json->child; dict && item; item = item->next) {
    const nb_val *key = nb_new_copy(r, (nb_str){item->string, strlen(item->string)});
    const nb_val *value = key ? nb_val_of_json(r, item) : NULL;
    if (!value || !nb_dict_set(r, dict, key, value)) return NULL;
  }
  return nb_new_dict(r, dict);
}

const nb_val *nb_val_of_json(nb_render *r, const cJSON *json) {
  if (cJSON_IsString(json)) return nb_new_copy(r, (nb_str){json->valuestring, strlen(json->valuestring)});
  if (cJSON_IsBool(json)) return nb_val_bool(cJSON_IsTrue(json));
  if (cJSON_IsNumber(json)) return number_of_json(r, json);
  if (!cJSON_IsArray(json) && !cJSON_IsObject(json)) return &nb_none;
  if (!nb_render_enter(r)) return NULL;
  const nb_val *v = cJSON_IsArray(json) ? list_of_json(r, json) : dict_of_json(r, json);
  nb_render_leave(r);
  return v;
}
