/* A checkpoint opened for reading, whatever it lies in: a Hugging Face folder (safetensors or pytorch_model.bin, with
 * or without an index), a .gguf, or one .safetensors. It is a config and a list of named tensors, each viewed in its
 * mapped file; callers cannot tell which file format a tensor comes from.
 * Everything in the files is checked when the checkpoint is opened; reading a tensor can then fail only for want of
 * memory, or where a value itself is refused. */
#ifndef NB_CONVERT_CHECKPOINT_H
#define NB_CONVERT_CHECKPOINT_H

#include "base/dtype.h"
#include "base/mapfile.h"
#include "base/strmap.h"
#include "kernels/formats.h"
#include "model/config.h"

enum { NB_MAX_DIMS = 8 };

typedef struct nb_tensor {
  char *name;       /* as Hugging Face names it */
  nb_dtype dtype;   /* of the stored elements; F32 for a GGUF block format, which reads as float32 */
  bool is_blocks;   /* stored as GGUF blocks in `format` */
  nb_format format; /* if is_blocks */
  int ndim;
  int64_t shape[NB_MAX_DIMS];
  int64_t count;         /* elements */
  int file;              /* index into nb_checkpoint.files */
  uint64_t offset;       /* bytes from the start of that file */
  uint64_t bytes;        /* stored */
  int64_t permute_heads; /* >0: GGUF's interleaved rows over this many heads, put back by nb_tensor_read */
  bool is_strided;       /* a torch view that is not contiguous; `bytes` then spans its first to its last element */
  int64_t stride[NB_MAX_DIMS]; /* if is_strided: elements */
} nb_tensor;

typedef struct nb_checkpoint_file {
  char *path;
  nb_mapfile map;
} nb_checkpoint_file;

typedef struct nb_checkpoint {
  char *path;       /* as given */
  char *folder;     /* where config.json and the tokenizer's files are; NULL for a .gguf */
  const char *kind; /* "safetensors", "pytorch", "gguf" */
  nb_checkpoint_file *files;
  int file_count;
  nb_tensor *tensors; /* sorted as they lie: by file, then offset */
  size_t tensor_count, tensor_capacity;
  size_t skipped_values; /* of a torch file: entries of its dict that are no tensors */
  nb_strmap by_name;     /* name -> index into tensors */
  nb_config config;      /* for a .gguf: made from its metadata */
  struct nb_gguf *gguf;  /* metadata of a .gguf, for its tokenizer; else NULL */
} nb_checkpoint;

/* True if `path` names weights, not only a configuration: any file but a .json, or a folder that holds a checkpoint. */
bool nb_checkpoint_has_weights(const char *path);

/* Opens a MODEL. A folder without config.json, or a lone .safetensors without one beside it, gets an empty config
 * (model_type ""). Free with nb_checkpoint_close (also harmless on a zeroed struct, and after a failure). */
nibble_status nb_checkpoint_open(const char *path, nb_checkpoint *out, nibble_error *err);

/* The same, but tensors may have other shapes than the config makes them: for whoever wants to name all of those. */
nibble_status nb_checkpoint_open_loose(const char *path, nb_checkpoint *out, nibble_error *err);

void nb_checkpoint_close(nb_checkpoint *checkpoint);

/* NIBBLE_USAGE if an output put at `dst` would take the place of the checkpoint itself, or of a folder that it lies in.
 */
nibble_status nb_checkpoint_protect(const nb_checkpoint *checkpoint, const char *dst, nibble_error *err);

const nb_tensor *nb_checkpoint_find(const nb_checkpoint *checkpoint, const char *name);

/* The stored bytes in the mapped file, if they are exactly the tensor, contiguous and in order (no block format, no
 * permuted rows, no strides); else NULL. The address has no alignment to count on. */
const void *nb_tensor_view(const nb_checkpoint *checkpoint, const nb_tensor *tensor);

/* The stored bytes as they lie. */
const void *nb_tensor_raw(const nb_checkpoint *checkpoint, const nb_tensor *tensor);

/* Elements [first, first + count) of the flattened tensor as `dtype` (a float dtype, rounding once; or the stored dtype
 * itself, copied). Any thread. */
nibble_status nb_tensor_read(const nb_checkpoint *checkpoint, const nb_tensor *tensor, int64_t first, int64_t count,
                             nb_dtype dtype, void *out, nibble_error *err);

/* Gives the pages of elements [first, first + count) back, a few neighbours' included: they are read again if touched
 * again. Any thread. */
void nb_tensor_release(const nb_checkpoint *checkpoint, const nb_tensor *tensor, int64_t first, int64_t count);

#endif
