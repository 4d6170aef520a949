#include "model/json_scan.h"

#include <ctype.h>
#include <string.h>
#include <utf8proc.h>

/* cJSON's limit, too: both recurse. */
enum { MAX_DEPTH = 1000 };

static const char not_json[] = "not valid JSON (or nested too deeply)";

static bool fail(nb_json_scan *s, const char *fault) {
  s->fault = fault;
  return false;
}

static int peek(const nb_json_scan *s) { return s->at < s->length ? (unsigned char)s->text[s->at] : -1; }

static bool is_digit(int c) { return c >= '0' && c <= '9'; }

void nb_json_scan_space(nb_json_scan *s) {
  for (int c = peek(s); c == ' ' || c == '\n' || c == '\r' || c == '\t'; c = peek(s)) s->at++;
}

bool nb_json_scan_byte(nb_json_scan *s, char byte) {
  if (peek(s) != (unsigned char)byte) return false;
  s->at++;
  return true;
}

static bool scan_word(nb_json_scan *s, const char *word) {
  size_t n = strlen(word);
  if (s->length - s->at < n || memcmp(s->text + s->at, word, n) != 0) return fail(s, not_json);
  s->at += n;
  return true;
}

/* Behind a backslash. */
static bool scan_escape(nb_json_scan *s) {
  int c = peek(s);
  if (c > 0 && strchr("\"\\/bfnrt", c)) {
    s->at++;
    return true;
  }
  if (c != 'u' || s->length - s->at < 5) return fail(s, not_json);
  const char *digits = s->text + s->at + 1;
  for (int i = 0; i < 4; i++) {
    if (!isxdigit((unsigned char)digits[i])) return fail(s, not_json);
  }
  if (memcmp(digits, "0000", 4) == 0) return fail(s, "a string with \\u0000");
  s->at += 5;
  return true;
}

bool nb_json_scan_string(nb_json_scan *s) {
  if (!nb_json_scan_byte(s, '"')) return fail(s, not_json);
  for (;;) {
    int c = peek(s);
    if (c < 0) return fail(s, not_json);
    if (c < 0x20) return fail(s, "a string with a control character");
    if (c >= 0x80) {
      utf8proc_int32_t code;
      utf8proc_ssize_t n =
          utf8proc_iterate((const utf8proc_uint8_t *)s->text + s->at, (utf8proc_ssize_t)(s->length - s->at), &code);
      if (n <= 0) return fail(s, "not valid UTF-8");
      s->at += (size_t)n;
      continue;
    }
    s->at++;
    if (c == '"') return true;
    if (c == '\\' && !scan_escape(s)) return false;
  }
}

static bool scan_digits(nb_json_scan *s) {
  if (!is_digit(peek(s))) return fail(s, not_json);
  while (is_digit(peek(s))) s->at++;
  return true;
}

static bool scan_number(nb_json_scan *s) {
  size_t begin = s->at;
  nb_json_scan_byte(s, '-');
  bool ok = true;
  if (peek(s) == 'I') {
    ok = scan_word(s, "Infinity");
  } else if (peek(s) == 'N' && s->at == begin) {
    ok = scan_word(s, "NaN");
  } else {
    ok = nb_json_scan_byte(s, '0') || scan_digits(s);
    if (ok && nb_json_scan_byte(s, '.')) ok = scan_digits(s);
    if (ok && (nb_json_scan_byte(s, 'e') || nb_json_scan_byte(s, 'E'))) {
      if (!nb_json_scan_byte(s, '-')) nb_json_scan_byte(s, '+');
      ok = scan_digits(s);
    }
  }
  if (ok && s->number) s->number(s->ctx, s->text + begin, s->at - begin);
  return ok;
}

static bool scan_item(nb_json_scan *s, bool named) {
  nb_json_scan_space(s);
  if (named) {
    if (!nb_json_scan_string(s)) return false;
    nb_json_scan_space(s);
    if (!nb_json_scan_byte(s, ':')) return fail(s, not_json);
    nb_json_scan_space(s);
  }
  if (!nb_json_scan_value(s)) return false;
  nb_json_scan_space(s);
  return true;
}

static bool scan_container(nb_json_scan *s, char close) {
  if (s->depth == MAX_DEPTH) return fail(s, not_json);
  s->at++;
  s->depth++;
  nb_json_scan_space(s);
  if (!nb_json_scan_byte(s, close)) {
    do {
      if (!scan_item(s, close == '}')) return false;
    } while (nb_json_scan_byte(s, ','));
    if (!nb_json_scan_byte(s, close)) return fail(s, not_json);
  }
  s->depth--;
  return true;
}

bool nb_json_scan_value(nb_json_scan *s) {
  s->values++;
  if (s->most > 0 && s->values > s->most) return fail(s, "too many values");
  switch (peek(s)) {
    case '{': return scan_container(s, '}');
    case '[': return scan_container(s, ']');
    case '"': return nb_json_scan_string(s);
    case 't': return scan_word(s, "true");
    case 'f': return scan_word(s, "false");
    case 'n': return scan_word(s, "null");
    default: return scan_number(s);
  }
}

bool nb_json_scan_all(nb_json_scan *s) {
  static const char byte_order_mark[] = "\xEF\xBB\xBF";
  if (s->length >= 3 && memcmp(s->text, byte_order_mark, 3) == 0) s->at = 3; /* as some editors leave it */
  nb_json_scan_space(s);
  if (!nb_json_scan_value(s)) return false;
  nb_json_scan_space(s);
  return s->at == s->length;
}
