/* Arithmetic, comparisons and slices. A whole number that 64 bits do not hold is a failure, not another number. */
#include <math.h>
#include <string.h>

#include "template/render.h"
#include "template/text.h"

static const nb_val *overflow(nb_render *r) { return nb_render_fail(r, "a whole number of more than 64 bits"); }

static const char *op_name(int op) {
  switch (op) {
    case '+': return "+";
    case '-': return "-";
    case '*': return "*";
    case '/': return "/";
    case '%': return "%";
    case NB_OP_FLOOR: return "//";
    case NB_OP_POW: return "** or pow()";
    case '<': return "<";
    case '>': return ">";
    case NB_OP_LE: return "<=";
    default: return ">=";
  }
}

static const nb_val *unsupported(nb_render *r, int op, const nb_val *a, const nb_val *b) {
  const nb_val *undefined = a->type == NB_V_UNDEFINED ? a : b;
  if (undefined->type == NB_V_UNDEFINED)
    return nb_render_fail(r, "%.*s", (int)undefined->text.length, undefined->text.data);
  return nb_render_fail(r, "unsupported operand type(s) for %s: '%s' and '%s'", op_name(op), nb_val_type_name(a),
                        nb_val_type_name(b));
}

/* ---- numbers ---------------------------------------------------------------------------------------------------- */

static const nb_val *int_power(nb_render *r, int64_t base, int64_t power) {
  if (power < 0) {
    if (base == 0) return nb_render_fail(r, "0 cannot be raised to a negative power");
    return nb_new_float(r, pow((double)base, (double)power));
  }
  int64_t result = 1;
  for (; power > 0; power >>= 1) {
    if ((power & 1) && __builtin_mul_overflow(result, base, &result)) return overflow(r);
    if (power > 1 && __builtin_mul_overflow(base, base, &base)) return overflow(r);
  }
  return nb_new_int(r, result);
}

/* Quotient and remainder as Python has them: the remainder has the divisor's sign. */
static const nb_val *int_divide(nb_render *r, int64_t a, int64_t b, bool want_quotient) {
  if (b == 0) return nb_render_fail(r, "integer division or modulo by zero");
  if (b == -1) return want_quotient && a == INT64_MIN ? overflow(r) : nb_new_int(r, want_quotient ? -a : 0);
  int64_t quotient = a / b, rest = a % b;
  if (rest != 0 && (rest < 0) != (b < 0)) {
    quotient--;
    rest += b;
  }
  return nb_new_int(r, want_quotient ? quotient : rest);
}

static const nb_val *int_binary(nb_render *r, int op, int64_t a, int64_t b) {
  int64_t result;
  switch (op) {
    case '+': return __builtin_add_overflow(a, b, &result) ? overflow(r) : nb_new_int(r, result);
    case '-': return __builtin_sub_overflow(a, b, &result) ? overflow(r) : nb_new_int(r, result);
    case '*': return __builtin_mul_overflow(a, b, &result) ? overflow(r) : nb_new_int(r, result);
    case '/': return b == 0 ? nb_render_fail(r, "division by zero") : nb_new_float(r, (double)a / (double)b);
    case NB_OP_FLOOR: return int_divide(r, a, b, true);
    case '%': return int_divide(r, a, b, false);
    default: return int_power(r, a, b);
  }
}

static const nb_val *float_binary(nb_render *r, int op, double a, double b) {
  if (b == 0 && (op == '/' || op == NB_OP_FLOOR || op == '%')) return nb_render_fail(r, "float division by zero");
  double rest;
  switch (op) {
    case '+': return nb_new_float(r, a + b);
    case '-': return nb_new_float(r, a - b);
    case '*': return nb_new_float(r, a * b);
    case '/': return nb_new_float(r, a / b);
    case NB_OP_POW:
      if (a < 0 && b != floor(b)) return nb_render_fail(r, "the power of a negative number is no real number");
      return nb_new_float(r, pow(a, b));
    default: break;
  }
  rest = fmod(a, b);
  if (rest != 0 && (rest < 0) != (b < 0)) rest += b;
  if (op == '%') return nb_new_float(r, rest == 0 ? copysign(0, b) : rest);
  double quotient = (a - rest) / b, floored = floor(quotient);
  if (quotient == 0) return nb_new_float(r, copysign(0, a / b));
  return nb_new_float(r, quotient - floored > 0.5 ? floored + 1 : floored);
}

const nb_val *nb_negative(nb_render *r, const nb_val *a) {
  if (a->type == NB_V_FLOAT) return nb_new_float(r, -a->real);
  if (nb_val_is_int(a)) return nb_val_int(a) == INT64_MIN ? overflow(r) : nb_new_int(r, -nb_val_int(a));
  if (a->type == NB_V_UNDEFINED) return unsupported(r, '-', a, a);
  return nb_render_fail(r, "bad operand type for unary -: '%s'", nb_val_type_name(a));
}

/* ---- sequences -------------------------------------------------------------------------------------------------- */

/* What goes into Markup is escaped, unless it is Markup too. */
static bool as_safe(nb_render *r, const nb_val *v, nb_str *out) {
  if (v->type == NB_V_STRING && v->is_safe) {
    *out = v->text;
    return true;
  }
  const nb_val *safe = nb_call_filter(r, (nb_str){"escape", 6}, v, &(nb_args){0});
  if (safe) *out = safe->text;
  return safe != NULL;
}

static const nb_val *join_texts(nb_render *r, const nb_val *a, const nb_val *b) {
  nb_str first = a->text, second = b->text;
  bool is_safe = a->is_safe || b->is_safe;
  if (is_safe && (!as_safe(r, a, &first) || !as_safe(r, b, &second))) return NULL;
  char *both = nb_arena_take(&r->arena, first.length + second.length + 1);
  if (!both) return nb_render_no_memory(r);
  if (!nb_work_bytes(r, first.length + second.length)) return NULL;
  memcpy(both, first.data, first.length);
  memcpy(both + first.length, second.data, second.length);
  nb_val text = {.type = NB_V_STRING, .is_safe = is_safe, .text = {both, first.length + second.length}};
  return nb_new(r, text);
}

static const nb_val *join_lists(nb_render *r, const nb_val *a, const nb_val *b) {
  nb_list list;
  if (!nb_list_new(r, a->list.count + b->list.count, &list)) return NULL;
  if (a->list.count) memcpy(list.items, a->list.items, a->list.count * sizeof *list.items);
  if (b->list.count) memcpy(list.items + a->list.count, b->list.items, b->list.count * sizeof *list.items);
  return nb_new_list(r, a->type, list);
}

static const nb_val *repeat(nb_render *r, const nb_val *v, int64_t times) {
  size_t n = v->type == NB_V_STRING ? v->text.length : v->list.count, total;
  if (times < 0) times = 0;
  if (__builtin_mul_overflow(n, (size_t)times, &total) || total > NB_RENDER_MEMORY)
    return nb_render_fail(r, "takes more than %d MiB of memory", NB_RENDER_MEMORY >> 20);
  if (v->type != NB_V_STRING) {
    nb_list list;
    if (!nb_list_new(r, total, &list)) return NULL;
    for (size_t i = 0; i < total; i++) list.items[i] = v->list.items[i % n];
    return nb_new_list(r, v->type, list);
  }
  char *text = nb_arena_take(&r->arena, total + 1);
  if (!text) return nb_render_no_memory(r);
  if (!nb_work_bytes(r, total)) return NULL;
  for (size_t at = 0; at < total; at += n) memcpy(text + at, v->text.data, n);
  return nb_new(r, (nb_val){.type = NB_V_STRING, .is_safe = v->is_safe, .text = {text, total}});
}

static bool is_sequence(const nb_val *v) {
  return v->type == NB_V_STRING || v->type == NB_V_LIST || v->type == NB_V_TUPLE;
}

const nb_val *nb_binary(nb_render *r, int op, const nb_val *a, const nb_val *b) {
  if (nb_val_is_int(a) && nb_val_is_int(b)) return int_binary(r, op, nb_val_int(a), nb_val_int(b));
  if (nb_val_is_number(a) && nb_val_is_number(b)) return float_binary(r, op, nb_val_real(a), nb_val_real(b));
  if (op == '+' && a->type == NB_V_STRING && b->type == NB_V_STRING) return join_texts(r, a, b);
  if (op == '+' && a->type == b->type && is_sequence(a)) return join_lists(r, a, b);
  if (op == '%' && a->type == NB_V_STRING) return nb_format_percent(r, a, b);
  if (op == '*' && is_sequence(a) && nb_val_is_int(b)) return repeat(r, a, nb_val_int(b));
  if (op == '*' && is_sequence(b) && nb_val_is_int(a)) return repeat(r, b, nb_val_int(a));
  if (op == '+' && is_sequence(a) && b->type != NB_V_UNDEFINED) {
    const char *type = nb_val_type_name(a);
    return nb_render_fail(r, "can only concatenate %s (not \"%s\") to %s", type, nb_val_type_name(b), type);
  }
  return unsupported(r, op, a, b);
}

bool nb_compare(nb_render *r, int op, const nb_val *a, const nb_val *b, bool *out) {
  bool less, same;
  switch (op) {
    case NB_OP_EQ: return nb_equal(r, a, b, out);
    case NB_OP_NE:
      if (!nb_equal(r, a, b, &same)) return false;
      *out = !same;
      return true;
    case NB_OP_IN: return nb_contains(r, b, a, out);
    case NB_OP_NOT_IN:
      if (!nb_contains(r, b, a, &same)) return false;
      *out = !same;
      return true;
    case '<': return nb_less(r, a, b, "<", out);
    case '>': return nb_less(r, b, a, ">", out);
    default: break;
  }
  const nb_val *low = op == NB_OP_LE ? a : b, *high = op == NB_OP_LE ? b : a;
  if (!nb_less(r, low, high, op_name(op), &less) || !nb_equal(r, a, b, &same)) return false;
  *out = less || same;
  return true;
}

/* ---- slices ----------------------------------------------------------------------------------------------------- */

static bool bound(nb_render *r, const nb_val *v, int64_t *out, bool *is_given) {
  *is_given = v && v->type != NB_V_NONE;
  if (!*is_given) return true;
  if (!nb_val_is_int(v)) {
    nb_render_fail(r, "slice indices must be integers or None");
    return false;
  }
  *out = nb_val_int(v);
  return true;
}

/* A bound counted from the end made one from the start, kept in [least, most]. */
static int64_t inside(int64_t at, int64_t length, int64_t least, int64_t most) {
  if (at < 0) at = at < -length ? least : at + length;
  return at < least ? least : at > most ? most : at;
}

typedef struct stretch {
  int64_t start, step, count;
} stretch;

static bool stretch_of(nb_render *r, const nb_val *bounds[3], int64_t length, stretch *out) {
  int64_t start = 0, stop = 0, step = 1;
  bool has_start, has_stop, has_step;
  if (!bound(r, bounds[0], &start, &has_start) || !bound(r, bounds[1], &stop, &has_stop) ||
      !bound(r, bounds[2], &step, &has_step))
    return false;
  if (step == 0) {
    nb_render_fail(r, "slice step cannot be zero");
    return false;
  }
  if (step > length) step = length + 1; /* no farther: all beyond are the same, and nothing overflows */
  if (step < -length) step = -length - 1;
  int64_t least = step < 0 ? -1 : 0, most = step < 0 ? length - 1 : length;
  start = has_start ? inside(start, length, least, most) : step < 0 ? most : least;
  stop = has_stop ? inside(stop, length, least, most) : step < 0 ? least : most;
  int64_t ahead = step < 0 ? start - stop : stop - start, pace = step < 0 ? -step : step;
  *out = (stretch){start, step, ahead > 0 ? (ahead - 1) / pace + 1 : 0};
  return true;
}

static const nb_val *slice_text(nb_render *r, const nb_val *of, const nb_val *bounds[3]) {
  stretch s;
  if (!nb_work_bytes(r, 3 * of->text.length)) return NULL;
  if (!stretch_of(r, bounds, (int64_t)nb_text_characters(of->text), &s)) return NULL;
  nb_val text = {.type = NB_V_STRING, .is_safe = of->is_safe};
  if (s.step == 1) {
    size_t from = nb_text_offset(of->text, (size_t)s.start);
    nb_str rest = nb_text_cut(of->text, from, 0);
    text.text = (nb_str){rest.data, nb_text_offset(rest, (size_t)s.count)};
    return nb_new(r, text);
  }
  nb_list characters;
  if (!nb_items(r, of, &characters)) return NULL;
  char *to = nb_arena_take(&r->arena, of->text.length + 1);
  if (!to) return nb_render_no_memory(r);
  text.text.data = to;
  for (int64_t i = 0; i < s.count; i++) {
    nb_str c = characters.items[s.start + i * s.step]->text;
    memcpy(to + text.text.length, c.data, c.length);
    text.text.length += c.length;
  }
  return nb_new(r, text);
}

const nb_val *nb_slice(nb_render *r, const nb_val *of, const nb_val *bounds[3]) {
  if (of->type == NB_V_STRING) return slice_text(r, of, bounds);
  if (of->type != NB_V_LIST && of->type != NB_V_TUPLE && of->type != NB_V_RANGE) {
    if (of->type == NB_V_UNDEFINED) return nb_render_fail(r, "%.*s", (int)of->text.length, of->text.data);
    return nb_new_undefined(r, "'%s' object has no such slice", nb_val_type_name(of));
  }
  stretch s;
  nb_list all, list;
  int64_t length = nb_length(r, of);
  if (!stretch_of(r, bounds, length, &s)) return NULL;
  if (of->type == NB_V_RANGE) {
    nb_val part = {.type = NB_V_RANGE, .range = {.step = of->range.step, .count = s.count}};
    if (s.count > 1 && __builtin_mul_overflow(s.step, of->range.step, &part.range.step)) return overflow(r);
    const nb_val *first = nb_range_at(r, of, (size_t)s.start),
                 *end = nb_range_at(r, of, (size_t)(s.start + s.step * s.count));
    if (!first || !end) return NULL;
    part.range.start = first->integer;
    part.range.stop = end->integer;
    return nb_new(r, part);
  }
  if (!nb_items(r, of, &all) || !nb_list_new(r, (size_t)s.count, &list)) return NULL;
  for (int64_t i = 0; i < s.count; i++) list.items[i] = all.items[s.start + i * s.step];
  return nb_new_list(r, of->type, list);
}
