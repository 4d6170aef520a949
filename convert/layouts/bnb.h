/* The bitsandbytes layout, version 0.50: 4-bit weights with their quant state, and int8 weights with a scale a row.
 * For layouts.c only; others go through layouts.h. docs/formats.md, "bitsandbytes", has the bytes. */
#ifndef NB_CONVERT_LAYOUTS_BNB_H
#define NB_CONVERT_LAYOUTS_BNB_H

#include "convert/layouts.h"

extern const nb_layout nb_layout_bnb4, nb_layout_bnb8;

/* Parses the n bytes of a quant state's tensor into format, shape, block sizes and offset of *out. The text is
 * hostile. `where` names file and tensor. */
nibble_status nb_bnb_state_parse(const char *where, const char *text, size_t n, nb_format expected, nb_packed *out,
                                 nb_dtype *source_dtype, nibble_error *err);

#endif
