#include "template/parser.h"

#include <stdarg.h>
#include <stdio.h>

/* ---- shared with parse_expressions.c ---------------------------------------------------------------------------- */

nb_node *nb_parse_fail(nb_parser *p, const char *format, ...) {
  char message[512];
  va_list args;
  va_start(args, format);
  vsnprintf(message, sizeof message, format, args);
  va_end(args);
  if (p->status == NIBBLE_OK)
    p->status = nb_fail(p->err, NIBBLE_BAD_INPUT, "%s: line %u: %s", p->where, p->token->line, message);
  return NULL;
}

const char *nb_parse_next(const nb_parser *p, char buffer[64]) {
  const nb_token *t = p->token;
  switch (t->kind) {
    case NB_T_EOF: return "the end of the template";
    case NB_T_DATA: return "text";
    case NB_T_PRINT_BEGIN: return "'{{'";
    case NB_T_PRINT_END: return "'}}'";
    case NB_T_BLOCK_BEGIN: return "'{%'";
    case NB_T_BLOCK_END: return "'%}'";
    case NB_T_STRING: return "a string";
    default: snprintf(buffer, 64, "'%.*s'", (int)(t->text.length < 40 ? t->text.length : 40), t->text.data);
  }
  return buffer;
}

nb_node *nb_node_new(nb_parser *p, nb_node_kind kind) {
  nb_node *node = nb_arena_take(p->arena, sizeof *node);
  if (!node) {
    if (p->arena->is_full) return nb_parse_fail(p, "too large a template");
    if (p->status == NIBBLE_OK) p->status = nb_fail_memory(p->err, sizeof *node);
    return NULL;
  }
  node->kind = kind;
  node->line = p->token->line;
  return node;
}

bool nb_parse_is_op(const nb_parser *p, int op) { return p->token->kind == NB_T_OPERATOR && p->token->op == op; }

bool nb_parse_is_name(const nb_parser *p, const char *name) {
  return p->token->kind == NB_T_NAME && nb_str_is(p->token->text, name);
}

bool nb_parse_take_op(nb_parser *p, int op) {
  bool is_it = nb_parse_is_op(p, op);
  p->token += is_it;
  return is_it;
}

bool nb_parse_take_name(nb_parser *p, const char *name) {
  bool is_it = nb_parse_is_name(p, name);
  p->token += is_it;
  return is_it;
}

bool nb_parse_need_op(nb_parser *p, int op) {
  char next[64], what[3] = {(char)(op & 0xff), (char)(op >> 8), 0};
  if (nb_parse_take_op(p, op)) return true;
  nb_parse_fail(p, "'%s' is required, not %s", what, nb_parse_next(p, next));
  return false;
}

bool nb_parse_need_name(nb_parser *p, nb_str *out) {
  char next[64];
  if (p->token->kind == NB_T_NAME) {
    *out = p->token++->text;
    return true;
  }
  nb_parse_fail(p, "a name is required, not %s", nb_parse_next(p, next));
  return false;
}

bool nb_parse_enter(nb_parser *p) {
  if (p->depth < NB_MAX_NESTING) {
    p->depth++;
    return true;
  }
  nb_parse_fail(p, "nested deeper than %d levels", NB_MAX_NESTING);
  return false;
}

void nb_parse_leave(nb_parser *p) { p->depth--; }

/* ---- statements ------------------------------------------------------------------------------------------------- */

static bool need_block_end(nb_parser *p) {
  char next[64];
  if (p->token->kind == NB_T_BLOCK_END) {
    p->token++;
    return true;
  }
  nb_parse_fail(p, "'%%}' is required, not %s", nb_parse_next(p, next));
  return false;
}

static nb_node *parse_statement(nb_parser *p);

static bool ends_here(const nb_parser *p, const char *const ends[]) {
  for (int i = 0; ends && ends[i]; i++)
    if (nb_parse_is_name(p, ends[i])) return true;
  return false;
}

/* Statements up to a tag of one of the names `ends` (NULL: the end of the template), which is the next token then.
 * `tag` is whose body this is. */
static bool parse_body(nb_parser *p, const char *tag, const char *const ends[], nb_node **out) {
  nb_node **last = out;
  *out = NULL;
  for (; p->token->kind != NB_T_EOF; last = &(*last)->next) {
    if (p->token->kind == NB_T_DATA) {
      if (!(*last = nb_node_new(p, NB_N_DATA))) return false;
      (*last)->text = p->token++->text;
    } else if (p->token->kind == NB_T_PRINT_BEGIN) {
      if (!(*last = nb_node_new(p, NB_N_PRINT))) return false;
      p->token++;
      if (!((*last)->a = nb_parse_tuple(p, &(nb_tuple_rules){.with_choice = true}))) return false;
      char next[64];
      if (p->token->kind != NB_T_PRINT_END) return nb_parse_fail(p, "unexpected %s", nb_parse_next(p, next)) != NULL;
      p->token++;
    } else {
      p->token++; /* {% */
      if (ends_here(p, ends)) return true;
      if (!(*last = parse_statement(p)) || !need_block_end(p)) return false;
    }
  }
  if (!ends) return true;
  nb_parse_fail(p, "'%s' has no '%s'", tag, ends[0]);
  return false;
}

/* The same, from behind the tag's expressions to its end and behind the name that ends it. */
static bool parse_block(nb_parser *p, const char *tag, const char *end, nb_node **out) {
  const char *const ends[] = {end, NULL};
  nb_parse_take_op(p, ':');
  if (!need_block_end(p) || !parse_body(p, tag, ends, out)) return false;
  p->token++;
  return true;
}

static nb_node *parse_for(nb_parser *p) {
  static const char *const ends[] = {"endfor", "else", NULL};
  nb_node *node = nb_node_new(p, NB_N_FOR);
  if (!node) return NULL;
  p->token++;
  if (!(node->a = nb_parse_tuple(p, &(nb_tuple_rules){.is_target = true, .end = "in"}))) return NULL;
  char next[64];
  if (!nb_parse_take_name(p, "in")) return nb_parse_fail(p, "'in' is required, not %s", nb_parse_next(p, next));
  if (!(node->b = nb_parse_tuple(p, &(nb_tuple_rules){.end = "recursive"}))) return NULL;
  if (nb_parse_take_name(p, "if") && !(node->c = nb_parse_expression(p, true))) return NULL;
  node->flag = nb_parse_take_name(p, "recursive");
  nb_parse_take_op(p, ':');
  if (!need_block_end(p) || !parse_body(p, "for", ends, &node->items)) return NULL;
  bool has_else = nb_parse_is_name(p, "else");
  p->token++;
  return !has_else || parse_block(p, "for", "endfor", &node->other) ? node : NULL;
}

/* From behind `if` or `elif` to `endif`, which is left to the caller: the chain's inner ones are its else. */
static nb_node *parse_if_branch(nb_parser *p) {
  static const char *const ends[] = {"endif", "elif", "else", NULL}, *const last[] = {"endif", NULL};
  nb_node *first = NULL, **at = &first;
  for (;;) { /* a chain of a thousand elif is no nesting */
    nb_node *node = *at = nb_node_new(p, NB_N_IF);
    if (!node || !(node->a = nb_parse_tuple(p, &(nb_tuple_rules){0}))) return NULL;
    nb_parse_take_op(p, ':');
    if (!need_block_end(p) || !parse_body(p, "if", ends, &node->items)) return NULL;
    at = &node->other;
    if ((node->flag = nb_parse_take_name(p, "elif"))) continue;
    if (!nb_parse_take_name(p, "else")) return first;
    nb_parse_take_op(p, ':');
    return need_block_end(p) && parse_body(p, "if", last, at) ? first : NULL;
  }
}

static nb_node *parse_if(nb_parser *p) {
  p->token++;
  nb_node *node = parse_if_branch(p);
  if (node) p->token++; /* endif */
  return node;
}

static nb_node *parse_set(nb_parser *p) {
  nb_node *node = nb_node_new(p, NB_N_SET);
  if (!node) return NULL;
  p->token++;
  if (!(node->a = nb_parse_tuple(p, &(nb_tuple_rules){.is_target = true, .with_members = true}))) return NULL;
  if (nb_parse_take_op(p, '=')) {
    node->b = nb_parse_tuple(p, &(nb_tuple_rules){.with_choice = true});
    return node->b ? node : NULL;
  }
  node->kind = NB_N_SET_BLOCK;
  if (nb_parse_is_op(p, '|') && !(node->b = nb_parse_filters(p, NULL, false))) return NULL;
  return parse_block(p, "set", "endset", &node->items) ? node : NULL;
}

/* "(a, b=1)": names with defaults. */
static bool parse_signature(nb_parser *p, nb_node **out) {
  if (!nb_parse_need_op(p, '(')) return false;
  bool has_default = false;
  for (nb_node **last = out; !nb_parse_take_op(p, ')'); last = &(*last)->next) {
    if (last != out && !nb_parse_need_op(p, ',')) return false;
    if (!(*last = nb_node_new(p, NB_N_NAME)) || !nb_parse_need_name(p, &(*last)->text)) return false;
    if (nb_parse_take_op(p, '=')) {
      has_default = true;
      if (!((*last)->a = nb_parse_expression(p, true))) return false;
    } else if (has_default) {
      nb_parse_fail(p, "an argument without a default follows one that has one");
      return false;
    }
  }
  return true;
}

static bool parse_macro_body(nb_parser *p, nb_node *node, const char *tag, const char *end) {
  int outer = p->uses;
  p->uses = 0;
  if (!parse_block(p, tag, end, &node->items)) return false;
  node->uses = p->uses;
  p->uses |= outer;
  return true;
}

static nb_node *parse_macro(nb_parser *p) {
  nb_node *node = nb_node_new(p, NB_N_MACRO);
  if (!node) return NULL;
  p->token++;
  if (!nb_parse_need_name(p, &node->text) || !parse_signature(p, &node->args)) return NULL;
  return parse_macro_body(p, node, "macro", "endmacro") ? node : NULL;
}

static nb_node *parse_call_block(nb_parser *p) {
  nb_node *node = nb_node_new(p, NB_N_CALL_BLOCK);
  if (!node) return NULL;
  p->token++;
  if (nb_parse_is_op(p, '(') && !parse_signature(p, &node->args)) return NULL;
  if (!(node->a = nb_parse_expression(p, true))) return NULL;
  if (node->a->kind != NB_N_CALL) return nb_parse_fail(p, "'call' is followed by something else than a call");
  return parse_macro_body(p, node, "call", "endcall") ? node : NULL;
}

static nb_node *parse_filter_block(nb_parser *p) {
  nb_node *node = nb_node_new(p, NB_N_FILTER_BLOCK);
  if (!node) return NULL;
  p->token++;
  if (!(node->b = nb_parse_filters(p, NULL, true))) return NULL;
  return parse_block(p, "filter", "endfilter", &node->items) ? node : NULL;
}

static nb_node *parse_with(nb_parser *p) {
  nb_node *node = nb_node_new(p, NB_N_WITH);
  if (!node) return NULL;
  p->token++;
  for (nb_node **last = &node->args; p->token->kind != NB_T_BLOCK_END; last = &(*last)->next) {
    if (last != &node->args && !nb_parse_need_op(p, ',')) return NULL;
    if (!(*last = nb_node_new(p, NB_N_SET))) return NULL;
    (*last)->a = nb_parse_tuple(p, &(nb_tuple_rules){.is_target = true});
    if (!(*last)->a || !nb_parse_need_op(p, '=')) return NULL;
    if (!((*last)->b = nb_parse_expression(p, true))) return NULL;
  }
  return parse_block(p, "with", "endwith", &node->items) ? node : NULL;
}

/* A block, which nothing can override here. */
static nb_node *parse_named_block(nb_parser *p) {
  nb_node *node = nb_node_new(p, NB_N_SCOPE);
  if (!node) return NULL;
  p->token++;
  if (!nb_parse_need_name(p, &node->text)) return NULL;
  nb_parse_take_name(p, "scoped");
  if (!parse_block(p, "block", "endblock", &node->items)) return NULL;
  if (p->token->kind == NB_T_NAME && p->token->text.length == node->text.length &&
      memcmp(p->token->text.data, node->text.data, node->text.length) == 0)
    p->token++;
  return node;
}

/* What transformers marks the model's own words with, to find them again: the text is what is in it. */
static nb_node *parse_generation(nb_parser *p) {
  nb_node *node = nb_node_new(p, NB_N_SCOPE);
  if (!node) return NULL;
  p->token++;
  return parse_block(p, "generation", "endgeneration", &node->items) ? node : NULL;
}

static nb_node *parse_print(nb_parser *p) {
  nb_node *node = nb_node_new(p, NB_N_PRINT);
  if (!node) return NULL;
  p->token++;
  node->a = nb_parse_expression(p, true);
  return node->a ? node : NULL;
}

static nb_node *parse_jump(nb_parser *p) {
  nb_node *node = nb_node_new(p, nb_parse_is_name(p, "break") ? NB_N_BREAK : NB_N_CONTINUE);
  p->token++;
  return node;
}

static nb_node *parse_statement(nb_parser *p) {
  static const struct {
    const char *name;
    nb_node *(*parse)(nb_parser *p);
  } tags[] = {{"for", parse_for},
              {"if", parse_if},
              {"set", parse_set},
              {"macro", parse_macro},
              {"call", parse_call_block},
              {"filter", parse_filter_block},
              {"with", parse_with},
              {"block", parse_named_block},
              {"generation", parse_generation},
              {"print", parse_print},
              {"break", parse_jump},
              {"continue", parse_jump}};
  char next[64];
  for (size_t i = 0; i < sizeof tags / sizeof *tags; i++) {
    if (!nb_parse_is_name(p, tags[i].name)) continue;
    if (!nb_parse_enter(p)) return NULL;
    nb_node *node = tags[i].parse(p);
    nb_parse_leave(p);
    return node;
  }
  return nb_parse_fail(p, "%s is no tag that chat templates have", nb_parse_next(p, next));
}

nibble_status nb_parse_template(const char *where, nb_str text, nb_arena *arena, nb_node **out, nibble_error *err) {
  nb_tokens tokens;
  *out = NULL;
  nibble_status status = nb_lex(where, text, arena, &tokens, err);
  if (status != NIBBLE_OK) return status;
  nb_parser p = {.where = where, .arena = arena, .token = tokens.items, .err = err};
  parse_body(&p, "", NULL, out);
  return p.status;
}
