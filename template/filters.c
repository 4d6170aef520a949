/* Filters of one value: text, numbers, JSON. Those of many are in filters_list.c. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "template/case.h"
#include "template/render.h"
#include "template/text.h"

#define FILTER(name) static const nb_val *name(nb_render *r, const nb_val *self, const nb_args *args)

/* ---- text ------------------------------------------------------------------------------------------------------- */

/* The value as a string: itself if it is one, so that Markup stays. */
static const nb_val *as_text(nb_render *r, const nb_val *self) {
  nb_str text;
  if (self->type == NB_V_STRING) return self;
  return nb_str_of(r, self, &text) ? nb_new_text(r, text) : NULL;
}

/* The string method of that name, on the value as a string. */
static const nb_val *method(nb_render *r, const char *name, const nb_val *self, const nb_args *args) {
  const nb_val *text = as_text(r, self);
  const nb_builtin *row = nb_find_builtin(nb_string_methods, (nb_str){name, strlen(name)});
  return text ? nb_call_builtin(r, row, text, args) : NULL;
}

FILTER(upper) { return method(r, "upper", self, args->count ? args : &(nb_args){0}); }
FILTER(lower) { return method(r, "lower", self, args->count ? args : &(nb_args){0}); }
FILTER(capitalize) { return method(r, "capitalize", self, args->count ? args : &(nb_args){0}); }

FILTER(string) {
  (void)args;
  return as_text(r, self);
}

FILTER(trim) {
  const nb_val *chars = nb_arg(args, 0, &nb_none);
  return method(r, "strip", self, &(nb_args){.items = &chars, .count = 1});
}

FILTER(center) {
  const nb_val width = {.type = NB_V_INT, .integer = 80}, *items[1] = {nb_arg(args, 0, &width)};
  return method(r, "center", self, &(nb_args){.items = items, .count = 1});
}

/* Jinja2's own: words begin behind white space, - and opening brackets. */
FILTER(title) {
  nb_str text;
  nb_buf buf = {0};
  (void)args;
  if (!nb_str_of(r, self, &text) || !nb_work(r, 4 * text.length)) return NULL;
  bool begins = true;
  for (size_t start = 0, at = 0, n; at <= text.length; at += n) {
    n = 1;
    uint32_t code = at < text.length ? nb_utf8_decode(text.data + at, &n) : ' ';
    bool separates = nb_text_is_space(code) || (code < 0x80 && strchr("-({[<", (int)code) && code != 0);
    if (begins && !separates) {
      nb_put_case(&buf, (nb_str){text.data + at, n}, NB_CASE_UPPER);
      start = at + n;
      begins = false;
    } else if (separates) {
      if (!begins) nb_put_case(&buf, (nb_str){text.data + start, at - start}, NB_CASE_LOWER);
      if (at < text.length) nb_buf_append(&buf, text.data + at, n);
      begins = true;
    }
  }
  return nb_new_taken(r, &buf);
}

FILTER(replace) {
  const nb_val *items[3] = {as_text(r, args->items[0]), as_text(r, args->items[1]), nb_arg(args, 2, &nb_none)};
  if (!items[0] || !items[1]) return NULL;
  return method(r, "replace", self, &(nb_args){.items = items, .count = items[2]->type == NB_V_NONE ? 2 : 3});
}

static const nb_val *safe_text(nb_render *r, nb_str text) {
  return nb_new(r, (nb_val){.type = NB_V_STRING, .is_safe = true, .text = text});
}

FILTER(safe) {
  nb_str text;
  (void)args;
  return nb_str_of(r, self, &text) ? safe_text(r, text) : NULL;
}

FILTER(forceescape) {
  static const struct {
    char from;
    const char *to;
  } escapes[] = {{'&', "&amp;"}, {'<', "&lt;"}, {'>', "&gt;"}, {'"', "&#34;"}, {'\'', "&#39;"}};
  nb_str text;
  nb_buf buf = {0};
  (void)args;
  if (!nb_str_of(r, self, &text) || !nb_work(r, 3 * text.length)) return NULL;
  for (size_t i = 0; i < text.length; i++) {
    size_t k = 0;
    while (k < 5 && escapes[k].from != text.data[i]) k++;
    if (k < 5)
      nb_buf_puts(&buf, escapes[k].to);
    else
      nb_buf_append(&buf, text.data + i, 1);
  }
  const nb_val *escaped = nb_new_taken(r, &buf);
  return escaped ? safe_text(r, escaped->text) : NULL;
}

FILTER(escape) { return self->type == NB_V_STRING && self->is_safe ? self : forceescape(r, self, args); }

/* Every line but the first, and those that are empty, begins with `width` spaces or the text that it is. */
FILTER(indent) {
  const nb_val *width = nb_arg(args, 0, NULL);
  bool first = nb_val_is_true(nb_arg(args, 1, &nb_false)), blank = nb_val_is_true(nb_arg(args, 2, &nb_false));
  const nb_val four = {.type = NB_V_INT, .integer = 4}, space = {.type = NB_V_STRING, .text = {" ", 1}};
  if (self->type != NB_V_STRING) return nb_render_fail(r, "indent takes str, not %s", nb_val_type_name(self));
  if (!width || width->type != NB_V_STRING) width = nb_binary(r, '*', &space, width ? width : &four);
  const nb_builtin *lines_of = nb_find_builtin(nb_string_methods, (nb_str){"splitlines", 10});
  const nb_val *all = width ? nb_binary(r, '+', self, &(nb_val){.type = NB_V_STRING, .text = {"\n", 1}}) : NULL;
  const nb_val *lines = all ? nb_call_builtin(r, lines_of, all, &(nb_args){0}) : NULL;
  nb_buf buf = {0};
  bool ok = lines != NULL;
  for (size_t i = 0; ok && i < lines->list.count; i++) {
    nb_str line = lines->list.items[i]->text;
    if (i > 0) nb_buf_puts(&buf, "\n");
    if (i > 0 ? blank || line.length > 0 : first) nb_buf_append(&buf, width->text.data, width->text.length);
    ok = nb_put_str(r, &buf, lines->list.items[i]) && nb_work_bytes(r, width->text.length);
  }
  const nb_val *text = nb_new_taken(r, &buf);
  return ok ? text : NULL;
}

FILTER(truncate) {
  int64_t length = 255, leeway = 5;
  nb_str end = {"...", 3};
  bool kills = nb_val_is_true(nb_arg(args, 1, &nb_false));
  if (!nb_arg_int(r, args, 0, &length) || !nb_arg_text(r, args, 2, &end)) return NULL;
  if (nb_arg(args, 3, &nb_none)->type != NB_V_NONE && !nb_arg_int(r, args, 3, &leeway)) return NULL;
  int64_t has = nb_length(r, self), ends = (int64_t)nb_text_characters(end);
  if (has < 0) return NULL;
  if (self->type != NB_V_STRING || length < ends || leeway < 0)
    return nb_render_fail(r, "truncate takes str, a length of at least %lld and a leeway of at least 0",
                          (long long)ends);
  if (has - leeway <= length) return self;
  nb_str kept = {self->text.data, nb_text_offset(self->text, (size_t)(length - ends))};
  size_t space = kills ? SIZE_MAX : nb_text_rfind(kept, (nb_str){" ", 1});
  if (space != SIZE_MAX) kept.length = space;
  const nb_val *text = nb_new_text(r, kept), *tail = nb_new_text(r, end);
  return text && tail ? nb_binary(r, '+', text, tail) : NULL;
}

FILTER(wordcount) {
  nb_str text;
  int64_t words = 0;
  size_t n;
  (void)args;
  if (!nb_str_of(r, self, &text) || !nb_work(r, 64 * text.length)) return NULL;
  const nb_builtin *test = nb_find_builtin(nb_string_methods, (nb_str){"isalnum", 7});
  bool in_word = false;
  for (size_t i = 0; i < text.length; i += n) {
    uint32_t code = nb_utf8_decode(text.data + i, &n);
    const nb_val one = {.type = NB_V_STRING, .text = {text.data + i, n}};
    const nb_val *is = code == '_' ? &nb_true : nb_call_builtin(r, test, &one, &(nb_args){0});
    if (!is) return NULL;
    words += is->truth && !in_word;
    in_word = is->truth;
  }
  return nb_new_int(r, words);
}

static void put_quoted(nb_buf *buf, nb_str text, bool for_query) {
  for (size_t i = 0; i < text.length; i++) {
    char c = text.data[i];
    bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                 (c != 0 && strchr(for_query ? "_.-~" : "_.-~/", c));
    if (plain || (for_query && c == ' '))
      nb_buf_append(buf, plain ? &c : "+", 1);
    else
      nb_buf_printf(buf, "%%%02X", (unsigned char)c);
  }
}

FILTER(urlencode) {
  nb_buf buf = {0};
  nb_str text;
  nb_list items;
  (void)args;
  if (self->type == NB_V_STRING || nb_val_is_number(self) || self->type == NB_V_NONE) {
    if (!nb_str_of(r, self, &text) || !nb_work(r, text.length)) return NULL;
    put_quoted(&buf, text, false);
    return nb_new_taken(r, &buf);
  }
  const nb_val *pairs = self->type == NB_V_DICT ? nb_call_filter(r, (nb_str){"items", 5}, self, &(nb_args){0}) : self;
  bool ok = pairs && nb_items(r, pairs, &items);
  for (size_t i = 0; ok && i < items.count; i++) {
    nb_list pair;
    nb_str value;
    ok = nb_items(r, items.items[i], &pair);
    if (ok && pair.count != 2) ok = nb_render_fail(r, "urlencode takes pairs") != NULL;
    ok = ok && nb_str_of(r, pair.items[0], &text) && nb_str_of(r, pair.items[1], &value) &&
         nb_work(r, text.length + value.length);
    if (!ok) break;
    if (i > 0) nb_buf_puts(&buf, "&");
    put_quoted(&buf, text, true);
    nb_buf_puts(&buf, "=");
    put_quoted(&buf, value, true);
  }
  const nb_val *joined = nb_new_taken(r, &buf);
  return ok ? joined : NULL;
}

/* "%s"|format(x) */
FILTER(format) {
  const nb_val *text = as_text(r, self);
  if (!text) return NULL;
  if (args->count && args->named) return nb_render_fail(r, "format takes arguments by place or by name, not both");
  if (!args->named) {
    const nb_val *tuple = nb_new_list(r, NB_V_TUPLE, (nb_list){args->items, args->count});
    return tuple ? nb_format_percent(r, text, tuple) : NULL;
  }
  nb_dict *dict = nb_dict_new(r, 4);
  for (const nb_binding *named = args->named; dict && named; named = named->next) {
    const nb_val *key = nb_new_text(r, named->name);
    if (!key || !nb_dict_set(r, dict, key, named->value)) return NULL;
  }
  const nb_val *by_name = dict ? nb_new_dict(r, dict) : NULL;
  return by_name ? nb_format_percent(r, text, by_name) : NULL;
}

/* ---- numbers ---------------------------------------------------------------------------------------------------- */

FILTER(absolute) {
  (void)args;
  if (self->type == NB_V_FLOAT) return nb_new_float(r, fabs(self->real));
  if (nb_val_is_int(self)) return nb_val_int(self) < 0 ? nb_negative(r, self) : nb_new_int(r, nb_val_int(self));
  return nb_render_fail(r, "bad operand type for abs(): '%s'", nb_val_type_name(self));
}

enum { MAX_DIGITS = 400 };

/* A number as Python's int() and float() read it: without the space around it and with _ between digits. False if it is
 * none that may be. */
static bool digits_of(nb_str text, char out[MAX_DIGITS]) {
  size_t n = 0;
  text = nb_text_cut(text, nb_text_space_before(text), 0);
  text = nb_text_cut(text, 0, nb_text_space_after(text));
  for (size_t i = 0; i < text.length; i++) {
    char c = text.data[i];
    if (c == '_') {
      bool between =
          i > 0 && i + 1 < text.length && nb_hex_digit(text.data[i - 1]) >= 0 && nb_hex_digit(text.data[i + 1]) >= 0;
      if (!between) return false;
      continue;
    }
    if (c <= ' ' || n == MAX_DIGITS - 1) return false;
    out[n++] = c;
  }
  out[n] = 0;
  return n > 0;
}

static bool float_of(nb_str text, double *out) {
  char digits[MAX_DIGITS], *end;
  if (!digits_of(text, digits) || strpbrk(digits, "xXpP(")) return false; /* which C reads and Python does not */
  *out = strtod(digits, &end);
  return *end == 0;
}

/* 1 with *out set; 0 if the text is no whole number; -1 after a failure: 64 bits do not hold it. */
static int int_of(nb_render *r, nb_str text, int base, int64_t *out) {
  char digits[MAX_DIGITS], *end, *start = digits;
  if (!digits_of(text, digits)) return 0;
  bool has_sign = *start == '-' || *start == '+';
  if (base != 10 && base != 16 && base != 8 && base != 2) return 0;
  char *prefix = start + has_sign;
  int letter = prefix[0] == '0' ? prefix[1] | 32 : 0;
  if ((base == 8 && letter == 'o') || (base == 2 && letter == 'b')) memmove(prefix, prefix + 2, strlen(prefix + 2) + 1);
  if (*prefix == '-' || *prefix == '+') return 0;
  errno = 0;
  *out = strtoll(start, &end, base);
  if (*end || end == start) return 0;
  if (errno != ERANGE) return 1;
  nb_render_fail(r, "a whole number of more than 64 bits");
  return -1;
}

static const nb_val *whole(nb_render *r, double value, const nb_val *otherwise) {
  if (isnan(value) || isinf(value)) return otherwise;
  if (fabs(value) >= 0x1p63) return nb_render_fail(r, "a whole number of more than 64 bits");
  return nb_new_int(r, (int64_t)value);
}

FILTER(to_int) {
  static const nb_val zero = {.type = NB_V_INT};
  const nb_val *otherwise = nb_arg(args, 0, &zero);
  int64_t base = 10, value = 0;
  double real;
  if (!nb_arg_int(r, args, 1, &base)) return NULL;
  if (self->type == NB_V_UNDEFINED) return nb_render_fail(r, "%.*s", (int)self->text.length, self->text.data);
  if (nb_val_is_int(self)) return nb_new_int(r, nb_val_int(self));
  if (self->type == NB_V_FLOAT) return whole(r, self->real, otherwise);
  if (self->type != NB_V_STRING) return otherwise;
  int is_whole = int_of(r, self->text, (int)base, &value);
  if (is_whole != 0) return is_whole > 0 ? nb_new_int(r, value) : NULL;
  return float_of(self->text, &real) ? whole(r, real, otherwise) : otherwise;
}

FILTER(to_float) {
  static const nb_val zero = {.type = NB_V_FLOAT};
  double value;
  if (self->type == NB_V_UNDEFINED) return nb_render_fail(r, "%.*s", (int)self->text.length, self->text.data);
  if (nb_val_is_number(self)) return nb_new_float(r, nb_val_real(self));
  if (self->type == NB_V_STRING && float_of(self->text, &value)) return nb_new_float(r, value);
  return nb_arg(args, 0, &zero);
}

/* To `precision` decimals, halves to even: of the decimal number that the float is. */
static const nb_val *rounded(nb_render *r, double value, int64_t precision) {
  char text[MAX_DIGITS];
  if (isnan(value) || isinf(value) || precision > 300) return nb_new_float(r, value);
  if (precision >= 0) {
    snprintf(text, sizeof text, "%.*f", (int)precision, value);
    return nb_new_float(r, strtod(text, NULL));
  }
  if (precision < -300) return nb_new_float(r, copysign(0, value));
  double scale = pow(10, (double)-precision);
  return nb_new_float(r, nearbyint(value / scale) * scale);
}

FILTER(round_to) {
  int64_t precision = 0;
  nb_str how = {"common", 6};
  if (!nb_arg_int(r, args, 0, &precision) || !nb_arg_text(r, args, 1, &how)) return NULL;
  bool up = nb_str_is(how, "ceil"), down = nb_str_is(how, "floor");
  if (!up && !down && !nb_str_is(how, "common")) return nb_render_fail(r, "method must be common, ceil or floor");
  if (!nb_val_is_number(self)) return nb_render_fail(r, "round takes a number, not %s", nb_val_type_name(self));
  double value = nb_val_real(self);
  if (up || down) {
    double scale = pow(10, (double)precision), scaled = value * scale;
    double result = (up ? ceil(scaled) : floor(scaled)) / scale;
    return isfinite(result) ? nb_new_float(r, result) : nb_render_fail(r, "round: a number out of range");
  }
  if (!nb_val_is_int(self)) return rounded(r, value, precision);
  if (precision >= 0) return nb_new_int(r, nb_val_int(self));
  const nb_val *tens = rounded(r, value, precision);
  return tens ? whole(r, tens->real, self) : NULL;
}

FILTER(filesizeformat) {
  bool binary = nb_val_is_true(nb_arg(args, 0, &nb_false));
  const nb_val *number = nb_val_is_number(self) || self->type == NB_V_STRING ? to_float(r, self, &(nb_args){0}) : NULL;
  if (!number) return nb_render_fail(r, "filesizeformat takes a number, not %s", nb_val_type_name(self));
  static const char *const units[2][8] = {{"kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"},
                                          {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"}};
  double value = number->real, base = binary ? 1024 : 1000;
  nb_buf buf = {0};
  int unit = 0;
  if (value == 1) {
    nb_buf_puts(&buf, "1 Byte");
  } else if (value < base) {
    nb_buf_printf(&buf, "%.0f Bytes", trunc(value));
  } else {
    while (unit < 7 && value >= pow(base, unit + 2)) unit++;
    nb_buf_printf(&buf, "%.1f %s", base * value / pow(base, unit + 2), units[binary][unit]);
  }
  return nb_new_taken(r, &buf);
}

/* ---- any value -------------------------------------------------------------------------------------------------- */

FILTER(fallback) {
  static const nb_val empty = {.type = NB_V_STRING, .text = {"", 0}};
  bool is_missing = self->type == NB_V_UNDEFINED;
  if (nb_val_is_true(nb_arg(args, 1, &nb_false))) is_missing = is_missing || !nb_val_is_true(self);
  return r && is_missing ? nb_arg(args, 0, &empty) : self;
}

FILTER(attribute) {
  nb_str name = {0};
  return nb_arg_text(r, args, 0, &name) ? nb_attribute(r, self, name) : NULL;
}

/* transformers' own, whose arguments are json.dumps'. */
FILTER(tojson) {
  const nb_val *indent = nb_arg(args, 1, &nb_none), *separators = nb_arg(args, 2, &nb_none);
  const nb_val space = {.type = NB_V_STRING, .text = {" ", 1}};
  nb_json_style style = {.ascii = nb_val_is_true(nb_arg(args, 0, &nb_false)),
                         .sorted = nb_val_is_true(nb_arg(args, 3, &nb_false)),
                         .has_lines = indent->type != NB_V_NONE,
                         .item_separator = {", ", 2},
                         .key_separator = {": ", 2}};
  if (style.has_lines) {
    style.item_separator.length = 1;
    if (indent->type != NB_V_STRING) indent = nb_binary(r, '*', &space, indent);
    if (!indent) return NULL;
    style.indent = indent->text;
  }
  if (separators->type != NB_V_NONE) {
    nb_list parts;
    if (!nb_items(r, separators, &parts)) return NULL;
    if (parts.count != 2 || parts.items[0]->type != NB_V_STRING || parts.items[1]->type != NB_V_STRING)
      return nb_render_fail(r, "tojson takes two separators");
    style.item_separator = parts.items[0]->text;
    style.key_separator = parts.items[1]->text;
  }
  nb_buf buf = {0};
  bool ok = nb_put_json(r, &buf, self, &style);
  const nb_val *text = nb_new_taken(r, &buf);
  return ok ? text : NULL;
}

const nb_builtin nb_filters[] = {{"upper", upper, "", 0},
                                 {"lower", lower, "", 0},
                                 {"capitalize", capitalize, "", 0},
                                 {"title", title, "", 0},
                                 {"string", string, "", 0},
                                 {"trim", trim, "chars", 0},
                                 {"center", center, "width", 0},
                                 {"replace", replace, "old new count", 2},
                                 {"safe", safe, "", 0},
                                 {"e", escape, "", 0},
                                 {"escape", escape, "", 0},
                                 {"forceescape", forceescape, "", 0},
                                 {"indent", indent, "width first blank", 0},
                                 {"truncate", truncate, "length killwords end leeway", 0},
                                 {"wordcount", wordcount, "", 0},
                                 {"urlencode", urlencode, "", 0},
                                 {"format", format, NULL, 0},
                                 {"abs", absolute, "", 0},
                                 {"int", to_int, "default base", 0},
                                 {"float", to_float, "default", 0},
                                 {"round", round_to, "precision method", 0},
                                 {"filesizeformat", filesizeformat, "binary", 0},
                                 {"default", fallback, "default_value boolean", 0},
                                 {"d", fallback, "default_value boolean", 0},
                                 {"attr", attribute, "name", 1},
                                 {"tojson", tojson, "ensure_ascii indent separators sort_keys", 0},
                                 {0}};
