/* The bitsandbytes layout, version 0.50: 4-bit weights with their quant state, and int8 weights with a scale a row.
 * For layouts.c and for verify, which judges what it cannot load; others go through layouts.h. docs/formats.md,
 * "bitsandbytes", has the bytes. */
#ifndef NB_CONVERT_LAYOUTS_BNB_H
#define NB_CONVERT_LAYOUTS_BNB_H

#include "convert/layouts.h"

extern const nb_layout nb_layout_bnb4, nb_layout_bnb8;

/* Parses the bytes of a quant state's tensor into format, shape, block sizes and offset of *out. The text is
 * hostile. `where` names file and tensor. */
nibble_status nb_bnb_state_parse(const char *where, nb_str text, nb_format expected, nb_packed *out,
                                 nb_dtype *source_dtype, nibble_error *err);

/* True if quantization_config leaves the module of weight `name` as it is (llm_int8_skip_modules, or the output
 * embedding where there is no such list), by transformers' rule (quantizers_utils.py, should_convert_module), regular
 * expressions apart. */
bool nb_bnb_skips_module(const nb_config *config, const char *name, bool is_head);

/* True for the name of a tensor that only lies beside a packed weight, whichever that is. */
bool nb_bnb_is_part_name(const char *name);

/* The tensor "NAME.quant_state.*", of whatever format; NULL if there is none. */
const nb_tensor *nb_bnb_any_state(const nb_checkpoint *checkpoint, const char *name);

#endif
