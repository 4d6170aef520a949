/* Whether a checkpoint's tensors are those that its config promises: a model of another kind, or of another size, is
 * found when it is opened and not in the middle of the work.
 * The checks fail with NIBBLE_BAD_INPUT; a model without a row in model/archs.c passes both. */
#ifndef NB_CONVERT_CONFORM_H
#define NB_CONVERT_CONFORM_H

#include "convert/checkpoint.h"

/* The tensor that the config calls `name`, or NULL. Checkpoints of a whole model and of its base differ by a prefix,
 * and transformers loads each as the other. config->arch must not be NULL; fails without memory only. */
nibble_status nb_conform_find(const nb_checkpoint *checkpoint, const char *name, const nb_tensor **out,
                              nibble_error *err);

/* Names the first tensor that is of another shape than the config makes it. Weights in a packed layout are checked
 * when they are loaded (layouts.h). nb_checkpoint_open calls this. */
nibble_status nb_conform_shapes(const nb_checkpoint *checkpoint, nibble_error *err);

/* Names the first tensor that the config promises and the checkpoint lacks. For whoever needs the whole model; inspect
 * can do without. */
nibble_status nb_conform_complete(const nb_checkpoint *checkpoint, nibble_error *err);

#endif
