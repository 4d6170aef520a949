#include "tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

enum {
  MAX_PATTERN = 1 << 16,    /* bytes; the longest in use has about 1000 */
  MATCH_LIMIT = 10000000,   /* PCRE2's measure of work for one match; a second or less */
  JIT_STACK_MAX = 16 << 20, /* bytes */
};

struct nb_regex {
  pcre2_code *code;
  pcre2_match_data *data;
  pcre2_match_context *context;
  pcre2_jit_stack *stack;
  bool jit, literal;
  char shown[64]; /* the pattern, cut, for messages */
};

static pcre2_code *compile(const char *pattern, size_t n, uint32_t options, int *code) {
  PCRE2_SIZE at;
  pcre2_compile_context *context = pcre2_compile_context_create(NULL);
  *code = PCRE2_ERROR_NOMEMORY;
  if (!context) return NULL;
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);
  pcre2_set_parens_nest_limit(context, 100);
  pcre2_code *compiled = pcre2_compile((PCRE2_SPTR)pattern, n, options, code, &at, context);
  pcre2_compile_context_free(context);
  return compiled;
}

static nibble_status prepare(nb_regex *regex, nibble_error *err) {
  regex->jit = pcre2_jit_compile(regex->code, PCRE2_JIT_COMPLETE) == 0; /* not everywhere: slower without */
  regex->data = pcre2_match_data_create(1, NULL);
  regex->context = pcre2_match_context_create(NULL);
  if (!regex->data || !regex->context) return nb_fail_memory(err, sizeof *regex);
  pcre2_set_match_limit(regex->context, MATCH_LIMIT);
  if (!regex->jit) return NIBBLE_OK;
  regex->stack = pcre2_jit_stack_create(1 << 15, JIT_STACK_MAX, NULL);
  if (!regex->stack) return nb_fail_memory(err, JIT_STACK_MAX);
  pcre2_jit_stack_assign(regex->context, NULL, regex->stack);
  return NIBBLE_OK;
}

nibble_status nb_regex_compile(const char *where, const char *pattern, bool literal, nb_regex **out,
                               nibble_error *err) {
  *out = NULL;
  size_t n = strlen(pattern);
  if (n > MAX_PATTERN)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: a pattern of %zu bytes is longer than the %d allowed", where, n,
                   MAX_PATTERN);
  nb_buf translated = {0};
  nb_regex *regex = calloc(1, sizeof *regex);
  nibble_status status = NIBBLE_OK;
  if (!regex) return nb_fail_memory(err, sizeof *regex);
  regex->literal = literal;
  strncpy(regex->shown, pattern, sizeof regex->shown - 1);
  regex->shown[nb_utf8_valid(regex->shown, strlen(regex->shown))] = 0;
  if (literal)
    nb_buf_append(&translated, pattern, n);
  else if ((status = nb_regex_translate(where, pattern, &translated, err)) != NIBBLE_OK)
    goto done;
  if (translated.failed) {
    status = nb_fail_memory(err, n);
    goto done;
  }
  int code;
  uint32_t options =
      literal ? PCRE2_LITERAL | PCRE2_UTF : PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
  regex->code = compile(translated.data, translated.length, options, &code);
  if (!regex->code) {
    char message[128];
    pcre2_get_error_message(code, (PCRE2_UCHAR *)message, sizeof message);
    status = nb_fail(err, NIBBLE_BAD_INPUT, "%s: cannot use the pattern '%s': %s", where, regex->shown, message);
    goto done;
  }
  status = prepare(regex, err);
done:
  nb_buf_free(&translated);
  if (status == NIBBLE_OK)
    *out = regex;
  else
    nb_regex_free(regex);
  return status;
}

void nb_regex_free(nb_regex *regex) {
  if (!regex) return;
  pcre2_code_free(regex->code);
  pcre2_match_data_free(regex->data);
  pcre2_match_context_free(regex->context);
  pcre2_jit_stack_free(regex->stack);
  free(regex);
}

bool nb_regex_is_literal(const nb_regex *regex) { return regex->literal; }

nibble_status nb_regex_next(const nb_regex *regex, nb_search *s, nibble_error *err) {
  s->found = false;
  while (s->at <= s->n) {
    PCRE2_SPTR subject = (PCRE2_SPTR)s->text;
    int count = regex->jit
                    ? pcre2_jit_match(regex->code, subject, s->n, s->at, 0, regex->data, regex->context)
                    : pcre2_match(regex->code, subject, s->n, s->at, PCRE2_NO_UTF_CHECK, regex->data, regex->context);
    if (count == PCRE2_ERROR_NOMATCH) return NIBBLE_OK;
    if (count < 0)
      return nb_fail(err, NIBBLE_BAD_INPUT, "the tokenizer's pattern '%s' costs too much on this text (PCRE2 error %d)",
                     regex->shown, count);
    const PCRE2_SIZE *pair = pcre2_get_ovector_pointer(regex->data);
    if (pair[0] >= pair[1] && s->matched && s->end == pair[1]) {
      size_t step = 1;
      if (s->at < s->n) nb_utf8_decode(s->text + s->at, &step);
      s->at += step;
      continue;
    }
    /* \K in a lookahead could put the start behind the end. */
    if (pair[0] > pair[1] || pair[1] < s->at)
      return nb_fail(err, NIBBLE_BAD_INPUT, "the tokenizer's pattern '%s' matches backwards", regex->shown);
    s->found = s->matched = true;
    s->begin = pair[0];
    s->end = s->at = pair[1];
    return NIBBLE_OK;
  }
  return NIBBLE_OK;
}

nibble_status nb_regex_replace(const nb_regex *regex, nb_str text, const char *subject, const char *by, nb_buf *out,
                               nibble_error *err) {
  nb_search search = {.text = subject, .n = text.length};
  size_t done = 0;
  nibble_status status;
  while ((status = nb_regex_next(regex, &search, err)) == NIBBLE_OK && search.found) {
    nb_buf_append(out, text.data + done, search.begin - done);
    nb_buf_puts(out, by);
    done = search.end;
  }
  nb_buf_append(out, text.data + done, text.length - done);
  return status;
}
