/* A template's text as tokens: what lies between tags, cut as Jinja2 cuts it (trim_blocks, lstrip_blocks, the signs
 * - and + of tags), and what lies in them. Comments are left out, raw blocks are data. */
#ifndef NB_TEMPLATE_LEXER_H
#define NB_TEMPLATE_LEXER_H

#include "base/status.h"
#include "base/str.h"
#include "template/arena.h"

typedef enum nb_token_kind {
  NB_T_EOF,
  NB_T_DATA,
  NB_T_PRINT_BEGIN, /* {{ */
  NB_T_PRINT_END,
  NB_T_BLOCK_BEGIN, /* {% */
  NB_T_BLOCK_END,
  NB_T_NAME,
  NB_T_STRING,
  NB_T_INT,
  NB_T_FLOAT,
  NB_T_OPERATOR,
} nb_token_kind;

/* An operator is its one or two characters. */
enum { NB_OP_POW = '*' | '*' << 8, NB_OP_FLOOR = '/' | '/' << 8, NB_OP_EQ = '=' | '=' << 8, NB_OP_NE = '!' | '=' << 8 };
enum { NB_OP_LE = '<' | '=' << 8, NB_OP_GE = '>' | '=' << 8, NB_OP_IN = 'i' | 'n' << 8, NB_OP_NOT_IN = 'n' | 'i' << 8 };

typedef struct nb_token {
  nb_token_kind kind;
  unsigned line; /* from 1 */
  int op;
  nb_str text; /* of data and a string what it stands for; else as written */
} nb_token;

typedef struct nb_tokens {
  nb_token *items; /* the last is NB_T_EOF */
  size_t count;
} nb_tokens;

/* text[0, n) must be valid UTF-8. Tokens and their text lie in the arena or in `text`. NIBBLE_BAD_INPUT "where: line N:
 * ..." otherwise. */
nibble_status nb_lex(const char *where, nb_str text, nb_arena *arena, nb_tokens *out, nibble_error *err);

#endif
