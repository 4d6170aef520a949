/* A tokenizer.json into a specification. Nearly all of such a file is the model's vocabulary and merges, hundreds of
 * thousands of small values; building a cJSON tree of them would take longer than everything else together. They are
 * therefore read straight from the text, and cJSON gets the file without them. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/grow.h"
#include "base/utf8.h"
#include "model/json.h"
#include "tokenizer/model.h"
#include "tokenizer/readers/readers.h"
#include "tokenizer/spec.h"

typedef struct span {
  size_t begin, end; /* bytes of the text; begin is 0 where it was not found */
} span;

typedef struct reader {
  const char *where, *text;
  size_t at, n;
  nibble_error *err;
} reader;

static nibble_status bad(reader *r, const char *what) {
  return nb_fail(r->err, NIBBLE_BAD_INPUT, "%s: %s at byte %zu", r->where, what, r->at);
}

static void skip_space(reader *r) {
  size_t at = r->at;
  while (at < r->n && (r->text[at] == ' ' || r->text[at] == '\n' || r->text[at] == '\r' || r->text[at] == '\t')) at++;
  r->at = at;
}

/* Moves behind `c` and the space around it; false if it is not there. */
static bool take(reader *r, char c) {
  skip_space(r);
  if (r->at >= r->n || r->text[r->at] != c) return false;
  r->at++;
  skip_space(r);
  return true;
}

/* Where the string ends (at its closing quote) whose inside begins at `at`; n if it does not. */
static size_t string_end(const char *text, size_t n, size_t at) {
  while (at < n && text[at] != '"') at += text[at] == '\\' ? 2 : 1;
  return at < n ? at : n;
}

/* Moves behind the string that begins here; *inside is what stands between its quotes. */
static bool skip_string(reader *r, span *inside) {
  if (r->at >= r->n || r->text[r->at] != '"') return false;
  inside->begin = r->at + 1;
  inside->end = string_end(r->text, r->n, inside->begin);
  if (inside->end == r->n) return false;
  r->at = inside->end + 1;
  return true;
}

/* Moves behind the value that begins here and the space after it. What is not valid JSON but is skipped so is found by
 * cJSON later, unless it stands in the vocabulary or the merges, whose readers find it. */
static bool skip_value(reader *r, span *value) {
  size_t at = value->begin = r->at, depth = 0;
  for (; at < r->n; at++) {
    switch (r->text[at]) {
      case '"':
        at = string_end(r->text, r->n, at + 1);
        if (at == r->n) return false;
        break;
      case '{':
      case '[': depth++; break;
      case '}':
      case ']':
      case ',':
        if (depth == 0) {
          r->at = value->end = at;
          return true;
        }
        depth -= r->text[at] != ',';
        break;
      default: break;
    }
  }
  return false;
}

static bool is_key(const reader *r, span key, const char *name) {
  return key.end - key.begin == strlen(name) && memcmp(r->text + key.begin, name, key.end - key.begin) == 0;
}

/* Finds "vocab" and "merges" in the object under "model". Leaves a span zero where there is none. */
static nibble_status find_tables(reader *r, span *vocab, span *merges) {
  span key, value;
  *vocab = *merges = (span){0};
  if (!take(r, '{')) return bad(r, "not a JSON object");
  bool in_model = false;
  for (;;) {
    if (take(r, '}')) return NIBBLE_OK;
    if (!skip_string(r, &key) || !take(r, ':')) return bad(r, "not valid JSON");
    if (!in_model && is_key(r, key, "model") && take(r, '{')) {
      in_model = true;
      continue;
    }
    if (!skip_value(r, &value)) return bad(r, "not valid JSON");
    if (in_model && is_key(r, key, "vocab") && !vocab->begin) *vocab = value;
    if (in_model && is_key(r, key, "merges") && !merges->begin) *merges = value;
    if (!take(r, ',') && (r->at >= r->n || r->text[r->at] != '}')) return bad(r, "not valid JSON");
  }
}

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

/* Writes the string between quotes to out, which has room for as many bytes; its length, or -1. */
static long unescape(const reader *r, span inside, char *out) {
  const char *text = r->text + inside.begin;
  size_t n = inside.end - inside.begin, length = 0;
  for (size_t i = 0; i < n;) {
    const char *back = memchr(text + i, '\\', n - i);
    size_t plain = back ? (size_t)(back - text) - i : n - i;
    memcpy(out + length, text + i, plain);
    for (size_t k = 0; k < plain; k++) {
      if ((unsigned char)text[i + k] < 0x20) return -1;
    }
    length += plain;
    i += plain;
    if (i == n) break;
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *known = i + 1 < n && text[i + 1] ? strchr(from, text[i + 1]) : NULL;
    if (known) {
      out[length++] = to[known - from];
      i += 2;
      continue;
    }
    size_t used;
    int32_t code = i + 1 < n && text[i + 1] == 'u' ? unicode_escape(text + i, n - i, &used) : -1;
    if (code < 0) return -1;
    length += nb_utf8_encode((uint32_t)code, out + length);
    i += used;
  }
  return (long)length;
}

static nibble_status read_id(reader *r, int32_t *id) {
  int64_t value = 0;
  size_t begin = r->at;
  while (r->at < r->n && r->text[r->at] >= '0' && r->text[r->at] <= '9' && value < NB_MAX_ID)
    value = value * 10 + (r->text[r->at++] - '0');
  if (r->at == begin) return bad(r, "a token's id is not a whole number");
  if (value >= NB_MAX_ID) return bad(r, "a token's id is larger than any vocabulary");
  *id = (int32_t)value;
  return NIBBLE_OK;
}

/* value times ten to the power of `exponent`. */
static double scale(uint64_t digits, int64_t exponent) {
  enum { LARGEST = 308 }; /* a double's exponent */
  static const double exact[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
  double value = (double)digits;
  for (; exponent < -LARGEST && value != 0; exponent += LARGEST) value /= 1e308;
  if (value == 0) return value;
  if (exponent > LARGEST) return INFINITY;
  uint64_t size = (uint64_t)(exponent < 0 ? -exponent : exponent);
  char text[16];
  snprintf(text, sizeof text, "1e%d", (int)size);
  double power = size < sizeof exact / sizeof *exact ? exact[size] : strtod(text, NULL);
  return exponent < 0 ? value / power : value * power;
}

/* A score, to the bit as the reference reads it: the first digits that fit into 64 bits, as a double, times or divided
 * by a power of ten. That is not always the double nearest to the number, and where two paths through a word are equal
 * but for rounding, the last bit decides. */
static bool read_score(reader *r, double *out) {
  uint64_t digits = 0;
  int64_t exponent = 0;
  bool full = false, fraction = false, negative = r->at < r->n && r->text[r->at] == '-';
  size_t begin = r->at += negative;
  for (; r->at < r->n; r->at++) {
    char c = r->text[r->at];
    if (c == '.' && !fraction && r->at > begin) {
      fraction = true;
    } else if (c >= '0' && c <= '9') {
      unsigned digit = (unsigned)(c - '0');
      full |= digits > (UINT64_MAX - digit) / 10;
      if (!full) digits = digits * 10 + digit;
      exponent += (full && !fraction) - (!full && fraction);
    } else {
      break;
    }
  }
  if (r->at == begin || r->text[r->at - 1] == '.') return false;
  if (r->text[begin] == '0' && r->at > begin + 1 && r->text[begin + 1] != '.') return false;
  if (r->at < r->n && (r->text[r->at] | 32) == 'e') {
    char *end;
    const char *text = r->text + r->at + 1; /* a brace follows the table, so the number ends */
    if (!strchr("+-0123456789", *text)) return false;
    long value = strtol(text, &end, 10);
    if (end == text || value < -100000 || value > 100000) return false;
    exponent += value;
    r->at = (size_t)(end - r->text);
  }
  *out = scale(digits, exponent);
  if (negative) *out = -*out;
  return isfinite(*out);
}

/* The list of a model with scores: [["text", -1.5], ...], in order of ids. */
static nibble_status read_scored(reader *r, span table, nb_vocab *vocab) {
  size_t capacity = 0;
  char *out = vocab->texts = malloc(table.end - table.begin + 1);
  if (!out) return nb_fail_memory(r->err, table.end - table.begin);
  r->at = table.begin;
  r->n = table.end;
  if (!take(r, '[')) return bad(r, "model.vocab is not a list");
  if (take(r, ']')) return NIBBLE_OK;
  do {
    span text;
    int32_t id = vocab->count;
    double *scores = nb_grow(vocab->scores, &capacity, (size_t)id + 1, sizeof *scores);
    if (!scores) return nb_fail_memory(r->err, capacity * sizeof *scores);
    vocab->scores = scores;
    if (!take(r, '[') || !skip_string(r, &text) || !take(r, ',')) return bad(r, "model.vocab is not a list of pairs");
    long length = unescape(r, text, out);
    if (length < 0) return bad(r, "model.vocab has a damaged string");
    if (!read_score(r, &scores[id])) return bad(r, "the score of a token is no number");
    if (!take(r, ']')) return bad(r, "model.vocab is not a list of pairs");
    if (id == NB_MAX_ID - 1) return bad(r, "a token's id is larger than any vocabulary");
    nibble_status status = nb_vocab_append(vocab, (nb_str){out, (size_t)length}, r->err);
    if (status != NIBBLE_OK) return status;
    out += length;
  } while (take(r, ','));
  return take(r, ']') && r->at == r->n ? nb_vocab_index(vocab, r->err) : bad(r, "model.vocab is not valid JSON");
}

static nibble_status read_vocab(reader *r, span table, nb_vocab *vocab) {
  char *out = vocab->texts = malloc(table.end - table.begin + 1);
  if (!out) return nb_fail_memory(r->err, table.end - table.begin);
  r->at = table.begin;
  r->n = table.end;
  if (!take(r, '{')) return bad(r, "model.vocab is not an object");
  if (take(r, '}')) return NIBBLE_OK;
  do {
    span key;
    int32_t id = 0;
    if (!skip_string(r, &key) || !take(r, ':')) return bad(r, "model.vocab is not valid JSON");
    long length = unescape(r, key, out);
    if (length < 0) return bad(r, "model.vocab has a damaged string");
    nibble_status status = read_id(r, &id);
    if (status == NIBBLE_OK) status = nb_vocab_add(vocab, r->where, id, (nb_str){out, (size_t)length}, r->err);
    if (status != NIBBLE_OK) return status;
    out += length;
  } while (take(r, ','));
  return take(r, '}') && r->at == r->n ? NIBBLE_OK : bad(r, "model.vocab is not valid JSON");
}

nibble_status nb_vocab_read_json(const char *where, nb_str text, nb_vocab *vocab, nibble_error *err) {
  reader r = {.where = where, .text = text.data, .n = text.length, .err = err};
  r.at = nb_utf8_valid(text.data, text.length);
  return r.at < r.n ? bad(&r, "not UTF-8") : read_vocab(&r, (span){0, text.length}, vocab);
}

static nibble_status add_merge(reader *r, nb_tokenizer_spec *spec, nb_str left, nb_str right) {
  bool known;
  nibble_status status = nb_merges_add(&spec->merges, &spec->vocab, left, right, &known, r->err);
  if (status != NIBBLE_OK || known) return status;
  return nb_fail(r->err, NIBBLE_BAD_INPUT,
                 "%s: merge %zu of '%.*s' and '%.*s' names a token that is not in model.vocab", r->where,
                 spec->merges.count, (int)nb_min_i64((int64_t)left.length, 60), left.data,
                 (int)nb_min_i64((int64_t)right.length, 60), right.data);
}

/* One merge, ["a", "b"] or "a b", which has room in `text`. */
static nibble_status read_merge(reader *r, nb_tokenizer_spec *spec, char *text) {
  span first, second;
  bool pair = take(r, '[');
  if (!skip_string(r, &first)) return bad(r, "model.merges is not valid JSON");
  long a = unescape(r, first, text);
  if (pair && (!take(r, ',') || !skip_string(r, &second) || !take(r, ']')))
    return bad(r, "a merge is not a pair of strings");
  long b = pair && a >= 0 ? unescape(r, second, text + a) : 0;
  if (a < 0 || b < 0) return bad(r, "model.merges has a damaged string");
  if (pair) return add_merge(r, spec, (nb_str){text, (size_t)a}, (nb_str){text + a, (size_t)b});
  if (a >= 8 && memcmp(text, "#version", 8) == 0) return NIBBLE_OK; /* left from merges.txt */
  const char *space = memchr(text, ' ', (size_t)a), *end = text + a;
  if (!space || memchr(space + 1, ' ', (size_t)(end - space - 1))) return bad(r, "a merge is not two tokens");
  return add_merge(r, spec, (nb_str){text, (size_t)(space - text)}, (nb_str){space + 1, (size_t)(end - space - 1)});
}

static nibble_status read_merges(reader *r, span table, nb_tokenizer_spec *spec) {
  r->at = table.begin;
  r->n = table.end;
  if (!take(r, '[')) return bad(r, "model.merges is not a list");
  if (take(r, ']')) return NIBBLE_OK;
  char *text = malloc(table.end - table.begin);
  nibble_status status = text ? NIBBLE_OK : nb_fail_memory(r->err, table.end - table.begin);
  do {
    if (status == NIBBLE_OK) status = read_merge(r, spec, text);
  } while (status == NIBBLE_OK && take(r, ','));
  if (status == NIBBLE_OK && (!take(r, ']') || r->at != r->n)) status = bad(r, "model.merges is not valid JSON");
  free(text);
  return status;
}

/* The text with a 0 for each table, as a tree without the tables' members. */
static nibble_status parse_rest(reader *r, span vocab, span merges, cJSON **out) {
  span first = vocab.begin < merges.begin ? vocab : merges, second = vocab.begin < merges.begin ? merges : vocab;
  nb_buf rest = {0};
  nb_buf_append(&rest, r->text, first.begin);
  if (first.end > 0) nb_buf_puts(&rest, "0");
  nb_buf_append(&rest, r->text + first.end, second.begin - first.end);
  nb_buf_puts(&rest, "0");
  nb_buf_append(&rest, r->text + second.end, r->n - second.end);
  nibble_status status = NIBBLE_OK;
  if (rest.failed)
    status = nb_fail_memory(r->err, r->n);
  else if (memmem(rest.data, rest.length, "\\u0000", 6))
    status = nb_fail(r->err, NIBBLE_BAD_INPUT, "%s: a NUL character outside the vocabulary", r->where);
  else
    status = nb_json_parse(r->where, rest.data, rest.length, out, r->err);
  nb_buf_free(&rest);
  cJSON *model = cJSON_GetObjectItemCaseSensitive(*out, "model");
  cJSON_DeleteItemFromObjectCaseSensitive(model, "vocab");
  cJSON_DeleteItemFromObjectCaseSensitive(model, "merges");
  return status;
}

nibble_status nb_tokenizer_spec_read(const char *where, const char *text, size_t n, nb_tokenizer_spec *out,
                                     nibble_error *err) {
  *out = (nb_tokenizer_spec){0};
  reader r = {.where = where, .text = text, .n = n, .err = err};
  r.at = nb_utf8_valid(text, n);
  if (r.at < n) return bad(&r, "not UTF-8");
  r.at = 0;
  span vocab, merges;
  nibble_status status = find_tables(&r, &vocab, &merges);
  if (status == NIBBLE_OK && !vocab.begin) status = nb_fail(err, NIBBLE_BAD_INPUT, "%s: model.vocab is missing", where);
  if (status == NIBBLE_OK) status = parse_rest(&r, vocab, merges, &out->parts);
  const char *version = "1.0", *prefix = "";
  if (status == NIBBLE_OK) status = nb_json_string(where, out->parts, "version", &version, err);
  if (status == NIBBLE_OK && strcmp(version, "1.0") != 0)
    status = nb_fail(err, NIBBLE_BAD_INPUT, "%s: version '%s' is unknown", where, version);
  const cJSON *model = nb_json_object(out->parts, "model");
  const nb_token_model_kind *kind;
  if (status == NIBBLE_OK) status = nb_token_model_kind_of(where, model, &kind, err);
  if (status == NIBBLE_OK) status = nb_json_string(where, model, "continuing_subword_prefix", &prefix, err);
  if (status == NIBBLE_OK)
    status = kind->has_scores ? read_scored(&r, vocab, &out->vocab) : read_vocab(&r, vocab, &out->vocab);
  if (status != NIBBLE_OK || !kind->has_merges) return status;
  if (!merges.begin) return nb_fail(err, NIBBLE_BAD_INPUT, "%s: model.merges is missing", where);
  out->merges.skip = strlen(prefix);
  return read_merges(&r, merges, out);
}
