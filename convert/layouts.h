/* How a packed matrix lies in a checkpoint: which tensors and which JSON it becomes, and back. One row a layout in
 * layouts.c; bitsandbytes' is the first. Reading works on any checkpoint: a weight that is not packed comes back plain.
 * Writing goes in two steps, because a file's header must be sized before its data is known: nb_layout_parts says
 * which tensors there will be, and the quantizer fills them.
 * docs/formats.md describes every byte. */
#ifndef NB_CONVERT_LAYOUTS_H
#define NB_CONVERT_LAYOUTS_H

#include "base/buf.h"
#include "convert/checkpoint.h"
#include "kernels/formats.h"

/* One logical weight matrix of a checkpoint. The descriptor's buffers point into the mapped file, or into `owned` where
 * the file's bytes are misaligned or in another order. */
typedef struct nb_weight {
  nb_packed packed;
  nb_dtype source_dtype; /* what a packed weight was before, from its quant state; F16 for int8 */
  void *owned[4];        /* freed by nb_weight_free */
} nb_weight;

/* The tensor that holds the weight `name`, under that name or as its layout calls it ("NAME.qweight" for
 * "NAME.weight"); NULL if there is none. */
const nb_tensor *nb_layout_find(const nb_checkpoint *checkpoint, const char *name);

/* The other way round: the name of the weight whose main tensor this is, malloc'd; NULL without memory. */
char *nb_layout_weight_name(const nb_checkpoint *checkpoint, const nb_tensor *tensor);

/* Loads the 2-D weight `name` ("model.layers.0.mlp.up_proj.weight"), whose logical shape must be [rows, cols].
 * Everything that belongs to a packed weight is checked: presence, dtypes, shapes, the quant state's JSON, finite
 * scales. NIBBLE_BAD_INPUT names the tensor. Free with nb_weight_free. */
nibble_status nb_weight_load(const nb_checkpoint *checkpoint, const char *name, int64_t rows, int64_t cols,
                             nb_weight *out, nibble_error *err);
void nb_weight_free(nb_weight *weight);

/* Memory for one of the weight's buffers, which nb_weight_free frees. */
nibble_status nb_weight_own(nb_weight *weight, uint64_t bytes, void **out, nibble_error *err);

/* True if the tensor is an auxiliary part of a packed weight (absmax, quant_map, SCB, ...), not a weight itself. */
bool nb_layout_is_part(const nb_checkpoint *checkpoint, const nb_tensor *tensor);

/* True if the tensor is the main tensor of a packed weight. */
bool nb_layout_is_packed(const nb_checkpoint *checkpoint, const nb_tensor *tensor);

/* The logical format and shape of the weight that `tensor` is the main tensor of, for inspect and memory: a matrix of
 * one row where the tensor has no rows. The buffers stay NULL. NIBBLE_BAD_INPUT if no format has the tensor's dtype
 * (int64 position ids, say) or its quant state is damaged. source_dtype: as in nb_weight; NULL where it is of no
 * interest. */
nibble_status nb_layout_describe(const nb_checkpoint *checkpoint, const nb_tensor *tensor, nb_packed *out,
                                 nb_dtype *source_dtype, nibble_error *err);

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

enum { NB_MAX_PARTS = 6 };

typedef struct nb_part {
  nb_part_role role;
  char *name; /* malloc'd */
  nb_dtype dtype;
  int ndim;
  int64_t shape[2];
} nb_part;

/* The tensors that weight `name` becomes in its format's layout. `packed` says format, shape, block_size and, if there
 * is double quantization, nested_block_size; for GPTQ groups and scale_dtype; its buffers are not looked at.
 * source_dtype is a word of a quant state. Returns how many, or -1 without memory. Free with nb_layout_parts_free. */
int nb_layout_parts(const nb_packed *packed, nb_dtype source_dtype, const char *name, nb_part out[NB_MAX_PARTS]);
void nb_layout_parts_free(nb_part *parts, int count);

/* The quant state's JSON, byte for byte as Python's json.dumps writes bitsandbytes' dictionary. source_dtype: F32, F16
 * or BF16. */
void nb_layout_state_json(const nb_packed *packed, nb_dtype source_dtype, nb_buf *out);

#endif
