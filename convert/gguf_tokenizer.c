/* A tokenizer's specification from tokenizer.ggml.*: byte-level BPE ("gpt2") and SentencePiece's BPE ("llama"). The
 * parts are those that the tokenizers library has for the same model. */
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/utf8.h"
#include "convert/gguf.h"
#include "convert/gguf_pretokenizers.h"
#include "convert/tokenizer_open.h"
#include "model/json.h"
#include "tokenizer/readers/parts.h"

typedef struct reader {
  const nb_gguf *gguf;
  nibble_error *err;
  nb_tokenizer_spec *spec;
  const nb_pretokenizer *words; /* NULL: SentencePiece */
  int32_t bos, eos, unknown;    /* ids; -1: none */
  bool add_bos, add_eos, add_space_prefix;
} reader;

/* ---- vocabulary and merges ---- */

static nibble_status read_kind(reader *r) {
  nb_str kind = {0}, pre = {0};
  nibble_status status = nb_gguf_text(r->gguf, "tokenizer.ggml.model", &kind, r->err);
  if (status == NIBBLE_OK) status = nb_gguf_text(r->gguf, "tokenizer.ggml.pre", &pre, r->err);
  if (status != NIBBLE_OK) return status;
  if (!kind.data) return nb_fail(r->err, NIBBLE_BAD_INPUT, "%s: it holds no tokenizer", r->gguf->path);
  if (nb_str_is(kind, "llama")) return NIBBLE_OK;
  if (!nb_str_is(kind, "gpt2"))
    return nb_fail(r->err, NIBBLE_BAD_INPUT,
                   "%s: a tokenizer of kind '%.*s' cannot be converted; 'gpt2' and 'llama' can", r->gguf->path,
                   (int)nb_min_i64((int64_t)kind.length, 64), kind.data);
  if (!(r->words = nb_pretokenizer_find(pre)))
    return nb_fail(r->err, NIBBLE_BAD_INPUT, "%s: pre-tokenizer '%.*s' is not known", r->gguf->path,
                   (int)nb_min_i64((int64_t)pre.length, 64), pre.data);
  return NIBBLE_OK;
}

/* Copies the texts, since the vocabulary outlives the mapped file, and ends each with a NUL. */
static nibble_status add_tokens(reader *r, const nb_str *tokens, size_t count) {
  nb_vocab *vocab = &r->spec->vocab;
  size_t bytes = count;
  for (size_t i = 0; i < count; i++) bytes += tokens[i].length;
  char *out = vocab->texts = malloc(bytes);
  if (!out) return nb_fail_memory(r->err, bytes);
  nibble_status status = NIBBLE_OK;
  for (size_t i = 0; i < count && status == NIBBLE_OK; i++) {
    size_t n = tokens[i].length;
    if (nb_utf8_valid(tokens[i].data, n) < n)
      return nb_fail(r->err, NIBBLE_BAD_INPUT, "%s: token %zu is not valid UTF-8", r->gguf->path, i);
    if (n > 0) memcpy(out, tokens[i].data, n);
    out[n] = 0;
    status = nb_vocab_add(vocab, r->gguf->path, (int32_t)i, (nb_str){out, n}, r->err);
    out += n + 1;
  }
  return status;
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

/* An array of numbers, one a token; *out is NULL where there is none. */
static nibble_status find_array(const reader *r, const char *key, const nb_gguf_entry **out) {
  const nb_gguf_entry *e = *out = nb_gguf_find(r->gguf, key);
  size_t count = (size_t)r->spec->vocab.count;
  if (!e || (e->is_array && e->type != NB_GGUF_STRING && e->type != NB_GGUF_ARRAY && e->count == count))
    return NIBBLE_OK;
  return nb_fail(r->err, NIBBLE_BAD_INPUT, "%s: metadata '%s' must be a number for each of the %zu tokens",
                 r->gguf->path, key, count);
}

static nibble_status read_types_and_scores(reader *r) {
  nb_vocab *vocab = &r->spec->vocab;
  size_t count = (size_t)vocab->count;
  const nb_gguf_entry *types, *scores;
  nibble_status status = find_array(r, "tokenizer.ggml.token_type", &types);
  if (status == NIBBLE_OK) status = find_array(r, "tokenizer.ggml.scores", &scores);
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

static nibble_status read_merges(reader *r) {
  nb_str *merges;
  size_t count;
  nibble_status status = nb_gguf_strings(r->gguf, "tokenizer.ggml.merges", &merges, &count, r->err);
  if (status != NIBBLE_OK) return status;
  for (size_t i = 0; i < count && status == NIBBLE_OK; i++) status = add_merge(r, i, merges[i]);
  bool derived = !merges && !r->words;
  free(merges);
  if (status != NIBBLE_OK || !derived) return status;
  if (!r->spec->vocab.scores)
    return nb_fail(r->err, NIBBLE_BAD_INPUT, "%s: metadata 'tokenizer.ggml.scores' is missing", r->gguf->path);
  return nb_merges_from_scores(&r->spec->merges, &r->spec->vocab, r->gguf->path, r->err);
}

/* ---- switches ---- */

static nibble_status read_id(const reader *r, const char *key, int32_t *out) {
  int64_t id = -1;
  nibble_status status = nb_gguf_int(r->gguf, key, 0, r->spec->vocab.count - 1, &id, r->err);
  *out = (int32_t)id;
  return status;
}

static nibble_status read_switches(reader *r) {
  const nb_gguf *g = r->gguf;
  r->add_bos = !r->words || r->words->add_bos;
  r->add_space_prefix = true;
  nibble_status status = read_id(r, "tokenizer.ggml.bos_token_id", &r->bos);
  if (status == NIBBLE_OK) status = read_id(r, "tokenizer.ggml.eos_token_id", &r->eos);
  if (status == NIBBLE_OK) status = read_id(r, "tokenizer.ggml.unknown_token_id", &r->unknown);
  if (status == NIBBLE_OK) status = nb_gguf_bool(g, "tokenizer.ggml.add_bos_token", &r->add_bos, r->err);
  if (status == NIBBLE_OK) status = nb_gguf_bool(g, "tokenizer.ggml.add_eos_token", &r->add_eos, r->err);
  if (status == NIBBLE_OK) status = nb_gguf_bool(g, "tokenizer.ggml.add_space_prefix", &r->add_space_prefix, r->err);
  r->add_bos = r->add_bos && r->bos >= 0;
  r->add_eos = r->add_eos && r->eos >= 0;
  return status;
}

/* ---- the parts ---- */

static bool is_special(int type) { return type == NB_TOKEN_CONTROL || type == NB_TOKEN_UNKNOWN; }

static bool is_added(int type) { return is_special(type) || type == NB_TOKEN_USER; }

/* Tokens that parts name must be strings of tokenizer.json that every reader takes. */
static nibble_status check_named(const reader *r) {
  const nb_vocab *vocab = &r->spec->vocab;
  for (int32_t id = 0; id < vocab->count; id++) {
    bool named = id == r->bos || id == r->eos || id == r->unknown || is_added(nb_vocab_type(vocab, id));
    nb_str text = nb_vocab_text(vocab, id);
    if (named && memchr(text.data, 0, text.length))
      return nb_fail(r->err, NIBBLE_BAD_INPUT, "%s: token %d, which is a special one, has a NUL character",
                     r->gguf->path, id);
  }
  return NIBBLE_OK;
}

static const char *text_of(const reader *r, int32_t id) {
  return id < 0 ? NULL : nb_vocab_text(&r->spec->vocab, id).data;
}

static cJSON *added_tokens(const reader *r) {
  cJSON *list = cJSON_CreateArray();
  for (int32_t id = 0; id < r->spec->vocab.count && list; id++) {
    int type = nb_vocab_type(&r->spec->vocab, id);
    if (!is_added(type)) continue;
    list = nb_json_push(list, nb_part_added((nb_part_token){id, text_of(r, id), false, is_special(type)}));
  }
  return list;
}

/* SentencePiece with add_dummy_prefix puts a space before the text and writes every space as U+2581. */
static cJSON *normalizer(const reader *r) {
  if (r->words) return r->words->nfc ? nb_json_make("type:s", "NFC") : cJSON_CreateNull();
  cJSON *steps = cJSON_CreateArray();
  if (r->add_space_prefix) steps = nb_json_push(steps, nb_json_make("type:s prepend:s", "Prepend", "\u2581"));
  steps = nb_json_push(steps, nb_part_replace(" ", "\u2581"));
  return nb_part_sequence("normalizers", steps);
}

static cJSON *pre_tokenizer(const reader *r) {
  if (!r->words) return cJSON_CreateNull();
  cJSON *steps = cJSON_CreateArray();
  if (r->words->digits) steps = nb_json_push(steps, nb_json_make("type:s individual_digits:b", "Digits", true));
  for (int i = 0; i < NB_MAX_SPLITS && r->words->splits[i]; i++)
    steps = nb_json_push(steps, nb_part_split(r->words->splits[i]));
  return nb_part_sequence("pretokenizers", nb_json_push(steps, nb_part_byte_level(false, true, r->words->gpt2)));
}

static cJSON *post_processor(const reader *r) {
  nb_part_token bos = {.id = r->bos, .text = text_of(r, r->bos)}, eos = {.id = r->eos, .text = text_of(r, r->eos)};
  return nb_part_template(r->add_bos ? &bos : NULL, r->add_eos ? &eos : NULL);
}

static cJSON *decoder(const reader *r) {
  if (r->words) return nb_part_byte_level(true, true, true);
  cJSON *steps = nb_json_push(cJSON_CreateArray(), nb_part_replace("\u2581", " "));
  steps = nb_json_push(steps, nb_json_make("type:s", "ByteFallback"));
  steps = nb_json_push(steps, nb_json_make("type:s", "Fuse"));
  if (r->add_space_prefix) steps = nb_json_push(steps, nb_part_strip_first(" "));
  return nb_part_sequence("decoders", steps);
}

static cJSON *model(const reader *r) {
  if (r->words) /* every byte has a token, and none is unknown */
    return nb_part_bpe_model(&(nb_part_bpe){.prefix = "", .suffix = "", .ignore_merges = r->words->ignore_merges});
  return nb_part_bpe_model(
      &(nb_part_bpe){.unk_token = text_of(r, r->unknown), .fuse_unk = true, .byte_fallback = true});
}

nibble_status nb_gguf_tokenizer(const nb_gguf *gguf, nb_tokenizer_spec *out, nibble_error *err) {
  reader r = {.gguf = gguf, .err = err, .spec = out};
  *out = (nb_tokenizer_spec){0};
  nibble_status status = read_kind(&r);
  if (status == NIBBLE_OK) status = read_tokens(&r);
  if (status == NIBBLE_OK) status = read_types_and_scores(&r);
  if (status == NIBBLE_OK) status = read_switches(&r);
  if (status == NIBBLE_OK) status = read_merges(&r);
  if (status == NIBBLE_OK) status = check_named(&r);
  if (status != NIBBLE_OK) return status;
  nb_parts parts = {.added = added_tokens(&r),
                    .normalizer = normalizer(&r),
                    .pre_tokenizer = pre_tokenizer(&r),
                    .post_processor = post_processor(&r),
                    .decoder = decoder(&r),
                    .model = model(&r)};
  return nb_parts_finish(parts, out, err);
}

nibble_status nb_gguf_tokenizer_json(const nb_checkpoint *c, nb_buf *out, nibble_error *err) {
  nb_tokenizer_spec spec;
  nibble_status status = nb_gguf_tokenizer(c->gguf, &spec, err);
  if (status == NIBBLE_OK) nb_tokenizer_spec_write(&spec, out);
  if (status == NIBBLE_OK && out->failed) status = nb_fail_memory(err, out->length);
  nb_tokenizer_spec_free(&spec);
  return status;
}
