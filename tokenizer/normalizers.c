/* Normalizers: text to text, step by step. The four normalization forms take their tables from utf8proc, but not its
 * sort: that of utf8proc_decompose is quadratic in a run of combining marks. */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/utf8.h"
#include "model/json.h"
#include "tokenizer/parts.h"
#include "tokenizer/unicode.h"

enum {
  MAX_DECOMPOSED = 32, /* code points that one becomes; 18 is Unicode's longest */
  FLUSH = 1 << 12,     /* code points after which a run is composed at the next safe place */
};

typedef struct run {
  int32_t *codes;
  size_t length, capacity;
  int options;
  nb_buf *out;
} run;

/* --- parsing --- */

static nibble_status parse_step(const char *where, const cJSON *json, nb_normalizer *out, int depth, nibble_error *err);

static nibble_status parse_sequence(const char *where, const cJSON *json, nb_normalizer *out, int depth,
                                    nibble_error *err) {
  const cJSON *list = cJSON_GetObjectItemCaseSensitive(json, "normalizers");
  if (!cJSON_IsArray(list) || depth > NB_MAX_STEPS)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: normalizer Sequence has no list \"normalizers\"", where);
  nibble_status status = NIBBLE_OK;
  for (const cJSON *item = list->child; item && status == NIBBLE_OK; item = item->next)
    status = parse_step(where, item, out, depth + 1, err);
  return status;
}

/* Fills what a kind of step needs beyond its row. */
static nibble_status parse_details(const char *where, const cJSON *json, nb_normal_step *step, nibble_error *err) {
  nibble_status status = NIBBLE_OK;
  switch (step->kind) {
    case NB_NORMAL_STRIP:
      status = nb_json_bool(where, json, "strip_left", &step->left, err);
      return status == NIBBLE_OK ? nb_json_bool(where, json, "strip_right", &step->right, err) : status;
    case NB_NORMAL_REPLACE:
      status = nb_part_pattern(where, "normalizer Replace", json, &step->regex, err);
      return status == NIBBLE_OK
                 ? nb_part_string(where, "normalizer", json, "content", NB_MAX_CONTENT, &step->text, err)
                 : status;
    case NB_NORMAL_PREPEND:
      return nb_part_string(where, "normalizer", json, "prepend", NB_MAX_CONTENT, &step->text, err);
    case NB_NORMAL_FORM:
    case NB_NORMAL_LOWER:
    case NB_NORMAL_BYTES: return NIBBLE_OK;
  }
  return status;
}

static nibble_status parse_step(const char *where, const cJSON *json, nb_normalizer *out, int depth,
                                nibble_error *err) {
  static const struct {
    const char *type;
    nb_normal_step step;
  } rows[] = {
      {"NFC", {.kind = NB_NORMAL_FORM, .compose = true}},
      {"NFD", {.kind = NB_NORMAL_FORM}},
      {"NFKC", {.kind = NB_NORMAL_FORM, .compose = true, .compat = true}},
      {"NFKD", {.kind = NB_NORMAL_FORM, .compat = true}},
      {"Lowercase", {.kind = NB_NORMAL_LOWER}},
      {"Strip", {.kind = NB_NORMAL_STRIP}},
      {"Replace", {.kind = NB_NORMAL_REPLACE}},
      {"Prepend", {.kind = NB_NORMAL_PREPEND}},
      {"ByteLevel", {.kind = NB_NORMAL_BYTES}},
  };
  const char *type = nb_part_type(where, "normalizer", json, err);
  if (!type) return NIBBLE_BAD_INPUT;
  if (strcmp(type, "Sequence") == 0) return parse_sequence(where, json, out, depth, err);
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    if (strcmp(type, rows[i].type) != 0) continue;
    if (out->count == NB_MAX_STEPS)
      return nb_fail(err, NIBBLE_BAD_INPUT, "%s: normalizer has more than %d steps", where, NB_MAX_STEPS);
    nb_normal_step *step = &out->steps[out->count++];
    *step = rows[i].step;
    return parse_details(where, json, step, err);
  }
  return nb_fail(err, NIBBLE_BAD_INPUT, "%s: normalizer '%s' is not supported", where, type);
}

nibble_status nb_normalizer_parse(const char *where, const cJSON *json, nb_normalizer *out, nibble_error *err) {
  *out = (nb_normalizer){0};
  if (!json || cJSON_IsNull(json)) return NIBBLE_OK;
  nibble_status status = parse_step(where, json, out, 0, err);
  if (status != NIBBLE_OK) nb_normalizer_free(out);
  return status;
}

void nb_normalizer_free(nb_normalizer *normalizer) {
  for (int i = 0; i < normalizer->count; i++) {
    nb_regex_free(normalizer->steps[i].regex);
    free(normalizer->steps[i].text);
  }
  *normalizer = (nb_normalizer){0};
}

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
  if (r->length + MAX_DECOMPOSED > r->capacity) {
    size_t capacity = r->capacity ? 2 * r->capacity : 2 * FLUSH;
    int32_t *codes = realloc(r->codes, capacity * sizeof *codes);
    if (!codes) {
      r->out->failed = true;
      return;
    }
    r->codes = codes;
    r->capacity = capacity;
  }
  for (utf8proc_ssize_t i = 0; i < n; i++) r->codes[r->length++] = parts[i];
}

/* ASCII is the same in every form and is copied, but for the last character before others: a mark may follow it. */
static void form(const nb_normal_step *step, const char *text, size_t n, nb_buf *out) {
  run r = {.options = UTF8PROC_STABLE | (step->compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
                      (step->compat ? UTF8PROC_COMPAT : 0),
           .out = out};
  size_t done = 0, i = 0, length = 0;
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
}

/* --- the other steps --- */

static void lower(const char *text, size_t n, nb_buf *out) {
  size_t length;
  for (size_t i = 0; i < n; i += length) {
    uint32_t codes[2];
    int count = nb_lower(nb_utf8_decode(text + i, &length), codes);
    for (int k = 0; k < count; k++) {
      char bytes[4];
      nb_buf_append(out, bytes, nb_utf8_encode(codes[k], bytes));
    }
  }
}

static void strip(const nb_normal_step *step, const char *text, size_t n, nb_buf *out, bool *at_start) {
  size_t begin = 0, end = 0, length;
  bool leading = step->left;
  for (size_t i = 0; i < n; i += length) {
    if (!nb_is_space(nb_utf8_decode(text + i, &length))) {
      end = i + length;
      leading = false;
    }
    if (leading) begin = i + length;
  }
  if (begin > 0) *at_start = false;
  if (!step->right) end = n;
  if (begin < end) nb_buf_append(out, text + begin, end - begin);
}

static nibble_status replace(const nb_normal_step *step, const char *text, size_t n, nb_buf *out, nibble_error *err) {
  nb_buf shadow = {0};
  const char *subject = text;
  if (!nb_regex_is_literal(step->regex) && nb_needs_shadow(text, n)) {
    nb_make_shadow(text, n, &shadow);
    if (shadow.failed) return nb_fail_memory(err, n);
    subject = shadow.data;
  }
  nb_regex_cursor cursor = {0};
  size_t done = 0, begin, end;
  bool found;
  nibble_status status;
  while ((status = nb_regex_next(step->regex, subject, n, &cursor, &found, &begin, &end, err)) == NIBBLE_OK && found) {
    nb_buf_append(out, text + done, begin - done);
    nb_buf_puts(out, step->text);
    done = end;
  }
  nb_buf_append(out, text + done, n - done);
  nb_buf_free(&shadow);
  return status;
}

static nibble_status apply(const nb_normal_step *step, const char *text, size_t n, nb_buf *out, bool *at_start,
                           nibble_error *err) {
  switch (step->kind) {
    case NB_NORMAL_FORM: form(step, text, n, out); break;
    case NB_NORMAL_LOWER: lower(text, n, out); break;
    case NB_NORMAL_STRIP: strip(step, text, n, out, at_start); break;
    case NB_NORMAL_REPLACE: return replace(step, text, n, out, err);
    case NB_NORMAL_PREPEND:
      nb_buf_puts(out, step->text);
      nb_buf_append(out, text, n);
      break;
    case NB_NORMAL_BYTES: nb_bytes_to_chars(text, n, out); break;
  }
  return NIBBLE_OK;
}

nibble_status nb_normalize(const nb_normalizer *normalizer, nb_buf *text, nb_buf *other, bool *at_start,
                           nibble_error *err) {
  for (int i = 0; i < normalizer->count && text->length > 0; i++) {
    other->length = 0;
    nibble_status status = apply(&normalizer->steps[i], text->data, text->length, other, at_start, err);
    if (status != NIBBLE_OK) return status;
    if (other->failed) return nb_fail_memory(err, text->length);
    if (other->length > NB_TEXT_MAX)
      return nb_fail(err, NIBBLE_BAD_INPUT, "the normalized text has more than %d bytes", NB_TEXT_MAX);
    nb_buf swapped = *text;
    *text = *other;
    *other = swapped;
  }
  return text->failed ? nb_fail_memory(err, text->length) : NIBBLE_OK;
}
