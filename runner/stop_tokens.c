#include "runner/stop_tokens.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/stage.h"

static int by_id(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

/* The tokens of a list, or the one; false without memory. */
static bool take(nb_stop_tokens *out, const cJSON *value) {
  bool is_list = cJSON_IsArray(value);
  if (!(out->ids = nb_alloc((uint64_t)cJSON_GetArraySize(value) + 1, sizeof *out->ids))) return false;
  for (const cJSON *item = is_list ? value->child : value; item; item = is_list ? item->next : NULL) {
    double id = item->valuedouble;
    if (cJSON_IsNumber(item) && id >= 0 && id <= INT32_MAX) out->ids[out->count++] = (int64_t)id;
  }
  qsort(out->ids, (size_t)out->count, sizeof *out->ids, by_id);
  return true;
}

nibble_status nb_stop_tokens_read(const nb_checkpoint *c, nb_stop_tokens *out, nibble_error *err) {
  *out = (nb_stop_tokens){0};
  char *path = c->folder ? nb_path_join(c->folder, "generation_config.json") : NULL;
  const cJSON *said = cJSON_GetObjectItemCaseSensitive(c->config.json, "eos_token_id");
  cJSON *json = NULL;
  nibble_status status = NIBBLE_OK;
  if (path && access(path, F_OK) == 0) {
    status = nb_json_load(path, &json, err);
    if (status == NIBBLE_OK) status = nb_json_last_wins(json, err);
    const cJSON *other = cJSON_GetObjectItemCaseSensitive(json, "eos_token_id");
    if (cJSON_IsNumber(other) || cJSON_IsArray(other)) said = other;
  }
  if (status == NIBBLE_OK && said && !take(out, said)) status = nb_fail_memory(err, sizeof *out->ids);
  cJSON_Delete(json);
  free(path);
  return status;
}

void nb_stop_tokens_free(nb_stop_tokens *tokens) {
  free(tokens->ids);
  *tokens = (nb_stop_tokens){0};
}

nibble_status nb_stop_tokens_add(nb_stop_tokens *tokens, int64_t id, nibble_error *err) {
  int64_t *ids = nb_alloc((uint64_t)tokens->count + 1, sizeof *ids);
  if (!ids) return nb_fail_memory(err, sizeof *ids);
  if (tokens->count) memcpy(ids, tokens->ids, (size_t)tokens->count * sizeof *ids);
  ids[tokens->count] = id;
  free(tokens->ids);
  tokens->ids = ids;
  qsort(ids, (size_t)++tokens->count, sizeof *ids, by_id);
  return NIBBLE_OK;
}

bool nb_stop_tokens_have(const nb_stop_tokens *tokens, int64_t id) {
  return tokens->count && bsearch(&id, tokens->ids, (size_t)tokens->count, sizeof id, by_id);
}
