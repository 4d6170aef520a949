/* How a packed matrix lies in a checkpoint: which tensors and which JSON it becomes, and back. One row a layout in
 * layouts.c; bitsandbytes' is the first. Reading works on any checkpoint: a weight that is not packed comes back plain.
 * docs/formats.md describes every byte. */
#ifndef NB_CONVERT_LAYOUTS_H
#define NB_CONVERT_LAYOUTS_H

#include "convert/checkpoint.h"
#include "kernels/formats.h"

/* One logical weight matrix of a checkpoint. The descriptor's buffers point into the mapped file, or into `owned` where
 * the file's bytes are misaligned or in another order. */
typedef struct nb_weight {
  nb_packed packed;
  nb_dtype source_dtype; /* what a packed weight was before, from its quant state; F16 for int8 */
  void *owned[4];        /* freed by nb_weight_free */
} nb_weight;

/* Loads the 2-D weight `name` ("model.layers.0.mlp.up_proj.weight"), whose logical shape must be [rows, cols].
 * Everything that belongs to a packed weight is checked: presence, dtypes, shapes, the quant state's JSON, finite
 * scales. NIBBLE_BAD_INPUT names the tensor. Free with nb_weight_free. */
nibble_status nb_weight_load(const nb_checkpoint *checkpoint, const char *name, int64_t rows, int64_t cols,
                             nb_weight *out, nibble_error *err);
void nb_weight_free(nb_weight *weight);

/* True if the tensor is an auxiliary part of a packed weight (absmax, quant_map, SCB, ...), not a weight itself. */
bool nb_layout_is_part(const nb_checkpoint *checkpoint, const nb_tensor *tensor);

/* The logical format and shape of the weight that `tensor` is the main tensor of, for inspect and memory. */
nibble_status nb_layout_describe(const nb_checkpoint *checkpoint, const nb_tensor *tensor, nb_packed *out,
                                 nibble_error *err);

#endif
