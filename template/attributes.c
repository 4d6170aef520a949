/* value.name and value[key]. Jinja2's order: an attribute before an item for the dot, an item first for brackets. */
#include <stdlib.h>
#include <string.h>

#include "template/render.h"
#include "template/text.h"

/* Attributes of Python's types that templates could ask for and that are not here: they are refused, since undefined,
 * which is what other names give, would be another text. Those that change the object are refused by Jinja2, too. */
static const char *const
    string_others[] = {"casefold",     "encode",    "expandtabs", "format_map",
                       "isidentifier", "maketrans", "translate",  NULL},
    *const list_others[] = {"append", "clear", "copy", "extend", "insert", "pop", "remove", "reverse", "sort", NULL},
    *const dict_others[] = {"clear", "fromkeys", "pop", "popitem", "setdefault", "update", NULL},
    *const int_others[] =
        {"as_integer_ratio", "bit_count", "bit_length", "conjugate", "denominator", "from_bytes", "imag",
         "numerator",        "real",      "to_bytes",   NULL},
    *const float_others[] = {"as_integer_ratio", "conjugate", "fromhex", "hex", "imag", "is_integer", "real", NULL};

typedef struct type_row {
  const nb_builtin *methods;
  const char *const *others;
} type_row;

static type_row row_of(const nb_val *v) {
  switch (v->type) {
    case NB_V_STRING: return (type_row){nb_string_methods, string_others};
    case NB_V_LIST: return (type_row){nb_list_methods, list_others};
    case NB_V_TUPLE: return (type_row){nb_tuple_methods, NULL};
    case NB_V_DICT: return (type_row){nb_dict_methods, dict_others};
    case NB_V_LOOP: return (type_row){nb_loop_methods, NULL};
    case NB_V_BOOL:
    case NB_V_INT: return (type_row){NULL, int_others};
    case NB_V_FLOAT: return (type_row){NULL, float_others};
    default: return (type_row){0};
  }
}

/* ---- attributes ------------------------------------------------------------------------------------------------- */

static const nb_val *loop_attribute(nb_render *r, const nb_loop *loop, nb_str name) {
  int64_t at = (int64_t)loop->at, count = (int64_t)loop->items.count;
  const struct {
    const char *name;
    int64_t value;
  } numbers[] = {{"index", at + 1},        {"index0", at},
                 {"revindex", count - at}, {"revindex0", count - at - 1},
                 {"length", count},        {"depth", loop->depth + 1},
                 {"depth0", loop->depth}};
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
    if (nb_str_is(name, numbers[i].name)) return nb_new_int(r, numbers[i].value);
  if (nb_str_is(name, "first")) return nb_val_bool(at == 0);
  if (nb_str_is(name, "last")) return nb_val_bool(at == count - 1);
  if (nb_str_is(name, "previtem"))
    return at > 0 ? loop->items.items[at - 1] : nb_new_undefined(r, "there is no previous item");
  if (nb_str_is(name, "nextitem"))
    return at + 1 < count ? loop->items.items[at + 1] : nb_new_undefined(r, "there is no next item");
  return NULL;
}

static const nb_val *macro_attribute(nb_render *r, const nb_node *macro, nb_str name) {
  if (nb_str_is(name, "name")) return macro->text.data ? nb_new_text(r, macro->text) : &nb_none;
  if (nb_str_is(name, "catch_kwargs")) return nb_val_bool((macro->uses & NB_USES_KWARGS) != 0);
  if (nb_str_is(name, "catch_varargs")) return nb_val_bool((macro->uses & NB_USES_VARARGS) != 0);
  if (nb_str_is(name, "caller")) return nb_val_bool((macro->uses & NB_USES_CALLER) != 0);
  if (!nb_str_is(name, "arguments")) return NULL;
  nb_list list;
  size_t count = 0;
  for (const nb_node *arg = macro->args; arg; arg = arg->next) count++;
  if (!nb_list_new(r, count, &list)) return NULL;
  for (const nb_node *arg = macro->args; arg; arg = arg->next)
    if (!(list.items[list.count - count--] = nb_new_text(r, arg->text))) return NULL;
  return nb_new_list(r, NB_V_TUPLE, list);
}

/* *out is NULL if the value has no such attribute; false if that is a failure. */
static bool find_attribute(nb_render *r, const nb_val *of, nb_str name, const nb_val **out) {
  *out = NULL;
  if (of->type == NB_V_NAMESPACE) {
    const nb_val key = {.type = NB_V_STRING, .text = name};
    return nb_dict_get(r, of->dict, &key, out);
  }
  if (of->type == NB_V_LOOP) *out = loop_attribute(r, of->loop, name);
  if (of->type == NB_V_MACRO) *out = macro_attribute(r, of->macro.node, name);
  if (*out || r->status != NIBBLE_OK) return *out != NULL;
  type_row row = row_of(of);
  const nb_builtin *method = row.methods ? nb_find_builtin(row.methods, name) : NULL;
  if (method) {
    *out = nb_new(r, (nb_val){.type = NB_V_FUNCTION, .function = {method, of}});
    return *out != NULL;
  }
  for (int i = 0; row.others && row.others[i]; i++) {
    if (!nb_str_is(name, row.others[i])) continue;
    nb_render_fail(r, "'%s' of '%s' objects is not for templates", row.others[i], nb_val_type_name(of));
    return false;
  }
  return true;
}

/* ---- items ------------------------------------------------------------------------------------------------------ */

static bool int_item(nb_render *r, const nb_val *of, int64_t at, const nb_val **out) {
  int64_t length = nb_length(r, of);
  if (length < 0) return false;
  if (at < 0) at += length;
  if (at < 0 || at >= length) return true;
  if (of->type == NB_V_RANGE) {
    *out = nb_range_at(r, of, (size_t)at);
  } else if (of->type == NB_V_STRING) {
    nb_str rest = nb_text_cut(of->text, nb_text_offset(of->text, (size_t)at), 0);
    *out = nb_new_text(r, (nb_str){rest.data, nb_text_offset(rest, 1)});
  } else {
    *out = of->list.items[at];
  }
  return *out != NULL;
}

/* The same of of[key]. */
static bool find_item(nb_render *r, const nb_val *of, const nb_val *key, const nb_val **out) {
  *out = NULL;
  switch (of->type) {
    case NB_V_DICT:
      /* a key that cannot be one is not there */
      return key->type == NB_V_LIST || key->type == NB_V_DICT || nb_dict_get(r, of->dict, key, out);
    case NB_V_STRING:
    case NB_V_LIST:
    case NB_V_TUPLE:
    case NB_V_RANGE: return !nb_val_is_int(key) || int_item(r, of, nb_val_int(key), out);
    default: return true;
  }
}

static const nb_val *missing(nb_render *r, const nb_val *of, const nb_val *key) {
  if (key->type == NB_V_STRING)
    return nb_new_undefined(r, "'%s object' has no attribute '%.*s'", nb_val_type_name(of),
                            (int)(key->text.length < 100 ? key->text.length : 100), key->text.data);
  if (key->type == NB_V_INT)
    return nb_new_undefined(r, "%s object has no element %lld", nb_val_type_name(of), (long long)key->integer);
  return nb_new_undefined(r, "%s object has no element of that key", nb_val_type_name(of));
}

/* What is undefined has nothing, and says so at once. */
static bool is_there(nb_render *r, const nb_val *of) {
  if (of->type != NB_V_UNDEFINED) return true;
  nb_render_fail(r, "%.*s", (int)of->text.length, of->text.data);
  return false;
}

const nb_val *nb_attribute(nb_render *r, const nb_val *of, nb_str name) {
  const nb_val *found;
  const nb_val key = {.type = NB_V_STRING, .text = name};
  if (!is_there(r, of) || !find_attribute(r, of, name, &found)) return NULL;
  if (!found && !find_item(r, of, &key, &found)) return NULL;
  return found ? found : missing(r, of, &key);
}

const nb_val *nb_item(nb_render *r, const nb_val *of, const nb_val *key) {
  const nb_val *found;
  if (!is_there(r, of) || !find_item(r, of, key, &found)) return NULL;
  if (!found && key->type == NB_V_STRING && !find_attribute(r, of, key->text, &found)) return NULL;
  return found ? found : missing(r, of, key);
}

const nb_val *nb_attribute_path(nb_render *r, const nb_val *of, const nb_val *path) {
  if (path->type != NB_V_STRING) return path->type == NB_V_NONE ? of : nb_item(r, of, path);
  for (nb_str rest = path->text;;) {
    size_t dot = nb_text_find(rest, (nb_str){".", 1}, 0);
    nb_val key = {.type = NB_V_STRING, .text = {rest.data, dot == SIZE_MAX ? rest.length : dot}};
    size_t digits = 0;
    while (digits < key.text.length && key.text.data[digits] >= '0' && key.text.data[digits] <= '9') digits++;
    if (digits > 0 && digits == key.text.length && digits < 18) {
      char number[20] = {0};
      memcpy(number, key.text.data, digits);
      key = (nb_val){.type = NB_V_INT, .integer = strtoll(number, NULL, 10)};
    }
    if (!(of = nb_item(r, of, &key)) || dot == SIZE_MAX) return of;
    rest = nb_text_cut(rest, dot + 1, 0);
  }
}
