/* A model.safetensors.index.json of any bytes. */
#include <stdlib.h>
#include <string.h>

#include "convert/reader.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  cJSON *json;
  nb_shard_index index;
  nibble_error err;
  if (nb_json_parse("fuzz", (const char *)data, size, &json, &err) != NIBBLE_OK) return 0;
  if (nb_shard_index_parse("fuzz", json, &index, &err) != NIBBLE_OK) return 0;
  for (size_t i = 0; i < index.shard_count; i++) {
    if (strchr(index.shards[i], '/') || strcmp(index.shards[i], "..") == 0) abort(); /* it would leave the folder */
  }
  nb_shard_index_free(&index);
  return 0;
}
