/* Rounding to the nearest, without calibration: each group's grid from its own weights (grid.h), each weight to the
 * nearest point of it. The baseline that gptq is measured against, and what it falls back to. */
#ifndef NB_QUANT_RTN_H
#define NB_QUANT_RTN_H

#include "quant/gptq.h"

/* Rows of one layer, and what becomes of them. */
typedef struct nb_rtn_rows {
  const float *w; /* [rows, cols] */
  int64_t rows, cols;
  uint8_t *codes;        /* [rows, cols] */
  uint16_t *scales;      /* [groups, stride], of which the first `rows` of each group */
  uint8_t *zeros;        /* the same */
  int64_t stride;        /* rows of the whole layer */
  double error, squares; /* sums over the weights: of (W - Q)^2 and of W^2; not finite where a weight is not */
  int64_t mended;        /* groups whose scale had to be moved into its dtype's range */
} nb_rtn_rows;

/* Floats of scratch memory that a call of nb_rtn_round takes. */
int64_t nb_rtn_scratch(const nb_grid *grid, int64_t cols);

/* Rounds rows->w; what it makes of a weight does not depend on the rows beside it. */
void nb_rtn_round(const nb_grid *grid, nb_rtn_rows *rows, float *scratch);

/* A whole layer, on all threads. Free with nb_rounded_free. */
nibble_status nb_rtn_solve(const nb_dense_layer *layer, const nb_grid *grid, nb_rounded *out, nibble_error *err);

#endif
