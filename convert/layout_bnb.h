/* The bitsandbytes layout, version 0.50: 4-bit weights with their quant state, and int8 weights with a scale a row.
 * For layouts.c only; others go through layouts.h. docs/formats.md, "bitsandbytes", has the bytes. */
#ifndef NB_CONVERT_LAYOUT_BNB_H
#define NB_CONVERT_LAYOUT_BNB_H

#include "convert/layouts.h"

bool nb_bnb4_owns(const nb_checkpoint *checkpoint, const nb_tensor *main);
bool nb_bnb4_is_part(const nb_checkpoint *checkpoint, const nb_tensor *tensor);
nibble_status nb_bnb4_describe(const nb_checkpoint *checkpoint, const nb_tensor *main, nb_packed *out,
                               nb_dtype *source_dtype, nibble_error *err);
nibble_status nb_bnb4_load(const nb_checkpoint *checkpoint, const nb_tensor *main, nb_weight *out, nibble_error *err);

bool nb_bnb8_owns(const nb_checkpoint *checkpoint, const nb_tensor *main);
bool nb_bnb8_is_part(const nb_checkpoint *checkpoint, const nb_tensor *tensor);
nibble_status nb_bnb8_describe(const nb_checkpoint *checkpoint, const nb_tensor *main, nb_packed *out,
                               nb_dtype *source_dtype, nibble_error *err);
nibble_status nb_bnb8_load(const nb_checkpoint *checkpoint, const nb_tensor *main, nb_weight *out, nibble_error *err);

/* Parses the n bytes of a quant state's tensor into format, shape, block sizes and offset of *out. The text is
 * hostile. `where` names file and tensor. */
nibble_status nb_bnb_state_parse(const char *where, const char *text, size_t n, nb_format expected, nb_packed *out,
                                 nb_dtype *source_dtype, nibble_error *err);

/* The tensors that weight `name` becomes; see nb_layout_parts. */
bool nb_bnb4_add_parts(const nb_packed *packed, nb_dtype source_dtype, const char *name, nb_part *out, int *count);
bool nb_bnb8_add_parts(const nb_packed *packed, const char *name, nb_part *out, int *count);

/* Shared by the layouts (in layouts.c). */

enum { NB_MAX_PART_NAME = 512 }; /* bytes, with the NUL */

/* The tensor called main's name without its last `cut` characters + suffix; NULL if there is none. */
const nb_tensor *nb_part_find(const nb_checkpoint *checkpoint, const nb_tensor *main, size_t cut, const char *suffix);

/* NIBBLE_BAD_INPUT: main is packed, but its part is missing. */
nibble_status nb_part_missing(const nb_checkpoint *checkpoint, const nb_tensor *main, const char *suffix,
                              nibble_error *err);

/* Appends a 1-D part called the first `keep` characters of name + suffix; false without memory. */
bool nb_part_add(nb_part *parts, int *count, nb_part_role role, const char *name, size_t keep, const char *suffix,
                 nb_dtype dtype, int64_t rows);

/* NIBBLE_BAD_INPUT: "FILE: tensor 'NAME' <what>". */
nibble_status nb_tensor_fail(const nb_checkpoint *checkpoint, const nb_tensor *tensor, const char *what,
                             nibble_error *err);

/* The tensor's elements, aligned to their size: in the mapped file if they lie so there, else a copy. */
nibble_status nb_weight_view(const nb_checkpoint *checkpoint, const nb_tensor *tensor, nb_weight *weight,
                             const void **out, nibble_error *err);

#endif
