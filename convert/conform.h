/* Whether a checkpoint's tensors are those that its config promises: a model of another kind, or of another size, is
 * found when it is opened and not in the middle of the work. */
#ifndef NB_CONVERT_CONFORM_H
#define NB_CONVERT_CONFORM_H

#include "convert/checkpoint.h"

/* NIBBLE_BAD_INPUT names the first tensor that is missing or of another shape. Weights in a packed layout are checked
 * when they are loaded (layouts.h). Models without a row in model/archs.c are not checked. */
nibble_status nb_conform(const nb_checkpoint *checkpoint, nibble_error *err);

#endif
