/* What expressions come to. */
#include <string.h>

#include "template/render.h"

/* ---- arguments -------------------------------------------------------------------------------------------------- */

typedef struct gathered {
  nb_args args;
  size_t capacity;
  nb_binding **last; /* of args.named */
} gathered;

static bool add_argument(nb_render *r, gathered *g, const nb_val *value) {
  if (g->args.count == g->capacity) {
    size_t room = g->capacity ? 2 * g->capacity : 4;
    const nb_val **items = nb_arena_array(&r->arena, room, sizeof *items);
    if (!items) return nb_render_no_memory(r) != NULL;
    if (g->args.count) memcpy(items, g->args.items, g->args.count * sizeof *items);
    g->args.items = items;
    g->capacity = room;
  }
  g->args.items[g->args.count++] = value;
  return true;
}

static bool add_named(nb_render *r, gathered *g, nb_str name, const nb_val *value) {
  nb_binding *named = nb_arena_take(&r->arena, sizeof *named);
  if (!named) return nb_render_no_memory(r) != NULL;
  *named = (nb_binding){.name = name, .value = value};
  *g->last = named;
  g->last = &named->next;
  return true;
}

static bool spread(nb_render *r, gathered *g, const nb_val *value, bool is_named) {
  if (!is_named) {
    nb_list items;
    if (!nb_items(r, value, &items) || !nb_work(r, items.count)) return false;
    for (size_t i = 0; i < items.count; i++)
      if (!add_argument(r, g, items.items[i])) return false;
    return true;
  }
  if (value->type != NB_V_DICT) {
    nb_render_fail(r, "what follows ** must be a mapping, not %s", nb_val_type_name(value));
    return false;
  }
  for (size_t i = 0; i < value->dict->count; i++) {
    const nb_pair *pair = &value->dict->pairs[i];
    if (pair->key->type != NB_V_STRING) {
      nb_render_fail(r, "keywords must be strings");
      return false;
    }
    if (!add_named(r, g, pair->key->text, pair->value)) return false;
  }
  return true;
}

/* The arguments of a call; `extra` (NULL: none) is one more, by name. */
static bool gather(nb_render *r, const nb_node *first, nb_scope *scope, const nb_binding *extra, gathered *g) {
  *g = (gathered){0};
  g->last = &g->args.named;
  for (const nb_node *node = first; node; node = node->next) {
    const nb_val *value = nb_evaluate(r, node->a, scope);
    if (!value) return false;
    bool is_spread = node->text.length && node->text.data[0] == '*';
    bool ok = is_spread           ? spread(r, g, value, node->text.length == 2)
              : node->text.length ? add_named(r, g, node->text, value)
                                  : add_argument(r, g, value);
    if (!ok) return false;
  }
  return !extra || add_named(r, g, extra->name, extra->value);
}

static const nb_val *evaluate_call(nb_render *r, const nb_node *node, nb_scope *scope) {
  gathered g;
  const nb_val *callee = nb_evaluate(r, node->a, scope);
  if (!callee || !gather(r, node->args, scope, NULL, &g)) return NULL;
  r->line = node->line;
  return nb_call(r, callee, &g.args);
}

const nb_val *nb_evaluate_call_with(nb_render *r, const nb_node *node, nb_scope *scope, const nb_val *caller) {
  gathered g;
  nb_binding extra = {.name = {"caller", 6}, .value = caller};
  const nb_val *callee = nb_evaluate(r, node->a, scope);
  if (!callee || !gather(r, node->args, scope, &extra, &g)) return NULL;
  r->line = node->line;
  return nb_call(r, callee, &g.args);
}

static const nb_val *evaluate_filter(nb_render *r, const nb_node *node, nb_scope *scope, bool is_test) {
  gathered g;
  const nb_val *value = nb_evaluate(r, node->a, scope);
  if (!value || !gather(r, node->args, scope, NULL, &g)) return NULL;
  r->line = node->line;
  return is_test ? nb_call_test(r, node->text, value, &g.args) : nb_call_filter(r, node->text, value, &g.args);
}

/* ---- collections ------------------------------------------------------------------------------------------------ */

static const nb_val *evaluate_list(nb_render *r, const nb_node *node, nb_scope *scope) {
  size_t count = 0;
  for (const nb_node *item = node->items; item; item = item->next) count++;
  nb_list list;
  if (!nb_list_new(r, count, &list)) return NULL;
  size_t i = 0;
  for (const nb_node *item = node->items; item; item = item->next)
    if (!(list.items[i++] = nb_evaluate(r, item, scope))) return NULL;
  return nb_new_list(r, node->kind == NB_N_LIST ? NB_V_LIST : NB_V_TUPLE, list);
}

static const nb_val *evaluate_dict(nb_render *r, const nb_node *node, nb_scope *scope) {
  nb_dict *dict = nb_dict_new(r, 4);
  for (const nb_node *pair = node->items; dict && pair; pair = pair->next) {
    const nb_val *key = nb_evaluate(r, pair->a, scope);
    const nb_val *value = key ? nb_evaluate(r, pair->b, scope) : NULL;
    if (!value || !nb_dict_set(r, dict, key, value)) return NULL;
  }
  return nb_new_dict(r, dict);
}

static const nb_val *evaluate_item(nb_render *r, const nb_node *node, nb_scope *scope) {
  const nb_val *of = nb_evaluate(r, node->a, scope);
  if (!of) return NULL;
  if (node->b->kind != NB_N_SLICE) {
    const nb_val *key = nb_evaluate(r, node->b, scope);
    r->line = node->line;
    return key ? nb_item(r, of, key) : NULL;
  }
  const nb_node *parts[3] = {node->b->a, node->b->b, node->b->c};
  const nb_val *bounds[3] = {0};
  for (int i = 0; i < 3; i++)
    if (parts[i] && !(bounds[i] = nb_evaluate(r, parts[i], scope))) return NULL;
  return nb_slice(r, of, bounds);
}

/* ---- operators -------------------------------------------------------------------------------------------------- */

static const nb_val *evaluate_concat(nb_render *r, const nb_node *node, nb_scope *scope) {
  nb_buf buf = {0};
  bool ok = true;
  for (const nb_node *item = node->items; ok && item; item = item->next) {
    const nb_val *value = nb_evaluate(r, item, scope);
    ok = value && nb_put_str(r, &buf, value);
  }
  const nb_val *text = nb_new_taken(r, &buf);
  return ok ? text : NULL;
}

/* a < b < c: each is evaluated once, up to the first that does not hold. */
static const nb_val *evaluate_compare(nb_render *r, const nb_node *node, nb_scope *scope) {
  const nb_val *left = nb_evaluate(r, node->a, scope);
  bool holds = true;
  for (const nb_node *operand = node->items; left && holds && operand; operand = operand->next) {
    const nb_val *right = nb_evaluate(r, operand->a, scope);
    if (!right || !nb_compare(r, operand->op, left, right, &holds)) return NULL;
    left = right;
  }
  return left ? nb_val_bool(holds) : NULL;
}

static const nb_val *evaluate_binary(nb_render *r, const nb_node *node, nb_scope *scope) {
  const nb_val *a = nb_evaluate(r, node->a, scope);
  const nb_val *b = a ? nb_evaluate(r, node->b, scope) : NULL;
  r->line = node->line;
  return b ? nb_binary(r, node->op, a, b) : NULL;
}

static const nb_val *evaluate_choice(nb_render *r, const nb_node *node, nb_scope *scope) {
  const nb_val *test = nb_evaluate(r, node->a, scope);
  if (!test) return NULL;
  if (nb_val_is_true(test)) return nb_evaluate(r, node->b, scope);
  if (node->c) return nb_evaluate(r, node->c, scope);
  return nb_new_undefined(r, "the inline if-expression on line %u was false and has no else", node->line);
}

static const nb_val *evaluate_one(nb_render *r, const nb_node *node, nb_scope *scope) {
  const nb_val *a;
  switch (node->kind) {
    case NB_N_CONSTANT: return node->value;
    case NB_N_NAME: return nb_scope_get(r, scope, node->text);
    case NB_N_HOLE: return nb_scope_get(r, scope, (nb_str){"", 0});
    case NB_N_LIST:
    case NB_N_TUPLE: return evaluate_list(r, node, scope);
    case NB_N_DICT: return evaluate_dict(r, node, scope);
    case NB_N_ITEM: return evaluate_item(r, node, scope);
    case NB_N_CALL: return evaluate_call(r, node, scope);
    case NB_N_FILTER: return evaluate_filter(r, node, scope, false);
    case NB_N_TEST: return evaluate_filter(r, node, scope, true);
    case NB_N_BINARY: return evaluate_binary(r, node, scope);
    case NB_N_CONCAT: return evaluate_concat(r, node, scope);
    case NB_N_COMPARE: return evaluate_compare(r, node, scope);
    case NB_N_CHOICE: return evaluate_choice(r, node, scope);
    default: break;
  }
  if (!node->a || !(a = nb_evaluate(r, node->a, scope))) return NULL;
  switch (node->kind) {
    case NB_N_ATTRIBUTE: return nb_attribute(r, a, node->text);
    case NB_N_AND: return nb_val_is_true(a) ? nb_evaluate(r, node->b, scope) : a;
    case NB_N_OR: return nb_val_is_true(a) ? a : nb_evaluate(r, node->b, scope);
    case NB_N_NOT: return nb_val_bool(!nb_val_is_true(a));
    case NB_N_NEGATIVE: return nb_negative(r, a);
    case NB_N_POSITIVE:
      if (nb_val_is_number(a)) return a->type == NB_V_BOOL ? nb_new_int(r, a->truth) : a;
      return nb_render_fail(r, "bad operand type for unary +: '%s'", nb_val_type_name(a));
    default: return nb_render_fail(r, "this is no expression");
  }
}

const nb_val *nb_evaluate(nb_render *r, const nb_node *node, nb_scope *scope) {
  r->line = node->line;
  if (!nb_work(r, NB_NODE_WORK) || !nb_render_enter(r)) return NULL;
  const nb_val *value = evaluate_one(r, node, scope);
  nb_render_leave(r);
  return value;
}
