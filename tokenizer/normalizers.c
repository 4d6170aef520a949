/* Normalizers: text to text, step by step. The four normalization forms take their tables from utf8proc, but not its
 * sort: that of utf8proc_decompose is quadratic in a run of combining marks. */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/grow.h"
#include "base/utf8.h"
#include "tokenizer/alignment.h"
#include "tokenizer/bytes.h"
#include "tokenizer/charsmap.h"
#include "tokenizer/steps.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/unicode.h"

enum {
  MAX_DECOMPOSED = 32, /* code points that one becomes; 18 is Unicode's longest */
  FLUSH = 1 << 12,     /* code points after which a run is composed at the next safe place */
};

/* One step's work on one text. */
typedef struct job {
  nb_buf *out;      /* what becomes of the text, */
  nb_aligner align; /* and where it comes from */
  size_t lead;      /* bytes at the text's start that are made of the input's first character */
  nb_budget *budget;
  nibble_error *err;
} job;

/* What becomes of one character: so many code points in `out`; KEPT: it stays. */
enum { KEPT = -1, MOST_CODES = 3 };
typedef int (*map_fn)(uint32_t code, uint32_t out[MOST_CODES]);

typedef struct step step;
typedef nibble_status (*run_fn)(const step *s, nb_str text, job *j);

struct step {
  run_fn run;
  bool moves_lead;  /* it counts job.lead itself; the others make of a character what they make of it alone */
  bool keeps_lead;  /* where nothing is left of that character the next one takes its place */
  map_fn map;       /* each_char: of every character */
  bool kept[128];   /* each_char: ASCII that it keeps */
  int form;         /* options of utf8proc */
  bool left, right; /* Strip: at which ends */
  nb_regex *regex;  /* Replace: what */
  char *text;       /* Replace: by what; Prepend: what */
  nb_charsmap *charsmap;
};

struct nb_normalizer {
  step steps[NB_MAX_STEPS];
  int count;
};

/* Code points that are put in order and composed together. */
typedef struct run {
  int32_t *codes;
  int64_t *changes; /* theirs, where the text is aligned */
  size_t length, capacity, change_capacity;
  int options;
  nb_buf *out;
  nb_changes align;
} run;

/* --- normalization forms (Unicode Standard Annex 15) --- */

static int combining(int32_t code) { return (int)utf8proc_get_property(code)->combining_class; }

/* Puts codes[0, n), all of combining class above 0, in order of class; equal ones keep their order. `changes` go with
 * them; NULL: there are none. */
static bool sort_marks(int32_t *codes, int64_t *changes, size_t n) {
  if (n <= 16) {
    for (size_t i = 1; i < n; i++) {
      int32_t code = codes[i];
      int64_t change = changes ? changes[i] : 0;
      size_t k = i;
      for (; k > 0 && combining(codes[k - 1]) > combining(code); k--) {
        codes[k] = codes[k - 1];
        if (changes) changes[k] = changes[k - 1];
      }
      codes[k] = code;
      if (changes) changes[k] = change;
    }
    return true;
  }
  int32_t *copy = malloc(n * sizeof *copy);
  int64_t *with = changes ? malloc(n * sizeof *with) : NULL;
  bool ok = copy && (with || !changes);
  if (ok) {
    memcpy(copy, codes, n * sizeof *copy);
    if (with) memcpy(with, changes, n * sizeof *with);
    size_t at[257] = {0};
    for (size_t i = 0; i < n; i++) at[combining(copy[i]) + 1]++;
    for (int class = 1; class <= 256; class ++) at[class] += at[class - 1];
    for (size_t i = 0; i < n; i++) {
      size_t to = at[combining(copy[i])]++;
      codes[to] = copy[i];
      if (with) changes[to] = with[i];
    }
  }
  free(copy);
  free(with);
  return ok;
}

/* The code point that two compose to; 0 if they do not. */
static int32_t composed(int32_t first, int32_t second, int options) {
  int32_t pair[2] = {first, second};
  return utf8proc_normalize_utf32(pair, 2, (utf8proc_option_t)options) == 1 ? pair[0] : 0;
}

/* Composes as utf8proc does, with the changes: a code point that is composed takes the place of both. */
static void compose_changes(run *r) {
  size_t starter = SIZE_MAX, written = 0;
  int last = -1; /* the class of the code point before that did not compose; -1: there is none behind the starter */
  for (size_t i = 0; i < r->length; i++) {
    int32_t code = r->codes[i], class = combining(code), by = 0;
    if (starter != SIZE_MAX && last < class) by = composed(r->codes[starter], code, r->options);
    if (by) {
      r->codes[starter] = by;
      r->changes[starter] += r->changes[i] - 1;
      continue;
    }
    last = class;
    if (class == 0) {
      starter = written;
      last = -1;
    }
    r->changes[written] = r->changes[i];
    r->codes[written++] = code;
  }
  r->length = written;
}

/* Orders and composes what has been collected, and writes it. */
static void flush(run *r) {
  for (size_t i = 0; i < r->length;) {
    size_t begin = i++;
    if (combining(r->codes[begin]) == 0) continue;
    while (i < r->length && combining(r->codes[i]) != 0) i++;
    if (!sort_marks(r->codes + begin, r->changes ? r->changes + begin : NULL, i - begin)) r->out->failed = true;
  }
  if (r->options & UTF8PROC_COMPOSE && r->changes)
    compose_changes(r);
  else if (r->options & UTF8PROC_COMPOSE)
    r->length = (size_t)utf8proc_normalize_utf32(r->codes, (utf8proc_ssize_t)r->length, (utf8proc_option_t)r->options);
  for (size_t i = 0; i < r->length; i++) {
    char bytes[4];
    size_t length = nb_utf8_encode((uint32_t)r->codes[i], bytes);
    nb_buf_append(r->out, bytes, length);
    if (r->changes) nb_changes_put(&r->align, length, r->changes[i]);
  }
  r->length = 0;
}

/* True if nothing before this code point can be reordered behind it or composed with it. */
static bool is_safe_start(int32_t code) {
  utf8proc_category_t category = utf8proc_category(code);
  bool mark = category >= UTF8PROC_CATEGORY_MN && category <= UTF8PROC_CATEGORY_ME;
  return !mark && combining(code) == 0 && !(code >= 0x1160 && code <= 0x11ff); /* vowel and final jamo compose */
}

static void collect(run *r, uint32_t code) {
  int32_t parts[MAX_DECOMPOSED];
  int boundary = 0;
  utf8proc_option_t options = (utf8proc_option_t)((r->options & ~UTF8PROC_COMPOSE) | UTF8PROC_DECOMPOSE);
  utf8proc_ssize_t n = utf8proc_decompose_char((utf8proc_int32_t)code, parts, MAX_DECOMPOSED, options, &boundary);
  if (n < 0 || n > MAX_DECOMPOSED) {
    parts[0] = (int32_t)code;
    n = 1;
  }
  if (r->length > FLUSH && n > 0 && is_safe_start(parts[0])) flush(r);
  int32_t *codes = nb_grow(r->codes, &r->capacity, r->length + MAX_DECOMPOSED, sizeof *codes);
  if (!codes) {
    r->out->failed = true;
    return;
  }
  r->codes = codes;
  for (utf8proc_ssize_t i = 0; i < n; i++) r->codes[r->length + (size_t)i] = parts[i];
  if (r->align.a->to) {
    int64_t *changes = nb_grow(r->changes, &r->change_capacity, r->length + MAX_DECOMPOSED, sizeof *changes);
    if (!changes) {
      r->out->failed = true;
      return;
    }
    r->changes = changes;
    for (utf8proc_ssize_t i = 0; i < n; i++) r->changes[r->length + (size_t)i] = i > 0;
  }
  r->length += (size_t)n;
}

/* Characters that stay. */
static void keep(run *r, const char *text, size_t n) {
  nb_buf_append(r->out, text, n);
  for (size_t i = 0, length; r->align.a->to && i < n; i += length) {
    nb_utf8_decode(text + i, &length);
    nb_changes_put(&r->align, length, 0);
  }
}

/* ASCII is the same in every form and is copied, but for the last character before others: a mark may follow it. */
static nibble_status form(const step *s, nb_str whole, job *j) {
  nb_buf *out = j->out;
  run r = {.options = UTF8PROC_STABLE | s->form, .out = out, .align = {.a = &j->align, .text = whole}};
  const char *text = whole.data;
  size_t n = whole.length, done = 0, i = 0, length = 0;
  while (i < n && !out->failed) {
    if ((unsigned char)text[i] < 0x80) {
      i++;
      continue;
    }
    size_t begin = i > done && (unsigned char)text[i - 1] < 0x80 ? i - 1 : i;
    keep(&r, text + done, begin - done);
    uint32_t code = 0;
    for (done = begin; done < n && !out->failed; done += length) {
      code = nb_utf8_decode(text + done, &length);
      if ((code < 0x80 && done > begin) || nb_is_inert(code)) break;
      collect(&r, code);
    }
    flush(&r);
    if (done < n && code >= 0x80) { /* inert */
      keep(&r, text + done, length);
      done += length;
    }
    i = done;
  }
  keep(&r, text + done, n - done);
  nb_changes_flush(&r.align);
  free(r.codes);
  free(r.changes);
  return NIBBLE_OK;
}

/* --- the other steps --- */

/* Bytes [begin, end) of the text stay. */
static void copy(job *j, nb_str text, size_t begin, size_t end) {
  nb_buf_append(j->out, text.data + begin, end - begin);
  nb_align_copy(&j->align, begin, end);
}

static nibble_status each_char(const step *s, nb_str text, job *j) {
  size_t done = 0, length;
  for (size_t i = 0; i < text.length && !j->out->failed; i += length) {
    unsigned char lead = (unsigned char)text.data[i];
    length = 1;
    if (lead < 0x80 && s->kept[lead]) continue;
    uint32_t codes[MOST_CODES];
    int count = s->map(nb_utf8_decode(text.data + i, &length), codes);
    if (count == KEPT) continue;
    copy(j, text, done, i);
    done = i + length;
    for (int k = 0; k < count; k++) {
      char bytes[4];
      size_t n = nb_utf8_encode(codes[k], bytes);
      nb_buf_append(j->out, bytes, n);
      nb_align_write(&j->align, i, n);
    }
  }
  copy(j, text, done, text.length);
  return NIBBLE_OK;
}

static int lower(uint32_t code, uint32_t out[MOST_CODES]) {
  int count = nb_lower(code, out);
  return count == 1 && out[0] == code ? KEPT : count;
}

/* BertNormalizer's clean_text. */
static int clean(uint32_t code, uint32_t out[MOST_CODES]) {
  bool is_blank = code == '\t' || code == '\n' || code == '\r';
  if (code == 0 || code == 0xfffd || (!is_blank && nb_is_other(code))) return 0;
  if (code == ' ' || !nb_is_space(code)) return KEPT;
  out[0] = ' ';
  return 1;
}

/* BertNormalizer's handle_chinese_chars: spaces around ideographs. */
static int space_ideographs(uint32_t code, uint32_t out[MOST_CODES]) {
  static const struct {
    uint32_t first, last;
  } blocks[] = {{0x3400, 0x4dbf},   {0x4e00, 0x9fff},   {0xf900, 0xfaff},   {0x20000, 0x2a6df},
                {0x2a700, 0x2b73f}, {0x2b740, 0x2b81f}, {0x2b920, 0x2ceaf}, {0x2f800, 0x2fa1f}};
  for (size_t i = 0; code >= blocks[0].first && i < sizeof blocks / sizeof *blocks; i++) {
    if (code < blocks[i].first || code > blocks[i].last) continue;
    out[0] = out[2] = ' ';
    out[1] = code;
    return 3;
  }
  return KEPT;
}

static int drop_nonspacing(uint32_t code, uint32_t out[MOST_CODES]) {
  (void)out;
  return nb_is_nonspacing(code) ? 0 : KEPT;
}

static int drop_marks(uint32_t code, uint32_t out[MOST_CODES]) {
  (void)out;
  return nb_is_mark(code) ? 0 : KEPT;
}

/* SentencePiece's "nmt" rules. */
static int nmt(uint32_t code, uint32_t out[MOST_CODES]) {
  if ((code >= 0x01 && code <= 0x08) || code == 0x0b || (code >= 0x0e && code <= 0x1f) || code == 0x7f ||
      code == 0x8f || code == 0x9f)
    return 0;
  bool is_space = code == '\t' || code == '\n' || code == '\f' || code == '\r' || code == 0x1680 ||
                  (code >= 0x200b && code <= 0x200f) || code == 0x2028 || code == 0x2029 || code == 0x2581 ||
                  code == 0xfeff || code == 0xfffd;
  out[0] = ' ';
  return is_space ? 1 : KEPT;
}

/* A code point that utf8proc has in the same class: it does not know the newer ones, and takes those that are not
 * assigned but reserved to be ignored for letters, where Unicode says controls. */
static utf8proc_int32_t known(const char *text, size_t *length) {
  enum { TULU_REPHA = 0x113d1, KAWI_REPHA = 0x11f02, ZERO_WIDTH_SPACE = 0x200b }; /* the first two are prepended */
  uint32_t code = nb_utf8_decode(text, length);
  if (utf8proc_category((utf8proc_int32_t)code) != UTF8PROC_CATEGORY_CN) return (utf8proc_int32_t)code;
  bool is_reserved = code == 0x2065 || (code >= 0xfff0 && code <= 0xfff8) || (code >= 0xe0000 && code <= 0xe0fff);
  if (is_reserved) return ZERO_WIDTH_SPACE;
  return code == TULU_REPHA ? KAWI_REPHA : (utf8proc_int32_t)nb_stand_in(code);
}

/* The length of the grapheme cluster that text begins with. */
static size_t grapheme(nb_str text) {
  size_t length, at;
  utf8proc_int32_t state = 0, last = known(text.data, &at);
  for (; at < text.length; at += length) {
    utf8proc_int32_t code = known(text.data + at, &length);
    if (utf8proc_grapheme_break_stateful(last, code, &state)) break;
    last = code;
  }
  return at;
}

/* Appends what becomes of `part`; *found: the charsmap has something for it. */
static nibble_status map_part(const step *s, nb_str part, bool *found, nb_changes *changes, job *j) {
  nb_str by;
  nibble_status status = nb_charsmap_find(s->charsmap, part, found, &by, j->err);
  if (status != NIBBLE_OK || !*found) return status;
  nb_buf_append(j->out, by.data, by.length);
  if (!j->align.to) return NIBBLE_OK;
  int64_t before = 0, after = 0;
  for (size_t i = 0; i < part.length; i++) before += nb_utf8_begins(part.data[i]);
  for (size_t i = 0, length; i < by.length; i += length) {
    nb_utf8_decode(by.data + i, &length);
    nb_changes_put(changes, length, after++ >= before);
  }
  if (after < before) changes->change -= before - after; /* of the one before, where nothing is left of the part */
  return NIBBLE_OK;
}

/* Characters that stay. */
static void keep_chars(job *j, nb_str text, nb_changes *changes) {
  nb_buf_append(j->out, text.data, text.length);
  for (size_t i = 0, length; j->align.to && i < text.length; i += length) {
    nb_utf8_decode(text.data + i, &length);
    nb_changes_put(changes, length, 0);
  }
}

/* Short grapheme clusters are looked up as a whole, then their characters one by one. */
static nibble_status precompiled(const step *s, nb_str text, job *j) {
  enum { LONG = 6 }; /* bytes */
  nibble_status status = NIBBLE_OK;
  nb_changes changes = {.a = &j->align, .text = text};
  for (size_t i = 0, end; i < text.length && status == NIBBLE_OK && !j->out->failed; i = end) {
    size_t begin = i;
    while (i < text.length && (unsigned char)text.data[i] < 0x80 &&
           nb_charsmap_keeps(s->charsmap, (unsigned char)text.data[i]))
      i++;
    if (i > begin && i < text.length) i--; /* it may begin a cluster */
    keep_chars(j, (nb_str){text.data + begin, i - begin}, &changes);
    if (i == text.length) break;
    bool found = false;
    size_t length = grapheme((nb_str){text.data + i, text.length - i});
    end = i + length;
    if (length < LONG) status = map_part(s, (nb_str){text.data + i, length}, &found, &changes, j);
    for (size_t k = i; k < end && !found && status == NIBBLE_OK; k += length) {
      bool changed;
      nb_utf8_decode(text.data + k, &length);
      status = map_part(s, (nb_str){text.data + k, length}, &changed, &changes, j);
      if (!changed) keep_chars(j, (nb_str){text.data + k, length}, &changes);
    }
  }
  nb_changes_flush(&changes);
  return status;
}

/* The same as SentencePiece does it: at each place the longest text of the map, else one character. */
static nibble_status charsmap(const step *s, nb_str text, job *j) {
  nibble_status status = NIBBLE_OK;
  for (size_t i = 0, used; i < text.length && status == NIBBLE_OK && !j->out->failed; i += used) {
    nb_str by;
    status = nb_charsmap_longest(s->charsmap, (nb_str){text.data + i, text.length - i}, &used, &by, j->err);
    if (status == NIBBLE_OK && used > 0) {
      nb_buf_append(j->out, by.data, by.length);
      while (i + used < text.length && !nb_utf8_begins(text.data[i + used])) used++; /* a damaged map */
      nb_align_replace(&j->align, i, i + used, by.length);
      continue;
    }
    nb_utf8_decode(text.data + i, &used);
    copy(j, text, i, i + used);
  }
  return status;
}

static nibble_status strip(const step *s, nb_str text, job *j) {
  size_t begin = 0, end = 0, length;
  bool leading = s->left;
  for (size_t i = 0; i < text.length; i += length) {
    if (!nb_is_space(nb_utf8_decode(text.data + i, &length))) {
      end = i + length;
      leading = false;
    }
    if (leading) begin = i + length;
  }
  j->lead -= begin < j->lead ? begin : j->lead;
  if (!s->right) end = text.length;
  if (begin < end) copy(j, text, begin, end);
  return NIBBLE_OK;
}

/* What stands for several characters counts as the last one's. */
static nibble_status replace_lead(const step *s, nb_search search, job *j) {
  size_t old = j->lead, done = 0, lead = 0;
  nibble_status status;
  while ((status = nb_regex_next(s->regex, &search, j->err)) == NIBBLE_OK && search.found && search.begin < old) {
    lead += search.begin - done;
    if (search.end <= old) lead += strlen(s->text);
    done = search.end;
  }
  j->lead = lead + (done < old ? old - done : 0);
  return status;
}

/* What is written for a match stands for its last character. */
static nibble_status replace_align(const step *s, nb_search search, job *j) {
  size_t done = 0;
  nibble_status status;
  while ((status = nb_regex_next(s->regex, &search, j->err)) == NIBBLE_OK && search.found) {
    nb_align_copy(&j->align, done, search.begin);
    nb_align_write(&j->align, search.end - 1, strlen(s->text));
    done = search.end;
  }
  nb_align_copy(&j->align, done, search.n);
  return status;
}

static nibble_status replace(const step *s, nb_str text, job *j) {
  nb_buf shadow = {0};
  const char *subject = text.data;
  if (!nb_regex_is_literal(s->regex) && nb_needs_shadow(text.data, text.length)) {
    nb_make_shadow(text.data, text.length, &shadow);
    if (shadow.failed) return nb_fail_memory(j->err, text.length);
    subject = shadow.data;
  }
  nb_search search = {.text = subject, .n = text.length, .budget = j->budget};
  nibble_status status = j->lead > 0 ? replace_lead(s, search, j) : NIBBLE_OK;
  nb_search again = search;
  if (status == NIBBLE_OK) status = nb_regex_replace(s->regex, &search, text.data, s->text, j->out, j->err);
  if (status == NIBBLE_OK && j->align.to && !j->out->failed) status = replace_align(s, again, j);
  nb_buf_free(&shadow);
  return status;
}

static nibble_status prepend(const step *s, nb_str text, job *j) {
  if (j->lead > 0) j->lead += strlen(s->text);
  nb_buf_puts(j->out, s->text);
  nb_buf_append(j->out, text.data, text.length);
  nb_align_prepend(&j->align, strlen(s->text), text);
  return NIBBLE_OK;
}

static nibble_status bytes(const step *s, nb_str text, job *j) {
  (void)s;
  nb_align_bytes(&j->align, text);
  nb_bytes_to_chars(text.data, text.length, j->out);
  return NIBBLE_OK;
}

/* Runs a step on the first character alone, to see how long what becomes of it is. */
static nibble_status find_lead(const step *s, nb_str text, job *j) {
  if (j->lead == 0 || s->moves_lead) return NIBBLE_OK;
  nb_places *to = j->align.to;
  j->align.to = NULL;
  nibble_status status = s->run(s, (nb_str){text.data, j->lead}, j);
  j->align.to = to;
  j->lead = j->out->length;
  j->out->length = 0;
  return status;
}

/* Puts the end of the lead to where a character ends: the first may have been composed with others. */
static void settle_lead(const step *s, bool led, job *j) {
  const nb_buf *out = j->out;
  if (led && s->keeps_lead && j->lead == 0 && out->length > 0) nb_utf8_decode(out->data, &j->lead);
  if (j->lead > out->length) j->lead = out->length;
  while (j->lead > 0 && j->lead < out->length && !nb_utf8_begins(out->data[j->lead])) j->lead++;
}

/* One step; what it writes is taken from the budget. */
static nibble_status run_step(const step *s, nb_str text, job *j) {
  nb_buf *out = j->out;
  out->length = 0;
  out->limit = j->budget->bytes < NB_TEXT_MAX ? j->budget->bytes : NB_TEXT_MAX;
  nibble_status status = out->limit > 0 ? NIBBLE_OK : nb_budget_refuse("normalizer", j->err);
  bool led = j->lead > 0;
  if (status == NIBBLE_OK) status = find_lead(s, text, j);
  if (status == NIBBLE_OK) status = s->run(s, text, j);
  settle_lead(s, led, j);
  if (status == NIBBLE_OK && out->is_full) status = nb_budget_refuse("normalizer", j->err);
  if (status == NIBBLE_OK && (out->failed || (j->align.to && j->align.to->failed)))
    status = nb_fail_memory(j->err, text.length);
  j->budget->bytes -= out->length;
  out->limit = 0;
  out->failed = out->is_full = false;
  return status;
}

static void begin_align(job *j, nb_places *from, nb_places *to) {
  to->length = 0;
  j->align = (nb_aligner){.from = from->data, .n = from->length, .origin = j->align.origin, .to = to};
}

void nb_normal_free(nb_normal *normal) {
  nb_buf_free(&normal->text);
  nb_buf_free(&normal->scratch);
  nb_places_free(&normal->align_scratch);
}

nibble_status nb_normalize(const nb_normalizer *normalizer, nb_normal *normal, nb_budget *budget, nibble_error *err) {
  nb_buf *text = &normal->text, *scratch = &normal->scratch;
  if (text->failed || (normal->align && normal->align->failed)) return nb_fail_memory(err, text->length);
  job j = {.out = scratch, .budget = budget, .err = err};
  if (normal->at_start && text->length > 0) nb_utf8_decode(text->data, &j.lead);
  if (normal->align && text->length > 0) j.align.origin = normal->align->data[0].begin;
  for (int i = 0; normalizer && i < normalizer->count && text->length > 0; i++) {
    if (normal->align) begin_align(&j, normal->align, &normal->align_scratch);
    nibble_status status = run_step(&normalizer->steps[i], (nb_str){text->data, text->length}, &j);
    if (status != NIBBLE_OK) return status;
    nb_buf swapped = *text;
    *text = *scratch;
    *scratch = swapped;
    if (!normal->align) continue;
    nb_places aligned = *normal->align;
    *normal->align = normal->align_scratch;
    normal->align_scratch = aligned;
  }
  normal->at_start = j.lead > 0;
  return NIBBLE_OK;
}

/* --- reading --- */

static void read_strip(nb_step_reader *r, step *s) {
  nb_step_bool(r, "strip_left", &s->left);
  nb_step_bool(r, "strip_right", &s->right);
}

static void read_replace(nb_step_reader *r, step *s) {
  nb_step_pattern(r, &s->regex);
  nb_step_string(r, "content", NB_MAX_CONTENT, &s->text);
}

static void read_prepend(nb_step_reader *r, step *s) { nb_step_string(r, "prepend", NB_MAX_CONTENT, &s->text); }

static void read_charsmap(nb_step_reader *r, step *s) {
  const char *base64 = NULL;
  nb_step_text(r, "precompiled_charsmap", &base64);
  if (!base64) nb_step_fail(r, "has no \"precompiled_charsmap\"");
  bool longest = false; /* ours, which tokenizers passes over: as SentencePiece itself looks */
  nb_step_bool(r, "longest", &longest);
  if (longest) s->run = charsmap;
  if (r->status == NIBBLE_OK) r->status = nb_charsmap_read(r->where, base64, &s->charsmap, r->err);
}

static const step to_nfd = {.run = form, .form = UTF8PROC_DECOMPOSE};

/* The step that was added; NULL after a failure. */
static step *add_step(nb_step_reader *r, nb_normalizer *out, step s) {
  if (!nb_step_room(r, out->count)) return NULL;
  if (s.map) s.run = each_char;
  for (uint32_t code = 0; s.map && code < 128; code++) s.kept[code] = s.map(code, (uint32_t[MOST_CODES]){0}) == KEPT;
  out->steps[out->count] = s;
  return &out->steps[out->count++];
}

static void read_bert(nb_step_reader *r, nb_normalizer *out) {
  bool clean_text = true, ideographs = true, lowercase = true;
  nb_step_bool(r, "clean_text", &clean_text);
  nb_step_bool(r, "handle_chinese_chars", &ideographs);
  nb_step_bool(r, "lowercase", &lowercase);
  bool accents = lowercase;
  nb_step_bool(r, "strip_accents", &accents);
  if (clean_text) add_step(r, out, (step){.map = clean});
  if (ideographs) add_step(r, out, (step){.map = space_ideographs});
  if (accents && add_step(r, out, to_nfd)) add_step(r, out, (step){.map = drop_nonspacing});
  if (lowercase) add_step(r, out, (step){.map = lower});
}

static const struct step_type {
  const char *type;
  step step;                                                /* as far as the type says */
  void (*read)(nb_step_reader *r, step *s);                 /* the options; NULL: there are none */
  void (*read_many)(nb_step_reader *r, nb_normalizer *out); /* of a type that is several steps */
} types[] = {
    {"NFC", {.run = form, .form = UTF8PROC_COMPOSE}, NULL, NULL},
    {"NFD", {.run = form, .form = UTF8PROC_DECOMPOSE}, NULL, NULL},
    {"NFKC", {.run = form, .form = UTF8PROC_COMPOSE | UTF8PROC_COMPAT}, NULL, NULL},
    {"NFKD", {.run = form, .form = UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT}, NULL, NULL},
    {"Lowercase", {.map = lower}, NULL, NULL},
    {"StripAccents", {.map = drop_marks}, NULL, NULL},
    {"Nmt", {.map = nmt}, NULL, NULL},
    {"Precompiled", {.run = precompiled, .keeps_lead = true}, read_charsmap, NULL},
    {"Strip", {.run = strip, .moves_lead = true}, read_strip, NULL},
    {"Replace", {.run = replace, .moves_lead = true}, read_replace, NULL},
    {"Prepend", {.run = prepend, .moves_lead = true}, read_prepend, NULL},
    {"ByteLevel", {.run = bytes}, NULL, NULL},
    {"BertNormalizer", {0}, NULL, read_bert},
};

static void add(nb_step_reader *r, const void *row, void *ctx) {
  const struct step_type *type = row;
  if (type->read_many) {
    type->read_many(r, ctx);
    return;
  }
  step *s = add_step(r, ctx, type->step);
  if (s && type->read) type->read(r, s);
}

nibble_status nb_normalizer_read(const char *where, const cJSON *parts, nb_normalizer **out, nibble_error *err) {
  nb_step_reader r = {
      .where = where, .group = "normalizer", .list = "normalizers", .types = NB_STEP_TYPES(types), .err = err};
  *out = calloc(1, sizeof **out);
  if (!*out) return nb_fail_memory(err, sizeof **out);
  nibble_status status = nb_steps_each(&r, parts, add, *out);
  if (status == NIBBLE_OK && (*out)->count > 0) return NIBBLE_OK;
  nb_normalizer_free(*out);
  *out = NULL;
  return status;
}

void nb_normalizer_free(nb_normalizer *normalizer) {
  for (int i = 0; normalizer && i < normalizer->count; i++) {
    nb_regex_free(normalizer->steps[i].regex);
    free(normalizer->steps[i].text);
    nb_charsmap_free(normalizer->steps[i].charsmap);
  }
  free(normalizer);
}
