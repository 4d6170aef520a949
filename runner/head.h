/* The output embedding in eight bits: NIBBLE_HEAD_INT8. It is read whole for every token, and quantizers leave it in 16
 * bits: of a small model it is half of what decoding reads. */
#ifndef NB_RUNNER_HEAD_H
#define NB_RUNNER_HEAD_H

#include "runner/model.h"

/* Rounds the output embedding to int8, a scale a row, in memory of its own: one that is the input embedding, too, stays
 * as it is there. Nothing happens to one that is packed already, nor where there is none. NIBBLE_BAD_INPUT names a
 * weight that is not finite. To be called before programs are resolved. */
nibble_status nb_head_to_int8(nb_model *model, nibble_error *err);

#endif
