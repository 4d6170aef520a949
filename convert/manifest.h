/* nibble.json, which every artifact carries: what made it, from what, with which settings, and for each tensor the hash
 * of the source's bytes, so that anybody can tell later whether an artifact belongs to a checkpoint.
 *
 *   nb_manifest_begin(&m, "quantize", &checkpoint, err);
 *   cJSON_AddStringToObject(nb_manifest_settings(m), "method", "nf4"); ...
 *   nb_manifest_add(m, "lm_head.weight", hash, details, err); ...
 *   nb_manifest_save(m, &stage.folder, err); nb_manifest_free(m); */
#ifndef NB_CONVERT_MANIFEST_H
#define NB_CONVERT_MANIFEST_H

#include <xxhash.h>

#include "convert/checkpoint.h"

enum { NB_HASH_CHARS = 33 }; /* 32 hexadecimal digits, as `xxhsum -H2` prints them, and a NUL */

typedef struct nb_manifest nb_manifest;

nibble_status nb_manifest_begin(const char *command, const nb_checkpoint *source, nb_manifest **out, nibble_error *err);
void nb_manifest_free(nb_manifest *manifest); /* NULL is fine */

/* An object for the caller to fill; the manifest owns it. */
cJSON *nb_manifest_settings(nb_manifest *manifest);

/* Adds the tensor `name` with the XXH3-128 of its source's stored bytes. The members of `details` (an object, or NULL)
 * join the entry: the manifest takes it over, also on failure. */
nibble_status nb_manifest_add(nb_manifest *manifest, const char *name, const char hash[NB_HASH_CHARS], cJSON *details,
                              nibble_error *err);

/* Writes folder/nibble.json. */
nibble_status nb_manifest_save(const nb_manifest *manifest, const nb_folder *folder, nibble_error *err);

/* XXH3-128 of the stored bytes. Touches all of them; whoever works band by band feeds an XXH3_state_t in passing. Both
 * are NIBBLE_STOPPED if the caller wants to stop. */
nibble_status nb_tensor_hash(const nb_checkpoint *checkpoint, const nb_tensor *tensor, char out[NB_HASH_CHARS],
                             nibble_error *err);
nibble_status nb_tensor_feed(const nb_checkpoint *checkpoint, const nb_tensor *tensor, XXH3_state_t *hash,
                             nibble_error *err);
void nb_hash_print(XXH128_hash_t hash, char out[NB_HASH_CHARS]);

#endif
