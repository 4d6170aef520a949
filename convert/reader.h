/* What the readers of file formats share. A reader maps its file, checks all of it, and appends what it finds to a
 * checkpoint that is being opened; nb_checkpoint_open finds the reader by the file's first bytes, sorts the tensors and
 * looks for duplicates. A new file format is a reader and one row of the table in checkpoint.c. */
#ifndef NB_CONVERT_READER_H
#define NB_CONVERT_READER_H

#include "convert/checkpoint.h"

enum { NB_PROBE_BYTES = 16 };

typedef struct nb_reader {
  const char *kind;
  bool self_contained; /* the file holds its config; nothing beside it is looked at */
  bool (*probe)(const uint8_t head[NB_PROBE_BYTES], uint64_t file_size); /* bytes past the end are zero */
  nibble_status (*open)(nb_checkpoint *checkpoint, const char *path, nibble_error *err);
} nb_reader;

/* Maps a file and appends it to checkpoint->files, as *index. */
nibble_status nb_checkpoint_add_file(nb_checkpoint *checkpoint, const char *path, int *index, nibble_error *err);

/* Appends a copy of *tensor, whose name stays the caller's. Sets `count`, and checks the name, the shape, that the
 * shape fits the bytes (plain tensors) and that the bytes lie inside the file. */
nibble_status nb_checkpoint_add_tensor(nb_checkpoint *checkpoint, const nb_tensor *tensor, nibble_error *err);

/* By file, offset, bytes, name: for qsort. */
int nb_tensor_compare(const void *a, const void *b);

/* False for a name that would lead out of a folder if somebody made a path of it (empty, absolute, or with a
 * ".."), or that no JSON file could hold, being no UTF-8. */
bool nb_name_is_safe(const char *name);

bool nb_safetensors_probe(const uint8_t head[NB_PROBE_BYTES], uint64_t file_size);
nibble_status nb_safetensors_open(nb_checkpoint *checkpoint, const char *path, nibble_error *err);

/* The zip form; the form of before torch 1.6 is recognized and refused. */
bool nb_torch_probe(const uint8_t head[NB_PROBE_BYTES], uint64_t file_size);
nibble_status nb_torch_open(nb_checkpoint *checkpoint, const char *path, nibble_error *err);

/* model.safetensors.index.json and pytorch_model.bin.index.json: which shard holds which tensor. */
typedef struct nb_shard_index {
  cJSON *json;
  const cJSON *weight_map; /* in `json`: an object of strings, each the plain name of a file */
  const char **shards;     /* each name once, in the order of the map; in `json` */
  size_t shard_count;
} nb_shard_index;

/* Takes `json` over, also on failure. Free with nb_shard_index_free. */
nibble_status nb_shard_index_parse(const char *where, cJSON *json, nb_shard_index *out, nibble_error *err);
void nb_shard_index_free(nb_shard_index *index);

#endif
