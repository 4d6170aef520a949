/* One rendering: what it may still use up, and the values that it makes. A function that makes a value returns NULL
 * after a failure, one that does something false; the failure is then in the rendering. */
#ifndef NB_TEMPLATE_RENDER_H
#define NB_TEMPLATE_RENDER_H

#include <cjson/cJSON.h>
#include <time.h>

#include "base/buf.h"
#include "template/tree.h"
#include "template/value.h"

/* A unit of work is about what copying 8 bytes takes; a node of the tree takes NB_NODE_WORK. The bounds are a fraction
 * of a second; a conversation of a megabyte takes a hundredth of them. */
enum {
  NB_RENDER_WORK = 1 << 26,
  NB_NODE_WORK = 8,
  NB_RENDER_MEMORY = 128 << 20, /* bytes of values */
  NB_RENDER_DEPTH = 600,        /* expressions, statements, calls and values in each other: of the C stack 1 MB */
};

typedef struct nb_render {
  const char *where;
  nb_arena arena;
  nb_buf *out;    /* where text goes */
  size_t written; /* bytes, here and in all that was caught */
  int64_t work;   /* units left */
  int depth;
  unsigned line; /* of what is done */
  const struct tm *now;
  nibble_status status;
  nibble_error *err;
} nb_render;

typedef struct nb_binding {
  nb_str name;
  const nb_val *value;
  struct nb_binding *next;
} nb_binding;

/* Names of a part of the template, seen before those of what it lies in. */
typedef struct nb_scope {
  struct nb_scope *outer;
  nb_binding *first;
} nb_scope;

/* What a call is given. Of a builtin with parameters: items[i] is parameter i, NULL if it was not given. */
typedef struct nb_args {
  const nb_val **items;
  size_t count;
  nb_binding *named; /* a chain */
} nb_args;

/* A function, method, filter or test that C code is behind. */
typedef struct nb_builtin {
  const char *name;
  const nb_val *(*call)(nb_render *r, const nb_val *self, const nb_args *args);
  const char *params; /* names with spaces between them; NULL: takes what comes */
  int required;       /* of them */
} nb_builtin;

/* ---- failures and bounds ---------------------------------------------------------------------------------------- */

/* NIBBLE_BAD_INPUT "where: line N: ...", the first time; returns NULL. */
const nb_val *nb_render_fail(nb_render *r, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* For a take of the arena that failed; returns NULL. */
const nb_val *nb_render_no_memory(nb_render *r);

bool nb_work(nb_render *r, uint64_t units);
static inline bool nb_work_bytes(nb_render *r, size_t n) { return nb_work(r, n / 8 + 1); }

/* Every true one needs nb_render_leave. */
bool nb_render_enter(nb_render *r);
static inline void nb_render_leave(nb_render *r) { r->depth--; }

/* ---- values (value.c) ------------------------------------------------------------------------------------------- */

const nb_val *nb_new(nb_render *r, nb_val value);
const nb_val *nb_new_int(nb_render *r, int64_t value);
const nb_val *nb_new_float(nb_render *r, double value);
const nb_val *nb_new_text(nb_render *r, nb_str text); /* owned by the arena or the template */
const nb_val *nb_new_copy(nb_render *r, nb_str text);
const nb_val *nb_new_undefined(nb_render *r, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Takes the text of a buffer over into the arena and frees it; NULL also if the buffer has failed. */
const nb_val *nb_new_taken(nb_render *r, nb_buf *buf);

/* A list of `type` with room for `count`, to be filled: NULL items. */
bool nb_list_new(nb_render *r, size_t count, nb_list *out);
const nb_val *nb_new_list(nb_render *r, nb_val_type type, nb_list list);
const nb_val *nb_new_pair(nb_render *r, const nb_val *a, const nb_val *b); /* a tuple */

nb_dict *nb_dict_new(nb_render *r, size_t capacity);
const nb_val *nb_new_dict(nb_render *r, nb_dict *dict);
/* Sets a member; a key that is there keeps its place. Fails on a key that cannot be one. */
bool nb_dict_set(nb_render *r, nb_dict *dict, const nb_val *key, const nb_val *value);
/* *out is NULL if the key is not there. */
bool nb_dict_get(nb_render *r, const nb_dict *dict, const nb_val *key, const nb_val **out);
const nb_val *nb_dict_find(nb_render *r, const nb_dict *dict, const char *key); /* NULL: not there */

/* All that a loop over the value goes through; a generator is at its end then. Fails if it cannot be gone through. */
bool nb_items(nb_render *r, const nb_val *v, nb_list *out);

/* Number i of a range. */
const nb_val *nb_range_at(nb_render *r, const nb_val *v, size_t i);

/* Items, or characters; -1 if the value has no length. */
int64_t nb_length(nb_render *r, const nb_val *v);

bool nb_equal(nb_render *r, const nb_val *a, const nb_val *b, bool *out);
/* a < b, as Python orders them; fails on what has no order. `op` is how the template wrote it, for the message. */
bool nb_less(nb_render *r, const nb_val *a, const nb_val *b, const char *op, bool *out);
/* item in container */
bool nb_contains(nb_render *r, const nb_val *container, const nb_val *item, bool *out);

const nb_val *nb_val_of_json(nb_render *r, const cJSON *json);

/* ---- text of values (print.c) ----------------------------------------------------------------------------------- */

bool nb_put_str(nb_render *r, nb_buf *out, const nb_val *v);  /* str() */
bool nb_put_repr(nb_render *r, nb_buf *out, const nb_val *v); /* repr() */
bool nb_str_of(nb_render *r, const nb_val *v, nb_str *out);   /* str(), in the arena */
void nb_put_float(nb_buf *out, double value);                 /* repr() of a float */

typedef struct nb_json_style {
  bool ascii, sorted, has_lines;
  nb_str indent, item_separator, key_separator;
} nb_json_style;

/* json.dumps */
bool nb_put_json(nb_render *r, nb_buf *out, const nb_val *v, const nb_json_style *style);

/* ---- operators (operators.c) ------------------------------------------------------------------------------------ */

const nb_val *nb_binary(nb_render *r, int op, const nb_val *a, const nb_val *b);
const nb_val *nb_negative(nb_render *r, const nb_val *a);
bool nb_compare(nb_render *r, int op, const nb_val *a, const nb_val *b, bool *out);
const nb_val *nb_slice(nb_render *r, const nb_val *of, const nb_val *bounds[3]);         /* NULL: left out */
const nb_val *nb_format_percent(nb_render *r, const nb_val *format, const nb_val *args); /* format.c */
const nb_val *nb_format_call(nb_render *r, const nb_val *self, const nb_args *args);     /* str.format */

/* ---- attributes (attributes.c) ---------------------------------------------------------------------------------- */

/* of.name and of[key]: undefined if there is none. */
const nb_val *nb_attribute(nb_render *r, const nb_val *of, nb_str name);
const nb_val *nb_item(nb_render *r, const nb_val *of, const nb_val *key);

/* What "a.b.0" leads to from a value, as filters take attributes: a string or a number. */
const nb_val *nb_attribute_path(nb_render *r, const nb_val *of, const nb_val *path);

extern const nb_builtin nb_string_methods[], nb_list_methods[], nb_tuple_methods[], nb_dict_methods[],
    nb_loop_methods[]; /* each ends with a row without a name */

/* ---- calls (calls.c) -------------------------------------------------------------------------------------------- */

const nb_val *nb_call(nb_render *r, const nb_val *callee, const nb_args *args);

/* Sorts the arguments by the row's parameters and calls it. */
const nb_val *nb_call_builtin(nb_render *r, const nb_builtin *row, const nb_val *self, const nb_args *args);

const nb_builtin *nb_find_builtin(const nb_builtin *rows, nb_str name);
extern const nb_builtin nb_filters[], nb_list_filters[], nb_tests[], nb_functions[];

/* Fails if there is none of that name. */
const nb_val *nb_call_filter(nb_render *r, nb_str name, const nb_val *value, const nb_args *args);
const nb_val *nb_call_test(nb_render *r, nb_str name, const nb_val *value, const nb_args *args);

/* ---- the tree (expressions.c, statements.c) --------------------------------------------------------------------- */

const nb_val *nb_evaluate(nb_render *r, const nb_node *node, nb_scope *scope);

/* The call `node`, with one more argument. */
const nb_val *nb_evaluate_call_with(nb_render *r, const nb_node *node, nb_scope *scope, const nb_val *caller);

typedef enum nb_flow { NB_FLOW_ON, NB_FLOW_BREAK, NB_FLOW_CONTINUE, NB_FLOW_FAILED } nb_flow;
nb_flow nb_execute(nb_render *r, const nb_node *first, nb_scope *scope);

/* The text that statements write. */
const nb_val *nb_execute_caught(nb_render *r, const nb_node *first, nb_scope *scope);

bool nb_write(nb_render *r, nb_str text);

nb_scope *nb_scope_new(nb_render *r, nb_scope *outer);
bool nb_scope_set(nb_render *r, nb_scope *scope, nb_str name, const nb_val *value);
const nb_val *nb_scope_get(nb_render *r, nb_scope *scope, nb_str name); /* undefined if there is none */

/* The state of a loop, which `loop` shows. */
typedef struct nb_loop {
  const nb_node *node;
  nb_scope *scope; /* that the loop lies in */
  nb_list items;
  size_t at;
  int depth;             /* of recursion, from 0 */
  const nb_val *changed; /* what loop.changed was given last */
} nb_loop;

/* loop(items) of a recursive loop. */
const nb_val *nb_loop_again(nb_render *r, const nb_loop *loop, const nb_val *items);

/* ---- shorthands for builtins ------------------------------------------------------------------------------------ */

/* Parameter i, or what it is if it was not given. */
static inline const nb_val *nb_arg(const nb_args *args, size_t i, const nb_val *otherwise) {
  return i < args->count && args->items[i] ? args->items[i] : otherwise;
}
/* The arguments by place from number n on, and all by name. */
static inline nb_args nb_args_from(const nb_args *args, size_t n) {
  if (n >= args->count) return (nb_args){.named = args->named};
  return (nb_args){args->items + n, args->count - n, args->named};
}

/* Parameter i where only one type will do; fails otherwise. */
bool nb_arg_int(nb_render *r, const nb_args *args, size_t i, int64_t *out); /* *out stays if it was not given */
bool nb_arg_text(nb_render *r, const nb_args *args, size_t i, nb_str *out);

#endif
