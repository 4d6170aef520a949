/* A template as a tree. Statements and expressions are nodes of one struct; which of its fields mean what is said at
 * each kind. Lists are nodes chained by `next`. */
#ifndef NB_TEMPLATE_TREE_H
#define NB_TEMPLATE_TREE_H

#include "template/lexer.h"

typedef enum nb_node_kind {
  /* statements */
  NB_N_DATA,         /* text */
  NB_N_PRINT,        /* a: what is printed */
  NB_N_FOR,          /* a: target, b: what is gone through, c: `if`; items: body, other: else; flag: recursive */
  NB_N_IF,           /* a: test; items: body, other: else; flag: other is an elif */
  NB_N_SET,          /* a: target, b: value */
  NB_N_SET_BLOCK,    /* a: target, b: filters over an NB_N_HOLE or NULL; items: body */
  NB_N_MACRO,        /* text: name, args: NB_N_NAME each, whose default is its a; items: body */
  NB_N_CALL_BLOCK,   /* a: the call; args, items: as a macro's, which is handed to it as caller */
  NB_N_FILTER_BLOCK, /* b: filters over an NB_N_HOLE; items: body */
  NB_N_WITH,         /* args: NB_N_SET each; items: body */
  NB_N_SCOPE,        /* items: body, whose names are its own */
  NB_N_BREAK,
  NB_N_CONTINUE,
  /* expressions */
  NB_N_CONSTANT,  /* value */
  NB_N_NAME,      /* text */
  NB_N_MEMBER,    /* text.attribute, to be set */
  NB_N_LIST,      /* items */
  NB_N_TUPLE,     /* items */
  NB_N_DICT,      /* items: NB_N_PAIR each */
  NB_N_PAIR,      /* a: key, b: value */
  NB_N_ATTRIBUTE, /* a.text */
  NB_N_ITEM,      /* a[b] */
  NB_N_SLICE,     /* a:b:c, each may be NULL; only as the b of NB_N_ITEM */
  NB_N_CALL,      /* a(args): NB_N_ARGUMENT each */
  NB_N_ARGUMENT,  /* a: value; text: its name, or "*" or "**" where it is spread, or nothing */
  NB_N_FILTER,    /* a | text(args) */
  NB_N_TEST,      /* a is text(args) */
  NB_N_NOT,       /* a */
  NB_N_NEGATIVE,  /* a */
  NB_N_POSITIVE,  /* a */
  NB_N_AND,       /* a, b */
  NB_N_OR,        /* a, b */
  NB_N_BINARY,    /* a, b; op */
  NB_N_CONCAT,    /* items */
  NB_N_COMPARE,   /* a; items: NB_N_OPERAND each */
  NB_N_OPERAND,   /* a; op */
  NB_N_CHOICE,    /* b if a else c, which may be NULL */
  NB_N_HOLE,      /* the text of a block that filters are applied to */
} nb_node_kind;

/* What a macro's body reads beside its arguments. */
enum { NB_USES_CALLER = 1, NB_USES_KWARGS = 2, NB_USES_VARARGS = 4 };

typedef struct nb_node {
  nb_node_kind kind;
  unsigned line;
  int op; /* nb_token.op */
  bool flag;
  int uses; /* of a macro */
  nb_str text;
  nb_str member; /* of NB_N_MEMBER */
  struct nb_node *a, *b, *c, *args, *items, *other, *next;
  const struct nb_val *value;
} nb_node;

/* Parses text[0, n) into nodes of the arena: the statements, chained. */
nibble_status nb_parse_template(const char *where, nb_str text, nb_arena *arena, nb_node **out, nibble_error *err);

#endif
