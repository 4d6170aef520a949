/* tekken.json: "config" with the pattern and how many ids there are, "vocab" with ranked tokens in base64, and in later
 * files "special_tokens". Special tokens have the first ids, the others follow in their order; what is behind
 * default_vocab_size is not used. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "model/json.h"
#include "tokenizer/readers/parts.h"
#include "tokenizer/readers/ranks.h"
#include "tokenizer/readers/readers.h"

/* Those of files without a list, by their ids (mistral-common's tekken.py). */
static const char *const before_lists[] = {
    "<unk>",
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    "[TOOL_CALLS]",
    "[IMG]",
    "<pad>",
    "[IMG_BREAK]",
    "[IMG_END]",
    "[PREFIX]",
    "[MIDDLE]",
    "[SUFFIX]",
    "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]",
    "[TOOL_CONTENT]",
};

/* ---- a walk over the list of tokens, of which there are too many for a tree ---- */

typedef struct cursor {
  const char *text;
  size_t at, n;
} cursor;

static bool is_space(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

static bool pass(cursor *c, char byte) {
  while (c->at < c->n && is_space(c->text[c->at])) c->at++;
  if (c->at == c->n || c->text[c->at] != byte) return false;
  c->at++;
  return true;
}

/* *inside is what stands between the quotes, escapes and all. */
static bool pass_string(cursor *c, nb_str *inside) {
  if (!pass(c, '"')) return false;
  inside->data = c->text + c->at;
  for (; c->at < c->n && c->text[c->at] != '"'; c->at++) {
    if (c->text[c->at] == '\\') c->at++;
  }
  if (c->at >= c->n) return false;
  inside->length = (size_t)(c->text + c->at++ - inside->data);
  return true;
}

/* Whatever value stands here. */
static bool pass_value(cursor *c) {
  nb_str inside;
  for (size_t depth = 0; c->at < c->n;) {
    char byte = c->text[c->at];
    if (byte == '"') {
      if (!pass_string(c, &inside)) return false;
      continue;
    }
    bool closes = byte == '}' || byte == ']';
    if (depth == 0 && (closes || byte == ',')) return true;
    depth += byte == '{' || byte == '[';
    depth -= closes;
    c->at++;
  }
  return false;
}

/* Where the value of the outermost object's "vocab" begins and ends; false if there is none. */
static bool find_vocab(nb_str text, size_t *begin, size_t *end) {
  cursor c = {.text = text.data, .n = text.length};
  nb_str key;
  if (!pass(&c, '{')) return false;
  do {
    if (!pass_string(&c, &key) || !pass(&c, ':')) return false;
    *begin = c.at;
    if (!pass_value(&c)) return false;
    *end = c.at;
    if (nb_str_is(key, "vocab")) return true;
  } while (pass(&c, ','));
  return false;
}

/* One token; its token_bytes. */
static bool pass_token(cursor *c, nb_str *base64) {
  nb_str key;
  *base64 = (nb_str){0};
  if (!pass(c, '{')) return false;
  do {
    if (!pass_string(c, &key) || !pass(c, ':')) return false;
    bool passed = nb_str_is(key, "token_bytes") ? pass_string(c, base64) : pass_value(c);
    if (!passed) return false;
  } while (pass(c, ','));
  return base64->data && pass(c, '}');
}

/* ---- the parts of the file ---- */

typedef struct special_tokens {
  nb_named_id *list;
  char (*fillers)[32];
  size_t count;
} special_tokens;

static nibble_status read_special(const char *where, const cJSON *item, special_tokens *s, size_t total,
                                  nibble_error *err) {
  int64_t rank = 0;
  const char *text = NULL;
  nibble_status status = nb_json_need_int(where, item, "rank", (nb_range){0, (int64_t)total - 1}, &rank, err);
  if (status == NIBBLE_OK) status = nb_json_string(where, item, "token_str", &text, err);
  if (status != NIBBLE_OK) return status;
  if (!text || !*text) return nb_fail(err, NIBBLE_BAD_INPUT, "%s: a special token has no token_str", where);
  if (s->list[rank].text)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: two special tokens have the rank %d", where, (int)rank);
  s->list[rank].text = text;
  return NIBBLE_OK;
}

/* The special tokens by their ids; those that the file leaves unnamed are called as mistral-common does. */
static nibble_status read_specials(const char *where, const cJSON *root, special_tokens *s, nibble_error *err) {
  const cJSON *list = cJSON_GetObjectItemCaseSensitive(root, "special_tokens"), *item;
  size_t named = list ? (size_t)cJSON_GetArraySize(list) : sizeof before_lists / sizeof *before_lists;
  int64_t count = (int64_t)named;
  nibble_status status = nb_json_int(where, nb_json_object(root, "config"), "default_num_special_tokens",
                                     (nb_range){(int64_t)named, NB_MAX_ID}, &count, err);
  if (status != NIBBLE_OK) return status;
  s->count = (size_t)count;
  s->list = nb_alloc(s->count + 1, sizeof *s->list);
  s->fillers = nb_alloc(s->count + 1, sizeof *s->fillers);
  if (!s->list || !s->fillers) return nb_fail_memory(err, s->count * sizeof *s->fillers);
  if (!list) {
    for (size_t i = 0; i < named; i++) s->list[i].text = before_lists[i];
  }
  cJSON_ArrayForEach(item, list) {
    if (status == NIBBLE_OK) status = read_special(where, item, s, named, err);
  }
  for (size_t i = 0; i < s->count; i++) {
    s->list[i].id = (int32_t)i;
    if (s->list[i].text) continue;
    snprintf(s->fillers[i], sizeof s->fillers[i], "<SPECIAL_%zu>", i);
    s->list[i].text = s->fillers[i];
  }
  return status;
}

/* `most`: how many tokens there may be; the others are passed over. */
static nibble_status read_tokens(const nb_tokenizer_file *file, nb_str list, const special_tokens *specials,
                                 int64_t most, nb_ranks *ranks, nibble_error *err) {
  cursor c = {.text = list.data, .n = list.length};
  nibble_status status = NIBBLE_OK;
  bool valid = pass(&c, '[');
  for (int64_t i = 0; valid && status == NIBBLE_OK && !(i == 0 && pass(&c, ']')); i++) {
    nb_str base64;
    valid = pass_token(&c, &base64);
    if (valid && i < most)
      status = nb_ranks_add(ranks, file->path, (size_t)i, base64, (int32_t)((int64_t)specials->count + i), err);
    if (!valid || pass(&c, ']')) break;
    valid = pass(&c, ',');
  }
  if (status != NIBBLE_OK) return status;
  if (!valid)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: \"vocab\" is not a list of tokens, at its byte %zu", file->path, c.at);
  if (ranks->count == 0) return nb_fail(err, NIBBLE_BAD_INPUT, "%s: it holds no token", file->path);
  return NIBBLE_OK;
}

/* The rest of the file as a tree, and the list of tokens as text. */
static nibble_status part(const nb_tokenizer_file *file, nb_str *vocab, cJSON **rest, nibble_error *err) {
  size_t begin, end;
  if (!find_vocab(file->text, &begin, &end))
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: it is no JSON object with a \"vocab\"", file->path);
  *vocab = (nb_str){file->text.data + begin, end - begin};
  nb_buf text = {0};
  nb_buf_append(&text, file->text.data, begin);
  nb_buf_puts(&text, "0");
  nb_buf_append(&text, file->text.data + end, file->text.length - end);
  nibble_status status = text.failed ? nb_fail_memory(err, file->text.length)
                                     : nb_json_parse(file->path, text.data, text.length, rest, err);
  nb_buf_free(&text);
  return status;
}

/* How many of the tokens are used. */
static nibble_status count_tokens(const char *where, const cJSON *config, const special_tokens *specials, int64_t *most,
                                  nibble_error *err) {
  int64_t size = NB_MAX_ID - 1;
  nb_range range = {(int64_t)specials->count, size};
  nibble_status status = nb_json_int(where, config, "default_vocab_size", range, &size, err);
  *most = size - (int64_t)specials->count;
  return status;
}

nibble_status nb_read_tekken(const nb_tokenizer_file *file, nb_tokenizer_spec *out, nibble_error *err) {
  cJSON *root = NULL, *added = NULL;
  special_tokens specials = {0};
  nb_ranks ranks = {0};
  nb_str vocab = {0};
  const char *where = file->path, *pattern = NULL;
  int64_t most = 0;
  nibble_status status = part(file, &vocab, &root, err);
  const cJSON *config = nb_json_object(root, "config");
  if (status == NIBBLE_OK) status = nb_json_string(where, config, "pattern", &pattern, err);
  if (status == NIBBLE_OK && !pattern) status = nb_fail(err, NIBBLE_BAD_INPUT, "%s: config.pattern is missing", where);
  if (status == NIBBLE_OK) status = read_specials(where, root, &specials, err);
  if (status == NIBBLE_OK) status = count_tokens(where, config, &specials, &most, err);
  if (status == NIBBLE_OK) status = read_tokens(file, vocab, &specials, most, &ranks, err);
  if (status == NIBBLE_OK) status = nb_ranks_finish(&ranks, where, specials.list, specials.count, out, err);
  if (status == NIBBLE_OK) {
    added = cJSON_CreateArray();
    for (size_t i = 0; i < specials.count; i++)
      added = nb_json_push(added, nb_part_added((nb_part_token){(int32_t)i, specials.list[i].text, false, true}));
    status = nb_ranks_parts(pattern, false, added, out, err);
  }
  free(specials.list);
  free(specials.fillers);
  nb_ranks_free(&ranks);
  cJSON_Delete(root);
  return status;
}
