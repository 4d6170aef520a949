#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "convert/reader.h"

nibble_status nb_shard_index_parse(const char *where, cJSON *json, nb_shard_index *out, nibble_error *err) {
  *out = (nb_shard_index){.json = json, .weight_map = nb_json_object(json, "weight_map")};
  nibble_status status = NIBBLE_OK;
  nb_strmap seen = {0}, names = {0};
  if (!out->weight_map || !out->weight_map->child) {
    status = nb_fail(err, NIBBLE_BAD_INPUT, "%s: \"weight_map\" is missing or empty", where);
    goto done;
  }
  size_t count = 0;
  for (const cJSON *item = out->weight_map->child; item; item = item->next) count++;
  if (!(out->shards = nb_alloc(count, sizeof *out->shards))) {
    status = nb_fail_memory(err, count * sizeof *out->shards);
    goto done;
  }
  for (const cJSON *item = out->weight_map->child; item; item = item->next) {
    const char *shard = cJSON_IsString(item) ? item->valuestring : "";
    if (!nb_name_is_safe(shard) || strchr(shard, '/')) {
      status = nb_fail(err, NIBBLE_BAD_INPUT, "%s: tensor '%s': its shard '%s' is not the name of a file", where,
                       item->string, shard);
      goto done;
    }
    nb_strmap_result name = nb_strmap_add(&names, item->string, strlen(item->string), 0);
    if (name == NB_STRMAP_EXISTS) {
      status = nb_fail(err, NIBBLE_BAD_INPUT, "%s: tensor '%s' is listed twice", where, item->string);
      goto done;
    }
    nb_strmap_result added = nb_strmap_add(&seen, shard, strlen(shard), 0);
    if (name == NB_STRMAP_NO_MEMORY || added == NB_STRMAP_NO_MEMORY) {
      status = nb_fail_memory(err, count);
      goto done;
    }
    if (added == NB_STRMAP_ADDED) out->shards[out->shard_count++] = shard;
  }
done:
  nb_strmap_free(&seen);
  nb_strmap_free(&names);
  if (status != NIBBLE_OK) nb_shard_index_free(out);
  return status;
}

void nb_shard_index_free(nb_shard_index *index) {
  cJSON_Delete(index->json);
  free(index->shards);
  *index = (nb_shard_index){0};
}
