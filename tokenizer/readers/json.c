/* A tokenizer.json into a specification: its large tables are found, and read by json_tables.c; the rest is cJSON's. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/parallel.h"
#include "base/utf8.h"
#include "model/json.h"
#include "tokenizer/model.h"
#include "tokenizer/readers/json_tables.h"
#include "tokenizer/readers/json_walk.h"
#include "tokenizer/readers/readers.h"
#include "tokenizer/spec.h"

enum { PARALLEL = 1 << 19 }; /* bytes of a text from which on two threads take less time than one */

typedef struct reader {
  const char *where;
  nb_walk s;
  nb_json_table vocab, merges;
  size_t valid; /* bytes of the text that are valid UTF-8 */
  bool is_json; /* find_tables found nothing else */
  bool is_object;
  nibble_error *err;
} reader;

static nibble_status bad(reader *r, const char *what) {
  return nb_fail(r->err, NIBBLE_BAD_INPUT, "%s: %s at byte %zu", r->where, what, r->s.at);
}

static void note(const reader *r, nb_str key, const char *name, nb_str value, nb_json_table *table) {
  if (!nb_str_is(key, name) || table->begin) return;
  table->begin = (size_t)(value.data - r->s.text);
  table->end = table->begin + value.length;
}

/* Finds "vocab" and "merges" in the object under "model"; false if the text is not JSON, as far as it looks. */
static bool find_tables(reader *r) {
  nb_walk *s = &r->s;
  nb_str key, value;
  r->is_object = nb_walk_take(s, '{');
  for (bool in_model = false; r->is_object;) {
    if (nb_walk_take(s, '}')) return true;
    if (!nb_walk_string(s, &key) || !nb_walk_take(s, ':')) return false;
    if (!in_model && nb_str_is(key, "model") && nb_walk_take(s, '{')) {
      in_model = true;
      continue;
    }
    if (!nb_walk_value(s, &value)) return false;
    if (in_model) {
      note(r, key, "vocab", value, &r->vocab);
      note(r, key, "merges", value, &r->merges);
    }
    if (!nb_walk_take(s, ',') && (s->at >= s->n || s->text[s->at] != '}')) return false;
  }
  return false;
}

/* Two looks at the whole text, side by side. */
static void look(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  reader *r = ctx;
  for (int64_t i = begin; i < end; i++) {
    if (i == 0)
      r->is_json = find_tables(r);
    else
      r->valid = nb_utf8_valid(r->s.text, r->s.n);
  }
}

static reader open_text(const char *where, nb_str text, nibble_error *err) {
  nb_json_table none = {.where = where, .text = text.data};
  return (reader){
      .where = where, .s = {.text = text.data, .n = text.length}, .vocab = none, .merges = none, .err = err};
}

nibble_status nb_vocab_read_json(const char *where, nb_str text, nb_vocab *vocab, nibble_error *err) {
  reader r = open_text(where, text, err);
  r.s.at = nb_utf8_valid(text.data, text.length);
  r.vocab.end = text.length;
  return r.s.at < r.s.n ? bad(&r, "not UTF-8") : nb_json_read_vocab(&r.vocab, vocab, err);
}

/* The text with a 0 for each table, as a tree without the tables' members. */
static nibble_status parse_rest(const reader *r, cJSON **out) {
  bool vocab_first = r->vocab.begin < r->merges.begin;
  nb_json_table first = vocab_first ? r->vocab : r->merges, second = vocab_first ? r->merges : r->vocab;
  nb_buf rest = {0};
  nb_buf_append(&rest, r->s.text, first.begin);
  if (first.end > 0) nb_buf_puts(&rest, "0");
  nb_buf_append(&rest, r->s.text + first.end, second.begin - first.end);
  nb_buf_puts(&rest, "0");
  nb_buf_append(&rest, r->s.text + second.end, r->s.n - second.end);
  nibble_status status = NIBBLE_OK;
  if (rest.failed)
    status = nb_fail_memory(r->err, r->s.n);
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
  reader r = open_text(where, (nb_str){text, n}, err);
  nb_parallel(2, n < PARALLEL ? 2 : 1, look, &r);
  if (r.valid < n) {
    r.s.at = r.valid;
    return bad(&r, "not UTF-8");
  }
  if (!r.is_json) return bad(&r, r.is_object ? "not valid JSON" : "not a JSON object");
  if (!r.vocab.begin) return nb_fail(err, NIBBLE_BAD_INPUT, "%s: model.vocab is missing", where);
  nibble_status status = parse_rest(&r, &out->parts);
  const char *version = "1.0", *prefix = "";
  if (status == NIBBLE_OK) status = nb_json_string(where, out->parts, "version", &version, err);
  if (status == NIBBLE_OK && strcmp(version, "1.0") != 0)
    status = nb_fail(err, NIBBLE_BAD_INPUT, "%s: version '%s' is unknown", where, version);
  const cJSON *model = nb_json_object(out->parts, "model");
  const nb_token_model_kind *kind;
  if (status == NIBBLE_OK) status = nb_token_model_kind_of(where, model, &kind, err);
  if (status == NIBBLE_OK) status = nb_json_string(where, model, "continuing_subword_prefix", &prefix, err);
  if (status == NIBBLE_OK)
    status = kind->has_scores ? nb_json_read_scored(&r.vocab, &out->vocab, err)
                              : nb_json_read_vocab(&r.vocab, &out->vocab, err);
  if (status != NIBBLE_OK || !kind->has_merges) return status;
  if (!r.merges.begin) return nb_fail(err, NIBBLE_BAD_INPUT, "%s: model.merges is missing", where);
  out->merges.skip = strlen(prefix);
  return nb_json_read_merges(&r.merges, out, err);
}
