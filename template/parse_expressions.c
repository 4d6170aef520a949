/* Expressions, by Jinja2's order of binding: choice, or, and, not, comparisons, + -, ~, * / // %, **, signs, then what
 * stands behind a value: .name [item] (arguments), | filters and tests. */
#include <errno.h>
#include <stdlib.h>

#include "template/parser.h"

static nb_node *parse_unary(nb_parser *p, bool with_filters);
static nb_node *parse_primary(nb_parser *p, bool with_members);

static nb_node *pair_of(nb_parser *p, nb_node_kind kind, nb_node *a, nb_node *b) {
  nb_node *node = a && b ? nb_node_new(p, kind) : NULL;
  if (!node) return NULL;
  node->a = a;
  node->b = b;
  return node;
}

/* ---- operators, the weakest last -------------------------------------------------------------------------------- */

/* Operands of `next` between any of the operators `ops`, from the left. */
static nb_node *parse_chain(nb_parser *p, const int *ops, nb_node *(*next)(nb_parser *p)) {
  nb_node *left = next(p);
  while (left) {
    int op = 0;
    for (int i = 0; ops[i] && !op; i++)
      if (nb_parse_is_op(p, ops[i])) op = ops[i];
    if (!op) break;
    p->token++;
    left = pair_of(p, NB_N_BINARY, left, next(p));
    if (left) left->op = op;
  }
  return left;
}

static nb_node *parse_signed(nb_parser *p) { return parse_unary(p, true); }
static nb_node *parse_power(nb_parser *p) { return parse_chain(p, (const int[]){NB_OP_POW, 0}, parse_signed); }

static nb_node *parse_product(nb_parser *p) {
  return parse_chain(p, (const int[]){'*', '/', NB_OP_FLOOR, '%', 0}, parse_power);
}

static nb_node *parse_concat(nb_parser *p) {
  nb_node *first = parse_product(p);
  if (!first || !nb_parse_is_op(p, '~')) return first;
  nb_node *node = nb_node_new(p, NB_N_CONCAT);
  if (!node) return NULL;
  node->items = first;
  for (nb_node **last = &first->next; nb_parse_take_op(p, '~'); last = &(*last)->next)
    if (!(*last = parse_product(p))) return NULL;
  return node;
}

static nb_node *parse_sum(nb_parser *p) { return parse_chain(p, (const int[]){'+', '-', 0}, parse_concat); }

/* The comparison that comes next, 0 if there is none; behind it. */
static int take_comparison(nb_parser *p) {
  static const int ops[] = {NB_OP_EQ, NB_OP_NE, '<', NB_OP_LE, '>', NB_OP_GE};
  for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
    if (nb_parse_take_op(p, ops[i])) return ops[i];
  if (nb_parse_take_name(p, "in")) return NB_OP_IN;
  if (!nb_parse_is_name(p, "not") || p->token[1].kind != NB_T_NAME || !nb_str_is(p->token[1].text, "in")) return 0;
  p->token += 2;
  return NB_OP_NOT_IN;
}

static nb_node *parse_compare(nb_parser *p) {
  nb_node *first = parse_sum(p), *node = NULL, **last = NULL;
  for (int op; first && (op = take_comparison(p)) != 0; last = &(*last)->next) {
    if (!node) {
      if (!(node = nb_node_new(p, NB_N_COMPARE))) return NULL;
      node->a = first;
      last = &node->items;
    }
    if (!(*last = nb_node_new(p, NB_N_OPERAND))) return NULL;
    (*last)->op = op;
    if (!((*last)->a = parse_sum(p))) return NULL;
  }
  return node ? node : first;
}

static nb_node *parse_not(nb_parser *p) {
  if (!nb_parse_is_name(p, "not")) return parse_compare(p);
  nb_node *node = nb_node_new(p, NB_N_NOT);
  if (!node || !nb_parse_enter(p)) return NULL;
  p->token++;
  node->a = parse_not(p);
  nb_parse_leave(p);
  return node->a ? node : NULL;
}

static nb_node *parse_and(nb_parser *p) {
  nb_node *left = parse_not(p);
  while (left && nb_parse_take_name(p, "and")) left = pair_of(p, NB_N_AND, left, parse_not(p));
  return left;
}

static nb_node *parse_or(nb_parser *p) {
  nb_node *left = parse_and(p);
  while (left && nb_parse_take_name(p, "or")) left = pair_of(p, NB_N_OR, left, parse_and(p));
  return left;
}

static nb_node *parse_choice(nb_parser *p) {
  nb_node *value = parse_or(p);
  while (value && nb_parse_take_name(p, "if")) {
    nb_node *test = parse_or(p);
    nb_node *choice = pair_of(p, NB_N_CHOICE, test, value);
    if (!choice) return NULL;
    if (nb_parse_take_name(p, "else")) {
      if (!nb_parse_enter(p)) return NULL;
      choice->c = parse_choice(p);
      nb_parse_leave(p);
      if (!choice->c) return NULL;
    }
    value = choice;
  }
  return value;
}

nb_node *nb_parse_expression(nb_parser *p, bool with_choice) {
  if (!nb_parse_enter(p)) return NULL;
  nb_node *node = with_choice ? parse_choice(p) : parse_or(p);
  nb_parse_leave(p);
  return node;
}

/* ---- what stands behind a value --------------------------------------------------------------------------------- */

/* "(a, *b, c=d, **e)" */
static bool parse_arguments(nb_parser *p, nb_node **out) {
  enum { POSITIONS, SPREAD, NAMES, SPREAD_NAMES } reached = POSITIONS;
  if (!nb_parse_need_op(p, '(')) return false;
  for (nb_node **last = out; !nb_parse_take_op(p, ')'); last = &(*last)->next) {
    if (last != out && !nb_parse_need_op(p, ',')) return false;
    if (last != out && nb_parse_take_op(p, ')')) break;
    nb_node *argument = nb_node_new(p, NB_N_ARGUMENT);
    if (!argument) return false;
    int kind = nb_parse_is_op(p, '*') ? SPREAD : nb_parse_is_op(p, NB_OP_POW) ? SPREAD_NAMES : POSITIONS;
    if (p->token->kind == NB_T_NAME && p->token[1].kind == NB_T_OPERATOR && p->token[1].op == '=') kind = NAMES;
    if (reached == SPREAD_NAMES || (reached >= SPREAD && kind <= SPREAD)) {
      nb_parse_fail(p, "arguments of a call in an order that no call has");
      return false;
    }
    reached = kind > (int)reached ? (unsigned)kind : reached;
    if (kind != POSITIONS) argument->text = p->token++->text;
    if (kind == NAMES) p->token++;
    if (!(argument->a = nb_parse_expression(p, true))) return false;
    *last = argument;
  }
  return true;
}

static nb_node *parse_subscript_part(nb_parser *p) {
  nb_node *node = nb_node_new(p, NB_N_SLICE);
  if (!node) return NULL;
  if (!nb_parse_is_op(p, ':') && !(node->a = nb_parse_expression(p, true))) return NULL;
  if (!nb_parse_take_op(p, ':')) return node->a;
  nb_node **parts[] = {&node->b, &node->c};
  for (int i = 0; i < 2; i++) {
    bool is_there = !nb_parse_is_op(p, ':') && !nb_parse_is_op(p, ']') && !nb_parse_is_op(p, ',');
    if (is_there && !(*parts[i] = nb_parse_expression(p, true))) return NULL;
    if (i == 0 && !nb_parse_take_op(p, ':')) break;
  }
  return node;
}

static nb_node *parse_subscript(nb_parser *p, nb_node *of) {
  char next[64];
  nb_node *node = nb_node_new(p, NB_N_ITEM);
  if (!node) return NULL;
  node->a = of;
  if (nb_parse_take_op(p, '.')) {
    if (p->token->kind == NB_T_NAME) {
      node->kind = NB_N_ATTRIBUTE;
      node->text = p->token++->text;
      return node;
    }
    if (p->token->kind != NB_T_INT) return nb_parse_fail(p, "a name is required, not %s", nb_parse_next(p, next));
    node->b = parse_primary(p, false);
    return node->b ? node : NULL;
  }
  p->token++; /* [ */
  if (!(node->b = parse_subscript_part(p))) return NULL;
  if (nb_parse_is_op(p, ',')) return nb_parse_fail(p, "an item is named by one value, not several");
  return nb_parse_need_op(p, ']') ? node : NULL;
}

static nb_node *parse_call(nb_parser *p, nb_node *of) {
  nb_node *node = nb_node_new(p, NB_N_CALL);
  if (!node) return NULL;
  node->a = of;
  return parse_arguments(p, &node->args) ? node : NULL;
}

static nb_node *parse_postfix(nb_parser *p, nb_node *node) {
  while (node) {
    if (nb_parse_is_op(p, '.') || nb_parse_is_op(p, '['))
      node = parse_subscript(p, node);
    else if (nb_parse_is_op(p, '('))
      node = parse_call(p, node);
    else
      break;
  }
  return node;
}

/* The name of a filter or a test, "a.b" too. */
static bool parse_dotted(nb_parser *p, nb_str *out) {
  if (!nb_parse_need_name(p, out)) return false;
  nb_str part;
  while (nb_parse_take_op(p, '.')) {
    if (!nb_parse_need_name(p, &part)) return false;
    out->length = (size_t)(part.data + part.length - out->data);
  }
  return true;
}

nb_node *nb_parse_filters(nb_parser *p, nb_node *node, bool is_named) {
  if (!node && !(node = nb_node_new(p, NB_N_HOLE))) return NULL;
  while (is_named || nb_parse_take_op(p, '|')) {
    is_named = false;
    nb_node *filter = nb_node_new(p, NB_N_FILTER);
    if (!filter || !parse_dotted(p, &filter->text)) return NULL;
    filter->a = node;
    if (nb_parse_is_op(p, '(') && !parse_arguments(p, &filter->args)) return NULL;
    node = filter;
  }
  return node;
}

/* Whether a test's argument follows without parentheses: `is divisibleby 3`. */
static bool has_bare_argument(const nb_parser *p) {
  switch (p->token->kind) {
    case NB_T_NAME: return !nb_parse_is_name(p, "else") && !nb_parse_is_name(p, "or") && !nb_parse_is_name(p, "and");
    case NB_T_STRING:
    case NB_T_INT:
    case NB_T_FLOAT: return true;
    default: return nb_parse_is_op(p, '[') || nb_parse_is_op(p, '{');
  }
}

static nb_node *parse_test(nb_parser *p, nb_node *of) {
  nb_node *node = nb_node_new(p, NB_N_TEST);
  if (!node) return NULL;
  p->token++; /* is */
  bool is_negative = nb_parse_take_name(p, "not");
  node->a = of;
  if (!parse_dotted(p, &node->text)) return NULL;
  if (nb_parse_is_op(p, '(')) {
    if (!parse_arguments(p, &node->args)) return NULL;
  } else if (has_bare_argument(p)) {
    if (nb_parse_is_name(p, "is")) return nb_parse_fail(p, "tests cannot be chained with 'is'");
    if (!(node->args = nb_node_new(p, NB_N_ARGUMENT))) return NULL;
    if (!(node->args->a = parse_postfix(p, parse_primary(p, false)))) return NULL;
  }
  if (!is_negative) return node;
  nb_node *not = nb_node_new(p, NB_N_NOT);
  if (not ) not ->a = node;
  return not ;
}

static nb_node *parse_filters_and_tests(nb_parser *p, nb_node *node) {
  while (node) {
    if (nb_parse_is_op(p, '|'))
      node = nb_parse_filters(p, node, false);
    else if (nb_parse_is_name(p, "is"))
      node = parse_test(p, node);
    else if (nb_parse_is_op(p, '('))
      node = parse_call(p, node);
    else
      break;
  }
  return node;
}

static nb_node *parse_unary(nb_parser *p, bool with_filters) {
  nb_node *node;
  if (nb_parse_is_op(p, '-') || nb_parse_is_op(p, '+')) {
    node = nb_node_new(p, nb_parse_is_op(p, '-') ? NB_N_NEGATIVE : NB_N_POSITIVE);
    if (!node || !nb_parse_enter(p)) return NULL;
    p->token++;
    node->a = parse_unary(p, false);
    nb_parse_leave(p);
    if (!node->a) return NULL;
  } else {
    node = parse_primary(p, false);
  }
  node = parse_postfix(p, node);
  return with_filters ? parse_filters_and_tests(p, node) : node;
}

/* ---- values ----------------------------------------------------------------------------------------------------- */

static nb_node *constant(nb_parser *p, nb_val value) {
  nb_node *node = nb_node_new(p, NB_N_CONSTANT);
  nb_val *copy = node ? nb_arena_take(p->arena, sizeof *copy) : NULL;
  if (!copy) return node ? nb_parse_fail(p, "too large a template") : NULL;
  *copy = value;
  node->value = copy;
  return node;
}

static nb_node *parse_number(nb_parser *p) {
  char digits[64];
  size_t n = 0;
  nb_str text = p->token->text;
  for (size_t i = 0; i < text.length; i++) {
    if (text.data[i] == '_') continue;
    if (n == sizeof digits - 1) return nb_parse_fail(p, "a number of too many digits");
    digits[n++] = text.data[i];
  }
  digits[n] = 0;
  nb_val value = {.type = NB_V_FLOAT};
  if (p->token->kind == NB_T_FLOAT) {
    value.real = strtod(digits, NULL);
  } else {
    int letter = n > 1 && digits[0] == '0' ? digits[1] | 32 : 0;
    int base = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 10;
    errno = 0;
    value.type = NB_V_INT;
    value.integer = strtoll(digits + (base == 10 ? 0 : 2), NULL, base);
    if (errno == ERANGE) return nb_parse_fail(p, "a whole number of more than 64 bits");
  }
  p->token++;
  return constant(p, value);
}

/* One or more strings in a row are one. */
static nb_node *parse_string(nb_parser *p) {
  nb_str text = p->token->text;
  for (p->token++; p->token->kind == NB_T_STRING; p->token++) {
    nb_str more = p->token->text;
    char *both = nb_arena_take(p->arena, text.length + more.length + 1);
    if (!both) return nb_parse_fail(p, "too large a template");
    memcpy(both, text.data, text.length);
    memcpy(both + text.length, more.data, more.length);
    text = (nb_str){both, text.length + more.length};
  }
  return constant(p, (nb_val){.type = NB_V_STRING, .text = text});
}

static nb_node *parse_name(nb_parser *p, bool with_members) {
  static const struct {
    const char *name;
    nb_val value;
  } constants[] = {{"true", {.type = NB_V_BOOL, .truth = true}},
                   {"True", {.type = NB_V_BOOL, .truth = true}},
                   {"false", {.type = NB_V_BOOL, .truth = false}},
                   {"False", {.type = NB_V_BOOL, .truth = false}},
                   {"none", {.type = NB_V_NONE}},
                   {"None", {.type = NB_V_NONE}}};
  static const char *const used[] = {"caller", "kwargs", "varargs"}; /* by the bits NB_USES_* */
  nb_str text = p->token->text;
  for (size_t i = 0; i < sizeof constants / sizeof *constants; i++) {
    if (!nb_str_is(text, constants[i].name)) continue;
    p->token++;
    return constant(p, constants[i].value);
  }
  for (int i = 0; i < 3; i++) p->uses |= nb_str_is(text, used[i]) << i;
  nb_node *node = nb_node_new(p, NB_N_NAME);
  if (!node) return NULL;
  node->text = text;
  p->token++;
  if (with_members && nb_parse_take_op(p, '.')) {
    node->kind = NB_N_MEMBER;
    return nb_parse_need_name(p, &node->member) ? node : NULL;
  }
  return node;
}

/* A list or a dict, from its opening bracket to behind its closing one. */
static nb_node *parse_collection(nb_parser *p) {
  bool is_dict = nb_parse_is_op(p, '{');
  int end = is_dict ? '}' : ']';
  nb_node *node = nb_node_new(p, is_dict ? NB_N_DICT : NB_N_LIST);
  if (!node) return NULL;
  p->token++;
  for (nb_node **last = &node->items; !nb_parse_take_op(p, end); last = &(*last)->next) {
    if (last != &node->items && !nb_parse_need_op(p, ',')) return NULL;
    if (nb_parse_take_op(p, end)) break;
    nb_node *item = nb_parse_expression(p, true);
    if (item && is_dict)
      item = nb_parse_need_op(p, ':') ? pair_of(p, NB_N_PAIR, item, nb_parse_expression(p, true)) : NULL;
    if (!(*last = item)) return NULL;
  }
  return node;
}

static nb_node *parse_primary(nb_parser *p, bool with_members) {
  char next[64];
  switch (p->token->kind) {
    case NB_T_NAME: return parse_name(p, with_members);
    case NB_T_STRING: return parse_string(p);
    case NB_T_INT:
    case NB_T_FLOAT: return parse_number(p);
    default: break;
  }
  if (nb_parse_is_op(p, '[') || nb_parse_is_op(p, '{')) return parse_collection(p);
  if (!nb_parse_take_op(p, '(')) return nb_parse_fail(p, "unexpected %s", nb_parse_next(p, next));
  nb_node *node = nb_parse_tuple(p, &(nb_tuple_rules){.with_choice = true, .in_parentheses = true});
  return node && nb_parse_need_op(p, ')') ? node : NULL;
}

static bool tuple_ends(const nb_parser *p, const char *end) {
  return p->token->kind == NB_T_PRINT_END || p->token->kind == NB_T_BLOCK_END || nb_parse_is_op(p, ')') ||
         (end && nb_parse_is_name(p, end));
}

static bool can_be_set(const nb_node *node) {
  if (node->kind == NB_N_NAME || node->kind == NB_N_MEMBER) return true;
  if (node->kind != NB_N_TUPLE) return false;
  for (const nb_node *item = node->items; item; item = item->next)
    if (!can_be_set(item)) return false;
  return true;
}

nb_node *nb_parse_tuple(nb_parser *p, const nb_tuple_rules *rules) {
  char next[64];
  nb_node *first = NULL, **last = &first;
  bool is_tuple = false;
  for (; !tuple_ends(p, rules->end); last = &(*last)->next) {
    *last = rules->is_target ? parse_primary(p, rules->with_members) : nb_parse_expression(p, rules->with_choice);
    if (!*last) return NULL;
    if (!nb_parse_take_op(p, ',')) break;
    is_tuple = true;
  }
  nb_node *node = first;
  if (is_tuple || (!first && rules->in_parentheses)) {
    if (!(node = nb_node_new(p, NB_N_TUPLE))) return NULL;
    node->items = first;
  }
  if (!node) return nb_parse_fail(p, "an expression is required, not %s", nb_parse_next(p, next));
  if (rules->is_target && !can_be_set(node)) return nb_parse_fail(p, "what is no name cannot be set");
  return node;
}
