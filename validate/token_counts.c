/* nibble.h's comparison of tokenizers: what a text takes under each of them, by the script of its lines. */
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/context.h"
#include "base/stage.h"
#include "base/utf8.h"
#include "tokenizer/script.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/unicode.h"
#include "validate/token_plot.h"

typedef struct counter {
  nibble_tokenizer *const *tokenizers;
  nibble_token_comparison *out;
  nibble_script_tokens *by_script; /* [nb_script_count] */
  size_t *letters;                 /* [nb_script_count]: of the line that is being counted */
  nb_buf line;                     /* it, as valid UTF-8 */
  nb_ids ids;
  nibble_error *err;
} counter;

/* Counts a line's characters and words, and tells the script of most of its letters: of two with as many the one that
 * comes first; Common if there are none. */
static int look_at(counter *c, nibble_script_tokens *counts) {
  const char *text = c->line.data;
  size_t n = c->line.length, length;
  int best = NB_SCRIPT_COMMON;
  bool in_word = false;
  memset(c->letters, 0, nb_script_count * sizeof *c->letters);
  for (size_t i = 0; i < n; i += length) {
    uint32_t code = nb_utf8_decode(text + i, &length);
    bool is_space = nb_is_space(code);
    counts->characters++;
    counts->words += !is_space && !in_word;
    in_word = !is_space;
    int script = nb_script_of(code);
    if (script >= NB_SCRIPT_FIRST && ++c->letters[script] > c->letters[best]) best = script;
  }
  counts->bytes = n;
  counts->lines = 1;
  return best;
}

static void add(nibble_script_tokens *sum, const nibble_script_tokens *more) {
  sum->lines += more->lines;
  sum->words += more->words;
  sum->characters += more->characters;
  sum->bytes += more->bytes;
}

static nibble_status count_line(counter *c, const char *text, size_t n) {
  nibble_script_tokens counts = {0};
  c->line.length = 0;
  nb_utf8_repair(text, n, &c->line);
  if (c->line.failed) return nb_fail_memory(c->err, n);
  nibble_script_tokens *script = &c->by_script[look_at(c, &counts)];
  add(script, &counts);
  add(&c->out->total, &counts);
  nibble_status status = NIBBLE_OK;
  for (size_t i = 0; i < c->out->tokenizers && status == NIBBLE_OK; i++) {
    c->ids.length = 0;
    status = nb_tokenizer_encode(c->tokenizers[i], c->line.data, c->line.length, 0, &c->ids, c->err);
    script->tokens[i] += c->ids.length;
    c->out->total.tokens[i] += c->ids.length;
  }
  return status;
}

static nibble_status count_lines(counter *c, const char *text, size_t n) {
  nibble_status status = NIBBLE_OK;
  for (size_t begin = 0; begin < n && status == NIBBLE_OK;) {
    const char *newline = memchr(text + begin, '\n', n - begin);
    size_t end = newline ? (size_t)(newline - text) : n;
    if (end > begin) status = count_line(c, text + begin, end - begin);
    begin = end + 1;
  }
  return status;
}

static int by_bytes(const void *a, const void *b) {
  const nibble_script_tokens *x = a, *y = b;
  if (x->bytes != y->bytes) return x->bytes > y->bytes ? -1 : 1;
  return strcmp(x->script, y->script);
}

/* Scripts that no line is in go. */
static void keep_used(nibble_token_comparison *out) {
  size_t kept = 0;
  for (size_t i = 0; i < nb_script_count; i++) {
    if (out->scripts[i].lines > 0)
      out->scripts[kept++] = out->scripts[i];
    else
      free(out->scripts[i].tokens);
  }
  out->count = kept;
  if (kept > 0) qsort(out->scripts, kept, sizeof *out->scripts, by_bytes);
}

static nibble_status make_room(counter *c, size_t tokenizers, nibble_token_comparison *out) {
  out->tokenizers = tokenizers;
  out->count = nb_script_count;
  out->scripts = c->by_script = calloc(nb_script_count, sizeof *out->scripts);
  out->total.script = "total";
  out->total.tokens = calloc(tokenizers, sizeof *out->total.tokens);
  c->letters = calloc(nb_script_count, sizeof *c->letters);
  bool ok = out->scripts && out->total.tokens && c->letters;
  for (size_t i = 0; ok && i < nb_script_count; i++) {
    out->scripts[i].script = nb_script_names[i];
    out->scripts[i].tokens = calloc(tokenizers, sizeof *out->scripts[i].tokens);
    ok = out->scripts[i].tokens;
  }
  return ok ? NIBBLE_OK : nb_fail_memory(c->err, nb_script_count * tokenizers * sizeof(size_t));
}

static nibble_status require_all(const char *function, nibble_tokenizer *const *tokenizers, size_t count,
                                 nibble_error *err) {
  nibble_status status = nb_call_require(function, "tokenizers", count > 0 ? tokenizers : NULL, err);
  for (size_t i = 0; i < count && status == NIBBLE_OK; i++)
    status = nb_call_require(function, "tokenizer", tokenizers[i], err);
  return status;
}

nibble_status nibble_tokenizers_compare(nibble_tokenizer *const *tokenizers, size_t count, const char *text, size_t n,
                                        nibble_token_comparison *out, nibble_error *err) {
  counter c = {.tokenizers = tokenizers, .out = out, .err = err};
  nibble_status status = nb_call_require(__func__, "out", out, err);
  if (status != NIBBLE_OK) return status;
  *out = (nibble_token_comparison){0};
  status = require_all(__func__, tokenizers, count, err);
  if (status == NIBBLE_OK && n > 0) status = nb_call_require(__func__, "text", text, err);
  if (status == NIBBLE_OK) status = make_room(&c, count, out);
  if (status == NIBBLE_OK) status = count_lines(&c, text, n);
  if (status == NIBBLE_OK)
    keep_used(out);
  else
    nibble_token_comparison_free(out);
  free(c.letters);
  nb_buf_free(&c.line);
  nb_ids_free(&c.ids);
  return status;
}

void nibble_token_comparison_free(nibble_token_comparison *c) {
  if (!c) return;
  for (size_t i = 0; c->scripts && i < c->count; i++) free(c->scripts[i].tokens);
  free(c->scripts);
  free(c->total.tokens);
  *c = (nibble_token_comparison){0};
}

nibble_status nibble_token_comparison_draw(const nibble_token_comparison *comparison, const char *const *names,
                                           const char *path, nibble_error *err) {
  nb_buf svg = {0};
  nibble_status status = nb_call_require(__func__, "comparison", comparison, err);
  if (status == NIBBLE_OK) status = nb_call_require(__func__, "names", names, err);
  if (status == NIBBLE_OK) status = nb_call_require(__func__, "path", path, err);
  if (status != NIBBLE_OK) return status;
  nb_token_plot(comparison, names, &svg);
  status = svg.failed ? nb_fail_memory(err, svg.length)
                      : nb_stage_write_file(path, &(nb_replace){.force = true}, &svg, false, err);
  nb_buf_free(&svg);
  return status;
}
