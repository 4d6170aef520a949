/* What statements do, and a rendering from its beginning to its end. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/utf8.h"
#include "template/render.h"
#include "template/template.h"

/* ---- names ------------------------------------------------------------------------------------------------------ */

nb_scope *nb_scope_new(nb_render *r, nb_scope *outer) {
  nb_scope *scope = nb_arena_take(&r->arena, sizeof *scope);
  if (!scope) {
    nb_render_no_memory(r);
    return NULL;
  }
  scope->outer = outer;
  return scope;
}

static nb_binding *find(nb_scope *scope, nb_str name) {
  for (nb_binding *b = scope->first; b; b = b->next)
    if (b->name.length == name.length && memcmp(b->name.data, name.data, name.length) == 0) return b;
  return NULL;
}

bool nb_scope_set(nb_render *r, nb_scope *scope, nb_str name, const nb_val *value) {
  nb_binding *b = find(scope, name);
  if (!b) {
    if (!(b = nb_arena_take(&r->arena, sizeof *b))) return nb_render_no_memory(r) != NULL;
    *b = (nb_binding){.name = name, .next = scope->first};
    scope->first = b;
  }
  b->value = value;
  return true;
}

const nb_val *nb_scope_get(nb_render *r, nb_scope *scope, nb_str name) {
  for (; scope; scope = scope->outer) {
    nb_binding *b = find(scope, name);
    if (!nb_work(r, 1)) return NULL;
    if (b) return b->value;
  }
  const nb_builtin *function = nb_find_builtin(nb_functions, name);
  if (function) return nb_new(r, (nb_val){.type = NB_V_FUNCTION, .function = {.row = function}});
  return nb_new_undefined(r, "'%.*s' is undefined", (int)(name.length < 100 ? name.length : 100), name.data);
}

/* ---- text ------------------------------------------------------------------------------------------------------- */

static bool count_written(nb_render *r, size_t n) {
  r->written += n;
  if (r->written <= NB_TEMPLATE_OUTPUT_MAX) return nb_work_bytes(r, n);
  nb_render_fail(r, "writes more than %d MiB", NB_TEMPLATE_OUTPUT_MAX >> 20);
  return false;
}

bool nb_write(nb_render *r, nb_str text) {
  nb_buf_append(r->out, text.data, text.length);
  return count_written(r, text.length);
}

const nb_val *nb_execute_caught(nb_render *r, const nb_node *first, nb_scope *scope) {
  nb_buf buf = {0}, *outer = r->out;
  r->out = &buf;
  nb_flow flow = nb_execute(r, first, scope);
  r->out = outer;
  const nb_val *text = nb_new_taken(r, &buf);
  return flow == NB_FLOW_FAILED ? NULL : text;
}

/* ---- assignments ------------------------------------------------------------------------------------------------ */

static bool assign(nb_render *r, const nb_node *target, const nb_val *value, nb_scope *scope);

static bool unpack(nb_render *r, const nb_node *target, const nb_val *value, nb_scope *scope) {
  nb_list items;
  size_t count = 0;
  for (const nb_node *item = target->items; item; item = item->next) count++;
  if (!nb_items(r, value, &items)) return false;
  if (items.count != count) {
    nb_render_fail(r,
                   items.count < count ? "not enough values to unpack (expected %zu, got %zu)"
                                       : "too many values to unpack (expected %zu, got %zu)",
                   count, items.count);
    return false;
  }
  size_t i = 0;
  for (const nb_node *item = target->items; item; item = item->next)
    if (!assign(r, item, items.items[i++], scope)) return false;
  return true;
}

static bool assign_member(nb_render *r, const nb_node *target, const nb_val *value, nb_scope *scope) {
  const nb_val *of = nb_scope_get(r, scope, target->text);
  if (!of) return false;
  if (of->type != NB_V_NAMESPACE) {
    nb_render_fail(r, "'%.*s' is no namespace, so that its attributes cannot be set", (int)target->text.length,
                   target->text.data);
    return false;
  }
  if (target->member.data[0] == '_') {
    nb_render_fail(r, "'%.*s': a namespace takes no name that begins with _", (int)target->member.length,
                   target->member.data);
    return false;
  }
  const nb_val *key = nb_new_text(r, target->member);
  return key && nb_dict_set(r, of->dict, key, value);
}

static bool assign(nb_render *r, const nb_node *target, const nb_val *value, nb_scope *scope) {
  switch (target->kind) {
    case NB_N_NAME: return nb_scope_set(r, scope, target->text, value);
    case NB_N_MEMBER: return assign_member(r, target, value, scope);
    default: return unpack(r, target, value, scope);
  }
}

/* ---- loops ------------------------------------------------------------------------------------------------------ */

/* The items for which the loop's `if` holds. */
static bool filter_items(nb_render *r, const nb_node *node, nb_scope *outer, nb_list *items) {
  nb_list kept;
  if (!nb_list_new(r, items->count, &kept)) return false;
  kept.count = 0;
  for (size_t i = 0; i < items->count; i++) {
    nb_scope *scope = nb_scope_new(r, outer);
    if (!scope || !assign(r, node->a, items->items[i], scope)) return false;
    const nb_val *test = nb_evaluate(r, node->c, scope);
    if (!test) return false;
    if (nb_val_is_true(test)) kept.items[kept.count++] = items->items[i];
  }
  *items = kept;
  return true;
}

static nb_flow run_loop(nb_render *r, nb_loop *loop, const nb_val *of) {
  const nb_node *node = loop->node;
  if (!nb_items(r, of, &loop->items)) return NB_FLOW_FAILED;
  if (node->c && !filter_items(r, node, loop->scope, &loop->items)) return NB_FLOW_FAILED;
  const nb_val *shown = nb_new(r, (nb_val){.type = NB_V_LOOP, .loop = loop});
  if (!shown) return NB_FLOW_FAILED;
  for (loop->at = 0; loop->at < loop->items.count; loop->at++) {
    nb_scope *scope = nb_scope_new(r, loop->scope);
    if (!scope || !nb_work(r, NB_NODE_WORK)) return NB_FLOW_FAILED;
    if (!assign(r, node->a, loop->items.items[loop->at], scope)) return NB_FLOW_FAILED;
    if (!nb_scope_set(r, scope, (nb_str){"loop", 4}, shown)) return NB_FLOW_FAILED;
    nb_flow flow = nb_execute(r, node->items, scope);
    if (flow == NB_FLOW_FAILED) return flow;
    if (flow == NB_FLOW_BREAK) break;
  }
  if (loop->items.count > 0 || !node->other) return NB_FLOW_ON;
  nb_scope *scope = nb_scope_new(r, loop->scope);
  return scope ? nb_execute(r, node->other, scope) : NB_FLOW_FAILED;
}

static nb_loop *loop_new(nb_render *r, const nb_node *node, nb_scope *scope, int depth) {
  nb_loop *loop = nb_arena_take(&r->arena, sizeof *loop);
  if (!loop) {
    nb_render_no_memory(r);
    return NULL;
  }
  *loop = (nb_loop){.node = node, .scope = scope, .depth = depth};
  return loop;
}

static nb_flow execute_for(nb_render *r, const nb_node *node, nb_scope *scope) {
  const nb_val *of = nb_evaluate(r, node->b, scope);
  nb_loop *loop = of ? loop_new(r, node, scope, 0) : NULL;
  return loop ? run_loop(r, loop, of) : NB_FLOW_FAILED;
}

const nb_val *nb_loop_again(nb_render *r, const nb_loop *loop, const nb_val *items) {
  if (!loop->node->flag) return nb_render_fail(r, "a loop that is not 'recursive' is called");
  nb_loop *inner = loop_new(r, loop->node, loop->scope, loop->depth + 1);
  if (!inner) return NULL;
  nb_buf buf = {0}, *outer = r->out;
  r->out = &buf;
  nb_flow flow = run_loop(r, inner, items);
  r->out = outer;
  const nb_val *text = nb_new_taken(r, &buf);
  return flow == NB_FLOW_FAILED ? NULL : text;
}

/* ---- blocks ----------------------------------------------------------------------------------------------------- */

/* The text of a block, with filters applied to it (NULL: none). */
static const nb_val *block_text(nb_render *r, const nb_node *node, nb_scope *scope) {
  nb_scope *inner = nb_scope_new(r, scope);
  const nb_val *text = inner ? nb_execute_caught(r, node->items, inner) : NULL;
  if (!text || !node->b) return text;
  nb_scope *hole = nb_scope_new(r, scope);
  if (!hole || !nb_scope_set(r, hole, (nb_str){"", 0}, text)) return NULL;
  return nb_evaluate(r, node->b, hole);
}

static nb_flow execute_filter_block(nb_render *r, const nb_node *node, nb_scope *scope) {
  const nb_val *text = block_text(r, node, scope);
  size_t before = r->out->length;
  if (!text || !nb_put_str(r, r->out, text)) return NB_FLOW_FAILED;
  return count_written(r, r->out->length - before) ? NB_FLOW_ON : NB_FLOW_FAILED;
}

static nb_flow execute_print(nb_render *r, const nb_node *node, nb_scope *scope) {
  const nb_val *value = nb_evaluate(r, node->a, scope);
  size_t before = r->out->length;
  if (!value || !nb_put_str(r, r->out, value)) return NB_FLOW_FAILED;
  return count_written(r, r->out->length - before) ? NB_FLOW_ON : NB_FLOW_FAILED;
}

static nb_flow execute_if(nb_render *r, const nb_node *node, nb_scope *scope) {
  for (bool is_chain = true; is_chain; node = node->other) {
    const nb_val *test = nb_evaluate(r, node->a, scope);
    if (!test) return NB_FLOW_FAILED;
    if (nb_val_is_true(test)) return nb_execute(r, node->items, scope);
    is_chain = node->flag;
  }
  return nb_execute(r, node, scope);
}

static nb_flow execute_set(nb_render *r, const nb_node *node, nb_scope *scope) {
  const nb_val *value = node->kind == NB_N_SET ? nb_evaluate(r, node->b, scope) : block_text(r, node, scope);
  r->line = node->line;
  return value && assign(r, node->a, value, scope) ? NB_FLOW_ON : NB_FLOW_FAILED;
}

static const nb_val *macro_of(nb_render *r, const nb_node *node, nb_scope *scope) {
  return nb_new(r, (nb_val){.type = NB_V_MACRO, .macro = {node, scope}});
}

static nb_flow execute_call_block(nb_render *r, const nb_node *node, nb_scope *scope) {
  const nb_val *caller = macro_of(r, node, scope);
  const nb_val *text = caller ? nb_evaluate_call_with(r, node->a, scope, caller) : NULL;
  size_t before = r->out->length;
  if (!text || !nb_put_str(r, r->out, text)) return NB_FLOW_FAILED;
  return count_written(r, r->out->length - before) ? NB_FLOW_ON : NB_FLOW_FAILED;
}

static nb_flow execute_with(nb_render *r, const nb_node *node, nb_scope *scope) {
  nb_scope *inner = nb_scope_new(r, scope);
  if (!inner) return NB_FLOW_FAILED;
  for (const nb_node *set = node->args; set; set = set->next) { /* none sees those before it */
    const nb_val *value = nb_evaluate(r, set->b, scope);
    if (!value || !assign(r, set->a, value, inner)) return NB_FLOW_FAILED;
  }
  return nb_execute(r, node->items, inner);
}

static nb_flow execute_one(nb_render *r, const nb_node *node, nb_scope *scope) {
  const nb_val *macro;
  nb_scope *inner;
  switch (node->kind) {
    case NB_N_DATA: return nb_write(r, node->text) ? NB_FLOW_ON : NB_FLOW_FAILED;
    case NB_N_PRINT: return execute_print(r, node, scope);
    case NB_N_FOR: return execute_for(r, node, scope);
    case NB_N_IF: return execute_if(r, node, scope);
    case NB_N_SET:
    case NB_N_SET_BLOCK: return execute_set(r, node, scope);
    case NB_N_CALL_BLOCK: return execute_call_block(r, node, scope);
    case NB_N_FILTER_BLOCK: return execute_filter_block(r, node, scope);
    case NB_N_WITH: return execute_with(r, node, scope);
    case NB_N_BREAK: return NB_FLOW_BREAK;
    case NB_N_CONTINUE: return NB_FLOW_CONTINUE;
    case NB_N_MACRO:
      macro = macro_of(r, node, scope);
      return macro && nb_scope_set(r, scope, node->text, macro) ? NB_FLOW_ON : NB_FLOW_FAILED;
    default: inner = nb_scope_new(r, scope); return inner ? nb_execute(r, node->items, inner) : NB_FLOW_FAILED;
  }
}

nb_flow nb_execute(nb_render *r, const nb_node *first, nb_scope *scope) {
  nb_flow flow = NB_FLOW_ON;
  if (!nb_render_enter(r)) return NB_FLOW_FAILED;
  for (const nb_node *node = first; flow == NB_FLOW_ON && node; node = node->next) {
    r->line = node->line;
    flow = nb_work(r, NB_NODE_WORK) ? execute_one(r, node, scope) : NB_FLOW_FAILED;
  }
  nb_render_leave(r);
  return flow;
}

/* ---- a template ------------------------------------------------------------------------------------------------- */

struct nb_template {
  char *where;
  nb_arena arena;
  nb_node *first;
};

enum { TREE_MEMORY = 256 << 20 }; /* bytes; a template of a megabyte of brackets takes a half */

nibble_status nb_template_parse(const char *where, const char *text, size_t n, nb_template **out, nibble_error *err) {
  *out = NULL;
  if (n > NB_TEMPLATE_MAX)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: a chat template of %zu bytes; at most %d are read", where, n,
                   NB_TEMPLATE_MAX);
  if (nb_utf8_valid(text, n) != n)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: a chat template that is not UTF-8", where);
  nb_template *t = calloc(1, sizeof *t);
  if (!t || !(t->where = strdup(where))) {
    free(t);
    return nb_fail_memory(err, n);
  }
  t->arena.limit = TREE_MEMORY;
  nibble_status status = nb_parse_template(where, (nb_str){text, n}, &t->arena, &t->first, err);
  if (status != NIBBLE_OK) {
    nb_template_free(t);
    return status;
  }
  *out = t;
  return NIBBLE_OK;
}

void nb_template_free(nb_template *t) {
  if (!t) return;
  nb_arena_free(&t->arena);
  free(t->where);
  free(t);
}

/* The members of `variables` as names. */
static nb_scope *scope_of(nb_render *r, const cJSON *variables) {
  nb_scope *scope = nb_scope_new(r, NULL);
  for (const cJSON *item = variables ? variables->child : NULL; scope && item; item = item->next) {
    const nb_val *value = nb_val_of_json(r, item);
    const nb_val *name = value ? nb_new_copy(r, (nb_str){item->string, strlen(item->string)}) : NULL;
    if (!name || !nb_scope_set(r, scope, name->text, value)) return NULL;
  }
  return scope;
}

nibble_status nb_template_render(const nb_template *t, const cJSON *variables, const struct tm *now, nb_buf *out,
                                 nibble_error *err) {
  struct tm local;
  time_t seconds = time(NULL);
  nb_buf text = {0};
  nb_render r = {.where = t->where,
                 .arena.limit = NB_RENDER_MEMORY,
                 .out = &text,
                 .work = NB_RENDER_WORK,
                 .now = now ? now : localtime_r(&seconds, &local),
                 .err = err};
  nb_scope *given = scope_of(&r, variables);
  nb_scope *scope = given ? nb_scope_new(&r, given) : NULL;
  if (scope) nb_execute(&r, t->first, scope);
  if (text.failed && r.status == NIBBLE_OK) r.status = nb_fail_memory(err, text.length);
  if (r.status == NIBBLE_OK) nb_buf_append(out, text.data, text.length);
  if (r.status == NIBBLE_OK && out->failed) r.status = nb_fail_memory(err, out->length);
  nb_buf_free(&text);
  nb_arena_free(&r.arena);
  return r.status;
}
