/* Both ways in which Python formats: "%s" % x and "{}".format(x). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "template/render.h"
#include "template/text.h"

enum { MAX_WIDTH = 1 << 20, MAX_PRECISION = 1000 };

/* How a value is laid out. */
typedef struct layout {
  nb_str fill;          /* one character */
  char align;           /* < > ^ =, 0: by the type */
  char sign;            /* + or space, 0: only minus */
  bool alternate;       /* # */
  char grouping;        /* , or _, 0: none */
  int width, precision; /* precision -1: none */
  char type;            /* 0: by the value */
} layout;

/* ---- one value -------------------------------------------------------------------------------------------------- */

static bool put_padded(nb_render *r, nb_buf *out, nb_str head, nb_str text, const layout *l) {
  size_t length = nb_text_characters(head) + nb_text_characters(text);
  size_t pad = (size_t)l->width > length ? (size_t)l->width - length : 0;
  size_t left = l->align == '>' ? pad : l->align == '^' ? pad / 2 : 0, inner = l->align == '=' ? pad : 0;
  if (!nb_work(r, pad + text.length) || out->length > NB_RENDER_MEMORY) {
    if (r->status == NIBBLE_OK) nb_render_fail(r, "takes more than %d MiB of memory", NB_RENDER_MEMORY >> 20);
    return false;
  }
  for (size_t i = 0; i < left; i++) nb_buf_append(out, l->fill.data, l->fill.length);
  nb_buf_append(out, head.data, head.length);
  for (size_t i = 0; i < inner; i++) nb_buf_append(out, l->fill.data, l->fill.length);
  nb_buf_append(out, text.data, text.length);
  for (size_t i = left + inner; i < pad; i++) nb_buf_append(out, l->fill.data, l->fill.length);
  return true;
}

static bool put_text(nb_render *r, nb_buf *out, nb_str text, layout l) {
  if (l.precision >= 0) text.length = nb_text_offset(text, (size_t)l.precision);
  if (l.align == 0 || l.align == '=') l.align = '<';
  return put_padded(r, out, (nb_str){"", 0}, text, &l);
}

/* Digits with a mark between groups: of three, or of four in bases that are powers of two. */
static void put_grouped(nb_buf *out, const char *digits, char mark, size_t group) {
  size_t n = strcspn(digits, ".e"), rest = strlen(digits) - n;
  for (size_t i = 0; i < n; i++) {
    if (mark && i > 0 && (n - i) % group == 0) nb_buf_append(out, &mark, 1);
    nb_buf_append(out, digits + i, 1);
  }
  nb_buf_append(out, digits + n, rest);
}

static bool put_number(nb_render *r, nb_buf *out, bool is_negative, const char *prefix, const char *digits, layout l) {
  nb_buf head = {0}, body = {0};
  if (is_negative || l.sign) nb_buf_append(&head, is_negative ? "-" : &l.sign, 1);
  nb_buf_puts(&head, prefix);
  put_grouped(&body, digits, l.grouping, l.type == 'd' || strchr("eEfFgGn%", l.type) ? 3 : 4);
  if (l.align == 0) l.align = '>';
  bool ok = !head.failed && !body.failed &&
            put_padded(r, out, (nb_str){head.data ? head.data : "", head.length},
                       (nb_str){body.data ? body.data : "", body.length}, &l);
  nb_buf_free(&head);
  nb_buf_free(&body);
  return ok;
}

static bool put_int(nb_render *r, nb_buf *out, int64_t value, layout l) {
  char digits[72];
  uint64_t size = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
  unsigned base = l.type == 'x' || l.type == 'X' ? 16 : l.type == 'o' ? 8 : l.type == 'b' ? 2 : 10;
  char *at = digits + sizeof digits - 1;
  *at = 0;
  do *--at = (l.type == 'X' ? "0123456789ABCDEF" : "0123456789abcdef")[size % base];
  while ((size /= base) > 0);
  char prefix[3] = {'0', l.type, 0};
  return put_number(r, out, value < 0, l.alternate && base != 10 ? prefix : "", at, l);
}

static bool put_real(nb_render *r, nb_buf *out, double value, layout l) {
  char digits[MAX_PRECISION + 400], format[8];
  bool is_percent = l.type == '%', is_negative = signbit(value) && !isnan(value);
  value = fabs(value) * (is_percent ? 100 : 1);
  if (isnan(value) || isinf(value)) {
    bool upper = l.type == 'E' || l.type == 'F' || l.type == 'G';
    snprintf(digits, sizeof digits, "%s%s",
             isnan(value) ? upper ? "NAN" : "nan"
             : upper      ? "INF"
                          : "inf",
             is_percent ? "%" : "");
    l.grouping = 0;
    return put_number(r, out, is_negative, "", digits, l);
  }
  if (l.type == 0 && l.precision < 0) {
    nb_buf shortest = {0};
    nb_put_float(&shortest, value);
    snprintf(digits, sizeof digits, "%s", shortest.data ? shortest.data : "");
    nb_buf_free(&shortest);
    l.type = 'g';
    return put_number(r, out, is_negative, "", digits, l);
  }
  if (l.type == 0) {
    nb_render_fail(r, "a float with a precision and without a type is not formatted here");
    return false;
  }
  snprintf(format, sizeof format, "%%%s.*%c", l.alternate ? "#" : "", is_percent ? 'f' : l.type == 'n' ? 'g' : l.type);
  int n = snprintf(digits, sizeof digits - 1, format, l.precision < 0 ? 6 : l.precision, value);
  if (is_percent) snprintf(digits + n, 2, "%%");
  return put_number(r, out, is_negative, "", digits, l);
}

static bool put_character(nb_render *r, nb_buf *out, int64_t code, const layout *l) {
  char bytes[4];
  if (code < 0 || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) {
    nb_render_fail(r, "%%c takes a character");
    return false;
  }
  size_t n = nb_utf8_encode((uint32_t)code, bytes);
  return put_padded(r, out, (nb_str){"", 0}, (nb_str){bytes, n}, l);
}

/* ---- "%s" % x --------------------------------------------------------------------------------------------------- */

typedef struct percent {
  nb_str format;
  size_t at;
  const nb_val *args; /* a tuple, a dict, or one value */
  size_t used;
} percent;

static const nb_val *next_argument(nb_render *r, percent *p) {
  bool is_tuple = p->args->type == NB_V_TUPLE;
  size_t count = is_tuple ? p->args->list.count : 1;
  if (p->used >= count) return nb_render_fail(r, "not enough arguments for format string");
  const nb_val *value = is_tuple ? p->args->list.items[p->used] : p->args;
  p->used++;
  return value;
}

/* A number in the format, or the next argument where it has "*". */
static bool read_number(nb_render *r, percent *p, int most, int *out) {
  int64_t value = 0;
  if (p->at < p->format.length && p->format.data[p->at] == '*') {
    p->at++;
    const nb_val *given = next_argument(r, p);
    if (!given || !nb_val_is_int(given)) return given && nb_render_fail(r, "* wants int");
    value = nb_val_int(given);
  }
  while (p->at < p->format.length && p->format.data[p->at] >= '0' && p->format.data[p->at] <= '9' && value <= most)
    value = value * 10 + (p->format.data[p->at++] - '0');
  if (value < 0 || value > most) {
    nb_render_fail(r, "a width or precision of more than %d", most);
    return false;
  }
  *out = (int)value;
  return true;
}

/* "%(name)-08.3d" behind its %, up to the letter; *named is the value of the name, if there is one. */
static bool read_layout(nb_render *r, percent *p, layout *l, const nb_val **named) {
  nb_str f = p->format;
  *l = (layout){.fill = {" ", 1}, .align = '>', .precision = -1};
  *named = NULL;
  if (p->at < f.length && f.data[p->at] == '(') {
    size_t end = nb_text_find(f, (nb_str){")", 1}, p->at);
    if (end == SIZE_MAX || p->args->type != NB_V_DICT) return nb_render_fail(r, "format requires a mapping") != NULL;
    const nb_val key = {.type = NB_V_STRING, .text = {f.data + p->at + 1, end - p->at - 1}};
    if (!nb_dict_get(r, p->args->dict, &key, named)) return false;
    if (!*named) return nb_render_fail(r, "format: there is no '%.*s'", (int)key.text.length, key.text.data) != NULL;
    p->at = end + 1;
    p->used = 1;
  }
  for (; p->at < f.length && f.data[p->at] && strchr("#0- +", f.data[p->at]); p->at++) {
    char flag = f.data[p->at];
    if (flag == '#') l->alternate = true;
    if (flag == '-') l->align = '<';
    if (flag == '+' || (flag == ' ' && !l->sign)) l->sign = flag;
    if (flag == '0') l->fill = (nb_str){"0", 1};
  }
  if (l->align == '<') l->fill = (nb_str){" ", 1};
  if (!read_number(r, p, MAX_WIDTH, &l->width)) return false;
  if (p->at >= f.length || f.data[p->at] != '.') return true;
  p->at++;
  return read_number(r, p, MAX_PRECISION, &l->precision);
}

static bool put_converted(nb_render *r, nb_buf *out, const nb_val *value, layout l, char letter) {
  nb_str text;
  nb_buf repr = {0};
  bool is_zero_filled = l.fill.data[0] == '0';
  l.type = letter == 'i' || letter == 'u' ? 'd' : letter;
  if (!strchr("diouxXeEfFgG", letter)) l.fill = (nb_str){" ", 1};
  switch (letter) {
    case 's': return nb_str_of(r, value, &text) && put_text(r, out, text, l);
    case 'r': {
      bool ok = nb_put_repr(r, &repr, value);
      const nb_val *shown = nb_new_taken(r, &repr);
      return ok && shown && put_text(r, out, shown->text, l);
    }
    case 'c':
      if (value->type == NB_V_STRING && nb_text_characters(value->text) == 1) return put_text(r, out, value->text, l);
      if (nb_val_is_int(value)) return put_character(r, out, nb_val_int(value), &l);
      nb_render_fail(r, "%%c requires int or char");
      return false;
    default: break;
  }
  if (!nb_val_is_number(value)) {
    nb_render_fail(r, "%%%c format: a number is required, not %s", letter, nb_val_type_name(value));
    return false;
  }
  if (is_zero_filled) l.align = '=';
  if (strchr("eEfFgG", letter)) return put_real(r, out, nb_val_real(value), l);
  if (value->type == NB_V_FLOAT && (l.type != 'd' || !(fabs(value->real) < 0x1p63))) {
    nb_render_fail(r, "%%%c format: an integer is required, not float", letter);
    return false;
  }
  if (l.precision >= 0) {
    nb_render_fail(r, "a precision of a whole number is not formatted here");
    return false;
  }
  return put_int(r, out, value->type == NB_V_FLOAT ? (int64_t)value->real : nb_val_int(value), l);
}

static bool put_percent(nb_render *r, nb_buf *out, percent *p) {
  layout l;
  const nb_val *value;
  if (!read_layout(r, p, &l, &value)) return false;
  char letter = p->at < p->format.length ? p->format.data[p->at++] : 0;
  if (letter == '%') {
    nb_buf_puts(out, "%");
    return true;
  }
  if (!letter || !strchr("srcdiouxXeEfFgG", letter)) {
    nb_render_fail(r, letter ? "unsupported format character" : "incomplete format");
    return false;
  }
  if (!value && !(value = next_argument(r, p))) return false;
  return put_converted(r, out, value, l, letter);
}

const nb_val *nb_format_percent(nb_render *r, const nb_val *format, const nb_val *args) {
  percent p = {.format = format->text, .args = args};
  nb_buf out = {0};
  bool ok = nb_work_bytes(r, p.format.length);
  while (ok && p.at < p.format.length) {
    const char *sign = memchr(p.format.data + p.at, '%', p.format.length - p.at);
    size_t end = sign ? (size_t)(sign - p.format.data) : p.format.length;
    nb_buf_append(&out, p.format.data + p.at, end - p.at);
    p.at = end + 1;
    if (sign) ok = put_percent(r, &out, &p);
  }
  bool may_be_left = args->type == NB_V_DICT || args->type == NB_V_LIST;
  if (ok && p.used < (args->type == NB_V_TUPLE ? args->list.count : !may_be_left)) {
    nb_render_fail(r, "not all arguments converted during string formatting");
    ok = false;
  }
  const nb_val *text = nb_new_taken(r, &out);
  return ok ? text : NULL;
}

/* ---- "{}".format(x) --------------------------------------------------------------------------------------------- */

typedef struct braces {
  const nb_args *args;
  int64_t next; /* argument of the next {}; -1 once one was numbered */
} braces;

static const nb_val *field_value(nb_render *r, braces *b, nb_str name) {
  size_t end = 0;
  while (end < name.length && name.data[end] != '.' && name.data[end] != '[') end++;
  nb_str first = {name.data, end};
  size_t digits = 0;
  while (digits < end && first.data[digits] >= '0' && first.data[digits] <= '9') digits++;
  const nb_val *value = NULL;
  if (digits == end) { /* {} or {0} */
    if (end > 6) return nb_render_fail(r, "there is no argument of that number");
    char number[8] = {0};
    memcpy(number, first.data, end);
    if ((end == 0 && b->next < 0) || (end > 0 && b->next > 0))
      return nb_render_fail(r, "cannot switch between numbered fields and such without a number");
    size_t at = end ? (size_t)strtol(number, NULL, 10) : (size_t)b->next++;
    if (end) b->next = -1;
    if (at >= b->args->count) return nb_render_fail(r, "format has no argument %zu", at);
    value = b->args->items[at];
  }
  for (const nb_binding *named = b->args->named; !value && named; named = named->next)
    if (named->name.length == end && memcmp(named->name.data, first.data, end) == 0) value = named->value;
  if (!value) return nb_render_fail(r, "format has no argument '%.*s'", (int)end, first.data);
  for (nb_str rest = nb_text_cut(name, end, 0); value && rest.length > 0;) { /* .name and [key] */
    bool is_item = rest.data[0] == '[';
    size_t stop = 1;
    while (stop < rest.length && (is_item ? rest.data[stop] != ']' : rest.data[stop] != '.' && rest.data[stop] != '['))
      stop++;
    if (is_item && stop == rest.length) return nb_render_fail(r, "a field without ']'");
    nb_val key = {.type = NB_V_STRING, .text = {rest.data + 1, stop - 1}};
    value = is_item ? nb_attribute_path(r, value, &key) : nb_attribute(r, value, key.text);
    rest = nb_text_cut(rest, stop + is_item, 0);
  }
  if (value && value->type == NB_V_UNDEFINED && name.length > end)
    return nb_render_fail(r, "%.*s", (int)value->text.length, value->text.data);
  return value;
}

static int digits_at(nb_str spec, size_t *at) {
  int64_t value = 0;
  while (*at < spec.length && spec.data[*at] >= '0' && spec.data[*at] <= '9' && value <= MAX_WIDTH)
    value = value * 10 + (spec.data[(*at)++] - '0');
  return (int)value;
}

/* "[[fill]align][sign][#][0][width][grouping][.precision][type]" */
static bool read_spec(nb_render *r, nb_str spec, layout *l) {
  size_t at = 0, n = 0;
  *l = (layout){.fill = {" ", 1}, .precision = -1};
  if (spec.length) nb_utf8_decode(spec.data, &n);
  if (n < spec.length && strchr("<>^=", spec.data[n])) {
    l->fill = (nb_str){spec.data, n};
    l->align = spec.data[n];
    at = n + 1;
  } else if (spec.length && strchr("<>^=", spec.data[0])) {
    l->align = spec.data[at++];
  }
  if (at < spec.length && strchr("+- ", spec.data[at])) {
    l->sign = spec.data[at] == '-' ? 0 : spec.data[at];
    at++;
  }
  if (at < spec.length && spec.data[at] == '#') l->alternate = at++ + 1 > 0;
  if (at < spec.length && spec.data[at] == '0') {
    if (!l->align) {
      l->align = '=';
      l->fill = (nb_str){"0", 1};
    }
    at++;
  }
  l->width = digits_at(spec, &at);
  if (at < spec.length && (spec.data[at] == ',' || spec.data[at] == '_')) l->grouping = spec.data[at++];
  if (at < spec.length && spec.data[at] == '.') {
    at++;
    l->precision = digits_at(spec, &at);
  }
  if (at < spec.length) l->type = spec.data[at++];
  if (at == spec.length && l->width <= MAX_WIDTH && l->precision <= MAX_PRECISION) return true;
  nb_render_fail(r, "a format specification that is none: '%.*s'", (int)(spec.length < 100 ? spec.length : 100),
                 spec.data);
  return false;
}

static bool put_formatted(nb_render *r, nb_buf *out, const nb_val *value, nb_str spec) {
  layout l;
  if (spec.length == 0) return nb_put_str(r, out, value);
  if (!read_spec(r, spec, &l)) return false;
  bool fits = l.type == 0;
  if (value->type == NB_V_STRING && (fits || l.type == 's') && !l.sign && !l.grouping && l.align != '=')
    return put_text(r, out, value->text, l);
  if (nb_val_is_int(value) && (fits || strchr("dxXobn", l.type)) && l.precision < 0) {
    if (fits || l.type == 'n') l.type = 'd';
    if (value->type != NB_V_BOOL || !fits) return put_int(r, out, nb_val_int(value), l);
  }
  if (nb_val_is_int(value) && l.type == 'c') return put_character(r, out, nb_val_int(value), &l);
  if (nb_val_is_number(value) && (strchr("eEfFgG%n", l.type) || (value->type == NB_V_FLOAT && fits)))
    return put_real(r, out, nb_val_real(value), l);
  nb_render_fail(r, "the format specification '%.*s' is not for %s", (int)(spec.length < 100 ? spec.length : 100),
                 spec.data, nb_val_type_name(value));
  return false;
}

/* The field {name!r:spec} of text[0, n), without its braces. */
static bool put_field(nb_render *r, nb_buf *out, braces *b, nb_str field) {
  size_t end = 0, colon;
  while (end < field.length && field.data[end] != '!' && field.data[end] != ':') end++;
  const nb_val *value = field_value(r, b, (nb_str){field.data, end});
  if (!value) return false;
  colon = end;
  if (end < field.length && field.data[end] == '!') {
    char how = end + 1 < field.length ? field.data[end + 1] : 0;
    colon = end + 2;
    if ((how != 'r' && how != 's') || (colon < field.length && field.data[colon] != ':')) {
      nb_render_fail(r, "a conversion that is neither !r nor !s");
      return false;
    }
    nb_buf text = {0};
    bool ok = how == 'r' ? nb_put_repr(r, &text, value) : nb_put_str(r, &text, value);
    value = nb_new_taken(r, &text);
    if (!ok || !value) return false;
  }
  nb_str spec = colon < field.length ? nb_text_cut(field, colon + 1, 0) : (nb_str){"", 0};
  if (memchr(spec.data, '{', spec.length)) {
    nb_render_fail(r, "a field in a format specification is not formatted here");
    return false;
  }
  return put_formatted(r, out, value, spec);
}

const nb_val *nb_format_call(nb_render *r, const nb_val *self, const nb_args *args) {
  nb_str f = self->text;
  braces b = {.args = args};
  nb_buf out = {0};
  bool ok = nb_work(r, f.length);
  for (size_t at = 0; ok && at < f.length;) {
    char c = f.data[at];
    if (c != '{' && c != '}') {
      nb_buf_append(&out, &c, 1);
      at++;
    } else if (at + 1 < f.length && f.data[at + 1] == c) {
      nb_buf_append(&out, &c, 1);
      at += 2;
    } else {
      size_t end = c == '{' ? nb_text_find(f, (nb_str){"}", 1}, at) : SIZE_MAX;
      if (end == SIZE_MAX) {
        nb_render_fail(r, "a single '%c' in a format string", c);
        ok = false;
        break;
      }
      ok = put_field(r, &out, &b, (nb_str){f.data + at + 1, end - at - 1});
      at = end + 1;
    }
  }
  const nb_val *text = nb_new_taken(r, &out);
  if (ok && text && self->is_safe) text = nb_new(r, (nb_val){.type = NB_V_STRING, .is_safe = true, .text = text->text});
  return ok ? text : NULL;
}
