#include "tokenizer/readers/json_walk.h"

#include <endian.h>
#include <stdint.h>

#include "base/utf8.h"

/* --- eight bytes at a time --- */

#define EACH(byte) ((uint64_t)(byte)*0x0101010101010101u)

static uint64_t load(const char *text) {
  uint64_t eight;
  memcpy(&eight, text, sizeof eight);
  return le64toh(eight); /* the first byte is the lowest */
}

/* The bit 0x80 of the bytes that are less than `limit`, at most 128, or equal to `byte`. Only the lowest is to be
 * trusted: a borrow may mark those above it. */
static uint64_t less(uint64_t eight, unsigned limit) { return (eight - EACH(limit)) & ~eight & EACH(0x80); }
static uint64_t equal(uint64_t eight, unsigned char byte) { return less(eight ^ EACH(byte), 1); }

static size_t lowest(uint64_t marks) { return (size_t)__builtin_ctzll(marks) / 8; }

/* Behind the spaces that stand at `at`; files are indented by them. */
static size_t skip_spaces(const char *text, size_t n, size_t at) {
  for (; at + 8 <= n; at += 8) {
    uint64_t others = load(text + at) ^ EACH(' ');
    if (others) return at + lowest(others);
  }
  while (at < n && text[at] == ' ') at++;
  return at;
}

void nb_walk_space(nb_walk *s) {
  size_t at = s->at;
  while (at < s->n) {
    char c = s->text[at];
    if (c != ' ' && c != '\n' && c != '\r' && c != '\t') break;
    at = skip_spaces(s->text, s->n, at + 1);
  }
  s->at = at;
}

bool nb_walk_take(nb_walk *s, char c) {
  nb_walk_space(s);
  if (s->at >= s->n || s->text[s->at] != c) return false;
  s->at++;
  nb_walk_space(s);
  return true;
}

/* The place of the first quote or backslash from `at` on, or n. */
static size_t find_quote(const char *text, size_t n, size_t at) {
  for (; at + 8 <= n; at += 8) {
    uint64_t eight = load(text + at), marks = equal(eight, '"') | equal(eight, '\\');
    if (marks) return at + lowest(marks);
  }
  while (at < n && text[at] != '"' && text[at] != '\\') at++;
  return at;
}

/* Where the string ends (at its closing quote) whose inside begins at `at`; n if it does not. */
static size_t string_end(const char *text, size_t n, size_t at) {
  while ((at = find_quote(text, n, at)) < n && text[at] == '\\') at += 2;
  return at < n ? at : n;
}

bool nb_walk_string(nb_walk *s, nb_str *inside) {
  if (s->at >= s->n || s->text[s->at] != '"') return false;
  size_t begin = s->at + 1, end = string_end(s->text, s->n, begin);
  if (end == s->n) return false;
  *inside = (nb_str){s->text + begin, end - begin};
  s->at = end + 1;
  return true;
}

/* The first byte of text[at, n) that cannot stand for itself in a string. */
static size_t find_special(const char *text, size_t n, size_t at) {
  for (; at + 8 <= n; at += 8) {
    uint64_t eight = load(text + at), marks = equal(eight, '"') | equal(eight, '\\') | less(eight, ' ');
    if (marks) return at + lowest(marks);
  }
  while (at < n && text[at] != '"' && text[at] != '\\' && (unsigned char)text[at] >= ' ') at++;
  return at;
}

bool nb_walk_plain(nb_walk *s, nb_str *inside) {
  if (s->at >= s->n || s->text[s->at] != '"') return false;
  size_t begin = s->at + 1, end = find_special(s->text, s->n, begin);
  if (end == s->n || s->text[end] != '"') return false;
  *inside = (nb_str){s->text + begin, end - begin};
  s->at = end + 1;
  return true;
}

bool nb_walk_value(nb_walk *s, nb_str *value) {
  size_t at = s->at, depth = 0;
  while (at < s->n) {
    char c = s->text[at];
    if (c == '"') {
      at = string_end(s->text, s->n, at + 1);
      if (at == s->n) return false;
    } else if (c == '{' || c == '[') {
      depth++;
    } else if (c == '}' || c == ']' || c == ',') {
      if (depth == 0) {
        *value = (nb_str){s->text + s->at, at - s->at};
        s->at = at;
        return true;
      }
      depth -= c != ',';
    }
    at = skip_spaces(s->text, s->n, at + 1);
  }
  return false;
}

/* --- what a string stands for --- */

/* The four digits at `hex`; -1 if they are not. */
static int32_t hex4(const char *hex) {
  int32_t code = 0;
  for (int i = 0; i < 4; i++) {
    int digit = nb_hex_digit(hex[i]);
    if (digit < 0) return -1;
    code = code << 4 | digit;
  }
  return code;
}

/* The code point of a \u escape, two of them for a surrogate pair; *used is their length. -1 if it is none. */
static int32_t unicode_escape(const char *text, size_t n, size_t *used) {
  if (n < 6) return -1;
  int32_t code = hex4(text + 2);
  *used = 6;
  if (code < 0xd800 || code > 0xdfff) return code;
  int32_t low = n >= 12 && text[6] == '\\' && text[7] == 'u' ? hex4(text + 8) : -1;
  if (code > 0xdbff || low < 0xdc00 || low > 0xdfff) return -1;
  *used = 12;
  return 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
}

long nb_walk_unescape(nb_str inside, char *out) {
  static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
  const char *text = inside.data;
  size_t n = inside.length, length = 0;
  for (size_t i = 0; i < n;) {
    size_t plain = find_special(text, n, i) - i, used = 2;
    memcpy(out + length, text + i, plain);
    length += plain;
    i += plain;
    if (i == n) break;
    if (text[i] != '\\') return -1;
    const char *known = i + 1 < n && text[i + 1] ? strchr(from, text[i + 1]) : NULL;
    if (known) {
      out[length++] = to[known - from];
    } else {
      int32_t code = i + 1 < n && text[i + 1] == 'u' ? unicode_escape(text + i, n - i, &used) : -1;
      if (code < 0) return -1;
      length += nb_utf8_encode((uint32_t)code, out + length);
    }
    i += used;
  }
  return (long)length;
}
