/* What belongs to a model besides its tensors: tokenizer, generation settings, chat templates, licence, model card,
 * remote code, and the small folders of sentence-transformers. It comes along whatever is made of the model. */
#ifndef NB_CONVERT_SIDEFILES_H
#define NB_CONVERT_SIDEFILES_H

#include "convert/checkpoint.h"

/* Copies them from where `source` lies to the folder `dst`. Never copied: weights and their indexes, nibble.json, and
 * config.json, which the caller writes as it becomes. For a .gguf they are made from its metadata. Nothing is copied
 * for a lone file without a config.json beside it, whose folder may hold anything. Nor is what a link leads to outside
 * of the source's folder (of a hub's cache: of its blobs), with a warning: a folder from a stranger could have a link
 * to anything that the reader has and nobody else should. */
nibble_status nb_sidefiles_copy(const nb_checkpoint *source, const nb_folder *dst, const nibble_progress *progress,
                                nibble_error *err);

/* Writes dst/config.json: the source's own text with the members of `changes` (an object; the caller's) put in place of
 * those that are there, or removed where a change is null (model/json_text.h). A change called "dtype" goes to the key
 * that the source has, "torch_dtype", "dtype" or both. Nothing is written where the source has no config. */
nibble_status nb_config_save(const nb_config *config, const cJSON *changes, const nb_folder *dst, nibble_error *err);

/* True for what nb_sidefiles_copy copies, and for config.json and indexes: what is a file of a model by its name. */
bool nb_sidefiles_have(const char *name);

#endif
