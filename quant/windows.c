#include "quant/windows.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/random.h"
#include "base/stop.h"
#include "base/utf8.h"
#include "convert/tokenizer_open.h"
#include "model/json.h"
#include "runner/text.h"

static bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

/* Puts the "text" of every line into *out, with an empty line between them, as wikitext's rows are joined. */
static nibble_status join_lines(const char *path, const nb_buf *lines, nb_buf *out, nibble_error *err) {
  const char *at = lines->data, *end = lines->data + lines->length;
  for (int64_t number = 1; at < end; number++) {
    const char *stop = memchr(at, '\n', (size_t)(end - at));
    if (!stop) stop = end;
    const char *first = at;
    while (first < stop && is_space(*first)) first++;
    at = stop + 1;
    if (first >= stop) continue;
    cJSON *json;
    nibble_status status = nb_stop_check(err);
    if (status != NIBBLE_OK) return status;
    status = nb_json_parse(path, first, (size_t)(stop - first), &json, err);
    const cJSON *text = status == NIBBLE_OK ? cJSON_GetObjectItemCaseSensitive(json, "text") : NULL;
    if (status == NIBBLE_OK && !cJSON_IsString(text))
      status = nb_fail(err, NIBBLE_BAD_INPUT, "%s: line %lld has no string called \"text\"", path, (long long)number);
    if (status == NIBBLE_OK && out->length > 0) nb_buf_puts(out, "\n\n");
    if (status == NIBBLE_OK) nb_buf_puts(out, text->valuestring);
    cJSON_Delete(json);
    if (status != NIBBLE_OK) return status;
  }
  return out->failed ? nb_fail_memory(err, out->length) : NIBBLE_OK;
}

static nibble_status read_text(const char *path, nb_buf *out, nibble_error *err) {
  nb_buf raw = {0};
  nibble_status status = nb_text_read(path, &raw, err);
  size_t first = 0, valid = 0;
  if (status == NIBBLE_OK) {
    valid = nb_utf8_valid(raw.data, raw.length);
    while (first < raw.length && is_space(raw.data[first])) first++;
    if (first == raw.length) {
      status = nb_fail(err, NIBBLE_BAD_INPUT, "%s: the calibration text is empty", path);
    } else if (valid < raw.length) {
      status = nb_fail(err, NIBBLE_BAD_INPUT, "%s: the calibration text is not UTF-8 at byte %zu", path, valid);
    }
  }
  if (status == NIBBLE_OK && raw.data[first] == '{') {
    status = join_lines(path, &raw, out, err);
    nb_buf_free(&raw);
  } else {
    *out = raw;
  }
  return status;
}

static nibble_status cut(const nb_windows_options *o, const nb_ids *ids, nb_windows *out, nibble_error *err) {
  int64_t tokens = (int64_t)ids->length, needed = o->random ? o->seqlen : o->samples * o->seqlen;
  if (tokens < needed)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: the calibration text has %lld tokens; %lld samples of %lld need %lld",
                   o->path, (long long)tokens, (long long)o->samples, (long long)o->seqlen, (long long)needed);
  *out = (nb_windows){.samples = o->samples, .seqlen = o->seqlen, .tokens = tokens};
  out->ids = nb_alloc((uint64_t)(o->samples * o->seqlen), sizeof *out->ids);
  if (!out->ids) return nb_fail_memory(err, (size_t)(o->samples * o->seqlen) * sizeof *out->ids);
  uint64_t state = o->seed;
  for (int64_t i = 0; i < o->samples; i++) {
    int64_t begin = i * o->seqlen;
    if (o->random) begin = (int64_t)(nb_splitmix64(&state) % (uint64_t)(tokens - o->seqlen + 1));
    memcpy(out->ids + i * o->seqlen, ids->data + begin, (size_t)o->seqlen * sizeof *out->ids);
  }
  return NIBBLE_OK;
}

nibble_status nb_windows_load(const nb_windows_options *options, nb_windows *out, nibble_error *err) {
  *out = (nb_windows){0};
  nb_buf text = {0};
  nb_ids ids = {0};
  nb_tokenizer *tokenizer = NULL;
  nibble_status status = nb_tokenizer_of(options->checkpoint, &tokenizer, err);
  if (status == NIBBLE_OK) status = read_text(options->path, &text, err);
  if (status == NIBBLE_OK) status = nb_tokenizer_encode(tokenizer, text.data, text.length, NB_ADD_SPECIAL, &ids, err);
  if (status == NIBBLE_OK && ids.failed) status = nb_fail_memory(err, ids.length * sizeof *ids.data);
  if (status == NIBBLE_OK) status = cut(options, &ids, out, err);
  nb_tokenizer_close(tokenizer);
  nb_ids_free(&ids);
  nb_buf_free(&text);
  return status;
}

void nb_windows_free(nb_windows *windows) {
  free(windows->ids);
  *windows = (nb_windows){0};
}
