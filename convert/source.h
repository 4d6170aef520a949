/* A logical tensor of a checkpoint as one run of plain values, whatever it is stored as: a packed weight comes out
 * dequantized, GGUF blocks too. What rewrites tensors (quantize, convert) reads them through this. */
#ifndef NB_CONVERT_SOURCE_H
#define NB_CONVERT_SOURCE_H

#include "convert/layouts.h"

typedef struct nb_source {
  const nb_checkpoint *checkpoint;
  const nb_tensor *tensor; /* the main one */
  const char *name;        /* of the weight, whatever its layout calls the tensor; the checkpoint's */
  bool is_packed;
  nb_weight weight; /* if is_packed */
  nb_dtype dtype; /* of the values that nb_source_read gives: the stored one; of a packed weight the one it had before,
of int8 weights and all of a .gguf the config's */
  int ndim;
  int64_t shape[NB_MAX_DIMS];
  int64_t count;
} nb_source;

/* Fills in everything but `weight`, from headers alone. The tensor must be no part of another's weight
 * (nb_tensor.is_part). Close with nb_source_close, on failure too. */
nibble_status nb_source_describe(const nb_checkpoint *checkpoint, const nb_tensor *tensor, nb_source *out,
                                 nibble_error *err);

/* Describes the tensor and makes it ready to be read. */
nibble_status nb_source_open(const nb_checkpoint *checkpoint, const nb_tensor *tensor, nb_source *out,
                             nibble_error *err);

/* Frees, and gives the pages of an opened packed weight back. */
void nb_source_close(nb_source *source);

/* All values in the mapped file, unaligned, if they lie there in order and as source->dtype; else NULL. */
const void *nb_source_view(const nb_source *source);

/* Values [first, first + count) as source->dtype. Any thread. */
nibble_status nb_source_read(const nb_source *source, int64_t first, int64_t count, void *out, nibble_error *err);

/* Gives the pages of values [first, first + count) back. */
void nb_source_release(const nb_source *source, int64_t first, int64_t count);

#endif
