/* GGUF files, versions 2 and 3: a header, metadata (typed keys and values), the list of tensors, then their data.
 * nb_gguf_open turns one into a checkpoint: tensors get their Hugging Face names and shapes, and a config is made from
 * the metadata, as transformers' import does. The metadata stays at hand in nb_checkpoint.gguf, for the tokenizer.
 * The file is little-endian, and so is every machine this runs on; a big-endian one is refused by name.
 * Source: docs/gguf.md of ggml-org/ggml; docs/formats.md tells it in our words. */
#ifndef NB_CONVERT_GGUF_H
#define NB_CONVERT_GGUF_H

#include "base/buf.h"
#include "base/str.h"
#include "convert/checkpoint.h"

/* The numbers are the file's. */
typedef enum nb_gguf_type {
  NB_GGUF_U8,
  NB_GGUF_I8,
  NB_GGUF_U16,
  NB_GGUF_I16,
  NB_GGUF_U32,
  NB_GGUF_I32,
  NB_GGUF_F32,
  NB_GGUF_BOOL,
  NB_GGUF_STRING, /* u64 length, bytes */
  NB_GGUF_ARRAY,  /* u32 type of its items, u64 count, items */
  NB_GGUF_U64,
  NB_GGUF_I64,
  NB_GGUF_F64,
  NB_GGUF_TYPE_COUNT
} nb_gguf_type;

typedef struct nb_gguf_entry {
  nb_str key;
  nb_gguf_type type; /* of the value; of its items if is_array */
  bool is_array;
  uint64_t count;       /* items; 1 if it is no array */
  const uint8_t *value; /* the value, or the first item; lies inside the file with all that follows */
} nb_gguf_entry;

typedef struct nb_gguf_tensor {
  nb_str name; /* the file's, "blk.0.attn_q.weight" */
  int ndim;
  int64_t shape[4]; /* row-major: the file's extents in reverse */
  uint32_t type;    /* the file's number of the element type */
  uint64_t offset;  /* bytes from the start of the data */
} nb_gguf_tensor;

typedef struct nb_gguf {
  const char *path; /* the checkpoint's */
  uint32_t version;
  uint64_t alignment; /* bytes; of the start of the data and of every tensor */
  uint64_t data_at;   /* bytes from the start of the file */
  nb_gguf_entry *entries;
  size_t entry_count;
  nb_gguf_tensor *tensors; /* as the file lists them */
  size_t tensor_count;
  nb_strmap by_key; /* key -> index into entries */
} nb_gguf;

/* For the table of readers. */
bool nb_gguf_probe(const uint8_t *head, uint64_t file_size); /* an nb_reader's probe */
nibble_status nb_gguf_open(nb_checkpoint *checkpoint, const char *path, nibble_error *err);
void nb_gguf_free(nb_gguf *gguf); /* harmless on NULL */

/* Checks and lists all that comes before the data. *out is borrowed views into `map`, which must outlive it, and arrays
 * freed by nb_gguf_free; the tensors' types and places are not looked at. */
nibble_status nb_gguf_parse(const char *path, const nb_mapfile *map, nb_gguf **out, nibble_error *err);

/* The metadata. A getter succeeds and leaves *out alone where the key is absent, and fails where its value is of
 * another kind. Integers of every width serve as int, integers and floats as double. */
const nb_gguf_entry *nb_gguf_find(const nb_gguf *gguf, const char *key);
nibble_status nb_gguf_int(const nb_gguf *gguf, const char *key, int64_t min, int64_t max, int64_t *out,
                          nibble_error *err);
nibble_status nb_gguf_double(const nb_gguf *gguf, const char *key, double *out, nibble_error *err);
nibble_status nb_gguf_bool(const nb_gguf *gguf, const char *key, bool *out, nibble_error *err);
nibble_status nb_gguf_text(const nb_gguf *gguf, const char *key, nb_str *out, nibble_error *err);

/* An array of strings; *out is malloc'd (NULL and 0 if absent), the bytes are in the file. */
nibble_status nb_gguf_strings(const nb_gguf *gguf, const char *key, nb_str **out, size_t *count, nibble_error *err);

/* Item i of an array of numbers, i < entry->count; 0 for one of strings or arrays. */
int64_t nb_gguf_item_int(const nb_gguf_entry *entry, uint64_t i);
double nb_gguf_item_double(const nb_gguf_entry *entry, uint64_t i);

/* tokenizer.json made from the metadata, appended to *out. NIBBLE_BAD_INPUT if the file holds no tokenizer, or one of a
 * kind that is not converted; the message says which. */
nibble_status nb_gguf_tokenizer_json(const nb_checkpoint *checkpoint, nb_buf *out, nibble_error *err);

/* Adds the special tokens that the metadata names to an object: "bos_token", ... */
nibble_status nb_gguf_special_tokens(const nb_gguf *gguf, cJSON *out, nibble_error *err);

/* Writes what stands beside the weights in a Hugging Face folder: tokenizer.json, tokenizer_config.json,
 * special_tokens_map.json, chat_template.jinja, generation_config.json. config.json is the caller's. A tokenizer that
 * cannot be converted is a warning, not an error: the weights are still good. */
nibble_status nb_gguf_write_sidefiles(const nb_checkpoint *checkpoint, const nb_folder *folder,
                                      const nibble_progress *progress, nibble_error *err);

#endif
