/* Normalizers: text to text, step by step. The four normalization forms take their tables from utf8proc, but not its
 * sort: that of utf8proc_decompose is quadratic in a run of combining marks. */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/grow.h"
#include "base/utf8.h"
#include "tokenizer/bytes.h"
#include "tokenizer/steps.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/unicode.h"

enum {
  MAX_DECOMPOSED = 32, /* code points that one becomes; 18 is Unicode's longest */
  FLUSH = 1 << 12,     /* code points after which a run is composed at the next safe place */
};

/* One step's work on one text. */
typedef struct job {
  nb_buf *out;    /* what becomes of the text */
  bool *at_start; /* as nb_normalize's */
  nb_budget *budget;
  nibble_error *err;
} job;

typedef struct step step;
typedef nibble_status (*run_fn)(const step *s, nb_str text, job *j);

struct step {
  run_fn run;
  int form;         /* options of utf8proc */
  bool left, right; /* Strip: at which ends */
  nb_regex *regex;  /* Replace: what */
  char *text;       /* Replace: by what; Prepend: what */
};

struct nb_normalizer {
  step steps[NB_MAX_STEPS];
  int count;
};

typedef struct run {
  int32_t *codes;
  size_t length, capacity;
  int options;
  nb_buf *out;
} run;

/* --- normalization forms (Unicode Standard Annex 15) --- */

static int combining(int32_t code) { return (int)utf8proc_get_property(code)->combining_class; }

/* Puts codes[0, n), all of combining class above 0, in order of class; equal ones keep their order. */
static bool sort_marks(int32_t *codes, size_t n) {
  if (n <= 16) {
    for (size_t i = 1; i < n; i++) {
      int32_t code = codes[i];
      size_t k = i;
      for (; k > 0 && combining(codes[k - 1]) > combining(code); k--) codes[k] = codes[k - 1];
      codes[k] = code;
    }
    return true;
  }
  int32_t *copy = malloc(n * sizeof *copy);
  if (!copy) return false;
  memcpy(copy, codes, n * sizeof *copy);
  size_t at[257] = {0};
  for (size_t i = 0; i < n; i++) at[combining(copy[i]) + 1]++;
  for (int class = 1; class <= 256; class ++) at[class] += at[class - 1];
  for (size_t i = 0; i < n; i++) codes[at[combining(copy[i])]++] = copy[i];
  free(copy);
  return true;
}

/* Orders and composes what has been collected, and writes it. */
static void flush(run *r) {
  for (size_t i = 0; i < r->length;) {
    size_t begin = i++;
    if (combining(r->codes[begin]) == 0) continue;
    while (i < r->length && combining(r->codes[i]) != 0) i++;
    if (!sort_marks(r->codes + begin, i - begin)) r->out->failed = true;
  }
  utf8proc_ssize_t length = (utf8proc_ssize_t)r->length;
  if (r->options & UTF8PROC_COMPOSE) length = utf8proc_normalize_utf32(r->codes, length, (utf8proc_option_t)r->options);
  for (utf8proc_ssize_t i = 0; i < length; i++) {
    char bytes[4];
    nb_buf_append(r->out, bytes, nb_utf8_encode((uint32_t)r->codes[i], bytes));
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
  for (utf8proc_ssize_t i = 0; i < n; i++) r->codes[r->length++] = parts[i];
}

/* ASCII is the same in every form and is copied, but for the last character before others: a mark may follow it. */
static nibble_status form(const step *s, nb_str whole, job *j) {
  nb_buf *out = j->out;
  run r = {.options = UTF8PROC_STABLE | s->form, .out = out};
  const char *text = whole.data;
  size_t n = whole.length, done = 0, i = 0, length = 0;
  while (i < n && !out->failed) {
    if ((unsigned char)text[i] < 0x80) {
      i++;
      continue;
    }
    size_t begin = i > done && (unsigned char)text[i - 1] < 0x80 ? i - 1 : i;
    nb_buf_append(out, text + done, begin - done);
    uint32_t code = 0;
    for (done = begin; done < n && !out->failed; done += length) {
      code = nb_utf8_decode(text + done, &length);
      if ((code < 0x80 && done > begin) || nb_is_inert(code)) break;
      collect(&r, code);
    }
    flush(&r);
    if (done < n && code >= 0x80) { /* inert */
      nb_buf_append(out, text + done, length);
      done += length;
    }
    i = done;
  }
  nb_buf_append(out, text + done, n - done);
  free(r.codes);
  return NIBBLE_OK;
}

/* --- the other steps --- */

static nibble_status lower(const step *s, nb_str text, job *j) {
  (void)s;
  size_t length;
  for (size_t i = 0; i < text.length; i += length) {
    uint32_t codes[2];
    int count = nb_lower(nb_utf8_decode(text.data + i, &length), codes);
    for (int k = 0; k < count; k++) {
      char bytes[4];
      nb_buf_append(j->out, bytes, nb_utf8_encode(codes[k], bytes));
    }
  }
  return NIBBLE_OK;
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
  if (begin > 0) *j->at_start = false;
  if (!s->right) end = text.length;
  if (begin < end) nb_buf_append(j->out, text.data + begin, end - begin);
  return NIBBLE_OK;
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
  nibble_status status = nb_regex_replace(s->regex, &search, text.data, s->text, j->out, j->err);
  nb_buf_free(&shadow);
  return status;
}

static nibble_status prepend(const step *s, nb_str text, job *j) {
  nb_buf_puts(j->out, s->text);
  nb_buf_append(j->out, text.data, text.length);
  return NIBBLE_OK;
}

static nibble_status bytes(const step *s, nb_str text, job *j) {
  (void)s;
  nb_bytes_to_chars(text.data, text.length, j->out);
  return NIBBLE_OK;
}

/* One step; what it writes is taken from the budget. */
static nibble_status run_step(const step *s, nb_str text, job *j) {
  nb_buf *out = j->out;
  out->length = 0;
  out->limit = j->budget->bytes < NB_TEXT_MAX ? j->budget->bytes : NB_TEXT_MAX;
  nibble_status status = out->limit > 0 ? s->run(s, text, j) : nb_budget_refuse("normalizer", j->err);
  if (status == NIBBLE_OK && out->is_full) status = nb_budget_refuse("normalizer", j->err);
  if (status == NIBBLE_OK && out->failed) status = nb_fail_memory(j->err, text.length);
  j->budget->bytes -= out->length;
  out->limit = 0;
  out->failed = out->is_full = false;
  return status;
}

nibble_status nb_normalize(const nb_normalizer *normalizer, nb_buf *text, nb_buf *scratch, bool *at_start,
                           nb_budget *budget, nibble_error *err) {
  if (text->failed) return nb_fail_memory(err, text->length);
  job j = {.out = scratch, .at_start = at_start, .budget = budget, .err = err};
  for (int i = 0; normalizer && i < normalizer->count && text->length > 0; i++) {
    nibble_status status = run_step(&normalizer->steps[i], (nb_str){text->data, text->length}, &j);
    if (status != NIBBLE_OK) return status;
    nb_buf swapped = *text;
    *text = *scratch;
    *scratch = swapped;
  }
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

static const struct step_type {
  const char *type;
  step step;                                /* as far as the type says */
  void (*read)(nb_step_reader *r, step *s); /* the options; NULL: there are none */
} types[] = {
    {"NFC", {.run = form, .form = UTF8PROC_COMPOSE}, NULL},
    {"NFD", {.run = form, .form = UTF8PROC_DECOMPOSE}, NULL},
    {"NFKC", {.run = form, .form = UTF8PROC_COMPOSE | UTF8PROC_COMPAT}, NULL},
    {"NFKD", {.run = form, .form = UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT}, NULL},
    {"Lowercase", {.run = lower}, NULL},
    {"Strip", {.run = strip}, read_strip},
    {"Replace", {.run = replace}, read_replace},
    {"Prepend", {.run = prepend}, read_prepend},
    {"ByteLevel", {.run = bytes}, NULL},
};

static void add(nb_step_reader *r, const void *row, void *ctx) {
  const struct step_type *type = row;
  nb_normalizer *out = ctx;
  if (!nb_step_room(r, out->count)) return;
  step *s = &out->steps[out->count++];
  *s = type->step;
  if (type->read) type->read(r, s);
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
  }
  free(normalizer);
}
