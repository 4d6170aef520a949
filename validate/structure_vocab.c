/* The vocabulary: what tokenizer.json can give out must have a row in the embedding. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/stage.h"
#include "model/json.h"
#include "validate/structure.h"

enum { MAX_IDS = 1 << 24 };

typedef struct ids {
  uint8_t *seen;   /* [MAX_IDS / 8], a bit an id */
  int64_t highest; /* -1: none */
  int64_t out_of_range, twice;
  char twice_token[64];
} ids;

static void see(ids *v, const cJSON *id, const char *token, bool may_repeat) {
  double value = cJSON_IsNumber(id) ? id->valuedouble : -1;
  if (!(value >= 0 && value < MAX_IDS) || value != (double)(int64_t)value) {
    v->out_of_range++;
    return;
  }
  int64_t i = (int64_t)value;
  uint8_t bit = (uint8_t)(1u << (i & 7));
  if (v->seen[i >> 3] & bit && !may_repeat && v->twice++ == 0)
    snprintf(v->twice_token, sizeof v->twice_token, "%s", token ? token : "");
  v->seen[i >> 3] |= bit;
  if (i > v->highest) v->highest = i;
}

/* model.vocab is an object of ids (BPE, WordPiece, WordLevel) or a list whose places are the ids (Unigram). Added
 * tokens may be in it, too. */
static void see_all(const cJSON *tokenizer, ids *v) {
  const cJSON *model = nb_json_object(tokenizer, "model");
  const cJSON *vocab = model ? cJSON_GetObjectItemCaseSensitive(model, "vocab") : NULL;
  int64_t place = 0;
  cJSON number = {.type = cJSON_Number};
  const cJSON *item;
  cJSON_ArrayForEach(item, vocab) {
    number.valuedouble = (double)place++;
    see(v, cJSON_IsArray(vocab) ? &number : item, item->string, false);
  }
  const cJSON *added = cJSON_IsObject(tokenizer) ? cJSON_GetObjectItemCaseSensitive(tokenizer, "added_tokens") : NULL;
  cJSON_ArrayForEach(item, added) {
    if (cJSON_IsObject(item)) see(v, cJSON_GetObjectItemCaseSensitive(item, "id"), NULL, true);
  }
}

static void judge(const nb_config *config, const char *name, const ids *v, nb_findings *findings) {
  if (v->out_of_range)
    nb_find(findings, NIBBLE_FAULT, "vocabulary", "token-id-invalid", nb_place_tensor(""),
            "%s: %lld tokens have no whole number as their id", name, (long long)v->out_of_range);
  if (v->twice)
    nb_find(findings, NIBBLE_FAULT, "vocabulary", "token-id-twice", nb_place_tensor(""),
            "%s: %lld ids belong to two tokens; the first is that of '%s'", name, (long long)v->twice, v->twice_token);
  if (!config->family || v->highest < 0) return;
  if (v->highest >= config->vocab_size)
    nb_find(findings, NIBBLE_FAULT, "vocabulary", "tokenizer-larger-than-embedding", nb_place_tensor(""),
            "%s gives out ids up to %lld, but vocab_size is %lld: those have no embedding", name, (long long)v->highest,
            (long long)config->vocab_size);
  if (v->highest + 1 < config->vocab_size)
    nb_find(findings, v->highest + 1 < config->vocab_size / 2 ? NIBBLE_WARNING : NIBBLE_NOTE, "vocabulary",
            v->highest + 1 < config->vocab_size / 2 ? "tokenizer-of-another-model" : "", nb_place_tensor(""),
            "%s gives out ids up to %lld, vocab_size is %lld: the rest of the embedding is padding", name,
            (long long)v->highest, (long long)config->vocab_size);
}

static void check_special_ids(const nb_config *config, nb_findings *findings) {
  if (!config->family) return;
  if (config->bos_token_id >= config->vocab_size)
    nb_find(findings, NIBBLE_FAULT, "vocabulary", "special-id-out-of-range", nb_place_tensor(""),
            "config.json: bos_token_id is %lld, vocab_size %lld", (long long)config->bos_token_id,
            (long long)config->vocab_size);
  for (int i = 0; i < config->eos_token_count; i++) {
    if (config->eos_token_ids[i] < config->vocab_size) continue;
    nb_find(findings, NIBBLE_FAULT, "vocabulary", "special-id-out-of-range", nb_place_tensor(""),
            "config.json: eos_token_id is %lld, vocab_size %lld", (long long)config->eos_token_ids[i],
            (long long)config->vocab_size);
  }
}

nibble_status nb_structure_vocab(const nb_checkpoint *c, nb_findings *findings, nibble_error *err) {
  check_special_ids(&c->config, findings);
  char *path = c->folder ? nb_path_join(c->folder, "tokenizer.json") : NULL;
  cJSON *json = NULL;
  ids v = {.highest = -1};
  nibble_status status = NIBBLE_OK;
  if (!path || access(path, F_OK) != 0) goto done; /* a model folder without one is fine */
  if (!(v.seen = nb_alloc(MAX_IDS / 8, 1))) {
    status = nb_fail_memory(err, MAX_IDS / 8);
    goto done;
  }
  nibble_error damaged;
  status = nb_json_load(path, &json, &damaged);
  if (status == NIBBLE_BAD_INPUT) {
    nb_find(findings, NIBBLE_FAULT, "vocabulary", "tokenizer-damaged", nb_place_tensor(""), "%s", damaged.message);
    status = NIBBLE_OK;
    goto done;
  }
  if (status != NIBBLE_OK) {
    if (err) *err = damaged;
    goto done;
  }
  see_all(json, &v);
  judge(&c->config, "tokenizer.json", &v, findings);
done:
  cJSON_Delete(json);
  free(v.seen);
  free(path);
  return status;
}
