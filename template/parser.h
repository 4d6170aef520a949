/* What the two halves of the parser share: statements in parser.c, expressions in parse_expressions.c. A function that
 * makes a node returns NULL after a failure, which is then in the parser. */
#ifndef NB_TEMPLATE_PARSER_H
#define NB_TEMPLATE_PARSER_H

#include "template/tree.h"
#include "template/value.h"

enum { NB_MAX_NESTING = 200 }; /* of statements and expressions in each other */

typedef struct nb_parser {
  const char *where;
  nb_arena *arena;
  const nb_token *token; /* the next one */
  int depth;
  int uses; /* what was read of NB_USES_* since the innermost macro began */
  nibble_status status;
  nibble_error *err;
} nb_parser;

/* Fails with the line of the next token; returns NULL. */
nb_node *nb_parse_fail(nb_parser *p, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* "'x'", "end of the template": what the next token is, for messages. */
const char *nb_parse_next(const nb_parser *p, char buffer[64]);

nb_node *nb_node_new(nb_parser *p, nb_node_kind kind);

bool nb_parse_is_op(const nb_parser *p, int op);
bool nb_parse_is_name(const nb_parser *p, const char *name);

/* True, and behind it, if the next token is this. */
bool nb_parse_take_op(nb_parser *p, int op);
bool nb_parse_take_name(nb_parser *p, const char *name);

/* The same, with a failure if it is not. */
bool nb_parse_need_op(nb_parser *p, int op);
bool nb_parse_need_name(nb_parser *p, nb_str *out); /* any name */

/* False, and a failure, where nesting is too deep. Every true one needs nb_parse_leave. */
bool nb_parse_enter(nb_parser *p);
void nb_parse_leave(nb_parser *p);

nb_node *nb_parse_expression(nb_parser *p, bool with_choice);

/* One expression or, with commas, a tuple. It ends before `end`, a name (NULL: none), and at the end of a tag. */
typedef struct nb_tuple_rules {
  bool with_choice, in_parentheses, is_target, with_members;
  const char *end;
} nb_tuple_rules;
nb_node *nb_parse_tuple(nb_parser *p, const nb_tuple_rules *rules);

/* Filters on `node` (NULL for an NB_N_HOLE), the first without its bar if `is_named`. */
nb_node *nb_parse_filters(nb_parser *p, nb_node *node, bool is_named);

#endif
