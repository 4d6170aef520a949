/* From Oniguruma's Ruby syntax to PCRE2's (https://github.com/kkos/oniguruma/blob/master/doc/RE and pcre2pattern(3)).
 * The two differ in: \w and \b (PCRE2's are narrower), \h (hex digit), \v (one character), (?m) (dot matches newline),
 * an option without a colon (it opens a group to the end of the enclosing one), {n,m}+ (a repeat, not possessive),
 * {n}? (optional, not lazy), {,m}, property names, and scripts (Script, not Script_Extensions). White space needs no
 * change: the one code point that PCRE2's \s has too many is hidden by the shadow (tokenizer/unicode.h). */
#include <ctype.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "tokenizer/regex.h"

/* Oniguruma's word characters. Outside brackets a table for Latin-1 adds superscripts and fractions. */
#define WORD_IN_CLASS "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"
#define WORD WORD_IN_CLASS "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}"
/* As of Unicode 16, for characters that are older. */
#define ALPHABETIC "\\p{Alphabetic}\\x{363}-\\x{36f}\\x{c04}\\x{f82}\\x{f83}\\x{1dd3}-\\x{1de6}\\x{11080}\\x{11081}"

enum { MAX_GROUPS = 100, NO_ATOM = -1 };

typedef struct group {
  long atom;   /* where it begins in the output */
  int options; /* groups opened inside it for options without a colon */
} group;

typedef struct translator {
  const char *where, *pattern, *at;
  nb_buf *out;
  long atom; /* where the last thing that can be repeated begins in the output; NO_ATOM if there is none */
  group groups[MAX_GROUPS];
  int depth;
  nibble_error *err;
} translator;

static nibble_status refuse(translator *t, const char *what) {
  return nb_fail(t->err, NIBBLE_BAD_INPUT, "%s: the pattern '%.80s' has %s, which nibble does not know", t->where,
                 t->pattern, what);
}

/* Long names of general categories and the POSIX names, in lower case without separators. */
static const struct {
  const char *name, *set;
} properties[] = {
    {"letter", "\\p{L}"},
    {"uppercaseletter", "\\p{Lu}"},
    {"lowercaseletter", "\\p{Ll}"},
    {"titlecaseletter", "\\p{Lt}"},
    {"modifierletter", "\\p{Lm}"},
    {"otherletter", "\\p{Lo}"},
    {"mark", "\\p{M}"},
    {"nonspacingmark", "\\p{Mn}"},
    {"spacingmark", "\\p{Mc}"},
    {"enclosingmark", "\\p{Me}"},
    {"number", "\\p{N}"},
    {"decimalnumber", "\\p{Nd}"},
    {"letternumber", "\\p{Nl}"},
    {"othernumber", "\\p{No}"},
    {"punctuation", "\\p{P}"},
    {"dashpunctuation", "\\p{Pd}"},
    {"openpunctuation", "\\p{Ps}"},
    {"closepunctuation", "\\p{Pe}"},
    {"initialpunctuation", "\\p{Pi}"},
    {"finalpunctuation", "\\p{Pf}"},
    {"connectorpunctuation", "\\p{Pc}"},
    {"otherpunctuation", "\\p{Po}"},
    {"symbol", "\\p{S}"},
    {"mathsymbol", "\\p{Sm}"},
    {"currencysymbol", "\\p{Sc}"},
    {"modifiersymbol", "\\p{Sk}"},
    {"othersymbol", "\\p{So}"},
    {"separator", "\\p{Z}"},
    {"spaceseparator", "\\p{Zs}"},
    {"lineseparator", "\\p{Zl}"},
    {"paragraphseparator", "\\p{Zp}"},
    {"other", "\\p{C}"},
    {"control", "\\p{Cc}"},
    {"format", "\\p{Cf}"},
    {"privateuse", "\\p{Co}"},
    {"alpha", ALPHABETIC},
    {"alphabetic", ALPHABETIC},
    {"alnum", ALPHABETIC "\\p{Nd}"},
    {"digit", "\\p{Nd}"},
    {"space", "\\s"},
    {"whitespace", "\\s"},
    {"xdigit", "0-9A-Fa-f"},
    {"any", "\\p{Any}"},
    {"ascii", "\\x{0}-\\x{7f}"},
    {"cntrl", "\\p{Cc}"},
    {"punct", "\\p{P}"},
};

static bool is_script(const char *name) {
  char pattern[64];
  int code, length = snprintf(pattern, sizeof pattern, "\\p{sc:%s}", name);
  PCRE2_SIZE at;
  pcre2_code *compiled = pcre2_compile((PCRE2_SPTR)pattern, (size_t)length, PCRE2_UTF, &code, &at, NULL);
  pcre2_code_free(compiled);
  return compiled != NULL;
}

/* What stands between the brackets of a class for the property `name` of n bytes; false if it is unknown. */
static bool property_set(const char *name, size_t n, char *set, size_t size) {
  char plain[32];
  size_t length = 0;
  for (size_t i = 0; i < n; i++) {
    if (name[i] == ' ' || name[i] == '-' || name[i] == '_') continue;
    if (length + 1 == sizeof plain || !isalnum((unsigned char)name[i])) return false;
    plain[length++] = (char)tolower((unsigned char)name[i]);
  }
  plain[length] = 0;
  for (size_t i = 0; i < sizeof properties / sizeof *properties; i++) {
    if (strcmp(plain, properties[i].name) == 0) return snprintf(set, size, "%s", properties[i].set) < (int)size;
  }
  if (length <= 2 && length > 0 && strchr("lmnpszc", plain[0])) {
    plain[0] = (char)toupper((unsigned char)plain[0]);
    return snprintf(set, size, "\\p{%s}", plain) < (int)size;
  }
  return length > 2 && is_script(plain) && snprintf(set, size, "\\p{sc:%s}", plain) < (int)size;
}

/* A set as it stands inside brackets or, on its own, with them. */
static nibble_status put_set(translator *t, const char *set, bool negative, bool in_class) {
  bool single = set[0] == '\\' && (strchr(set, '}') ? strchr(set, '}')[1] == 0 : strlen(set) == 2);
  if (in_class && !negative) {
    nb_buf_puts(t->out, set);
  } else if (single) {
    nb_buf_printf(t->out, "\\%c%s", negative ? toupper((unsigned char)set[1]) : set[1], set + 2);
  } else if (in_class) {
    return refuse(t, "a negated set inside a class");
  } else {
    nb_buf_printf(t->out, "[%s%s]", negative ? "^" : "", set);
  }
  return NIBBLE_OK;
}

/* \p{Name}, \p{^Name}, \P{Name}; t->at is behind the p. */
static nibble_status property(translator *t, bool negative, bool in_class) {
  const char *close = *t->at == '{' ? strchr(t->at, '}') : NULL;
  if (!close) return refuse(t, "a \\p without {name}");
  const char *name = t->at + 1;
  if (*name == '^') {
    negative = !negative;
    name++;
  }
  char set[160];
  if (!property_set(name, (size_t)(close - name), set, sizeof set)) return refuse(t, "an unknown \\p{name}");
  t->at = close + 1;
  return put_set(t, set, negative, in_class);
}

/* \xHH, \x{H...}, \uHHHH; t->at is behind the letter. */
static nibble_status code_point(translator *t, char letter) {
  unsigned code;
  int used = 0;
  bool read = letter == 'u'   ? sscanf(t->at, "%4x%n", &code, &used) == 1 && used == 4
              : *t->at == '{' ? sscanf(t->at, "{%8x}%n", &code, &used) == 1 && used > 0
                              : sscanf(t->at, "%2x%n", &code, &used) == 1 && code < 0x80;
  if (!read || !isxdigit((unsigned char)t->at[*t->at == '{']) || code > 0x10ffff) return refuse(t, "an odd \\x or \\u");
  t->at += used;
  nb_buf_printf(t->out, "\\x{%x}", code);
  return NIBBLE_OK;
}

/* An escape that reads the same in and out of a class; *known is false if it is none of those. */
static nibble_status common_escape(translator *t, char c, bool in_class, bool *known) {
  *known = true;
  switch (c) {
    case 'w':
    case 'W': return put_set(t, in_class ? WORD_IN_CLASS : WORD, c == 'W', in_class);
    case 'h':
    case 'H': return put_set(t, "0-9A-Fa-f", c == 'H', in_class);
    case 's':
    case 'S':
    case 'd':
    case 'D':
    case 'n':
    case 't':
    case 'r':
    case 'f':
    case 'a':
    case 'e': nb_buf_printf(t->out, "\\%c", c); return NIBBLE_OK;
    case 'v': nb_buf_puts(t->out, "\\x{b}"); return NIBBLE_OK;
    case 'p':
    case 'P': return property(t, c == 'P', in_class);
    case 'x':
    case 'u': return code_point(t, c);
    default: *known = false; return NIBBLE_OK;
  }
}

static nibble_status escape(translator *t) {
  t->atom = (long)t->out->length;
  char c = *++t->at;
  if (!c) return refuse(t, "a \\ at its end");
  t->at++;
  bool known;
  nibble_status status = common_escape(t, c, false, &known);
  if (known) return status;
  if (c == 'b' || c == 'B') {
    nb_buf_printf(t->out, "(?:(?<=[" WORD "])(?%c[" WORD "])|(?<![" WORD "])(?%c[" WORD "]))", c == 'b' ? '!' : '=',
                  c == 'b' ? '=' : '!');
  } else if ((unsigned char)c >= 0x80 || !isalnum((unsigned char)c) || strchr("AzZGKRX123456789", c)) {
    nb_buf_printf(t->out, "\\%c", c);
  } else {
    return refuse(t, "an unknown escape");
  }
  return NIBBLE_OK;
}

static nibble_status posix_bracket(translator *t) {
  const char *name = t->at + 2, *close = strstr(name, ":]");
  bool negative = *name == '^';
  char set[160];
  if (!close || !property_set(name + negative, (size_t)(close - name) - negative, set, sizeof set))
    return refuse(t, "a class inside a class");
  t->at = close + 2;
  return put_set(t, strcmp(set, "\\p{P}") == 0 ? "\\p{P}\\p{S}" : set, negative, true); /* [:punct:] has symbols too */
}

static nibble_status class(translator *t) {
  t->atom = (long)t->out->length;
  nb_buf_append(t->out, t->at++, 1);
  if (*t->at == '^') nb_buf_append(t->out, t->at++, 1);
  if (*t->at == ']') return refuse(t, "a ] that opens a class");
  while (*t->at != ']') {
    nibble_status status = NIBBLE_OK;
    bool known = true;
    if (!*t->at) return refuse(t, "an open class");
    if (*t->at == '[') {
      status = t->at[1] == ':' ? posix_bracket(t) : refuse(t, "a class inside a class");
    } else if (*t->at == '&' && t->at[1] == '&') {
      status = refuse(t, "an intersection of classes");
    } else if (*t->at == '\\') {
      char c = *++t->at;
      if (!c) return refuse(t, "a \\ at its end");
      t->at++;
      status = common_escape(t, c, true, &known);
      if (!known && isalnum((unsigned char)c) && c != 'b') return refuse(t, "an unknown escape in a class");
      if (!known) nb_buf_printf(t->out, "\\%c", c);
    } else {
      nb_buf_append(t->out, t->at++, 1);
    }
    if (status != NIBBLE_OK) return status;
  }
  nb_buf_append(t->out, t->at++, 1);
  return NIBBLE_OK;
}

/* (?imx-imx:...) and (?imx-imx); t->at is at the parenthesis. */
static nibble_status options(translator *t) {
  const char *c = t->at + 2;
  nb_buf_puts(t->out, "(?");
  for (; *c && strchr("imx-", *c); c++) nb_buf_append(t->out, *c == 'm' ? "s" : c, 1);
  if ((*c != ':' && *c != ')') || c == t->at + 2) return refuse(t, "an unknown kind of group");
  nb_buf_puts(t->out, ":");
  t->at = c + 1;
  if (*c == ':') return NIBBLE_OK;
  t->groups[--t->depth].options++; /* it closes with the group around it */
  return NIBBLE_OK;
}

static nibble_status open_group(translator *t) {
  if (t->depth + 1 == MAX_GROUPS) return refuse(t, "too many groups inside each other");
  t->groups[++t->depth] = (group){.atom = (long)t->out->length};
  t->atom = NO_ATOM;
  if (t->at[1] != '?') {
    nb_buf_append(t->out, t->at++, 1);
    return NIBBLE_OK;
  }
  if (t->at[2] == '#') {
    const char *close = strchr(t->at, ')');
    if (!close) return refuse(t, "an open comment");
    t->at = close + 1;
    t->depth--;
    return NIBBLE_OK;
  }
  if (!t->at[2] || !strchr(":=!><", t->at[2])) return options(t);
  nb_buf_append(t->out, t->at, 3);
  t->at += 3;
  return NIBBLE_OK;
}

static nibble_status close_group(translator *t) {
  if (t->depth == 0) return refuse(t, "a ) too many");
  for (int i = 0; i < t->groups[t->depth].options; i++) nb_buf_puts(t->out, ")");
  t->atom = t->groups[t->depth--].atom;
  nb_buf_append(t->out, t->at++, 1);
  return NIBBLE_OK;
}

/* Makes what was last put one group, so that a further repeat applies to all of it. */
static void wrap_atom(translator *t) {
  nb_buf tail = {0};
  nb_buf_append(&tail, t->out->data + t->atom, t->out->length - (size_t)t->atom);
  t->out->length = (size_t)t->atom;
  nb_buf_puts(t->out, "(?:");
  nb_buf_append(t->out, tail.data, tail.length);
  nb_buf_puts(t->out, ")");
  if (tail.failed) t->out->failed = true;
  nb_buf_free(&tail);
}

/* {n}, {n,}, {,m}, {n,m} and what follows it; anything else is a brace that stands for itself. */
static nibble_status interval(translator *t) {
  int low = -1, high = -1, used = 0;
  const char *c = t->at + 1;
  if (sscanf(c, "%5d%n", &low, &used) == 1 && isdigit((unsigned char)*c)) c += used;
  bool comma = *c == ',';
  if (comma && isdigit((unsigned char)*++c) && sscanf(c, "%5d%n", &high, &used) == 1) c += used;
  if (*c != '}' || (low < 0 && high < 0)) {
    t->atom = (long)t->out->length;
    nb_buf_puts(t->out, "\\{");
    t->at++;
    return NIBBLE_OK;
  }
  if (t->atom == NO_ATOM) return refuse(t, "a repeat of nothing");
  nb_buf_printf(t->out, "{%d", low < 0 ? 0 : low);
  if (comma) nb_buf_puts(t->out, ",");
  if (high >= 0) nb_buf_printf(t->out, "%d", high);
  nb_buf_puts(t->out, "}");
  t->at = c + 1;
  if (comma && *t->at == '?') {
    nb_buf_append(t->out, t->at++, 1);
  } else if (*t->at == '+' || *t->at == '?') {
    wrap_atom(t);
    nb_buf_append(t->out, t->at++, 1);
  }
  return NIBBLE_OK;
}

static void repeat(translator *t) {
  nb_buf_append(t->out, t->at++, 1);
  if (*t->at == '?' || *t->at == '+') nb_buf_append(t->out, t->at++, 1);
}

static void plain(translator *t) {
  size_t length;
  nb_utf8_decode(t->at, &length);
  t->atom = strchr("|^$", *t->at) ? NO_ATOM : (long)t->out->length;
  nb_buf_append(t->out, t->at, length);
  t->at += length;
}

nibble_status nb_regex_translate(const char *where, const char *pattern, nb_buf *out, nibble_error *err) {
  translator t = {.where = where, .pattern = pattern, .at = pattern, .out = out, .atom = NO_ATOM, .err = err};
  if (nb_utf8_valid(pattern, strlen(pattern)) != strlen(pattern)) return refuse(&t, "bytes that are not UTF-8");
  nibble_status status = NIBBLE_OK;
  while (*t.at && status == NIBBLE_OK && !out->failed) {
    switch (*t.at) {
      case '\\': status = escape(&t); break;
      case '[': status = class(&t); break;
      case '(': status = open_group(&t); break;
      case ')': status = close_group(&t); break;
      case '{': status = interval(&t); break;
      case '*':
      case '+':
      case '?': repeat(&t); break;
      default: plain(&t);
    }
  }
  for (int i = 0; i < t.groups[0].options && status == NIBBLE_OK; i++) nb_buf_puts(out, ")");
  if (status == NIBBLE_OK && t.depth > 0) return refuse(&t, "a ( too many");
  return status;
}
