#include "convert/manifest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/stage.h"
#include "base/stop.h"

struct nb_manifest {
  cJSON *json;
  cJSON *settings, *tensors; /* in `json` */
};

nibble_status nb_manifest_begin(const char *command, const nb_checkpoint *source, nb_manifest **out,
                                nibble_error *err) {
  nb_manifest *m = *out = nb_alloc(1, sizeof *m);
  char *name = nb_path_name(source->path);
  bool ok = m && name && (m->json = cJSON_CreateObject()) &&
            cJSON_AddStringToObject(m->json, "nibble", NIBBLE_VERSION) &&
            cJSON_AddStringToObject(m->json, "command", command) &&
            (m->settings = cJSON_AddObjectToObject(m->json, "settings"));
  cJSON *from = ok ? cJSON_AddObjectToObject(m->json, "source") : NULL;
  ok = from && cJSON_AddStringToObject(from, "name", name) && cJSON_AddStringToObject(from, "kind", source->kind) &&
       (m->tensors = cJSON_AddObjectToObject(m->json, "tensors"));
  free(name);
  if (ok) return NIBBLE_OK;
  nb_manifest_free(m);
  *out = NULL;
  return nb_fail_memory(err, sizeof *m);
}

void nb_manifest_free(nb_manifest *m) {
  if (m) cJSON_Delete(m->json);
  free(m);
}

cJSON *nb_manifest_settings(nb_manifest *m) { return m->settings; }

nibble_status nb_manifest_add(nb_manifest *m, const char *name, const char hash[NB_HASH_CHARS], cJSON *details,
                              nibble_error *err) {
  cJSON *entry = cJSON_CreateObject();
  bool ok = entry && cJSON_AddStringToObject(entry, "source_xxh3_128", hash);
  for (cJSON *item; ok && details && (item = details->child);) {
    cJSON_DetachItemViaPointer(details, item);
    ok = cJSON_AddItemToObject(entry, item->string, item);
    if (!ok) cJSON_Delete(item);
  }
  cJSON_Delete(details);
  if (ok && cJSON_AddItemToObject(m->tensors, name, entry)) return NIBBLE_OK;
  cJSON_Delete(entry);
  return nb_fail_memory(err, strlen(name) + sizeof(cJSON));
}

nibble_status nb_manifest_save(const nb_manifest *m, const nb_folder *folder, nibble_error *err) {
  return nb_json_save_in(folder, "nibble.json", m->json, err);
}

void nb_hash_print(XXH128_hash_t hash, char out[NB_HASH_CHARS]) {
  snprintf(out, NB_HASH_CHARS, "%016llx%016llx", (unsigned long long)hash.high64, (unsigned long long)hash.low64);
}

nibble_status nb_tensor_feed(const nb_checkpoint *c, const nb_tensor *t, XXH3_state_t *hash, nibble_error *err) {
  const uint64_t piece = 8 << 20;
  const char *raw = nb_tensor_raw(c, t);
  nibble_status status = NIBBLE_OK;
  for (uint64_t at = 0; status == NIBBLE_OK && at < t->bytes; at += piece) {
    XXH3_128bits_update(hash, raw + at, (size_t)(t->bytes - at < piece ? t->bytes - at : piece));
    status = nb_stop_check(err);
  }
  return status;
}

nibble_status nb_tensor_hash(const nb_checkpoint *c, const nb_tensor *t, char out[NB_HASH_CHARS], nibble_error *err) {
  XXH3_state_t *hash = XXH3_createState();
  if (!hash) return nb_fail_memory(err, sizeof(XXH128_hash_t));
  XXH3_128bits_reset(hash);
  nibble_status status = nb_tensor_feed(c, t, hash, err);
  nb_hash_print(XXH3_128bits_digest(hash), out);
  XXH3_freeState(hash);
  return status;
}
