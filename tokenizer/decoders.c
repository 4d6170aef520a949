/* Decoders: a list of tokens becomes a list of strings, step by step, and is joined at the end. */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "model/json.h"
#include "tokenizer/parts.h"

/* Strings one behind the other in `text`; ends[i] is where the i-th ends. */
typedef struct list {
  nb_buf text;
  size_t *ends;
  size_t count, capacity;
  bool failed;
} list;

static void close_string(list *l) {
  if (l->count == l->capacity) {
    size_t capacity = l->capacity ? 2 * l->capacity : 64;
    size_t *ends = realloc(l->ends, capacity * sizeof *ends);
    if (!ends) {
      l->failed = true;
      return;
    }
    l->ends = ends;
    l->capacity = capacity;
  }
  l->ends[l->count++] = l->text.length;
}

static void free_list(list *l) {
  nb_buf_free(&l->text);
  free(l->ends);
}

static const char *string_at(const list *l, size_t i, size_t *n) {
  size_t begin = i > 0 ? l->ends[i - 1] : 0;
  *n = l->ends[i] - begin;
  return l->text.data ? l->text.data + begin : "";
}

/* --- parsing --- */

static nibble_status parse_details(const char *where, const cJSON *json, nb_decode_step *step, nibble_error *err) {
  const char *scheme = "always";
  bool prefix = true;
  nibble_status status = NIBBLE_OK;
  switch (step->kind) {
    case NB_DECODE_METASPACE:
      status = nb_json_string(where, json, "prepend_scheme", &scheme, err);
      if (status == NIBBLE_OK) status = nb_json_bool(where, json, "add_prefix_space", &prefix, err);
      step->prepended = prefix && strcmp(scheme, "never") != 0;
      return status == NIBBLE_OK ? nb_part_char(where, "decoder", json, "replacement", &step->text, err) : status;
    case NB_DECODE_REPLACE:
      status = nb_part_pattern(where, "decoder Replace", json, &step->regex, err);
      if (status != NIBBLE_OK) return status;
      return nb_part_string(where, "decoder", json, "content", NB_MAX_CONTENT, &step->text, err);
    case NB_DECODE_STRIP:
      status = nb_json_int(where, json, "start", 0, INT32_MAX, &step->start, err);
      if (status == NIBBLE_OK) status = nb_json_int(where, json, "stop", 0, INT32_MAX, &step->stop, err);
      return status == NIBBLE_OK ? nb_part_char(where, "decoder", json, "content", &step->text, err) : status;
    case NB_DECODE_SUFFIX: return nb_part_string(where, "decoder", json, "suffix", NB_MAX_CONTENT, &step->text, err);
    case NB_DECODE_BYTES:
    case NB_DECODE_BYTE_FALLBACK:
    case NB_DECODE_FUSE: return NIBBLE_OK;
  }
  return status;
}

static nibble_status parse_step(const char *where, const cJSON *json, nb_decoder *out, int depth, nibble_error *err) {
  static const struct {
    const char *type;
    nb_decode_step step;
  } rows[] = {
      {"ByteLevel", {.kind = NB_DECODE_BYTES}},   {"Metaspace", {.kind = NB_DECODE_METASPACE}},
      {"Replace", {.kind = NB_DECODE_REPLACE}},   {"ByteFallback", {.kind = NB_DECODE_BYTE_FALLBACK}},
      {"Fuse", {.kind = NB_DECODE_FUSE}},         {"Strip", {.kind = NB_DECODE_STRIP}},
      {"BPEDecoder", {.kind = NB_DECODE_SUFFIX}},
  };
  const char *type = nb_part_type(where, "decoder", json, err);
  if (!type) return NIBBLE_BAD_INPUT;
  const cJSON *list = cJSON_GetObjectItemCaseSensitive(json, "decoders");
  if (strcmp(type, "Sequence") == 0 && cJSON_IsArray(list) && depth <= NB_MAX_STEPS) {
    nibble_status status = NIBBLE_OK;
    for (const cJSON *item = list->child; item && status == NIBBLE_OK; item = item->next)
      status = parse_step(where, item, out, depth + 1, err);
    return status;
  }
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    if (strcmp(type, rows[i].type) != 0) continue;
    if (out->count == NB_MAX_STEPS)
      return nb_fail(err, NIBBLE_BAD_INPUT, "%s: decoder has more than %d steps", where, NB_MAX_STEPS);
    nb_decode_step *step = &out->steps[out->count++];
    *step = rows[i].step;
    return parse_details(where, json, step, err);
  }
  return nb_fail(err, NIBBLE_BAD_INPUT, "%s: decoder '%s' is not supported", where, type);
}

nibble_status nb_decoder_parse(const char *where, const cJSON *json, nb_decoder *out, nibble_error *err) {
  *out = (nb_decoder){0};
  if (!json || cJSON_IsNull(json)) return NIBBLE_OK;
  out->present = true;
  nibble_status status = parse_step(where, json, out, 0, err);
  if (status != NIBBLE_OK) nb_decoder_free(out);
  return status;
}

void nb_decoder_free(nb_decoder *decoder) {
  for (int i = 0; i < decoder->count; i++) {
    nb_regex_free(decoder->steps[i].regex);
    free(decoder->steps[i].text);
  }
  *decoder = (nb_decoder){0};
}

/* --- steps --- */

/* A token's bytes if each of its characters stands for one, else the token as it is. */
static void append_bytes(const char *token, size_t n, nb_buf *out) {
  size_t start = out->length, length;
  for (size_t i = 0; i < n; i += length) {
    int byte = nb_char_byte(nb_utf8_decode(token + i, &length));
    if (byte < 0) {
      out->length = start;
      nb_buf_append(out, token, n);
      return;
    }
    char c = (char)byte;
    nb_buf_append(out, &c, 1);
  }
}

static void bytes_step(const list *in, list *out) {
  nb_buf bytes = {0};
  for (size_t i = 0; i < in->count; i++) {
    size_t n;
    const char *token = string_at(in, i, &n);
    append_bytes(token, n, &bytes);
  }
  if (bytes.length > 0) nb_utf8_repair(bytes.data, bytes.length, &out->text);
  if (bytes.failed) out->failed = true;
  nb_buf_free(&bytes);
  close_string(out);
}

/* Replaces `what` by `by` in one string. */
static void substitute(const char *text, size_t n, const char *what, const char *by, nb_buf *out) {
  size_t length = strlen(what);
  while (length > 0) {
    const char *hit = memmem(text, n, what, length);
    if (!hit) break;
    nb_buf_append(out, text, (size_t)(hit - text));
    nb_buf_puts(out, by);
    n -= (size_t)(hit - text) + length;
    text = hit + length;
  }
  nb_buf_append(out, text, n);
}

static nibble_status replace_step(const nb_decode_step *step, const char *text, size_t n, nb_buf *out,
                                  nibble_error *err) {
  nb_regex_cursor cursor = {0};
  size_t done = 0, begin, end;
  bool found;
  nibble_status status = NIBBLE_OK;
  while (n > 0 && (status = nb_regex_next(step->regex, text, n, &cursor, &found, &begin, &end, err)) == NIBBLE_OK &&
         found) {
    nb_buf_append(out, text + done, begin - done);
    nb_buf_puts(out, step->text);
    done = end;
  }
  nb_buf_append(out, text + done, n - done);
  return status;
}

static void strip_step(const nb_decode_step *step, const char *text, size_t n, nb_buf *out) {
  size_t length = strlen(step->text);
  int64_t cut = 0;
  while (length > 0 && cut < step->start && n >= length && memcmp(text, step->text, length) == 0) {
    text += length;
    n -= length;
    cut++;
  }
  for (cut = 0; length > 0 && cut < step->stop && n >= length; cut++, n -= length) {
    if (memcmp(text + n - length, step->text, length) != 0) break;
  }
  nb_buf_append(out, text, n);
}

/* The byte of a token "<0xHH>"; -1 if it is another. */
static int fallback_byte(const char *token, size_t n) {
  if (n != 6 || memcmp(token, "<0x", 3) != 0 || token[5] != '>') return -1;
  int value = 0;
  for (int i = 3; i < 5; i++) {
    char c = token[i];
    int digit = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
    if (digit < 0) return -1;
    value = value << 4 | digit;
  }
  return value;
}

/* Runs of bytes become their text, or one U+FFFD a byte if they are not UTF-8. */
static void byte_fallback_step(const list *in, list *out) {
  nb_buf bytes = {0};
  for (size_t i = 0; i <= in->count; i++) {
    size_t n = 0;
    const char *token = i < in->count ? string_at(in, i, &n) : "";
    int byte = fallback_byte(token, n);
    if (byte >= 0) {
      char c = (char)byte;
      nb_buf_append(&bytes, &c, 1);
      continue;
    }
    bool whole = bytes.length > 0 && nb_utf8_valid(bytes.data, bytes.length) == bytes.length;
    if (whole) nb_buf_append(&out->text, bytes.data, bytes.length);
    for (size_t k = 0; k < bytes.length && !whole; k++) {
      nb_buf_puts(&out->text, "\xef\xbf\xbd");
      close_string(out);
    }
    if (whole) close_string(out);
    bytes.length = 0;
    if (i == in->count) break;
    nb_buf_append(&out->text, token, n);
    close_string(out);
  }
  if (bytes.failed) out->failed = true;
  nb_buf_free(&bytes);
}

static nibble_status each_step(const nb_decode_step *step, const list *in, list *out, nibble_error *err) {
  nibble_status status = NIBBLE_OK;
  for (size_t i = 0; i < in->count && status == NIBBLE_OK; i++) {
    size_t n;
    const char *text = string_at(in, i, &n);
    bool first = i == 0, last = i + 1 == in->count;
    if (step->kind == NB_DECODE_METASPACE)
      substitute(text, n, step->text, first && step->prepended ? "" : " ", &out->text);
    else if (step->kind == NB_DECODE_SUFFIX)
      substitute(text, n, step->text, last ? "" : " ", &out->text);
    else if (step->kind == NB_DECODE_STRIP)
      strip_step(step, text, n, &out->text);
    else if (step->kind == NB_DECODE_REPLACE)
      status = replace_step(step, text, n, &out->text, err);
    else
      nb_buf_append(&out->text, text, n);
    if (step->kind != NB_DECODE_FUSE || last) close_string(out);
  }
  return status;
}

nibble_status nb_decode_tokens(const nb_decoder *decoder, const nb_token *tokens, size_t count, nb_buf *text,
                               nibble_error *err) {
  list now = {0}, next = {0};
  nibble_status status = NIBBLE_OK;
  for (size_t i = 0; i < count; i++) {
    nb_buf_append(&now.text, tokens[i].text, tokens[i].length);
    if (!decoder->present && i + 1 < count) nb_buf_puts(&now.text, " ");
    close_string(&now);
  }
  for (int i = 0; i < decoder->count && status == NIBBLE_OK && now.count > 0; i++) {
    const nb_decode_step *step = &decoder->steps[i];
    next.text.length = next.count = 0;
    if (step->kind == NB_DECODE_BYTES)
      bytes_step(&now, &next);
    else if (step->kind == NB_DECODE_BYTE_FALLBACK)
      byte_fallback_step(&now, &next);
    else
      status = each_step(step, &now, &next, err);
    list swapped = now;
    now = next;
    next = swapped;
  }
  if (status == NIBBLE_OK) nb_buf_append(text, now.text.data, now.text.length);
  if (status == NIBBLE_OK && (now.failed || next.failed || now.text.failed || next.text.failed || text->failed))
    status = nb_fail_memory(err, now.text.length);
  free_list(&now);
  free_list(&next);
  return status;
}
