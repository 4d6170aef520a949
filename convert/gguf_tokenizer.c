/* A tokenizer's specification from tokenizer.ggml.*: the vocabulary, the merges and the switches. What is made of them
 * depends on the kind (gguf_tokenizer_kinds.c). */
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/utf8.h"
#include "convert/gguf_tokenizer.h"
#include "convert/tokenizer_open.h"

typedef nb_gguf_tokenizer_reader reader;

/* ---- vocabulary and merges ---- */

static nibble_status read_kind(reader *r) {
  nb_str kind = {0}, pre = {0};
  nibble_status status = nb_gguf_text(r->gguf, "tokenizer.ggml.model", &kind, r->err);
  if (status == NIBBLE_OK) status = nb_gguf_text(r->gguf, "tokenizer.ggml.pre", &pre, r->err);
  if (status != NIBBLE_OK) return status;
  if (!kind.data) return nb_fail(r->err, NIBBLE_BAD_INPUT, "%s: it holds no tokenizer", r->gguf->path);
  if (!(r->kind = nb_gguf_tokenizer_kind_of(kind)))
    return nb_fail(r->err, NIBBLE_BAD_INPUT, "%s: a tokenizer of kind '%.*s' cannot be converted; %s can",
                   r->gguf->path, (int)nb_min_i64((int64_t)kind.length, 64), kind.data, nb_gguf_tokenizer_kind_names);
  if (!r->kind->has_pre) return NIBBLE_OK;
  if (!(r->words = nb_pretokenizer_find(pre)))
    return nb_fail(r->err, NIBBLE_BAD_INPUT, "%s: pre-tokenizer '%.*s' is not known", r->gguf->path,
                   (int)nb_min_i64((int64_t)pre.length, 64), pre.data);
  if (r->words->raw) r->kind = nb_gguf_tokenizer_kind_of((nb_str){r->words->raw, strlen(r->words->raw)});
  return NIBBLE_OK;
}

static bool is_number_each(const nb_gguf_entry *e, size_t count) {
  return e->is_array && e->type != NB_GGUF_STRING && e->type != NB_GGUF_ARRAY && e->count == count;
}

/* An array of numbers, one a token; *out is NULL where there is none. */
static nibble_status find_array(const reader *r, const char *key, size_t count, const nb_gguf_entry **out) {
  const nb_gguf_entry *e = *out = nb_gguf_find(r->gguf, key);
  if (!e || is_number_each(e, count)) return NIBBLE_OK;
  return nb_fail(r->err, NIBBLE_BAD_INPUT, "%s: metadata '%s' must be a number for each of the %zu tokens",
                 r->gguf->path, key, count);
}

/* Copies the texts, since the vocabulary outlives the mapped file, and ends each with a NUL. */
static nibble_status add_tokens(reader *r, const nb_str *tokens, size_t count) {
  nb_vocab *vocab = &r->spec->vocab;
  nibble_status status = NIBBLE_OK;
  const nb_gguf_entry *types = nb_gguf_find(r->gguf, "tokenizer.ggml.token_type");
  if (types && !is_number_each(types, count)) types = NULL; /* an error once they are read */
  size_t bytes = count;
  for (size_t i = 0; i < count; i++) bytes += tokens[i].length + NB_GGUF_SPELL_MORE;
  char *out = vocab->texts = malloc(bytes);
  if (!out) return nb_fail_memory(r->err, bytes);
  for (size_t i = 0; i < count && status == NIBBLE_OK; i++) {
    if (nb_utf8_valid(tokens[i].data, tokens[i].length) < tokens[i].length)
      return nb_fail(r->err, NIBBLE_BAD_INPUT, "%s: token %zu is not valid UTF-8", r->gguf->path, i);
    size_t n = r->kind->spell(tokens[i], types ? (int)nb_gguf_item_int(types, i) : (int)NB_TOKEN_NORMAL, out);
    out[n] = 0;
    status = nb_vocab_add(vocab, r->gguf->path, (int32_t)i, (nb_str){out, n}, r->err);
    out += n + 1;
  }
  return status == NIBBLE_OK ? nb_vocab_make_index(vocab, r->gguf->path, r->err) : status;
}

static nibble_status read_tokens(reader *r) {
  const char *key = "tokenizer.ggml.tokens";
  nb_str *tokens;
  size_t count;
  nibble_status status = nb_gguf_strings(r->gguf, key, &tokens, &count, r->err);
  if (status != NIBBLE_OK) return status;
  if (count == 0 || count > NB_MAX_ID)
    status = nb_fail(r->err, NIBBLE_BAD_INPUT, "%s: it holds no tokenizer: metadata '%s' is missing or of no use",
                     r->gguf->path, key);
  else
    status = add_tokens(r, tokens, count);
  free(tokens);
  return status;
}

static nibble_status read_types_and_scores(reader *r) {
  nb_vocab *vocab = &r->spec->vocab;
  size_t count = (size_t)vocab->count;
  const nb_gguf_entry *types, *scores;
  nibble_status status = find_array(r, "tokenizer.ggml.token_type", count, &types);
  if (status == NIBBLE_OK) status = find_array(r, "tokenizer.ggml.scores", count, &scores);
  if (status != NIBBLE_OK) return status;
  if (types && !(vocab->types = malloc(count))) return nb_fail_memory(r->err, count);
  if (scores && !(vocab->scores = nb_alloc(count, sizeof *vocab->scores)))
    return nb_fail_memory(r->err, count * sizeof *vocab->scores);
  for (size_t i = 0; i < count; i++) {
    int64_t type = types ? nb_gguf_item_int(types, i) : 0;
    if (types) vocab->types[i] = type >= 0 && type <= UINT8_MAX ? (uint8_t)type : 0;
    if (scores) vocab->scores[i] = nb_gguf_item_double(scores, i);
  }
  return NIBBLE_OK;
}

/* "left right": the space that parts them is the first one past the first byte. */
static nibble_status add_merge(reader *r, size_t i, nb_str text) {
  const char *space = text.length > 2 ? memchr(text.data + 1, ' ', text.length - 1) : NULL;
  bool known = false;
  if (space) {
    size_t n = (size_t)(space - text.data);
    nb_str left = {text.data, n}, right = {space + 1, text.length - n - 1};
    nibble_status status = nb_merges_add(&r->spec->merges, &r->spec->vocab, left, right, &known, r->err);
    if (status != NIBBLE_OK) return status;
  }
  if (known) return NIBBLE_OK;
  return nb_fail(r->err, NIBBLE_BAD_INPUT, "%s: merge %zu, '%.*s', is no pair of tokens that make a third",
                 r->gguf->path, i, (int)nb_min_i64((int64_t)text.length, 64), text.data);
}

nibble_status nb_gguf_read_merges(reader *r, bool *any) {
  nb_str *merges;
  size_t count;
  nibble_status status = nb_gguf_strings(r->gguf, "tokenizer.ggml.merges", &merges, &count, r->err);
  *any = merges != NULL;
  if (status != NIBBLE_OK) return status;
  for (size_t i = 0; i < count && status == NIBBLE_OK; i++) status = add_merge(r, i, merges[i]);
  free(merges);
  return status;
}

nibble_status nb_gguf_need_scores(const reader *r) {
  if (r->spec->vocab.scores) return NIBBLE_OK;
  return nb_fail(r->err, NIBBLE_BAD_INPUT, "%s: metadata 'tokenizer.ggml.scores' is missing", r->gguf->path);
}

/* ---- switches ---- */

static nibble_status read_id(const reader *r, const char *key, int32_t *out) {
  int64_t id = -1;
  nibble_status status = nb_gguf_int(r->gguf, key, 0, r->spec->vocab.count - 1, &id, r->err);
  *out = (int32_t)id;
  return status;
}

/* The token at the start of a text is the one that a file calls so, or the class token; the one at the end the
 * separator, where there is one. */
static nibble_status read_ids(reader *r) {
  int32_t cls, sep;
  nibble_status status = read_id(r, "tokenizer.ggml.bos_token_id", &r->bos);
  if (status == NIBBLE_OK) status = read_id(r, "tokenizer.ggml.eos_token_id", &r->eos);
  if (status == NIBBLE_OK) status = read_id(r, "tokenizer.ggml.unknown_token_id", &r->unknown);
  if (status == NIBBLE_OK) status = read_id(r, "tokenizer.ggml.cls_token_id", &cls);
  if (status == NIBBLE_OK) status = read_id(r, "tokenizer.ggml.seperator_token_id", &sep);
  if (status != NIBBLE_OK || !r->kind->has_cls) return status;
  if (cls >= 0) r->bos = cls;
  if (sep >= 0) r->eos = sep;
  return NIBBLE_OK;
}

static nibble_status read_switches(reader *r) {
  const nb_gguf *g = r->gguf;
  r->add_bos = r->kind->add_bos || (r->words && r->words->add_bos);
  r->add_eos = r->kind->add_eos;
  r->add_space_prefix = r->kind->add_space_prefix;
  r->lowercase = true;
  nibble_status status = read_ids(r);
  if (status == NIBBLE_OK) status = nb_gguf_bool(g, "tokenizer.ggml.add_bos_token", &r->add_bos, r->err);
  if (status == NIBBLE_OK)
    status = nb_gguf_bool(g, r->kind->has_cls ? "tokenizer.ggml.add_sep_token" : "tokenizer.ggml.add_eos_token",
                          &r->add_eos, r->err);
  if (status == NIBBLE_OK) status = nb_gguf_bool(g, "tokenizer.ggml.add_space_prefix", &r->add_space_prefix, r->err);
  if (status == NIBBLE_OK) status = nb_gguf_bool(g, "tokenizer.ggml.normalizer.lowercase", &r->lowercase, r->err);
  r->strip_accents = r->lowercase;
  if (status == NIBBLE_OK)
    status = nb_gguf_bool(g, "tokenizer.ggml.normalizer.strip_accents", &r->strip_accents, r->err);
  r->add_bos = r->add_bos && r->bos >= 0;
  r->add_eos = r->add_eos && r->eos >= 0;
  return status;
}

/* Tokens that parts name must be strings of tokenizer.json that every reader takes. */
static nibble_status check_named(const reader *r) {
  const nb_vocab *vocab = &r->spec->vocab;
  for (int32_t id = 0; id < vocab->count; id++) {
    bool named = id == r->bos || id == r->eos || id == r->unknown || nb_gguf_token_is_added(vocab, id);
    nb_str text = nb_vocab_text(vocab, id);
    if (named && memchr(text.data, 0, text.length))
      return nb_fail(r->err, NIBBLE_BAD_INPUT, "%s: token %d, which is a special one, has a NUL character",
                     r->gguf->path, id);
  }
  return NIBBLE_OK;
}

nibble_status nb_gguf_tokenizer(const nb_gguf *gguf, nb_tokenizer_spec *out, nibble_error *err) {
  reader r = {.gguf = gguf, .err = err, .spec = out};
  *out = (nb_tokenizer_spec){0};
  nibble_status status = read_kind(&r);
  if (status == NIBBLE_OK) status = read_tokens(&r);
  if (status == NIBBLE_OK) status = read_types_and_scores(&r);
  if (status == NIBBLE_OK) status = read_switches(&r);
  if (status == NIBBLE_OK) status = check_named(&r);
  return status == NIBBLE_OK ? r.kind->finish(&r) : status;
}

nibble_status nb_gguf_tokenizer_json(const nb_checkpoint *c, nb_buf *out, nibble_error *err) {
  nb_tokenizer_spec spec;
  nibble_status status = nb_gguf_tokenizer(c->gguf, &spec, err);
  if (status == NIBBLE_OK) nb_tokenizer_spec_write(&spec, out);
  if (status == NIBBLE_OK && out->failed) status = nb_fail_memory(err, out->length);
  nb_tokenizer_spec_free(&spec);
  return status;
}
