/* PCRE2 bounds what one start position of a match may cost (its match limit), and of that only some of the work: no
 * limit knows of a scan like that of [^x]+, and n positions that each scan what is left of a text take n^2 steps. So
 * every pattern has two programs:
 *
 *   quick    sees WINDOW bytes ahead of where a search stands. A start that asks for more (PCRE2 calls it a partial
 *            match) or needs more than a few backtracks is left to the other; all others cost no more than a constant,
 *            since a pattern with more than QUICK_ITEMS items to try at a start has no quick program.
 *   counted  sees the whole text. PCRE2 calls `count` before every item of the pattern (automatic callouts), which
 *            takes what was done since the last call from the text's budget, or ends the search.
 *
 * Both find the same, so which one runs is seen in the time only. Words are short: the quick one finds nearly all. */
#include "tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <ctype.h>
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

enum {
  MAX_PATTERN = 1 << 13, /* bytes; the longest in use has about 1000 */
  WINDOW = 64,           /* bytes */
  QUICK_LIMIT = 128,     /* PCRE2's measure of work at one start; words of a window rarely need 10 */
  QUICK_ITEMS = 1536,    /* o200k's pattern has about 1100, most of them those of its 16 + and * */
  ITEMS_MAX = 1 << 20,   /* where counting stops */
  COUNTED_LIMIT = 10000000,
  MAX_DEPTH = 100,          /* of groups inside each other */
  CALL_WORK = 8,            /* what a callout costs, in units of a step over a character */
  JIT_STACK_MAX = 16 << 20, /* bytes */
};

typedef struct program {
  pcre2_code *code;
  pcre2_match_context *context;
  bool jit; /* not everywhere: slower without */
} program;

/* What `count` knows of the search that calls it. */
typedef struct tally {
  nb_budget *budget;
  size_t at; /* where it was called last */
} tally;

struct nb_regex {
  char *literal; /* what is looked for as it stands; NULL: a pattern */
  nb_buf translated;
  program quick, counted; /* the second is made when it is needed for the first time */
  pcre2_match_data *data;
  pcre2_jit_stack *stack; /* NULL without JIT */
  tally tally;
  size_t item_work;       /* that an item may do and fail, so that nothing is called after it */
  bool refers_back, slow; /* has \1; is never run by the quick program */
  char shown[64];         /* the pattern, cut, for messages */
};

/* ---- compiling -------------------------------------------------------------------------------------------------- */

static nibble_status compile(const char *where, const nb_regex *regex, uint32_t more, program *out, nibble_error *err) {
  uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C | more;
  PCRE2_SPTR text = (PCRE2_SPTR)(regex->translated.data ? regex->translated.data : "");
  PCRE2_SIZE at;
  int code;
  pcre2_compile_context *context = pcre2_compile_context_create(NULL);
  if (!context) return nb_fail_memory(err, sizeof *regex);
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);
  pcre2_set_parens_nest_limit(context, MAX_DEPTH);
  out->code = pcre2_compile(text, regex->translated.length, options, &code, &at, context);
  pcre2_compile_context_free(context);
  if (out->code) return NIBBLE_OK;
  char message[128];
  pcre2_get_error_message(code, (PCRE2_UCHAR *)message, sizeof message);
  return nb_fail(err, NIBBLE_BAD_INPUT, "%s: cannot use the pattern '%s': %s", where, regex->shown, message);
}

static nibble_status prepare(nb_regex *regex, program *p, uint32_t jit_options, uint32_t limit, nibble_error *err) {
  p->jit = pcre2_jit_compile(p->code, jit_options) == 0;
  p->context = pcre2_match_context_create(NULL);
  if (!p->context) return nb_fail_memory(err, sizeof *regex);
  pcre2_set_match_limit(p->context, limit);
  if (!p->jit) return NIBBLE_OK;
  if (!regex->stack) regex->stack = pcre2_jit_stack_create(1 << 15, JIT_STACK_MAX, NULL);
  if (!regex->stack) return nb_fail_memory(err, JIT_STACK_MAX);
  pcre2_jit_stack_assign(p->context, NULL, regex->stack);
  return NIBBLE_OK;
}

/* The largest number in braces, in steps: a{5000} may fail behind 4999 of them. Also takes \x{5000} for one, which
 * only makes the pattern's items dearer. */
static size_t largest_repeat(const nb_buf *pattern) {
  size_t largest = 0;
  for (size_t i = 0; i + 1 < pattern->length; i++) {
    if (pattern->data[i] != '{' || !isdigit((unsigned char)pattern->data[i + 1])) continue;
    size_t count = strtoul(pattern->data + i + 1, NULL, 10);
    if (count > largest) largest = count;
  }
  return largest;
}

/* Behind the escape or class at pattern[i]. */
static size_t skip_item(const nb_buf *pattern, size_t i) {
  const char *text = pattern->data;
  if (text[i] == '\\') {
    bool named = i + 2 < pattern->length && text[i + 2] == '{' && strchr("pPx", text[i + 1]);
    const char *close = named ? memchr(text + i, '}', pattern->length - i) : NULL;
    return close ? (size_t)(close - text) + 1 : i + 2;
  }
  bool class = text[i] == '[';
  for (i++; class && i < pattern->length && text[i] != ']';) i = text[i] == '\\' ? skip_item(pattern, i) : i + 1;
  return i + class;
}

/* How often the repeat at text[0] may try its item inside a window; 1 if there is no repeat. */
static size_t repeats(const char *text) {
  if (*text == '*' || *text == '+') return WINDOW;
  if (*text != '{') return 1;
  char *end;
  size_t most = strtoul(text + 1, &end, 10);
  if (*end == ',') most = end[1] == '}' ? WINDOW : strtoul(end + 1, &end, 10);
  return most < WINDOW ? most : WINDOW;
}

/* The items that a start may try in a window: characters and classes, as often as they are repeated, of all branches
 * and looks ahead together. */
static size_t count_items(const nb_buf *pattern) {
  size_t total = 0, groups[MAX_DEPTH], depth = 0; /* groups: the total at the start of each open one */
  for (size_t i = 0; i < pattern->length && total < ITEMS_MAX;) {
    char c = pattern->data[i];
    i = skip_item(pattern, i);
    if (c == '(') {
      if (depth == MAX_DEPTH) return ITEMS_MAX;
      groups[depth++] = total;
      continue;
    }
    size_t before = c == ')' && depth > 0 ? groups[--depth] : total;
    if (c != ')') total++;
    if (i < pattern->length) total = before + (total - before) * repeats(pattern->data + i);
  }
  return total;
}

static nibble_status compile_quick(const char *where, nb_regex *regex, nibble_error *err) {
  uint32_t back = 0, references = 0;
  nibble_status status = compile(where, regex, 0, &regex->quick, err);
  if (status != NIBBLE_OK) return status;
  pcre2_pattern_info(regex->quick.code, PCRE2_INFO_MAXLOOKBEHIND, &back);
  pcre2_pattern_info(regex->quick.code, PCRE2_INFO_BACKREFMAX, &references);
  regex->slow = back > WINDOW || count_items(&regex->translated) > QUICK_ITEMS;
  regex->refers_back = references > 0;
  regex->item_work = CALL_WORK + back + largest_repeat(&regex->translated);
  regex->data = pcre2_match_data_create(1, NULL);
  if (!regex->data) return nb_fail_memory(err, sizeof *regex);
  return prepare(regex, &regex->quick, PCRE2_JIT_COMPLETE | PCRE2_JIT_PARTIAL_HARD, QUICK_LIMIT, err);
}

static int count(pcre2_callout_block *block, void *ctx);

static void free_program(program *p) {
  pcre2_code_free(p->code);
  pcre2_match_context_free(p->context);
  *p = (program){0};
}

static nibble_status compile_counted(nb_regex *regex, nibble_error *err) {
  if (regex->counted.code) return NIBBLE_OK;
  nibble_status status = compile("tokenizer", regex, PCRE2_AUTO_CALLOUT, &regex->counted, err);
  if (status == NIBBLE_OK) status = prepare(regex, &regex->counted, PCRE2_JIT_COMPLETE, COUNTED_LIMIT, err);
  if (status == NIBBLE_OK)
    pcre2_set_callout(regex->counted.context, count, regex);
  else
    free_program(&regex->counted);
  return status;
}

nibble_status nb_regex_compile(const char *where, const char *pattern, bool literal, nb_regex **out,
                               nibble_error *err) {
  *out = NULL;
  size_t n = strlen(pattern);
  if (n > MAX_PATTERN && !literal)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: a pattern of %zu bytes is longer than the %d allowed", where, n,
                   MAX_PATTERN);
  nb_regex *regex = calloc(1, sizeof *regex);
  nibble_status status = NIBBLE_OK;
  if (!regex) return nb_fail_memory(err, sizeof *regex);
  strncpy(regex->shown, pattern, sizeof regex->shown - 1);
  regex->shown[nb_utf8_valid(regex->shown, strlen(regex->shown))] = 0;
  if (literal) {
    if (!(regex->literal = strdup(pattern))) status = nb_fail_memory(err, n);
  } else {
    status = nb_regex_translate(where, pattern, &regex->translated, err);
    if (status == NIBBLE_OK && regex->translated.failed) status = nb_fail_memory(err, n);
    if (status == NIBBLE_OK) status = compile_quick(where, regex, err);
  }
  if (status == NIBBLE_OK)
    *out = regex;
  else
    nb_regex_free(regex);
  return status;
}

void nb_regex_free(nb_regex *regex) {
  if (!regex) return;
  free_program(&regex->quick);
  free_program(&regex->counted);
  pcre2_match_data_free(regex->data);
  pcre2_jit_stack_free(regex->stack);
  nb_buf_free(&regex->translated);
  free(regex->literal);
  free(regex);
}

bool nb_regex_is_literal(const nb_regex *regex) { return regex->literal != NULL; }

/* ---- searching -------------------------------------------------------------------------------------------------- */

/* Takes from the budget what the search has done since the last call: the way that it has gone, forwards or back, and
 * what items may have done in vain. */
static int count(pcre2_callout_block *block, void *ctx) {
  nb_regex *regex = ctx;
  tally *t = &regex->tally;
  size_t now = block->current_position, work = regex->item_work + (now > t->at ? now - t->at : t->at - now);
  if (regex->refers_back) work += now - block->start_match; /* the longest that \1 can have compared */
  t->at = now;
  if (work > t->budget->work) return PCRE2_ERROR_CALLOUT;
  t->budget->work -= work;
  return 0;
}

/* PCRE2's answer for the starts from s->at on in the first `end` bytes. */
static int run(const nb_regex *regex, const program *p, const nb_search *s, size_t end, uint32_t options) {
  PCRE2_SPTR text = (PCRE2_SPTR)s->text;
  return p->jit ? pcre2_jit_match(p->code, text, end, s->at, options, regex->data, p->context)
                : pcre2_match(p->code, text, end, s->at, options | PCRE2_NO_UTF_CHECK, regex->data, p->context);
}

/* Looks for a match window by window, which brings s->at to where its start can be. Without one the answer is that of
 * the start which the quick program has to leave to the other. */
static int run_quick(const nb_regex *regex, nb_search *s) {
  const PCRE2_SIZE *pair = pcre2_get_ovector_pointer(regex->data);
  for (;;) {
    size_t end = s->n;
    if (end - s->at > WINDOW) {
      for (end = s->at + WINDOW; !nb_utf8_begins(s->text[end]);) end--;
    }
    if (end == s->n) return run(regex, &regex->quick, s, end, 0);
    int answer = run(regex, &regex->quick, s, end, PCRE2_PARTIAL_HARD);
    if (answer == PCRE2_ERROR_NOMATCH || (answer >= 0 && pair[0] >= end)) {
      s->at = end; /* an empty match at the window's end may be a longer one in the text */
    } else if (answer == PCRE2_ERROR_PARTIAL && pair[0] > s->at) {
      s->at = pair[0];
    } else {
      return answer;
    }
  }
}

static nibble_status find_pattern(nb_regex *regex, nb_search *s, nibble_error *err) {
  int answer = regex->slow ? PCRE2_ERROR_PARTIAL : run_quick(regex, s);
  if (answer < 0 && answer != PCRE2_ERROR_NOMATCH) {
    nibble_status status = compile_counted(regex, err);
    if (status != NIBBLE_OK) return status;
    regex->tally = (tally){.budget = s->budget, .at = s->at};
    answer = run(regex, &regex->counted, s, s->n, 0);
  }
  if (answer == PCRE2_ERROR_NOMATCH) return NIBBLE_OK;
  if (answer < 0)
    return nb_fail(err, NIBBLE_BAD_INPUT, "the tokenizer's pattern '%s' costs too much on this text (PCRE2 error %d)",
                   regex->shown, answer);
  const PCRE2_SIZE *pair = pcre2_get_ovector_pointer(regex->data);
  /* \K in a lookahead could put the start behind the end. */
  if (pair[0] > pair[1] || pair[1] < s->at)
    return nb_fail(err, NIBBLE_BAD_INPUT, "the tokenizer's pattern '%s' matches backwards", regex->shown);
  s->found = true;
  s->begin = pair[0];
  s->end = pair[1];
  return NIBBLE_OK;
}

static void find_literal(const nb_regex *regex, nb_search *s) {
  size_t length = strlen(regex->literal);
  const char *hit = memmem(s->text + s->at, s->n - s->at, regex->literal, length);
  s->found = hit != NULL;
  if (!hit) return;
  s->begin = (size_t)(hit - s->text);
  s->end = s->begin + length;
}

nibble_status nb_regex_next(nb_regex *regex, nb_search *s, nibble_error *err) {
  size_t last = s->end;
  s->found = false;
  while (s->at <= s->n) {
    nibble_status status = NIBBLE_OK;
    if (regex->literal)
      find_literal(regex, s);
    else
      status = find_pattern(regex, s, err);
    if (status != NIBBLE_OK || !s->found) return status;
    s->at = s->end;
    if (s->begin < s->end || !s->matched || s->end != last) break;
    s->found = false;
    size_t step = 1;
    if (s->at < s->n) nb_utf8_decode(s->text + s->at, &step);
    s->at += step;
  }
  s->matched |= s->found;
  return NIBBLE_OK;
}

nibble_status nb_regex_replace(nb_regex *regex, nb_search *search, const char *text, const char *by, nb_buf *out,
                               nibble_error *err) {
  size_t done = 0;
  nibble_status status;
  while ((status = nb_regex_next(regex, search, err)) == NIBBLE_OK && search->found && !out->failed) {
    nb_buf_append(out, text + done, search->begin - done);
    nb_buf_puts(out, by);
    done = search->end;
  }
  nb_buf_append(out, text + done, search->n - done);
  return status;
}
