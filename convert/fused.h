/* Tensors that hold several matrices: since version 5 transformers keeps the experts of a layer in one parameter, and
 * saves it so where it was loaded so, or was asked to. A config says what such a tensor is made of
 * (nb_identity_pieces); here each matrix in it becomes a view, a tensor with a name and an identity of its own, which
 * fills the slot of the expert. Views share the bytes of their whole: nothing is copied. */
#ifndef NB_CONVERT_FUSED_H
#define NB_CONVERT_FUSED_H

#include "convert/checkpoint.h"

/* Fills in checkpoint->views, and `views` of the tensors that they are parts of. A tensor whose shape or dtype rules
 * that out gets a fault instead, and becomes checkpoint->misfit. After roles are decided, before slots are filled. */
nibble_status nb_fused_find(nb_checkpoint *checkpoint, nibble_error *err);
void nb_fused_free(nb_checkpoint *checkpoint);

#endif
