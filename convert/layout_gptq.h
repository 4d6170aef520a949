/* GPTQ's layout as AutoGPTQ and GPTQModel write it: instead of NAME.weight the tensors NAME.qweight, NAME.qzeros,
 * NAME.scales and NAME.g_idx. Bits and groups are told by their shapes, so that models packed with several settings
 * can be read; version 1 or 2 of the zero points by quantization_config's checkpoint_format.
 * For layouts.c only; others go through layouts.h. docs/formats.md, "GPTQ", has the bytes. */
#ifndef NB_CONVERT_LAYOUT_GPTQ_H
#define NB_CONVERT_LAYOUT_GPTQ_H

#include "convert/layouts.h"

bool nb_gptq_owns(const nb_checkpoint *checkpoint, const nb_tensor *main);
bool nb_gptq_is_part(const nb_checkpoint *checkpoint, const nb_tensor *tensor);
nibble_status nb_gptq_describe(const nb_checkpoint *checkpoint, const nb_tensor *main, nb_packed *out,
                               nb_dtype *source_dtype, nibble_error *err);
nibble_status nb_gptq_load(const nb_checkpoint *checkpoint, const nb_tensor *main, nb_weight *out, nibble_error *err);

/* The tensors that weight `name` becomes; see nb_layout_parts. */
bool nb_gptq_add_parts(const nb_packed *packed, const char *name, nb_part *out, int *count);

#endif
