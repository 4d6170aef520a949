#include "template/lexer.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <utf8proc.h>

#include "base/grow.h"
#include "base/utf8.h"
#include "template/text.h"

enum { MAX_BRACES = 256 };

typedef struct lexer {
  const char *where;
  nb_str text;
  size_t at;
  unsigned line;
  bool starts_line;        /* what was read last, a tag and the white space that it took, ended with a newline */
  char braces[MAX_BRACES]; /* what closes those that are open in a tag */
  int depth;
  nb_arena *arena;
  nb_token *items; /* malloc'd while it grows */
  size_t count, capacity;
  nibble_status status;
  nibble_error *err;
} lexer;

__attribute__((format(printf, 2, 3))) static bool fail(lexer *l, const char *format, ...) {
  char message[256];
  va_list args;
  va_start(args, format);
  vsnprintf(message, sizeof message, format, args);
  va_end(args);
  l->status = nb_fail(l->err, NIBBLE_BAD_INPUT, "%s: line %u: %s", l->where, l->line, message);
  return false;
}

static bool fail_memory(lexer *l) {
  l->status = l->arena->is_full ? nb_fail(l->err, NIBBLE_BAD_INPUT, "%s: too large a template", l->where)
                                : nb_fail_memory(l->err, l->text.length);
  return false;
}

static bool push(lexer *l, nb_token token) {
  void *grown = nb_grow(l->items, &l->capacity, l->count + 1, sizeof *l->items);
  if (!grown) {
    l->status = nb_fail_memory(l->err, l->capacity * sizeof *l->items);
    return false;
  }
  l->items = grown;
  token.line = l->line;
  l->items[l->count++] = token;
  return true;
}

/* ---- the text between tags -------------------------------------------------------------------------------------- */

static bool is_at(const lexer *l, size_t at, const char *what) {
  size_t n = strlen(what);
  return at <= l->text.length && l->text.length - at >= n && memcmp(l->text.data + at, what, n) == 0;
}

static nb_str rest_from(const lexer *l, size_t at) { return nb_text_cut(l->text, at, 0); }

static size_t skip_space(const lexer *l, size_t at) { return at + nb_text_space_before(rest_from(l, at)); }

static bool is_sign(const lexer *l, size_t at) {
  return at < l->text.length && (l->text.data[at] == '-' || l->text.data[at] == '+');
}

/* The end of the tag `{% raw %}` if one begins at `at`, else 0. */
static size_t raw_end(const lexer *l, size_t at) {
  if (!is_at(l, at, "{%")) return 0;
  at += 2;
  at = skip_space(l, at + is_sign(l, at));
  if (!is_at(l, at, "raw")) return 0;
  at = skip_space(l, at + 3);
  if (is_at(l, at, "-%}")) return skip_space(l, at + 3);
  return is_at(l, at, "%}") ? at + 2 : 0;
}

/* The end of a tag's closing mark at `at`, after the white space that it takes with it; 0 if there is none. */
static size_t tag_end(const lexer *l, size_t at, const char *mark, bool trims) {
  char strip[4] = {'-', mark[0], mark[1], 0}, keep[4] = {'+', mark[0], mark[1], 0};
  if (is_at(l, at, strip)) return skip_space(l, at + 3);
  if (trims && is_at(l, at, keep)) return at + 3;
  if (!is_at(l, at, mark)) return 0;
  return at + 2 + (trims && is_at(l, at + 2, "\n"));
}

static void move_to(lexer *l, size_t at) {
  for (; l->at < at; l->at++) l->line += l->text.data[l->at] == '\n';
}

/* Ends a tag: what follows may begin a line. */
static void end_tag(lexer *l, size_t at) {
  l->starts_line = l->text.data[at - 1] == '\n';
  move_to(l, at);
}

/* The data before a tag at `end`, whose sign is given: '-' takes the white space before it; else a tag that prints
 * nothing takes that of its line, if there is nothing else before it. */
static bool push_data(lexer *l, size_t end, char sign, bool prints) {
  nb_str data = {l->text.data + l->at, end - l->at};
  if (sign == '-') {
    data.length -= nb_text_space_after(data);
  } else if (sign != '+' && !prints) {
    size_t line = nb_text_rfind(data, (nb_str){"\n", 1});
    size_t from = line == SIZE_MAX ? 0 : line + 1;
    nb_str before = nb_text_cut(data, from, 0);
    if ((from > 0 || l->starts_line) && nb_text_space_before(before) == before.length) data.length = from;
  }
  bool ok = data.length == 0 || push(l, (nb_token){.kind = NB_T_DATA, .text = data});
  move_to(l, end);
  return ok;
}

static bool skip_comment(lexer *l) {
  size_t begin = l->at + 2 + is_sign(l, l->at + 2), at = begin;
  for (size_t end; at < l->text.length; at++) {
    if ((end = tag_end(l, at, "#}", true)) == 0) continue;
    end_tag(l, end);
    return true;
  }
  move_to(l, at);
  return at == begin || fail(l, "a comment without an end"); /* one that has not even begun is none to Jinja2 */
}

/* Data up to `{% endraw %}`; l->at is behind `{% raw %}`. */
static bool read_raw(lexer *l) {
  for (size_t at = l->at, end; at < l->text.length; at++) {
    if (!is_at(l, at, "{%")) continue;
    char sign = is_sign(l, at + 2) ? l->text.data[at + 2] : 0;
    size_t name = skip_space(l, at + 2 + (sign != 0));
    if (!is_at(l, name, "endraw")) continue;
    if ((end = tag_end(l, skip_space(l, name + 6), "%}", true)) == 0) continue;
    if (!push_data(l, at, sign, false)) return false;
    end_tag(l, end);
    return true;
  }
  return l->at == l->text.length || fail(l, "a raw block without an end");
}

/* ---- the text in tags ------------------------------------------------------------------------------------------- */

static bool digits(const lexer *l, size_t *at, bool (*is_one)(int c)) {
  size_t start = *at;
  const char *s = l->text.data;
  while (*at < l->text.length &&
         (is_one((unsigned char)s[*at]) ||
          (s[*at] == '_' && *at > start && *at + 1 < l->text.length && is_one((unsigned char)s[*at + 1]))))
    ++*at;
  return *at > start;
}

static bool is_decimal(int c) { return c >= '0' && c <= '9'; }
static bool is_hex(int c) { return isxdigit(c) != 0; }
static bool is_octal(int c) { return c >= '0' && c <= '7'; }
static bool is_binary(int c) { return c == '0' || c == '1'; }

/* A number: a float if it has a fraction or an exponent, which a dot before it rules out (a.0.1). */
static bool read_number(lexer *l) {
  size_t start = l->at, end = start;
  char base = start + 1 < l->text.length && l->text.data[start] == '0' ? (char)(l->text.data[start + 1] | 32) : 0;
  bool (*in_base)(int) = base == 'x' ? is_hex : base == 'o' ? is_octal : base == 'b' ? is_binary : NULL;
  nb_token token = {.kind = NB_T_INT};
  size_t after = start + 2;
  if (in_base && digits(l, &after, in_base)) {
    end = after;
  } else {
    digits(l, &end, is_decimal);
    bool may_be_float = start == 0 || l->text.data[start - 1] != '.';
    size_t fraction = end + 1, power;
    if (may_be_float && is_at(l, end, ".") && digits(l, &fraction, is_decimal)) {
      end = fraction;
      token.kind = NB_T_FLOAT;
    }
    power = end + 1;
    if (may_be_float && (is_at(l, end, "e") || is_at(l, end, "E"))) {
      power += is_sign(l, power);
      if (digits(l, &power, is_decimal)) {
        end = power;
        token.kind = NB_T_FLOAT;
      }
    }
  }
  token.text = (nb_str){l->text.data + start, end - start};
  if (token.kind == NB_T_INT && !in_base && token.text.data[0] == '0') { /* 007 is 0, 0 and 7: no expression */
    for (size_t i = 0; i < token.text.length; i++)
      if (token.text.data[i] != '0' && token.text.data[i] != '_') return fail(l, "a whole number that begins with 0");
  }
  bool ok = push(l, token);
  move_to(l, end);
  return ok;
}

static bool is_name_character(uint32_t code, bool first) {
  if (code == '_' || (code < 128 && isalpha((int)code))) return true;
  if (code < 128) return !first && isdigit((int)code);
  switch (utf8proc_category((utf8proc_int32_t)code)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_NL: return true;
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_PC: return !first;
    default: return false;
  }
}

static size_t name_end(const lexer *l, size_t at) {
  size_t n;
  for (size_t start = at; at < l->text.length; at += n) {
    if (!is_name_character(nb_utf8_decode(l->text.data + at, &n), at == start)) break;
  }
  return at;
}

/* The escape behind a backslash at s[*i], which moves behind it; its code point, or -1 (what is no escape stays) or -2
 * (no text). */
static int64_t escaped(const char *s, size_t n, size_t *i) {
  static const char plain[][2] = {{'\\', '\\'}, {'\'', '\''}, {'"', '"'}, {'a', 7}, {'b', 8},
                                  {'f', 12},    {'n', 10},    {'r', 13},  {'t', 9}, {'v', 11}};
  char c = s[*i];
  for (size_t k = 0; k < sizeof plain / sizeof *plain; k++) {
    if (plain[k][0] != c) continue;
    ++*i;
    return plain[k][1];
  }
  size_t width = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
  int64_t code = 0;
  if (width) {
    if (n - *i - 1 < width) return -2;
    for (size_t k = 1; k <= width; k++) {
      int digit = nb_hex_digit(s[*i + k]);
      if (digit < 0) return -2;
      code = code * 16 + digit;
    }
    *i += 1 + width;
    return code > 0x10ffff || (code >= 0xd800 && code < 0xe000) ? -2 : code;
  }
  if (c == 'N') return -2;
  if (!is_octal((unsigned char)c)) return -1;
  for (int k = 0; k < 3 && *i < n && is_octal((unsigned char)s[*i]); k++) code = code * 8 + (s[(*i)++] - '0');
  return code;
}

static bool unescape(lexer *l, nb_str raw, nb_str *out) {
  char *to = nb_arena_take(l->arena, raw.length + 1); /* no escape is shorter than what it stands for */
  if (!to) return fail_memory(l);
  *out = (nb_str){to, 0};
  for (size_t i = 0; i < raw.length;) {
    if (raw.data[i] != '\\') {
      to[out->length++] = raw.data[i++];
      continue;
    }
    if (raw.data[++i] == '\n') { /* a line that goes on */
      i++;
      continue;
    }
    int64_t code = escaped(raw.data, raw.length, &i);
    if (code == -2) return fail(l, "an escape in a string that stands for no character");
    if (code == -1)
      to[out->length++] = '\\';
    else
      out->length += nb_utf8_encode((uint32_t)code, to + out->length);
  }
  return true;
}

static bool read_string(lexer *l) {
  char quote = l->text.data[l->at];
  size_t end = l->at + 1;
  bool has_escape = false;
  for (; end < l->text.length && l->text.data[end] != quote; end++) {
    if (l->text.data[end] != '\\') continue;
    has_escape = true;
    end++;
  }
  if (end >= l->text.length) return fail(l, "a string without an end");
  nb_token token = {.kind = NB_T_STRING, .text = {l->text.data + l->at + 1, end - l->at - 1}};
  if (has_escape && !unescape(l, token.text, &token.text)) return false;
  bool ok = push(l, token);
  move_to(l, end + 1);
  return ok;
}

static bool read_operator(lexer *l) {
  static const char two[][3] = {"//", "**", "==", "!=", ">=", "<="};
  char c = l->text.data[l->at];
  nb_token token = {.kind = NB_T_OPERATOR, .op = c, .text = {l->text.data + l->at, 1}};
  for (size_t i = 0; i < sizeof two / sizeof *two; i++) {
    if (!is_at(l, l->at, two[i])) continue;
    token.op = two[i][0] | two[i][1] << 8;
    token.text.length = 2;
  }
  if (token.text.length == 1 && !strchr("+-/*%~[](){}><=.:|,;", c)) {
    size_t n;
    uint32_t code = nb_utf8_decode(l->text.data + l->at, &n);
    return fail(l, "unexpected character '%.*s' (U+%04X)", (int)n, l->text.data + l->at, code);
  }
  if (c == '(' || c == '[' || c == '{') {
    if (l->depth == MAX_BRACES) return fail(l, "more than %d open brackets", MAX_BRACES);
    l->braces[l->depth++] = (char)(c == '(' ? ')' : c + 2);
  } else if (c == ')' || c == ']' || c == '}') {
    if (l->depth == 0 || l->braces[--l->depth] != c) return fail(l, "unexpected '%c'", c);
  }
  bool ok = push(l, token);
  move_to(l, l->at + token.text.length);
  return ok;
}

/* From the beginning of a tag to behind its end. */
static bool read_tag(lexer *l, bool prints) {
  if (!push(l, (nb_token){.kind = prints ? NB_T_PRINT_BEGIN : NB_T_BLOCK_BEGIN})) return false;
  move_to(l, l->at + 2 + is_sign(l, l->at + 2));
  l->depth = 0;
  while (l->at < l->text.length) {
    size_t end = l->depth ? 0 : tag_end(l, l->at, prints ? "}}" : "%}", !prints);
    if (end) {
      if (!push(l, (nb_token){.kind = prints ? NB_T_PRINT_END : NB_T_BLOCK_END})) return false;
      end_tag(l, end);
      return true;
    }
    size_t begin = skip_space(l, l->at), name = name_end(l, begin);
    char c = begin < l->text.length ? l->text.data[begin] : 0;
    bool has_space = begin > l->at;
    move_to(l, begin);
    if (has_space) continue;
    if (name > begin) {
      if (!push(l, (nb_token){.kind = NB_T_NAME, .text = {l->text.data + begin, name - begin}})) return false;
      move_to(l, name);
    } else if (!(is_decimal((unsigned char)c) ? read_number(l)
                 : c == '"' || c == '\''      ? read_string(l)
                                              : read_operator(l))) {
      return false;
    }
  }
  return true; /* the parser misses the end */
}

static bool read_all(lexer *l) {
  while (l->at < l->text.length) {
    size_t begin = l->at;
    while (begin < l->text.length && !is_at(l, begin, "{%") && !is_at(l, begin, "{{") && !is_at(l, begin, "{#"))
      begin++;
    if (begin == l->text.length) return push_data(l, begin, '+', true);
    char mark = l->text.data[begin + 1], sign = is_sign(l, begin + 2) ? l->text.data[begin + 2] : 0;
    if (!push_data(l, begin, sign, mark == '{')) return false;
    size_t raw = raw_end(l, begin);
    if (raw) end_tag(l, raw);
    if (!(raw ? read_raw(l) : mark == '#' ? skip_comment(l) : read_tag(l, mark == '{'))) return false;
  }
  return true;
}

/* The text with "\n" for every end of a line, less one at its end. */
static bool with_newlines(lexer *l) {
  nb_str from = l->text;
  char *to = nb_arena_take(l->arena, from.length + 1);
  if (!to) return fail_memory(l);
  size_t n = 0;
  for (size_t i = 0; i < from.length; i++) {
    bool is_return = from.data[i] == '\r';
    if (is_return && i + 1 < from.length && from.data[i + 1] == '\n') i++;
    to[n++] = is_return ? '\n' : from.data[i];
  }
  if (n > 0 && to[n - 1] == '\n') n--;
  l->text = (nb_str){to, n};
  return true;
}

nibble_status nb_lex(const char *where, nb_str text, nb_arena *arena, nb_tokens *out, nibble_error *err) {
  lexer l = {.where = where, .text = text, .line = 1, .starts_line = true, .arena = arena, .err = err};
  *out = (nb_tokens){0};
  if (with_newlines(&l) && read_all(&l) && push(&l, (nb_token){.kind = NB_T_EOF})) {
    out->items = nb_arena_array(arena, l.count, sizeof *l.items);
    out->count = l.count;
    if (out->items) {
      memcpy(out->items, l.items, l.count * sizeof *l.items);
    } else {
      fail_memory(&l);
    }
  }
  free(l.items);
  return l.status;
}
