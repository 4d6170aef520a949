/* Calls: which argument is which parameter, of what C code is behind and of macros. */
#include <stdio.h>
#include <string.h>

#include "template/render.h"
#include "template/text.h"

const nb_builtin *nb_find_builtin(const nb_builtin *rows, nb_str name) {
  for (; rows->name; rows++)
    if (nb_str_is(name, rows->name)) return rows;
  return NULL;
}

/* ---- builtins --------------------------------------------------------------------------------------------------- */

/* Parameter `at` of "a b c"; false if there are fewer. */
static bool parameter(const char *params, size_t at, nb_str *out) {
  for (const char *p = params; *p; p += out->length, p += *p == ' ') {
    *out = (nb_str){p, strcspn(p, " ")};
    if (at-- == 0) return true;
  }
  return false;
}

static bool same_text(nb_str a, nb_str b) { return a.length == b.length && memcmp(a.data, b.data, a.length) == 0; }

enum { MAX_PARAMS = 8 };

const nb_val *nb_call_builtin(nb_render *r, const nb_builtin *row, const nb_val *self, const nb_args *args) {
  if (!row->params) return row->call(r, self, args);
  const nb_val *items[MAX_PARAMS] = {0};
  nb_args sorted = {.items = items};
  nb_str name = {0};
  while (parameter(row->params, sorted.count, &name)) sorted.count++;
  if (args->count > sorted.count)
    return nb_render_fail(r, "%s() takes at most %zu arguments, not %zu", row->name, sorted.count, args->count);
  for (size_t i = 0; i < args->count; i++) items[i] = args->items[i];
  for (const nb_binding *named = args->named; named; named = named->next) {
    size_t i = 0;
    while (parameter(row->params, i, &name) && !same_text(name, named->name)) i++;
    if (i == sorted.count || items[i])
      return nb_render_fail(r, "%s() has no use for an argument '%.*s'", row->name, (int)named->name.length,
                            named->name.data);
    items[i] = named->value;
  }
  for (int i = 0; i < row->required; i++) {
    if (items[i]) continue;
    parameter(row->params, (size_t)i, &name);
    return nb_render_fail(r, "%s() misses its argument '%.*s'", row->name, (int)name.length, name.data);
  }
  return row->call(r, self, &sorted);
}

bool nb_arg_int(nb_render *r, const nb_args *args, size_t i, int64_t *out) {
  const nb_val *v = nb_arg(args, i, NULL);
  if (!v) return true;
  if (nb_val_is_int(v)) {
    *out = nb_val_int(v);
    return true;
  }
  nb_render_fail(r, "'%s' object cannot be interpreted as an integer", nb_val_type_name(v));
  return false;
}

bool nb_arg_text(nb_render *r, const nb_args *args, size_t i, nb_str *out) {
  const nb_val *v = nb_arg(args, i, NULL);
  if (!v) return true;
  if (v->type == NB_V_STRING) {
    *out = v->text;
    return true;
  }
  nb_render_fail(r, "an argument must be str, not %s", nb_val_type_name(v));
  return false;
}

const nb_val *nb_call_filter(nb_render *r, nb_str name, const nb_val *value, const nb_args *args) {
  const nb_builtin *row = nb_find_builtin(nb_filters, name);
  if (!row) row = nb_find_builtin(nb_list_filters, name);
  if (row) return nb_call_builtin(r, row, value, args);
  return nb_render_fail(r, "there is no filter '%.*s'", (int)(name.length < 100 ? name.length : 100), name.data);
}

const nb_val *nb_call_test(nb_render *r, nb_str name, const nb_val *value, const nb_args *args) {
  const nb_builtin *row = nb_find_builtin(nb_tests, name);
  if (row) return nb_call_builtin(r, row, value, args);
  return nb_render_fail(r, "there is no test '%.*s'", (int)(name.length < 100 ? name.length : 100), name.data);
}

/* ---- macros ----------------------------------------------------------------------------------------------------- */

typedef struct macro_call {
  const nb_node *macro;
  const nb_args *args;
  nb_scope *scope; /* of the body */
  nb_dict *others; /* arguments by name that are no parameter's */
  const nb_val *caller;
  size_t taken; /* arguments by place that are */
} macro_call;

static bool is_parameter(const nb_node *macro, nb_str name) {
  for (const nb_node *p = macro->args; p; p = p->next)
    if (same_text(p->text, name)) return true;
  return false;
}

/* By place, by name, by default, in the order of the parameters: a default may read those before it. */
static bool set_parameters(nb_render *r, macro_call *c) {
  for (const nb_node *p = c->macro->args; p; p = p->next) {
    const nb_val *value = c->taken < c->args->count ? c->args->items[c->taken++] : NULL;
    for (const nb_binding *named = c->args->named; named; named = named->next) {
      if (!same_text(named->name, p->text)) continue;
      if (value) {
        nb_render_fail(r, "macro '%.*s' is given '%.*s' twice", (int)c->macro->text.length, c->macro->text.data,
                       (int)p->text.length, p->text.data);
        return false;
      }
      value = named->value;
    }
    if (!value && p->a) value = nb_evaluate(r, p->a, c->scope);
    if (!value && !p->a)
      value = nb_new_undefined(r, "parameter '%.*s' was not provided", (int)p->text.length, p->text.data);
    if (!value || !nb_scope_set(r, c->scope, p->text, value)) return false;
  }
  return true;
}

static bool take_others(nb_render *r, macro_call *c) {
  for (const nb_binding *named = c->args->named; named; named = named->next) {
    if (is_parameter(c->macro, named->name)) continue;
    if (nb_str_is(named->name, "caller") && (c->macro->uses & NB_USES_CALLER)) {
      c->caller = named->value;
      continue;
    }
    if (!(c->macro->uses & NB_USES_KWARGS)) {
      nb_render_fail(r, "macro '%.*s' takes no keyword argument '%.*s'", (int)c->macro->text.length,
                     c->macro->text.data, (int)named->name.length, named->name.data);
      return false;
    }
    const nb_val *key = nb_new_text(r, named->name);
    if (!key || !nb_dict_set(r, c->others, key, named->value)) return false;
  }
  return true;
}

/* caller, kwargs and varargs, if the body reads them. */
static bool set_others(nb_render *r, macro_call *c) {
  int uses = c->macro->uses;
  if (c->args->count > c->taken && !(uses & NB_USES_VARARGS)) {
    nb_render_fail(r, "macro '%.*s' takes not more than %zu argument(s)", (int)c->macro->text.length,
                   c->macro->text.data, c->taken);
    return false;
  }
  if (uses & NB_USES_CALLER) {
    if (!c->caller) c->caller = nb_new_undefined(r, "No caller defined");
    if (!c->caller || !nb_scope_set(r, c->scope, (nb_str){"caller", 6}, c->caller)) return false;
  }
  if (uses & NB_USES_KWARGS) {
    const nb_val *kwargs = nb_new_dict(r, c->others);
    if (!kwargs || !nb_scope_set(r, c->scope, (nb_str){"kwargs", 6}, kwargs)) return false;
  }
  if (uses & NB_USES_VARARGS) {
    nb_args rest = nb_args_from(c->args, c->taken);
    const nb_val *varargs = nb_new_list(r, NB_V_TUPLE, (nb_list){rest.items, rest.count});
    if (!varargs || !nb_scope_set(r, c->scope, (nb_str){"varargs", 7}, varargs)) return false;
  }
  return true;
}

static const nb_val *call_macro(nb_render *r, const nb_val *macro, const nb_args *args) {
  macro_call c = {.macro = macro->macro.node, .args = args};
  if (!(c.scope = nb_scope_new(r, macro->macro.scope)) || !(c.others = nb_dict_new(r, 1))) return NULL;
  if (!take_others(r, &c) || !set_parameters(r, &c) || !set_others(r, &c)) return NULL;
  return nb_execute_caught(r, c.macro->items, c.scope);
}

/* ---- any -------------------------------------------------------------------------------------------------------- */

static const nb_val *call(nb_render *r, const nb_val *callee, const nb_args *args) {
  switch (callee->type) {
    case NB_V_FUNCTION: return nb_call_builtin(r, callee->function.row, callee->function.self, args);
    case NB_V_MACRO: return call_macro(r, callee, args);
    case NB_V_LOOP:
      if (args->count != 1 || args->named) return nb_render_fail(r, "a loop is called with what it goes through");
      return nb_loop_again(r, callee->loop, args->items[0]);
    case NB_V_UNDEFINED: return nb_render_fail(r, "%.*s", (int)callee->text.length, callee->text.data);
    default: return nb_render_fail(r, "'%s' object is not callable", nb_val_type_name(callee));
  }
}

const nb_val *nb_call(nb_render *r, const nb_val *callee, const nb_args *args) {
  if (!nb_work(r, NB_NODE_WORK) || !nb_render_enter(r)) return NULL;
  const nb_val *v = call(r, callee, args);
  nb_render_leave(r);
  return v;
}
