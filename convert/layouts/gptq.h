/* GPTQ's layout as AutoGPTQ and GPTQModel write it: instead of NAME.weight the tensors NAME.qweight, NAME.qzeros,
 * NAME.scales and NAME.g_idx. Bits and groups are told by their shapes, so that models packed with several settings
 * can be read; version 1 or 2 of the zero points by quantization_config's checkpoint_format.
 * For layouts.c only; others go through layouts.h. docs/formats.md, "GPTQ", has the bytes. */
#ifndef NB_CONVERT_LAYOUTS_GPTQ_H
#define NB_CONVERT_LAYOUTS_GPTQ_H

#include "convert/layouts.h"

extern const nb_layout nb_layout_gptq;

/* Its variants: zero points are stored less one, or as they are. */
enum { NB_GPTQ_V1, NB_GPTQ_V2 };

#endif
