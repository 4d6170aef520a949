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
#include "model/tensors.h"

enum { NB_MAX_DIMS = 8 };

typedef struct nb_layout nb_layout; /* layouts.h */

/* What a tensor of a packed weight holds. */
typedef enum nb_part_role {
  NB_PART_CODES,
  NB_PART_ABSMAX, /* SCB for int8; codes with double quantization */
  NB_PART_NESTED_ABSMAX,
  NB_PART_QUANT_MAP,
  NB_PART_NESTED_QUANT_MAP,
  NB_PART_STATE,  /* the quant state's JSON: shape[0] is the most it can be */
  NB_PART_FORMAT, /* weight_format of int8 */
  NB_PART_ZEROS,  /* GPTQ's qzeros, scales and g_idx */
  NB_PART_SCALES,
  NB_PART_G_IDX,
} nb_part_role;

typedef struct nb_tensor {
  char *name;         /* as Hugging Face names it */
  nb_dtype dtype;     /* of the stored elements; F32 for a GGUF block format, which reads as float32 */
  bool is_blocks;     /* stored as GGUF blocks in `format` */
  nb_format format;   /* if is_blocks */
  const char *opaque; /* stored as blocks of a type of that name which is not read here; the dtype then is U8 */
  int ndim;
  int64_t shape[NB_MAX_DIMS];
  int64_t count;         /* elements */
  int file;              /* index into nb_checkpoint.files */
  uint64_t offset;       /* bytes from the start of that file */
  uint64_t bytes;        /* stored */
  int64_t permute_heads; /* >0: GGUF's interleaved rows over this many heads, put back by nb_tensor_read */
  bool is_strided;       /* a torch view that is not contiguous; `bytes` then spans its first to its last element */
  int64_t stride[NB_MAX_DIMS]; /* if is_strided: elements */

  /* Decided once, when the checkpoint is opened (bind.c). */
  nb_identity id;
  bool is_part; /* belongs to another tensor's packed weight: */
  nb_part_role part;
  const struct nb_tensor *main;
  bool is_transposed;            /* lies as [in, out] where `shape` says [out, in]; is_strided, too */
  const nb_layout *layout;       /* of the packed weight whose main tensor this is; NULL: it is plain, or a part */
  nb_packed *packed;             /* if layout: that weight's format and shape, without buffers; NULL: see fault */
  nb_dtype source_dtype;         /* if layout: what the weight was before */
  char *weight_name;             /* of that weight, where its layout calls the tensor something else; else NULL */
  const struct nb_tensor *twin;  /* the one that was taken, where two are the same promised tensor in other spellings */
  char *fault;                   /* why the packed weight, or any of the views, cannot be read; NULL: they can */
  const struct nb_tensor *whole; /* of a view: the tensor that it is a part of; else NULL */
  const struct nb_tensor
      *views; /* [view_count]: the matrices that the tensor holds (nb_role_parts), each as a tensor of
                 its own in the same bytes, with the name that it would have; NULL: it is one itself */
  size_t view_count;
} nb_tensor;

/* A tensor that the config promises, and the one that holds it. */
typedef struct nb_slot {
  const nb_model_tensor *wanted;
  const nb_tensor *tensor; /* NULL: it is missing. Of a tied pair either will do */
} nb_slot;

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
  nb_tensor *views; /* of all tensors that hold several matrices; by bind.c */
  size_t view_count;
  size_t skipped_values; /* of a torch file: entries of its dict that are no tensors */
  nb_strmap by_name;     /* name -> index into tensors */
  nb_config config;      /* for a .gguf: made from its metadata */
  struct nb_gguf *gguf;  /* metadata of a .gguf, for its tokenizer; else NULL */

  /* Decided by bind.c; empty for a family without rules. */
  nb_model_tensors promised;
  nb_slot *slots;          /* [promised.count] */
  nb_strmap by_promise;    /* promised name -> index into slots */
  nb_strmap by_weight;     /* weight_name, or a view's name -> nb_checkpoint_index, of those that have one */
  const char *foreign;     /* a packing that is recognized and cannot be undone here; NULL: none */
  const nb_tensor *misfit; /* a tensor of several matrices, but not of those that the config makes it; NULL: none */
  const nb_tensor *stray; /* of a GGUF file: a block's tensor that the family knows and its metadata has no place for */
  const nb_tensor *untied;            /* one of two tensors that the config ties and that differ; NULL: none */
  const nb_tensor *head;              /* an output embedding that a config which ties it does not promise; NULL: none */
  char *tie_warning, *layout_warning; /* what is odd about ties and packed weights, and was taken somehow; or NULL */
} nb_checkpoint;

/* True if `path` names weights, not only a configuration: any file but a .json, or a folder that holds a checkpoint. */
bool nb_checkpoint_has_weights(const char *path);

/* Opens a MODEL. A folder without config.json, or a lone .safetensors without one beside it, gets an empty config
 * (model_type ""). Free with nb_checkpoint_close (also harmless on a zeroed struct, and after a failure). */
nibble_status nb_checkpoint_open(const char *path, nb_checkpoint *out, nibble_error *err);

/* The same, but tensors may have other shapes than the config makes them, and packed weights may be damaged: for
 * whoever wants to name all of that. */
nibble_status nb_checkpoint_open_loose(const char *path, nb_checkpoint *out, nibble_error *err);

void nb_checkpoint_close(nb_checkpoint *checkpoint);

/* NIBBLE_USAGE if an output put at `dst` would take the place of the checkpoint itself, of a file that belongs to it,
 * or of a folder that it lies in. */
nibble_status nb_checkpoint_protect(const nb_checkpoint *checkpoint, const char *dst, nibble_error *err);

/* Tensors and views in one row of numbers, tensors first: a weight is in it twice where it is a view, as such and in
 * its whole. */
static inline size_t nb_checkpoint_count(const nb_checkpoint *c) { return c->tensor_count + c->view_count; }

static inline const nb_tensor *nb_checkpoint_at(const nb_checkpoint *c, size_t index) {
  return index < c->tensor_count ? &c->tensors[index] : &c->views[index - c->tensor_count];
}

static inline size_t nb_checkpoint_index(const nb_checkpoint *c, const nb_tensor *t) {
  return t->whole ? c->tensor_count + (size_t)(t - c->views) : (size_t)(t - c->tensors);
}

/* The tensor of that name in the file. */
const nb_tensor *nb_checkpoint_find(const nb_checkpoint *checkpoint, const char *name);

/* The main tensor of the weight of that name, whatever its layout calls it; NULL if there is none. */
const nb_tensor *nb_checkpoint_find_weight(const nb_checkpoint *checkpoint, const char *name);

/* The tensor that is to this checkpoint what `id`, of a tensor called `name`, says: of the same name, or with the same
 * place in the family's rules. NULL if there is none. NIBBLE_SYSTEM without memory. */
nibble_status nb_checkpoint_counterpart(const nb_checkpoint *checkpoint, const char *name, const nb_identity *id,
                                        const nb_tensor **out, nibble_error *err);

/* The first promised tensor of that role, or NULL. */
const nb_slot *nb_checkpoint_slot(const nb_checkpoint *checkpoint, nb_role role);

/* The name of the weight that a tensor is the main one of: its own, but in layouts that rename it. */
const char *nb_tensor_weight_name(const nb_tensor *tensor);

/* The tensor as it lies in the file, where opening has turned it. */
nb_tensor nb_tensor_as_stored(const nb_tensor *tensor);

/* NIBBLE_BAD_INPUT if there is a `stray`: whoever reads GGUF files refuses a tensor too many, rather than leave it out.
 */
nibble_status nb_checkpoint_no_stray(const nb_checkpoint *checkpoint, nibble_error *err);

/* NIBBLE_BAD_INPUT names the first tensor that the config promises and the checkpoint lacks, or that is a stray. For
 * whoever needs the whole model; inspect can do without. Passes a family without rules. */
nibble_status nb_checkpoint_complete(const nb_checkpoint *checkpoint, nibble_error *err);

/* "3, 4": the extents of a shape, for messages; cut to `room` bytes. */
void nb_shape_print(char *out, size_t room, const int64_t *shape, int ndim);

/* Tells what is odd about the checkpoint, a warning each. */
void nb_checkpoint_warn(const nb_checkpoint *checkpoint, const nibble_progress *progress);

/* The stored bytes in the mapped file, if they are exactly the tensor, contiguous and in order (no blocks, no
 * permuted rows, no strides); else NULL. The address has no alignment to count on. */
const void *nb_tensor_view(const nb_checkpoint *checkpoint, const nb_tensor *tensor);

/* What its elements are stored as, by name. */
const char *nb_tensor_type_name(const nb_tensor *tensor);

/* The stored bytes as they lie. */
const void *nb_tensor_raw(const nb_checkpoint *checkpoint, const nb_tensor *tensor);

/* Elements [first, first + count) of a flattened tensor. */
typedef struct nb_span {
  int64_t first, count;
} nb_span;

/* Reads them as `dtype` (a float dtype, rounding once; or the stored dtype itself, copied). Any thread. */
nibble_status nb_tensor_read(const nb_checkpoint *checkpoint, const nb_tensor *tensor, nb_span span, nb_dtype dtype,
                             void *out, nibble_error *err);

/* Gives the pages of elements [first, first + count) back, a few neighbours' included: they are read again if touched
 * again. Any thread. */
void nb_tensor_release(const nb_checkpoint *checkpoint, const nb_tensor *tensor, int64_t first, int64_t count);

#endif
