/* A tokenizer.json into a tokenizer. Nearly all of such a file is the model's vocabulary and merges, hundreds of
 * thousands of small values; building a cJSON tree of them would take longer than everything else together. They are
 * therefore read straight from the text, and cJSON gets the file without them. */
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/stage.h"
#include "base/utf8.h"
#include "model/json.h"
#include "tokenizer/parts.h"

enum {
  MAX_FILE = 256 << 20,
  MAX_TEMPLATE = 256, /* pieces: each may be the whole text again */
};

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
    char c = hex[i];
    int digit = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
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

static nibble_status add_token(reader *r, nb_bpe *bpe, const char *text, size_t n, int32_t id) {
  int shown = n < 60 ? (int)n : 60;
  if (id < bpe->token_count && bpe->tokens[id].text)
    return nb_fail(r->err, NIBBLE_BAD_INPUT, "%s: two tokens have the id %d, the second is '%.*s'", r->where, id, shown,
                   text);
  switch (nb_strmap_add(&bpe->ids, text, n, id)) {
    case NB_STRMAP_EXISTS:
      return nb_fail(r->err, NIBBLE_BAD_INPUT, "%s: the token '%.*s' is there twice", r->where, shown, text);
    case NB_STRMAP_NO_MEMORY: return nb_fail_memory(r->err, n);
    case NB_STRMAP_ADDED: break;
  }
  bpe->model_count++;
  return nb_bpe_set_token(bpe, id, text, n) ? NIBBLE_OK : nb_fail_memory(r->err, (size_t)id * sizeof(nb_token));
}

static nibble_status read_vocab(reader *r, span vocab, nb_bpe *bpe) {
  r->at = vocab.begin;
  r->n = vocab.end;
  char *out = bpe->arena = malloc(vocab.end - vocab.begin + 1);
  if (!out) return nb_fail_memory(r->err, vocab.end - vocab.begin);
  if (!take(r, '{')) return bad(r, "model.vocab is not an object");
  if (take(r, '}')) return NIBBLE_OK;
  do {
    span key;
    int32_t id = 0;
    if (!skip_string(r, &key) || !take(r, ':')) return bad(r, "model.vocab is not valid JSON");
    long length = unescape(r, key, out);
    if (length < 0) return bad(r, "model.vocab has a damaged string");
    nibble_status status = read_id(r, &id);
    if (status == NIBBLE_OK) status = add_token(r, bpe, out, (size_t)length, id);
    if (status != NIBBLE_OK) return status;
    out += length;
  } while (take(r, ','));
  return take(r, '}') && r->at == r->n ? NIBBLE_OK : bad(r, "model.vocab is not valid JSON");
}

static nibble_status add_merge(reader *r, nb_bpe *bpe, const char *left, size_t a, const char *right, size_t b,
                               nb_buf *whole, int32_t rank) {
  int64_t left_id, right_id, merged;
  size_t skip = strlen(bpe->prefix);
  bool found = nb_strmap_find(&bpe->ids, left, a, &left_id) && nb_strmap_find(&bpe->ids, right, b, &right_id);
  if (found && b >= skip) {
    whole->length = 0;
    nb_buf_append(whole, left, a);
    nb_buf_append(whole, right + skip, b - skip);
    if (whole->failed) return nb_fail_memory(r->err, a + b);
    found = nb_strmap_find(&bpe->ids, whole->data, whole->length, &merged);
  } else {
    found = false;
  }
  if (!found)
    return nb_fail(r->err, NIBBLE_BAD_INPUT,
                   "%s: merge %d of '%.*s' and '%.*s' names a token that is not in model.vocab", r->where, rank,
                   (int)(a < 60 ? a : 60), left, (int)(b < 60 ? b : 60), right);
  nb_merge merge = {.left = (int32_t)left_id, .right = (int32_t)right_id, .rank = rank, .merged = (int32_t)merged};
  return nb_bpe_add_merge(bpe, merge) ? NIBBLE_OK : nb_fail_memory(r->err, bpe->merge_count * sizeof merge);
}

/* One merge, ["a", "b"] or "a b", which has room in `text`. */
static nibble_status read_merge(reader *r, nb_bpe *bpe, char *text, nb_buf *whole, int32_t *rank) {
  span first, second;
  bool pair = take(r, '[');
  if (!skip_string(r, &first)) return bad(r, "model.merges is not valid JSON");
  long a = unescape(r, first, text), b = 0;
  char *right;
  if (pair) {
    if (!take(r, ',') || !skip_string(r, &second) || !take(r, ']')) return bad(r, "a merge is not a pair of strings");
    right = text + (a < 0 ? 0 : a);
    b = unescape(r, second, right);
    if (a < 0 || b < 0) return bad(r, "model.merges has a damaged string");
  } else {
    if (a < 0) return bad(r, "model.merges has a damaged string");
    if (a >= 8 && memcmp(text, "#version", 8) == 0) return NIBBLE_OK; /* left from merges.txt */
    right = memchr(text, ' ', (size_t)a);
    if (!right || memchr(right + 1, ' ', (size_t)(text + a - right - 1))) return bad(r, "a merge is not two tokens");
    b = text + a - ++right;
    a -= b + 1;
  }
  if (*rank == INT32_MAX) return bad(r, "too many merges");
  return add_merge(r, bpe, text, (size_t)a, right, (size_t)b, whole, (*rank)++);
}

static nibble_status read_merges(reader *r, span merges, nb_bpe *bpe) {
  r->at = merges.begin;
  r->n = merges.end;
  if (!take(r, '[')) return bad(r, "model.merges is not a list");
  if (take(r, ']')) return NIBBLE_OK;
  nb_buf whole = {0};
  char *text = malloc(merges.end - merges.begin);
  nibble_status status = text ? NIBBLE_OK : nb_fail_memory(r->err, merges.end - merges.begin);
  int32_t rank = 0;
  do {
    if (status == NIBBLE_OK) status = read_merge(r, bpe, text, &whole, &rank);
  } while (status == NIBBLE_OK && take(r, ','));
  if (status == NIBBLE_OK && (!take(r, ']') || r->at != r->n)) status = bad(r, "model.merges is not valid JSON");
  free(text);
  nb_buf_free(&whole);
  return status;
}

/* --- parts that cJSON has read --- */

const char *nb_part_type(const char *where, const char *part, const cJSON *json, nibble_error *err) {
  const cJSON *type = cJSON_IsObject(json) ? cJSON_GetObjectItemCaseSensitive(json, "type") : NULL;
  if (cJSON_IsString(type)) return type->valuestring;
  nb_fail(err, NIBBLE_BAD_INPUT, "%s: a %s has no \"type\"", where, part);
  return NULL;
}

nibble_status nb_part_pattern(const char *where, const char *part, const cJSON *json, nb_regex **out,
                              nibble_error *err) {
  const cJSON *pattern = nb_json_object(json, "pattern");
  const cJSON *text = cJSON_GetObjectItemCaseSensitive(pattern, "String");
  const cJSON *regex = cJSON_GetObjectItemCaseSensitive(pattern, "Regex");
  if (cJSON_IsString(text)) return nb_regex_compile(where, text->valuestring, true, out, err);
  if (cJSON_IsString(regex)) return nb_regex_compile(where, regex->valuestring, false, out, err);
  return nb_fail(err, NIBBLE_BAD_INPUT, "%s: %s has no \"pattern\" of a String or a Regex", where, part);
}

nibble_status nb_part_string(const char *where, const char *part, const cJSON *json, const char *key, size_t limit,
                             char **out, nibble_error *err) {
  *out = NULL;
  const cJSON *text = cJSON_GetObjectItemCaseSensitive(json, key);
  if (!cJSON_IsString(text)) return nb_fail(err, NIBBLE_BAD_INPUT, "%s: %s has no string \"%s\"", where, part, key);
  if (strlen(text->valuestring) > limit)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: %s has a \"%s\" of %zu bytes, more than the %zu allowed", where, part,
                   key, strlen(text->valuestring), limit);
  *out = strdup(text->valuestring);
  return *out ? NIBBLE_OK : nb_fail_memory(err, strlen(text->valuestring));
}

nibble_status nb_part_char(const char *where, const char *part, const cJSON *json, const char *key, char **out,
                           nibble_error *err) {
  nibble_status status = nb_part_string(where, part, json, key, 4, out, err);
  if (status != NIBBLE_OK) return status;
  size_t length = 0;
  if (**out) nb_utf8_decode(*out, &length);
  if (length > 0 && (*out)[length] == 0) return NIBBLE_OK;
  free(*out);
  *out = NULL;
  return nb_fail(err, NIBBLE_BAD_INPUT, "%s: %s has a \"%s\" that is not one character", where, part, key);
}

static nibble_status optional_string(const char *where, const cJSON *model, const char *key, char **out,
                                     nibble_error *err) {
  const char *text = NULL;
  nibble_status status = nb_json_string(where, model, key, &text, err);
  if (status != NIBBLE_OK || !text) return status;
  *out = strdup(text);
  return *out ? NIBBLE_OK : nb_fail_memory(err, strlen(text));
}

static nibble_status read_model(const char *where, const cJSON *model, nb_bpe *bpe, nibble_error *err) {
  if (!cJSON_IsObject(model)) return nb_fail(err, NIBBLE_BAD_INPUT, "%s: \"model\" is missing", where);
  const char *type = "BPE";
  nibble_status status = nb_json_string(where, model, "type", &type, err);
  if (status == NIBBLE_OK && strcmp(type, "BPE") != 0)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: model type '%s' is not supported, only BPE is", where, type);
  double dropout = 0;
  if (status == NIBBLE_OK) status = nb_json_double(where, model, "dropout", &dropout, err);
  if (status == NIBBLE_OK && dropout != 0)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: a model with dropout gives other ids each time", where);
  static const struct {
    const char *key;
    size_t field;
  } bools[] = {{"fuse_unk", offsetof(nb_bpe, fuse_unknown)},
               {"byte_fallback", offsetof(nb_bpe, byte_fallback)},
               {"ignore_merges", offsetof(nb_bpe, ignore_merges)}},
    strings[] = {{"unk_token", offsetof(nb_bpe, unknown)},
                 {"continuing_subword_prefix", offsetof(nb_bpe, prefix)},
                 {"end_of_word_suffix", offsetof(nb_bpe, suffix)}};
  for (size_t i = 0; i < 3 && status == NIBBLE_OK; i++) {
    status = nb_json_bool(where, model, bools[i].key, (bool *)((char *)bpe + bools[i].field), err);
    if (status == NIBBLE_OK)
      status = optional_string(where, model, strings[i].key, (char **)((char *)bpe + strings[i].field), err);
  }
  if (status == NIBBLE_OK && !bpe->prefix && !(bpe->prefix = strdup(""))) return nb_fail_memory(err, 1);
  if (status == NIBBLE_OK && !bpe->suffix && !(bpe->suffix = strdup(""))) return nb_fail_memory(err, 1);
  return status;
}

/* --- post-processors --- */

static nibble_status template_id(const char *where, const cJSON *json, nb_ids *out, nibble_error *err) {
  if (!cJSON_IsNumber(json) || !(json->valuedouble >= 0 && json->valuedouble < NB_MAX_ID))
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: post_processor has an id that is none", where);
  if (out->length >= MAX_TEMPLATE)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: post_processor has more than %d pieces", where, MAX_TEMPLATE);
  int32_t id = (int32_t)json->valuedouble;
  nb_ids_append(out, &id, 1);
  return NIBBLE_OK;
}

static nibble_status template_piece(const char *where, const cJSON *piece, const cJSON *specials, nb_ids *out,
                                    nibble_error *err) {
  const cJSON *special = nb_json_object(piece, "SpecialToken"), *sequence = nb_json_object(piece, "Sequence");
  const char *name = "";
  nibble_status status = nb_json_string(where, special ? special : sequence, "id", &name, err);
  if (status != NIBBLE_OK) return status;
  if (sequence && strcmp(name, "A") == 0 && out->length < MAX_TEMPLATE) {
    nb_ids_append(out, &(int32_t){-1}, 1);
    return NIBBLE_OK;
  }
  const cJSON *ids = special ? cJSON_GetObjectItemCaseSensitive(nb_json_object(specials, name), "ids") : NULL;
  if (!cJSON_IsArray(ids))
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: post_processor has a piece '%s' that it does not define", where, name);
  for (const cJSON *id = ids->child; id && status == NIBBLE_OK; id = id->next)
    status = template_id(where, id, out, err);
  return status;
}

static nibble_status read_template(const char *where, const cJSON *json, nb_ids *out, nibble_error *err) {
  const cJSON *single = cJSON_GetObjectItemCaseSensitive(json, "single");
  if (!cJSON_IsArray(single)) return nb_fail(err, NIBBLE_BAD_INPUT, "%s: post_processor has no \"single\"", where);
  if (out->length > 0) return nb_fail(err, NIBBLE_BAD_INPUT, "%s: post_processor has two templates", where);
  nibble_status status = NIBBLE_OK;
  for (const cJSON *piece = single->child; piece && status == NIBBLE_OK; piece = piece->next)
    status = template_piece(where, piece, nb_json_object(json, "special_tokens"), out, err);
  if (status == NIBBLE_OK && out->length == 0)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: post_processor has an empty template", where);
  return status;
}

/* RobertaProcessing and BertProcessing: "cls" and "sep", each [token, id], around the text. */
static nibble_status read_cls_sep(const char *where, const cJSON *json, nb_ids *out, nibble_error *err) {
  const cJSON *cls = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(json, "cls"), 1);
  const cJSON *sep = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(json, "sep"), 1);
  if (out->length > 0) return nb_fail(err, NIBBLE_BAD_INPUT, "%s: post_processor has two templates", where);
  nibble_status status = template_id(where, cls, out, err);
  nb_ids_append(out, &(int32_t){-1}, 1);
  return status == NIBBLE_OK ? template_id(where, sep, out, err) : status;
}

static nibble_status read_post(const char *where, const cJSON *json, nb_ids *out, int depth, nibble_error *err) {
  if (!json || cJSON_IsNull(json)) return NIBBLE_OK;
  const char *type = nb_part_type(where, "post_processor", json, err);
  if (!type) return NIBBLE_BAD_INPUT;
  if (strcmp(type, "ByteLevel") == 0) return NIBBLE_OK; /* moves offsets, not ids */
  if (strcmp(type, "TemplateProcessing") == 0) return read_template(where, json, out, err);
  if (strcmp(type, "RobertaProcessing") == 0 || strcmp(type, "BertProcessing") == 0)
    return read_cls_sep(where, json, out, err);
  const cJSON *list = cJSON_GetObjectItemCaseSensitive(json, "processors");
  if (strcmp(type, "Sequence") != 0 || !cJSON_IsArray(list) || depth > NB_MAX_STEPS)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: post_processor '%s' is not supported", where, type);
  nibble_status status = NIBBLE_OK;
  for (const cJSON *item = list->child; item && status == NIBBLE_OK; item = item->next)
    status = read_post(where, item, out, depth + 1, err);
  return status;
}

/* --- the whole --- */

/* The text without the two tables. */
static void cut_tables(const char *text, size_t n, span vocab, span merges, nb_buf *out) {
  span first = vocab.begin < merges.begin ? vocab : merges, second = vocab.begin < merges.begin ? merges : vocab;
  nb_buf_append(out, text, first.begin);
  nb_buf_puts(out, "0");
  nb_buf_append(out, text + first.end, second.begin - first.end);
  nb_buf_puts(out, "0");
  nb_buf_append(out, text + second.end, n - second.end);
}

static nibble_status build(reader *r, span vocab, span merges, const cJSON *json, nb_tokenizer *t) {
  const char *where = r->where;
  nibble_error *err = r->err;
  const char *version = "1.0";
  nibble_status status = nb_json_string(where, json, "version", &version, err);
  if (status == NIBBLE_OK && strcmp(version, "1.0") != 0)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: version '%s' is unknown", where, version);
  if (status == NIBBLE_OK) status = read_model(where, cJSON_GetObjectItemCaseSensitive(json, "model"), &t->bpe, err);
  if (status == NIBBLE_OK) status = read_vocab(r, vocab, &t->bpe);
  if (status == NIBBLE_OK) status = read_merges(r, merges, &t->bpe);
  if (status == NIBBLE_OK) status = nb_bpe_finish(&t->bpe, err);
  const cJSON *normalizer = cJSON_GetObjectItemCaseSensitive(json, "normalizer");
  if (status == NIBBLE_OK) status = nb_normalizer_parse(where, normalizer, &t->normalizer, err);
  const cJSON *pre = cJSON_GetObjectItemCaseSensitive(json, "pre_tokenizer");
  if (status == NIBBLE_OK) status = nb_pre_tokenizer_parse(where, pre, &t->pre, err);
  const cJSON *decoder = cJSON_GetObjectItemCaseSensitive(json, "decoder");
  if (status == NIBBLE_OK) status = nb_decoder_parse(where, decoder, &t->decoder, err);
  const cJSON *post = cJSON_GetObjectItemCaseSensitive(json, "post_processor");
  if (status == NIBBLE_OK) status = read_post(where, post, &t->template, 0, err);
  const cJSON *added = cJSON_GetObjectItemCaseSensitive(json, "added_tokens");
  if (status == NIBBLE_OK) status = nb_added_parse(where, added, t, err);
  if (status == NIBBLE_OK && t->template.failed) return nb_fail_memory(err, 64);
  return status;
}

nibble_status nb_tokenizer_parse(const char *where, const char *text, size_t n, nb_tokenizer **out, nibble_error *err) {
  *out = NULL;
  reader r = {.where = where, .text = text, .n = n, .err = err};
  r.at = nb_utf8_valid(text, n);
  if (r.at < n) return bad(&r, "not UTF-8");
  r.at = 0;
  span vocab, merges;
  nibble_status status = find_tables(&r, &vocab, &merges);
  if (status != NIBBLE_OK) return status;
  if (!vocab.begin || !merges.begin)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: model.%s is missing", where, vocab.begin ? "merges" : "vocab");
  nb_buf rest = {0};
  cJSON *json = NULL;
  cut_tables(text, n, vocab, merges, &rest);
  nb_tokenizer *t = calloc(1, sizeof *t);
  if (!t || rest.failed)
    status = nb_fail_memory(err, sizeof *t);
  else if (memmem(rest.data, rest.length, "\\u0000", 6))
    status = nb_fail(err, NIBBLE_BAD_INPUT, "%s: a NUL character outside the vocabulary", where);
  else
    status = nb_json_parse(where, rest.data, rest.length, &json, err);
  if (status == NIBBLE_OK && getrandom(&t->bpe.seed, sizeof t->bpe.seed, 0) < 0)
    status = nb_fail_errno(err, "no random numbers");
  if (status == NIBBLE_OK) status = build(&r, vocab, merges, json, t);
  cJSON_Delete(json);
  nb_buf_free(&rest);
  if (status == NIBBLE_OK)
    *out = t;
  else
    nb_tokenizer_close(t);
  return status;
}

nibble_status nb_tokenizer_load(const char *path, nb_tokenizer **out, nibble_error *err) {
  char *text;
  size_t n;
  *out = NULL;
  nibble_status status = nb_read_file(path, MAX_FILE, &text, &n, err);
  if (status != NIBBLE_OK) return status;
  status = nb_tokenizer_parse(path, text, n, out, err);
  free(text);
  return status;
}
