/* Values of a template, which behave as Python's. All lie in the arena of a rendering (or of the tree) and never
 * change, but for a namespace and the place that a generator has come to. */
#ifndef NB_TEMPLATE_VALUE_H
#define NB_TEMPLATE_VALUE_H

#include <stdint.h>

#include "base/status.h"
#include "base/str.h"

typedef enum nb_val_type {
  NB_V_UNDEFINED, /* text: why, for whoever uses it */
  NB_V_NONE,
  NB_V_BOOL,
  NB_V_INT,
  NB_V_FLOAT,
  NB_V_STRING,
  NB_V_LIST,
  NB_V_TUPLE,
  NB_V_DICT,
  NB_V_VIEW,      /* what keys(), values() and items() of a dict are: list, name */
  NB_V_GENERATOR, /* what map and its kind give: list, of which each item comes once */
  NB_V_RANGE,
  NB_V_NAMESPACE, /* dict */
  NB_V_LOOP,
  NB_V_MACRO,
  NB_V_FUNCTION, /* a row of functions.c, or a method with its object */
} nb_val_type;

typedef struct nb_val nb_val;

typedef struct nb_list {
  const nb_val **items;
  size_t count;
} nb_list;

typedef struct nb_pair {
  const nb_val *key, *value;
} nb_pair;

typedef struct nb_dict {
  nb_pair *pairs; /* in the order in which the keys came */
  size_t count, capacity;
} nb_dict;

struct nb_val {
  nb_val_type type;
  bool is_safe; /* a string that `safe` or `escape` made: Markup */
  union {
    bool truth;
    int64_t integer;
    double real;
    nb_str text;
    struct {
      nb_list list;
      union {
        const char *name; /* of a view */
        size_t *at;       /* of a generator */
      };
    };
    nb_dict *dict;
    struct {
      int64_t start, stop, step, count;
    } range;
    struct nb_loop *loop;
    struct {
      const struct nb_node *node; /* NB_N_MACRO or NB_N_CALL_BLOCK */
      struct nb_scope *scope;     /* that it was made in */
    } macro;
    struct {
      const struct nb_builtin *row;
      const nb_val *self; /* NULL: of nothing */
    } function;
  };
};

extern const nb_val nb_none, nb_true, nb_false;

/* The name of its type, as Python's messages have it: "str", "NoneType". */
const char *nb_val_type_name(const nb_val *v);

bool nb_val_is_true(const nb_val *v);

static inline bool nb_val_is(const nb_val *v, nb_val_type type) { return v->type == type; }
static inline bool nb_val_is_int(const nb_val *v) { return v->type == NB_V_INT || v->type == NB_V_BOOL; }
static inline bool nb_val_is_number(const nb_val *v) { return nb_val_is_int(v) || v->type == NB_V_FLOAT; }
static inline int64_t nb_val_int(const nb_val *v) { return v->type == NB_V_BOOL ? v->truth : v->integer; }
static inline double nb_val_real(const nb_val *v) { return v->type == NB_V_FLOAT ? v->real : (double)nb_val_int(v); }
static inline const nb_val *nb_val_bool(bool truth) { return truth ? &nb_true : &nb_false; }

#endif
