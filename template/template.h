/* Chat templates: the Jinja that transformers renders a conversation with, byte for byte.
 *
 *   nb_template *t;
 *   nb_template_parse("folder/chat_template.jinja", text, n, &t, err);
 *   nb_template_render(t, variables, NULL, &out, err);       variables: {"messages": [...], "bos_token": "<s>", ...}
 *   nb_template_free(t);
 *
 *   text ──► tokens ──► tree ──────────────────► text
 *            (lexer.h)  (tree.h, parser.c,       (render.h: statements.c, expressions.c; values in value.h; what a
 *                        parse_expressions.c)     template can call in filters*.c, tests.c, methods*.c, functions.c)
 *
 * The language is Jinja2 3.1's as transformers sets it up: trim_blocks and lstrip_blocks, loop controls, the generation
 * tag, its own tojson, raise_exception, strftime_now, namespace and dict; a sandbox in which nothing that a template
 * gets can be changed. Values behave as Python's do, and print as Python prints them.
 *
 * A template is foreign code. It reaches nothing but its variables; work, memory, output and nesting are bounded, and
 * what goes over a bound is NIBBLE_BAD_INPUT, as is a template that raises an exception. What Jinja2 knows and this
 * does not (loading of other templates, a few filters) is refused by name. */
#ifndef NB_TEMPLATE_TEMPLATE_H
#define NB_TEMPLATE_TEMPLATE_H

#include <cjson/cJSON.h>
#include <time.h>

#include "base/buf.h"
#include "base/status.h"

enum {
  NB_TEMPLATE_MAX = 1 << 20,         /* bytes of a template; real ones have up to 30000 */
  NB_TEMPLATE_OUTPUT_MAX = 64 << 20, /* bytes that one rendering may write */
};

typedef struct nb_template nb_template;

/* Parses text[0, n), UTF-8; `where` names it in messages and is copied. NIBBLE_BAD_INPUT with the line if it is no
 * template. Free with nb_template_free. */
nibble_status nb_template_parse(const char *where, const char *text, size_t n, nb_template **out, nibble_error *err);
void nb_template_free(nb_template *t);

/* Appends what the template makes of `variables`, an object whose members it sees by name; null is None. `now`: what
 * strftime_now tells (NULL: the local time). *out is as it was after a failure. */
nibble_status nb_template_render(const nb_template *t, const cJSON *variables, const struct tm *now, nb_buf *out,
                                 nibble_error *err);

#endif
