/* Pre-tokenizers: a text cut into the words that the model sees one by one. Every pre-tokenizer of the reference is a
 * row or two of four kinds of step. The steps run depth first, a piece at a time, so that no list of pieces is ever
 * built; the pieces come out in the text's order all the same. */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "model/json.h"
#include "tokenizer/parts.h"
#include "tokenizer/unicode.h"

/* GPT-2's pattern, which ByteLevel splits by. */
#define GPT2_PATTERN "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
/* The reference's Whitespace step, in the syntax of Rust's regex. */
#define WORD_PATTERN                                          \
  "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200c}\\x{200d}]+|" \
  "[^\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200c}\\x{200d}\\s]+"

typedef struct parser {
  const char *where;
  nb_pre_tokenizer *out;
  nibble_error *err;
} parser;

static nibble_status add_step(parser *p, nb_pre_step step) {
  if (p->out->count == NB_MAX_STEPS) {
    nb_regex_free(step.regex);
    free(step.replacement);
    return nb_fail(p->err, NIBBLE_BAD_INPUT, "%s: pre_tokenizer has more than %d steps", p->where, NB_MAX_STEPS);
  }
  p->out->steps[p->out->count++] = step;
  return NIBBLE_OK;
}

static nibble_status add_pattern(parser *p, const char *pattern, bool literal, nb_behavior behavior, bool invert) {
  nb_pre_step step = {.kind = NB_PRE_SPLIT, .behavior = behavior, .invert = invert};
  nibble_status status = nb_regex_compile(p->where, pattern, literal, &step.regex, p->err);
  return status == NIBBLE_OK ? add_step(p, step) : status;
}

static nibble_status add_class(parser *p, bool (*is_in_class)(uint32_t), nb_behavior behavior) {
  return add_step(p, (nb_pre_step){.kind = NB_PRE_SPLIT, .is_in_class = is_in_class, .behavior = behavior});
}

static nibble_status read_behavior(parser *p, const cJSON *json, const char *type, nb_behavior *out) {
  static const char *const names[] = {[NB_REMOVED] = "Removed",
                                      [NB_ISOLATED] = "Isolated",
                                      [NB_MERGED_WITH_PREVIOUS] = "MergedWithPrevious",
                                      [NB_MERGED_WITH_NEXT] = "MergedWithNext",
                                      [NB_CONTIGUOUS] = "Contiguous"};
  const char *name = names[*out];
  nibble_status status = nb_json_string(p->where, json, "behavior", &name, p->err);
  if (status != NIBBLE_OK) return status;
  for (int i = 0; i <= NB_CONTIGUOUS; i++) {
    if (strcmp(name, names[i]) != 0) continue;
    *out = (nb_behavior)i;
    return NIBBLE_OK;
  }
  return nb_fail(p->err, NIBBLE_BAD_INPUT, "%s: pre_tokenizer %s has the unknown behavior '%s'", p->where, type, name);
}

static nibble_status parse_byte_level(parser *p, const cJSON *json) {
  bool space = true, regex = true;
  nibble_status status = nb_json_bool(p->where, json, "add_prefix_space", &space, p->err);
  if (status == NIBBLE_OK) status = nb_json_bool(p->where, json, "use_regex", &regex, p->err);
  if (status == NIBBLE_OK && space) status = add_step(p, (nb_pre_step){.kind = NB_PRE_SPACE});
  if (status == NIBBLE_OK && regex) status = add_pattern(p, GPT2_PATTERN, false, NB_ISOLATED, false);
  return status == NIBBLE_OK ? add_step(p, (nb_pre_step){.kind = NB_PRE_BYTES}) : status;
}

static nibble_status parse_split(parser *p, const cJSON *json) {
  nb_pre_step step = {.kind = NB_PRE_SPLIT, .behavior = NB_ISOLATED};
  if (!cJSON_HasObjectItem(json, "behavior"))
    return nb_fail(p->err, NIBBLE_BAD_INPUT, "%s: pre_tokenizer Split has no \"behavior\"", p->where);
  nibble_status status = read_behavior(p, json, "Split", &step.behavior);
  if (status == NIBBLE_OK) status = nb_json_bool(p->where, json, "invert", &step.invert, p->err);
  if (status == NIBBLE_OK) status = nb_part_pattern(p->where, "pre_tokenizer Split", json, &step.regex, p->err);
  return status == NIBBLE_OK ? add_step(p, step) : status;
}

static nibble_status parse_digits(parser *p, const cJSON *json) {
  bool individual = false;
  nibble_status status = nb_json_bool(p->where, json, "individual_digits", &individual, p->err);
  return status == NIBBLE_OK ? add_class(p, nb_is_numeric, individual ? NB_ISOLATED : NB_CONTIGUOUS) : status;
}

static nibble_status parse_punctuation(parser *p, const cJSON *json) {
  nb_behavior behavior = NB_ISOLATED;
  nibble_status status = read_behavior(p, json, "Punctuation", &behavior);
  return status == NIBBLE_OK ? add_class(p, nb_is_punct, behavior) : status;
}

static nibble_status parse_whitespace(parser *p, const cJSON *json) {
  (void)json;
  return add_pattern(p, WORD_PATTERN, false, NB_REMOVED, true);
}

static nibble_status parse_whitespace_split(parser *p, const cJSON *json) {
  (void)json;
  return add_class(p, nb_is_space, NB_REMOVED);
}

static nibble_status parse_bert(parser *p, const cJSON *json) {
  nibble_status status = parse_whitespace_split(p, json);
  return status == NIBBLE_OK ? add_class(p, nb_is_punct, NB_ISOLATED) : status;
}

static nibble_status parse_delimiter(parser *p, const cJSON *json) {
  char *text;
  nibble_status status = nb_part_char(p->where, "pre_tokenizer", json, "delimiter", &text, p->err);
  if (status != NIBBLE_OK) return status;
  status = add_pattern(p, text, true, NB_REMOVED, false);
  free(text);
  return status;
}

static nibble_status parse_metaspace(parser *p, const cJSON *json) {
  nb_pre_step step = {.kind = NB_PRE_METASPACE};
  const char *scheme = "always";
  bool split = true, prefix = true;
  nibble_status status = nb_json_string(p->where, json, "prepend_scheme", &scheme, p->err);
  if (status == NIBBLE_OK) status = nb_json_bool(p->where, json, "split", &split, p->err);
  if (status == NIBBLE_OK) status = nb_json_bool(p->where, json, "add_prefix_space", &prefix, p->err);
  if (status != NIBBLE_OK) return status;
  static const char *const schemes[] = {[NB_NEVER] = "never", [NB_FIRST] = "first", [NB_ALWAYS] = "always"};
  int i = 0;
  while (i <= NB_ALWAYS && strcmp(scheme, schemes[i]) != 0) i++;
  if (i > NB_ALWAYS)
    return nb_fail(p->err, NIBBLE_BAD_INPUT, "%s: Metaspace has the unknown prepend_scheme '%s'", p->where, scheme);
  step.prepend = prefix ? (unsigned)i : NB_NEVER;
  status = nb_part_char(p->where, "pre_tokenizer", json, "replacement", &step.replacement, p->err);
  if (status != NIBBLE_OK) return status;
  const char *replacement = step.replacement; /* owned by the step from here */
  status = add_step(p, step);
  return status == NIBBLE_OK && split ? add_pattern(p, replacement, true, NB_MERGED_WITH_NEXT, false) : status;
}

static nibble_status parse_step(parser *p, const cJSON *json, int depth);

static nibble_status parse_sequence(parser *p, const cJSON *json, int depth) {
  const cJSON *list = cJSON_GetObjectItemCaseSensitive(json, "pretokenizers"), *item;
  if (!cJSON_IsArray(list))
    return nb_fail(p->err, NIBBLE_BAD_INPUT, "%s: pre_tokenizer Sequence has no list \"pretokenizers\"", p->where);
  nibble_status status = NIBBLE_OK;
  for (item = list->child; item && status == NIBBLE_OK; item = item->next) status = parse_step(p, item, depth + 1);
  return status;
}

static nibble_status parse_step(parser *p, const cJSON *json, int depth) {
  static const struct {
    const char *type;
    nibble_status (*parse)(parser *, const cJSON *);
  } rows[] = {
      {"ByteLevel", parse_byte_level},  {"Split", parse_split},
      {"Digits", parse_digits},         {"Punctuation", parse_punctuation},
      {"Whitespace", parse_whitespace}, {"WhitespaceSplit", parse_whitespace_split},
      {"BertPreTokenizer", parse_bert}, {"CharDelimiterSplit", parse_delimiter},
      {"Metaspace", parse_metaspace},
  };
  const char *type = nb_part_type(p->where, "pre_tokenizer", json, p->err);
  if (!type) return NIBBLE_BAD_INPUT;
  if (strcmp(type, "Sequence") == 0) {
    if (depth >= NB_MAX_STEPS)
      return nb_fail(p->err, NIBBLE_BAD_INPUT, "%s: pre_tokenizer sequences are nested too deeply", p->where);
    return parse_sequence(p, json, depth);
  }
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    if (strcmp(type, rows[i].type) == 0) return rows[i].parse(p, json);
  }
  return nb_fail(p->err, NIBBLE_BAD_INPUT, "%s: pre_tokenizer '%s' is not supported", p->where, type);
}

nibble_status nb_pre_tokenizer_parse(const char *where, const cJSON *json, nb_pre_tokenizer *out, nibble_error *err) {
  *out = (nb_pre_tokenizer){0};
  if (!json || cJSON_IsNull(json)) return NIBBLE_OK;
  nibble_status status = parse_step(&(parser){.where = where, .out = out, .err = err}, json, 0);
  if (status != NIBBLE_OK) {
    nb_pre_tokenizer_free(out);
  } else if (out->count > 0 && out->steps[out->count - 1].kind == NB_PRE_BYTES) {
    out->raw = true; /* the usual case: the last step's characters need never be written */
    out->count--;
  }
  return status;
}

void nb_pre_tokenizer_free(nb_pre_tokenizer *pre) {
  for (int i = 0; i < pre->count; i++) {
    nb_regex_free(pre->steps[i].regex);
    free(pre->steps[i].replacement);
    nb_buf_free(&pre->steps[i].text);
    nb_buf_free(&pre->steps[i].shadow);
  }
  *pre = (nb_pre_tokenizer){0};
}

/* --- running --- */

typedef struct piece {
  const char *text, *shadow; /* the same where no code point needs a stand-in */
  size_t n;
  bool at_start; /* it begins the whole input */
} piece;

typedef struct run {
  nb_pre_tokenizer *pre;
  nb_word_fn word;
  void *ctx;
  nibble_error *err;
} run;

static nibble_status run_step(run *r, int k, piece whole);

/* Cuts one piece at matches, each kind of behavior by looking at one range and the one before. */
typedef struct cutter {
  run *r;
  int next; /* step for what is cut out */
  piece whole;
  nb_behavior behavior;
  size_t begin, end; /* the range not yet passed on, */
  bool pending;      /* if there is one */
  bool was_match;    /* the range before was a match */
} cutter;

static nibble_status pass_on(cutter *c) {
  if (!c->pending || c->begin == c->end) return NIBBLE_OK;
  piece part = {.text = c->whole.text + c->begin,
                .shadow = c->whole.shadow + c->begin,
                .n = c->end - c->begin,
                .at_start = c->whole.at_start && c->begin == 0};
  return run_step(c->r, c->next, part);
}

static nibble_status feed(cutter *c, size_t begin, size_t end, bool is_match) {
  bool join = false;
  switch (c->behavior) {
    case NB_REMOVED:
    case NB_ISOLATED: break;
    case NB_CONTIGUOUS: join = is_match == c->was_match; break;
    case NB_MERGED_WITH_PREVIOUS: join = is_match && !c->was_match; break;
    case NB_MERGED_WITH_NEXT: join = !is_match && c->was_match; break;
  }
  c->was_match = is_match;
  if (join && c->pending) {
    c->end = end;
    return NIBBLE_OK;
  }
  nibble_status status = pass_on(c);
  c->begin = begin;
  c->end = end;
  c->pending = c->behavior != NB_REMOVED || !is_match;
  return status;
}

static nibble_status cut_by_pattern(cutter *c, const nb_pre_step *step) {
  nb_regex_cursor cursor = {0};
  const char *text = nb_regex_is_literal(step->regex) ? c->whole.text : c->whole.shadow;
  size_t done = 0, begin, end;
  bool found;
  for (;;) {
    nibble_status status = nb_regex_next(step->regex, text, c->whole.n, &cursor, &found, &begin, &end, c->r->err);
    if (status != NIBBLE_OK || !found) {
      if (status == NIBBLE_OK && done < c->whole.n) status = feed(c, done, c->whole.n, step->invert);
      return status;
    }
    if (done < begin) status = feed(c, done, begin, step->invert);
    if (status == NIBBLE_OK) status = feed(c, begin, end, !step->invert);
    if (status != NIBBLE_OK) return status;
    done = end;
  }
}

static nibble_status cut_by_class(cutter *c, const nb_pre_step *step) {
  size_t done = 0, length;
  nibble_status status = NIBBLE_OK;
  for (size_t i = 0; i < c->whole.n && status == NIBBLE_OK; i += length) {
    if (!step->is_in_class(nb_utf8_decode(c->whole.text + i, &length))) continue;
    if (done < i) status = feed(c, done, i, false);
    if (status == NIBBLE_OK) status = feed(c, i, i + length, true);
    done = i + length;
  }
  if (status == NIBBLE_OK && done < c->whole.n) status = feed(c, done, c->whole.n, false);
  return status;
}

static nibble_status cut(run *r, int k, piece whole) {
  const nb_pre_step *step = &r->pre->steps[k];
  cutter c = {.r = r, .next = k + 1, .whole = whole, .behavior = step->behavior};
  nibble_status status = step->regex ? cut_by_pattern(&c, step) : cut_by_class(&c, step);
  return status == NIBBLE_OK ? pass_on(&c) : status;
}

static bool begins_with(piece whole, const char *text) {
  size_t n = strlen(text);
  return whole.n >= n && memcmp(whole.text, text, n) == 0;
}

/* The text that a step other than a cut makes of a piece. */
static void rewrite(nb_pre_step *step, piece whole) {
  nb_buf *out = &step->text;
  out->length = 0;
  switch (step->kind) {
    case NB_PRE_SPACE:
      nb_buf_puts(out, " ");
      nb_buf_append(out, whole.text, whole.n);
      break;
    case NB_PRE_BYTES: nb_bytes_to_chars(whole.text, whole.n, out); break;
    case NB_PRE_METASPACE: {
      bool has = whole.text[0] == ' ' || begins_with(whole, step->replacement);
      if (!has && (step->prepend == NB_ALWAYS || (step->prepend == NB_FIRST && whole.at_start)))
        nb_buf_puts(out, step->replacement);
      for (size_t i = 0; i < whole.n;) {
        const char *space = memchr(whole.text + i, ' ', whole.n - i);
        size_t end = space ? (size_t)(space - whole.text) : whole.n;
        nb_buf_append(out, whole.text + i, end - i);
        if (space) nb_buf_puts(out, step->replacement);
        i = end + (space != NULL);
      }
      break;
    }
    case NB_PRE_SPLIT: break;
  }
}

static nibble_status run_step(run *r, int k, piece whole) {
  if (k == r->pre->count) return r->word(r->ctx, whole.text, whole.n, r->err);
  nb_pre_step *step = &r->pre->steps[k];
  if (step->kind == NB_PRE_SPLIT) return cut(r, k, whole);
  if (step->kind == NB_PRE_SPACE && begins_with(whole, " ")) return run_step(r, k + 1, whole);
  rewrite(step, whole);
  whole.text = whole.shadow = step->text.data;
  whole.n = step->text.length;
  if (!step->text.failed && nb_needs_shadow(whole.text, whole.n)) {
    nb_make_shadow(whole.text, whole.n, &step->shadow);
    whole.shadow = step->shadow.data;
  }
  if (step->text.failed || step->shadow.failed) return nb_fail_memory(r->err, whole.n);
  return run_step(r, k + 1, whole);
}

nibble_status nb_pre_tokenize(nb_pre_tokenizer *pre, const char *text, size_t n, bool at_start, nb_word_fn word,
                              void *ctx, nibble_error *err) {
  if (n == 0) return NIBBLE_OK;
  run r = {.pre = pre, .word = word, .ctx = ctx, .err = err};
  piece whole = {.text = text, .shadow = text, .n = n, .at_start = at_start};
  nb_buf shadow = {0};
  if (pre->count > 0 && nb_needs_shadow(text, n)) {
    nb_make_shadow(text, n, &shadow);
    if (shadow.failed) return nb_fail_memory(err, n);
    whole.shadow = shadow.data;
  }
  nibble_status status = run_step(&r, 0, whole);
  nb_buf_free(&shadow);
  return status;
}
