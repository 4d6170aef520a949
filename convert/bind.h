/* The second half of opening a checkpoint: once its files and its config are read, every tensor is told what it is (a
 * layout's part, a packed weight, a role of the family) and every tensor that the config promises is found. All of it
 * is stored; nothing after this compares names or looks for parts. */
#ifndef NB_CONVERT_BIND_H
#define NB_CONVERT_BIND_H

#include "convert/checkpoint.h"

/* Fills in what checkpoint.h says that binding decides. Fails for want of memory only: what is wrong with a tensor is
 * stored. Free with nb_bind_free, on failure too. */
nibble_status nb_bind(nb_checkpoint *checkpoint, nibble_error *err);
void nb_bind_free(nb_checkpoint *checkpoint);

/* NIBBLE_BAD_INPUT names the first packed weight that cannot be read, or the first tensor that is of another shape than
 * the config makes it, or differs from one that stands for the same. */
nibble_status nb_bind_check(const nb_checkpoint *checkpoint, nibble_error *err);

#endif
