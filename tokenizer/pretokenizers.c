/* Pre-tokenizers: a text cut into the words that the model sees one by one. Every type of the reference is a step or
 * two of two kinds: a cut at the matches of a pattern or class, and a rewriting. The steps run depth first, a piece at
 * a time, so that no list of pieces is ever built; the pieces come out in the text's order all the same. */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "tokenizer/bytes.h"
#include "tokenizer/steps.h"
#include "tokenizer/unicode.h"

/* GPT-2's pattern, which ByteLevel splits by. */
#define GPT2_PATTERN "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
/* The reference's Whitespace step, in the syntax of Rust's regex. */
#define WORD_PATTERN                                          \
  "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200c}\\x{200d}]+|" \
  "[^\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200c}\\x{200d}\\s]+"

/* What becomes of a match, as the reference calls it. */
typedef enum behavior { REMOVED, ISOLATED, MERGED_WITH_PREVIOUS, MERGED_WITH_NEXT, CONTIGUOUS } behavior;

typedef struct piece {
  const char *text, *shadow; /* the same where no code point needs a stand-in (tokenizer/unicode.h) */
  size_t n;
  bool at_start; /* it begins the whole input */
} piece;

typedef struct step step;
struct step {
  /* Puts what becomes of a piece into `text`, and its alignment by `align`; false if it stays. NULL: a cut. */
  bool (*rewrite)(step *s, piece whole, const nb_aligner *align);
  nb_regex *regex;                    /* cut: at the matches of this pattern, */
  bool (*is_in_class)(uint32_t code); /* or at the characters of this class, */
  int64_t every;                      /* or after so many characters; else where the script changes */
  behavior behavior;
  bool invert;                           /* what is between the matches is the match */
  char *replacement;                     /* Metaspace: written for a space */
  enum { NEVER, FIRST, ALWAYS } prepend; /* Metaspace: and before which pieces */
  nb_buf text, shadow;                   /* of the piece that was rewritten last */
  nb_places align;                       /* the text's, where someone asks */
};

struct nb_pre_tokenizer {
  step steps[NB_MAX_STEPS];
  int count;
  bool raw; /* the last step writes bytes: words are handed on without it, unless they are aligned */
};

/* --- cutting --- */

typedef struct run {
  nb_pre_tokenizer *pre;
  int count;             /* of its steps that are run */
  const char *text;      /* the one whose pieces are cut: the normalized one or what became of a piece, */
  const nb_place *align; /* and its alignment; NULL: nobody asks */
  nb_word_sink sink;
  nb_budget *budget;
  nibble_error *err;
} run;

static nibble_status run_step(run *r, int k, piece whole);

/* Cuts one piece at matches, each kind of behavior by looking at one range and the one before. */
typedef struct cutter {
  run *r;
  int next; /* step for what is cut out */
  piece whole;
  behavior behavior;
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
    case REMOVED:
    case ISOLATED: break;
    case CONTIGUOUS: join = is_match == c->was_match; break;
    case MERGED_WITH_PREVIOUS: join = is_match && !c->was_match; break;
    case MERGED_WITH_NEXT: join = !is_match && c->was_match; break;
  }
  c->was_match = is_match;
  if (join && c->pending) {
    c->end = end;
    return NIBBLE_OK;
  }
  nibble_status status = pass_on(c);
  c->begin = begin;
  c->end = end;
  c->pending = c->behavior != REMOVED || !is_match;
  return status;
}

static nibble_status cut_by_pattern(cutter *c, const step *s) {
  nb_search search = {
      .text = nb_regex_is_literal(s->regex) ? c->whole.text : c->whole.shadow, .n = c->whole.n, .budget = c->r->budget};
  size_t done = 0;
  nibble_status status;
  while ((status = nb_regex_next(s->regex, &search, c->r->err)) == NIBBLE_OK && search.found) {
    if (done < search.begin) status = feed(c, done, search.begin, s->invert);
    if (status == NIBBLE_OK) status = feed(c, search.begin, search.end, !s->invert);
    if (status != NIBBLE_OK) return status;
    done = search.end;
  }
  return status == NIBBLE_OK && done < c->whole.n ? feed(c, done, c->whole.n, s->invert) : status;
}

static nibble_status cut_by_class(cutter *c, const step *s) {
  size_t done = 0, length;
  nibble_status status = NIBBLE_OK;
  for (size_t i = 0; i < c->whole.n && status == NIBBLE_OK; i += length) {
    if (!s->is_in_class(nb_utf8_decode(c->whole.text + i, &length))) continue;
    if (done < i) status = feed(c, done, i, false);
    if (status == NIBBLE_OK) status = feed(c, i, i + length, true);
    done = i + length;
  }
  return status == NIBBLE_OK && done < c->whole.n ? feed(c, done, c->whole.n, false) : status;
}

static nibble_status cut_by_count(cutter *c, const step *s) {
  size_t done = 0, length;
  int64_t count = 0;
  nibble_status status = NIBBLE_OK;
  for (size_t i = 0; i < c->whole.n && status == NIBBLE_OK; i += length) {
    nb_utf8_decode(c->whole.text + i, &length);
    if (++count % s->every > 0 && i + length < c->whole.n) continue;
    status = feed(c, done, i + length, true);
    done = i + length;
  }
  return status;
}

/* What is before the first character of a script is lost, as it is to the reference. */
static nibble_status cut_by_script(cutter *c) {
  size_t done = 0, length;
  int last = 0;
  nibble_status status = NIBBLE_OK;
  for (size_t i = 0; i < c->whole.n && status == NIBBLE_OK; i += length) {
    int script = nb_script(nb_utf8_decode(c->whole.text + i, &length));
    if (script == 0 || script == last) continue;
    if (last > 0) status = feed(c, done, i, true);
    last = script;
    done = i;
  }
  return status == NIBBLE_OK && last > 0 ? feed(c, done, c->whole.n, true) : status;
}

static nibble_status cut(run *r, int k, piece whole) {
  const step *s = &r->pre->steps[k];
  cutter c = {.r = r, .next = k + 1, .whole = whole, .behavior = s->behavior};
  nibble_status status = s->regex         ? cut_by_pattern(&c, s)
                         : s->is_in_class ? cut_by_class(&c, s)
                         : s->every > 0   ? cut_by_count(&c, s)
                                          : cut_by_script(&c);
  return status == NIBBLE_OK ? pass_on(&c) : status;
}

/* --- rewriting --- */

static bool begins_with(piece whole, const char *text) {
  size_t n = strlen(text);
  return whole.n >= n && memcmp(whole.text, text, n) == 0;
}

static bool prepend_space(step *s, piece whole, const nb_aligner *align) {
  if (begins_with(whole, " ")) return false;
  nb_buf_puts(&s->text, " ");
  nb_buf_append(&s->text, whole.text, whole.n);
  nb_align_prepend(align, 1, (nb_str){whole.text, whole.n});
  return true;
}

static bool write_bytes(step *s, piece whole, const nb_aligner *align) {
  nb_bytes_to_chars(whole.text, whole.n, &s->text);
  nb_align_bytes(align, (nb_str){whole.text, whole.n});
  return true;
}

static bool write_metaspace(step *s, piece whole, const nb_aligner *align) {
  size_t length = strlen(s->replacement);
  bool has = whole.text[0] == ' ' || begins_with(whole, s->replacement);
  if (!has && (s->prepend == ALWAYS || (s->prepend == FIRST && whole.at_start))) {
    nb_buf_append(&s->text, s->replacement, length);
    nb_align_write(align, 0, length);
  }
  for (size_t i = 0; i < whole.n;) {
    const char *space = memchr(whole.text + i, ' ', whole.n - i);
    size_t end = space ? (size_t)(space - whole.text) : whole.n;
    nb_buf_append(&s->text, whole.text + i, end - i);
    nb_align_copy(align, i, end);
    if (space) {
      nb_buf_append(&s->text, s->replacement, length);
      nb_align_write(align, end, length);
    }
    i = end + (space != NULL);
  }
  return true;
}

/* The words of what has become of a piece, which is as `from` but for the text. */
static nibble_status run_rewritten(run *r, int k, piece from) {
  step *s = &r->pre->steps[k];
  r->budget->bytes -= s->text.length;
  piece whole = {.text = s->text.data, .shadow = s->text.data, .n = s->text.length, .at_start = from.at_start};
  if (!s->text.failed && nb_needs_shadow(whole.text, whole.n)) {
    nb_make_shadow(whole.text, whole.n, &s->shadow);
    whole.shadow = s->shadow.data;
  }
  if (s->text.failed || s->shadow.failed || s->align.failed) return nb_fail_memory(r->err, whole.n);
  const char *text = r->text;
  const nb_place *align = r->align;
  r->text = whole.text;
  if (align) r->align = s->align.data;
  nibble_status status = run_step(r, k + 1, whole);
  r->text = text;
  r->align = align;
  return status;
}

/* Where a piece comes from; NULL: nobody asks. */
static const nb_place *align_of(const run *r, piece whole) {
  return r->align ? r->align + (whole.text - r->text) : NULL;
}

static nibble_status run_step(run *r, int k, piece whole) {
  if (k == r->count) {
    const nb_place *from = align_of(r, whole);
    nb_word word = {.text = whole.text, .n = whole.n, .raw = r->pre->raw && !from, .align = from};
    return r->sink.take(r->sink.ctx, &word, r->err);
  }
  step *s = &r->pre->steps[k];
  if (!s->rewrite) return cut(r, k, whole);
  const nb_place *from = align_of(r, whole);
  s->text.length = 0;
  s->text.limit = r->budget->bytes;
  s->align.length = 0;
  nb_aligner align = {.from = from, .n = whole.n, .to = from ? &s->align : NULL};
  bool changed = s->text.limit > 0 && s->rewrite(s, whole, &align);
  if (s->text.limit == 0 || s->text.is_full) {
    s->text.failed = s->text.is_full = false;
    return nb_budget_refuse("pre-tokenizer", r->err);
  }
  return changed ? run_rewritten(r, k, whole) : run_step(r, k + 1, whole);
}

nibble_status nb_pre_tokenize(nb_pre_tokenizer *pre, nb_normal_part part, nb_word_sink sink, nb_budget *budget,
                              nibble_error *err) {
  nb_str text = part.text;
  if (text.length == 0) return NIBBLE_OK;
  run r = {.pre = pre, .text = text.data, .align = part.align, .sink = sink, .budget = budget, .err = err};
  r.count = pre->count + (pre->raw && part.align);
  piece whole = {.text = text.data, .shadow = text.data, .n = text.length, .at_start = part.at_start};
  nb_buf shadow = {0};
  if (pre->count > 0 && nb_needs_shadow(text.data, text.length)) {
    nb_make_shadow(text.data, text.length, &shadow);
    if (shadow.failed) return nb_fail_memory(err, text.length);
    whole.shadow = shadow.data;
  }
  nibble_status status = run_step(&r, 0, whole);
  nb_buf_free(&shadow);
  return status;
}

/* --- reading --- */

/* Takes over the step's pattern and text, also where something has failed. */
static void add_step(nb_step_reader *r, nb_pre_tokenizer *out, step s) {
  if (r->status == NIBBLE_OK && nb_step_room(r, out->count)) {
    out->steps[out->count++] = s;
    return;
  }
  nb_regex_free(s.regex);
  free(s.replacement);
}

static void add_pattern(nb_step_reader *r, nb_pre_tokenizer *out, const char *pattern, bool literal, step s) {
  if (r->status == NIBBLE_OK) r->status = nb_regex_compile(r->where, pattern, literal, &s.regex, r->err);
  add_step(r, out, s);
}

/* *out becomes the index of the text under `key` among names[0, count). */
static void read_name(nb_step_reader *r, const char *key, const char *const names[], int count, int *out) {
  const char *name = names[*out];
  nb_step_text(r, key, &name);
  for (int i = 0; i < count; i++) {
    *out = i;
    if (strcmp(name, names[i]) == 0) return;
  }
  nb_step_fail(r, "has the unknown %s '%s'", key, name);
}

static behavior read_behavior(nb_step_reader *r) {
  static const char *const names[] = {[REMOVED] = "Removed",
                                      [ISOLATED] = "Isolated",
                                      [MERGED_WITH_PREVIOUS] = "MergedWithPrevious",
                                      [MERGED_WITH_NEXT] = "MergedWithNext",
                                      [CONTIGUOUS] = "Contiguous"};
  int index = ISOLATED;
  read_name(r, "behavior", names, sizeof names / sizeof *names, &index);
  return (behavior)index;
}

static void read_byte_level(nb_step_reader *r, nb_pre_tokenizer *out) {
  bool space = true, regex = true;
  nb_step_bool(r, "add_prefix_space", &space);
  nb_step_bool(r, "use_regex", &regex);
  if (space) add_step(r, out, (step){.rewrite = prepend_space});
  if (regex) add_pattern(r, out, GPT2_PATTERN, false, (step){.behavior = ISOLATED});
  add_step(r, out, (step){.rewrite = write_bytes});
}

static void read_split(nb_step_reader *r, nb_pre_tokenizer *out) {
  if (!cJSON_HasObjectItem(r->json, "behavior")) nb_step_fail(r, "has no \"behavior\"");
  step s = {.behavior = read_behavior(r)};
  nb_step_bool(r, "invert", &s.invert);
  nb_step_pattern(r, &s.regex);
  add_step(r, out, s);
}

static void read_digits(nb_step_reader *r, nb_pre_tokenizer *out) {
  bool individual = false;
  nb_step_bool(r, "individual_digits", &individual);
  add_step(r, out, (step){.is_in_class = nb_is_numeric, .behavior = individual ? ISOLATED : CONTIGUOUS});
}

static void read_punctuation(nb_step_reader *r, nb_pre_tokenizer *out) {
  add_step(r, out, (step){.is_in_class = nb_is_punct, .behavior = read_behavior(r)});
}

static void read_whitespace(nb_step_reader *r, nb_pre_tokenizer *out) {
  add_pattern(r, out, WORD_PATTERN, false, (step){.behavior = REMOVED, .invert = true});
}

static void read_whitespace_split(nb_step_reader *r, nb_pre_tokenizer *out) {
  add_step(r, out, (step){.is_in_class = nb_is_space, .behavior = REMOVED});
}

static void read_bert(nb_step_reader *r, nb_pre_tokenizer *out) {
  read_whitespace_split(r, out);
  add_step(r, out, (step){.is_in_class = nb_is_punct, .behavior = ISOLATED});
}

static void read_length(nb_step_reader *r, nb_pre_tokenizer *out) {
  step s = {.behavior = ISOLATED, .every = 5};
  nb_step_count(r, "length", &s.every);
  if (s.every == 0) nb_step_fail(r, "cuts after no character");
  add_step(r, out, s);
}

static void read_scripts(nb_step_reader *r, nb_pre_tokenizer *out) { add_step(r, out, (step){.behavior = ISOLATED}); }

static void read_delimiter(nb_step_reader *r, nb_pre_tokenizer *out) {
  char *text = NULL;
  nb_step_char(r, "delimiter", &text);
  add_pattern(r, out, text, true, (step){.behavior = REMOVED});
  free(text);
}

static void read_metaspace(nb_step_reader *r, nb_pre_tokenizer *out) {
  static const char *const schemes[] = {[NEVER] = "never", [FIRST] = "first", [ALWAYS] = "always"};
  step s = {.rewrite = write_metaspace};
  bool split = true, prefix = true;
  int scheme = ALWAYS;
  read_name(r, "prepend_scheme", schemes, sizeof schemes / sizeof *schemes, &scheme);
  nb_step_bool(r, "split", &split);
  nb_step_bool(r, "add_prefix_space", &prefix);
  nb_step_char(r, "replacement", &s.replacement);
  s.prepend = prefix ? (unsigned)scheme : NEVER;
  add_step(r, out, s);
  if (split && r->status == NIBBLE_OK) add_pattern(r, out, s.replacement, true, (step){.behavior = MERGED_WITH_NEXT});
}

static const struct step_type {
  const char *type;
  void (*read)(nb_step_reader *r, nb_pre_tokenizer *out);
} types[] = {
    {"ByteLevel", read_byte_level},   {"Split", read_split},
    {"Digits", read_digits},          {"Punctuation", read_punctuation},
    {"Whitespace", read_whitespace},  {"WhitespaceSplit", read_whitespace_split},
    {"BertPreTokenizer", read_bert},  {"CharDelimiterSplit", read_delimiter},
    {"Metaspace", read_metaspace},    {"FixedLength", read_length},
    {"UnicodeScripts", read_scripts},
};

static void add(nb_step_reader *r, const void *row, void *ctx) { ((const struct step_type *)row)->read(r, ctx); }

nibble_status nb_pre_tokenizer_read(const char *where, const cJSON *parts, nb_pre_tokenizer **out, nibble_error *err) {
  nb_step_reader r = {
      .where = where, .group = "pre_tokenizer", .list = "pretokenizers", .types = NB_STEP_TYPES(types), .err = err};
  nb_pre_tokenizer *pre = *out = calloc(1, sizeof *pre);
  if (!pre) return nb_fail_memory(err, sizeof *pre);
  nibble_status status = nb_steps_each(&r, parts, add, pre);
  if (status != NIBBLE_OK) {
    nb_pre_tokenizer_free(pre);
    *out = NULL;
  } else if (pre->count > 0 && pre->steps[pre->count - 1].rewrite == write_bytes) {
    pre->raw = true; /* the usual case: the last step's characters need never be written */
    pre->count--;
  }
  return status;
}

void nb_pre_tokenizer_free(nb_pre_tokenizer *pre) {
  for (int i = 0; pre && i < pre->count + pre->raw; i++) {
    nb_regex_free(pre->steps[i].regex);
    free(pre->steps[i].replacement);
    nb_buf_free(&pre->steps[i].text);
    nb_buf_free(&pre->steps[i].shadow);
    nb_places_free(&pre->steps[i].align);
  }
  free(pre);
}
