/* What `is` asks. */
#include "template/render.h"
#include "template/text.h"

#include <utf8proc.h>

#include "base/utf8.h"

#define TEST(name) static const nb_val *name(nb_render *r, const nb_val *self, const nb_args *args)

static const nb_val *is_type(nb_render *r, const nb_args *args, bool is) {
  (void)r;
  (void)args;
  return nb_val_bool(is);
}

TEST(is_defined) { return is_type(r, args, self->type != NB_V_UNDEFINED); }
TEST(is_undefined) { return is_type(r, args, self->type == NB_V_UNDEFINED); }
TEST(is_none) { return is_type(r, args, self->type == NB_V_NONE); }
TEST(is_boolean) { return is_type(r, args, self->type == NB_V_BOOL); }
TEST(is_true) { return is_type(r, args, self->type == NB_V_BOOL && self->truth); }
TEST(is_false) { return is_type(r, args, self->type == NB_V_BOOL && !self->truth); }
TEST(is_integer) { return is_type(r, args, self->type == NB_V_INT); }
TEST(is_float) { return is_type(r, args, self->type == NB_V_FLOAT); }
TEST(is_number) { return is_type(r, args, nb_val_is_number(self)); }
TEST(is_string) { return is_type(r, args, self->type == NB_V_STRING); }
TEST(is_mapping) { return is_type(r, args, self->type == NB_V_DICT); }
TEST(is_escaped) { return is_type(r, args, self->type == NB_V_STRING && self->is_safe); }
TEST(is_callable) {
  return is_type(r, args,
                 self->type == NB_V_FUNCTION || self->type == NB_V_MACRO || self->type == NB_V_LOOP ||
                     self->type == NB_V_UNDEFINED);
}

/* What has a length and items by number or key; Jinja2 takes undefined for one, too. */
TEST(is_sequence) {
  switch (self->type) {
    case NB_V_UNDEFINED:
    case NB_V_STRING:
    case NB_V_LIST:
    case NB_V_TUPLE:
    case NB_V_DICT:
    case NB_V_RANGE: return is_type(r, args, true);
    default: return is_type(r, args, false);
  }
}

TEST(is_iterable) {
  bool is = self->type == NB_V_VIEW || self->type == NB_V_GENERATOR || self->type == NB_V_LOOP;
  return is ? &nb_true : is_sequence(r, self, args);
}

/* ---- numbers ---------------------------------------------------------------------------------------------------- */

static const nb_val *rest_is(nb_render *r, const nb_val *self, const nb_val *by, int64_t wanted) {
  const nb_val *rest = nb_binary(r, '%', self, by);
  const nb_val number = {.type = NB_V_INT, .integer = wanted};
  bool same;
  return rest && nb_equal(r, rest, &number, &same) ? nb_val_bool(same) : NULL;
}

TEST(is_even) {
  (void)args;
  return rest_is(r, self, &(nb_val){.type = NB_V_INT, .integer = 2}, 0);
}

TEST(is_odd) {
  (void)args;
  return rest_is(r, self, &(nb_val){.type = NB_V_INT, .integer = 2}, 1);
}

TEST(is_divisible) { return rest_is(r, self, args->items[0], 0); }

/* ---- two values ------------------------------------------------------------------------------------------------- */

static const nb_val *compared(nb_render *r, int op, const nb_val *self, const nb_args *args) {
  bool holds;
  return nb_compare(r, op, self, args->items[0], &holds) ? nb_val_bool(holds) : NULL;
}

TEST(is_equal) { return compared(r, NB_OP_EQ, self, args); }
TEST(is_unequal) { return compared(r, NB_OP_NE, self, args); }
TEST(is_less) { return compared(r, '<', self, args); }
TEST(is_more) { return compared(r, '>', self, args); }
TEST(is_at_most) { return compared(r, NB_OP_LE, self, args); }
TEST(is_at_least) { return compared(r, NB_OP_GE, self, args); }
TEST(is_in) { return compared(r, NB_OP_IN, self, args); }

/* Python's `is`: one object. What is immutable and small is one object there, too. */
TEST(is_same) {
  const nb_val *other = args->items[0];
  bool same = self == other;
  if (self->type == other->type && (self->type <= NB_V_INT || self->type == NB_V_STRING) &&
      !nb_equal(r, self, other, &same))
    return NULL;
  return nb_val_bool(same);
}

/* ---- text ------------------------------------------------------------------------------------------------------- */

/* Whether all letters with a case have this one, and there are some. */
static const nb_val *has_case(nb_render *r, const nb_val *self, utf8proc_category_t wanted,
                              utf8proc_category_t unwanted) {
  nb_str text;
  bool some = false;
  size_t n;
  if (!nb_str_of(r, self, &text) || !nb_work(r, text.length)) return NULL;
  for (size_t i = 0; i < text.length; i += n) {
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)nb_utf8_decode(text.data + i, &n));
    if (category == unwanted || category == UTF8PROC_CATEGORY_LT) return &nb_false;
    some = some || category == wanted;
  }
  return nb_val_bool(some);
}

TEST(is_lower) {
  (void)args;
  return has_case(r, self, UTF8PROC_CATEGORY_LL, UTF8PROC_CATEGORY_LU);
}

TEST(is_upper) {
  (void)args;
  return has_case(r, self, UTF8PROC_CATEGORY_LU, UTF8PROC_CATEGORY_LL);
}

TEST(is_filter) {
  (void)r;
  (void)args;
  bool is = self->type == NB_V_STRING &&
            (nb_find_builtin(nb_filters, self->text) || nb_find_builtin(nb_list_filters, self->text));
  return nb_val_bool(is);
}

TEST(is_test) {
  (void)r;
  (void)args;
  return nb_val_bool(self->type == NB_V_STRING && nb_find_builtin(nb_tests, self->text));
}

const nb_builtin nb_tests[] = {{"defined", is_defined, "", 0},
                               {"undefined", is_undefined, "", 0},
                               {"none", is_none, "", 0},
                               {"boolean", is_boolean, "", 0},
                               {"true", is_true, "", 0},
                               {"false", is_false, "", 0},
                               {"integer", is_integer, "", 0},
                               {"float", is_float, "", 0},
                               {"number", is_number, "", 0},
                               {"string", is_string, "", 0},
                               {"mapping", is_mapping, "", 0},
                               {"sequence", is_sequence, "", 0},
                               {"iterable", is_iterable, "", 0},
                               {"callable", is_callable, "", 0},
                               {"escaped", is_escaped, "", 0},
                               {"even", is_even, "", 0},
                               {"odd", is_odd, "", 0},
                               {"divisibleby", is_divisible, "num", 1},
                               {"eq", is_equal, "other", 1},
                               {"equalto", is_equal, "other", 1},
                               {"==", is_equal, "other", 1},
                               {"ne", is_unequal, "other", 1},
                               {"!=", is_unequal, "other", 1},
                               {"lt", is_less, "other", 1},
                               {"lessthan", is_less, "other", 1},
                               {"<", is_less, "other", 1},
                               {"le", is_at_most, "other", 1},
                               {"<=", is_at_most, "other", 1},
                               {"gt", is_more, "other", 1},
                               {"greaterthan", is_more, "other", 1},
                               {">", is_more, "other", 1},
                               {"ge", is_at_least, "other", 1},
                               {">=", is_at_least, "other", 1},
                               {"in", is_in, "seq", 1},
                               {"sameas", is_same, "other", 1},
                               {"lower", is_lower, "", 0},
                               {"upper", is_upper, "", 0},
                               {"filter", is_filter, "", 0},
                               {"test", is_test, "", 0},
                               {0}};
