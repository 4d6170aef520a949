/* tekken.json: "config" with the pattern and how many ids there are, "vocab" with ranked tokens in base64, and in later
 * files "special_tokens". Special tokens have the first ids, the others follow in their order; what is behind
 * default_vocab_size is not used. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "model/json.h"
#include "tokenizer/readers/json_walk.h"
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

/* Moves to the value of the outermost object's "vocab"; false if there is none. */
static bool find_vocab(nb_walk *s) {
  nb_str key, value;
  if (!nb_walk_take(s, '{')) return false;
  do {
    if (!nb_walk_string(s, &key) || !nb_walk_take(s, ':')) return false;
    if (nb_str_is(key, "vocab")) return true;
    if (!nb_walk_value(s, &value)) return false;
  } while (nb_walk_take(s, ','));
  return false;
}

/* One token; its token_bytes. */
static bool pass_token(nb_walk *c, nb_str *base64) {
  nb_str key, value;
  *base64 = (nb_str){0};
  if (!nb_walk_take(c, '{')) return false;
  do {
    if (!nb_walk_string(c, &key) || !nb_walk_take(c, ':')) return false;
    bool passed = nb_str_is(key, "token_bytes") ? nb_walk_string(c, base64) : nb_walk_value(c, &value);
    if (!passed) return false;
  } while (nb_walk_take(c, ','));
  return base64->data && nb_walk_take(c, '}');
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

/* Reads the list of tokens, which get the ids from 0 on, and moves behind it. */
static nibble_status read_tokens(const char *where, nb_walk *s, nb_ranks *ranks, nibble_error *err) {
  nibble_status status = NIBBLE_OK;
  bool valid = nb_walk_take(s, '[');
  for (int32_t i = 0; valid && status == NIBBLE_OK && !(i == 0 && nb_walk_take(s, ']'));) {
    nb_str base64;
    valid = pass_token(s, &base64);
    if (valid && i < NB_MAX_ID) {
      status = nb_ranks_add(ranks, where, (size_t)i, base64, i, err);
      i++;
    }
    if (!valid || nb_walk_take(s, ']')) break;
    valid = nb_walk_take(s, ',');
  }
  if (status != NIBBLE_OK) return status;
  if (!valid) return nb_fail(err, NIBBLE_BAD_INPUT, "%s: \"vocab\" is not a list of tokens, at byte %zu", where, s->at);
  return NIBBLE_OK;
}

/* The list of tokens, and the rest of the file as a tree. */
static nibble_status part(const nb_tokenizer_file *file, nb_ranks *ranks, cJSON **rest, nibble_error *err) {
  nb_walk s = {.text = file->text.data, .n = file->text.length};
  if (!find_vocab(&s)) return nb_fail(err, NIBBLE_BAD_INPUT, "%s: it is no JSON object with a \"vocab\"", file->path);
  nb_buf text = {0};
  nb_buf_append(&text, file->text.data, s.at);
  nb_buf_puts(&text, "0");
  nibble_status status = read_tokens(file->path, &s, ranks, err);
  nb_buf_append(&text, file->text.data + s.at, file->text.length - s.at);
  if (status == NIBBLE_OK)
    status = text.failed ? nb_fail_memory(err, file->text.length)
                         : nb_json_parse(file->path, text.data, text.length, rest, err);
  nb_buf_free(&text);
  return status;
}

/* Puts the tokens that are used behind the special ones. */
static nibble_status place_tokens(const char *where, const cJSON *config, const special_tokens *specials,
                                  nb_ranks *ranks, nibble_error *err) {
  int64_t size = NB_MAX_ID - 1;
  nb_range range = {(int64_t)specials->count, size};
  nibble_status status = nb_json_int(where, config, "default_vocab_size", range, &size, err);
  if (status != NIBBLE_OK) return status;
  size_t most = (size_t)size - specials->count;
  if (ranks->count > most) ranks->count = most;
  for (size_t i = 0; i < ranks->count; i++) ranks->list[i].id += (int32_t)specials->count;
  return ranks->count > 0 ? NIBBLE_OK : nb_fail(err, NIBBLE_BAD_INPUT, "%s: it holds no token", where);
}

nibble_status nb_read_tekken(const nb_tokenizer_file *file, nb_tokenizer_spec *out, nibble_error *err) {
  cJSON *root = NULL, *added = NULL;
  special_tokens specials = {0};
  nb_ranks ranks = {0};
  const char *where = file->path, *pattern = NULL;
  nibble_status status = part(file, &ranks, &root, err);
  const cJSON *config = nb_json_object(root, "config");
  if (status == NIBBLE_OK) status = nb_json_string(where, config, "pattern", &pattern, err);
  if (status == NIBBLE_OK && !pattern) status = nb_fail(err, NIBBLE_BAD_INPUT, "%s: config.pattern is missing", where);
  if (status == NIBBLE_OK) status = read_specials(where, root, &specials, err);
  if (status == NIBBLE_OK) status = place_tokens(where, config, &specials, &ranks, err);
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
