/* Rounds the weights of one linear layer to 2, 3, 4 or 8-bit integers with a scale and a zero point for every group of
 * columns: by GPTQ (Frantar et al. 2022, arXiv:2210.17323), which makes up for the error of each column in those not
 * yet rounded, or to the nearest, which is the baseline. Weights and codes are [out_features, in_features], row-major;
 * rows are solved independently, in bands, so results do not depend on the number of threads. */
#ifndef NB_QUANT_GPTQ_H
#define NB_QUANT_GPTQ_H

#include "base/dtype.h"
#include "quant/hessian.h"

typedef struct nb_grid {
  int bits;           /* 2, 3, 4, 8 */
  int64_t group_size; /* 0 or less: one group a row */
  bool sym;           /* the zero point stands in the middle */
  bool mse;           /* scales are searched for the least error instead of taken from the largest weights */
  bool bf16_scales;   /* else float16 */
} nb_grid;

/* What a layer became. scales and zeros are [groups, rows], as the GPTQ layout has them. */
typedef struct nb_rounded {
  int64_t rows, cols, groups;
  uint8_t *codes;   /* [rows, cols] */
  uint16_t *scales; /* each positive and finite */
  nb_dtype scale_dtype;
  uint8_t *zeros;
  int32_t *g_idx;                      /* [cols] */
  int64_t mended;                      /* groups whose scale had to be moved into its dtype's range */
  double error;                        /* sum over calibration tokens of |x (W - Q)^T|^2 over that of |x W^T|^2 */
  double rtn_error;                    /* the same had the weights been rounded to the nearest on the min/max grid */
  double weight_error, weight_squares; /* sums over the weights: of (W - Q)^2 and of W^2 */
  double damp;                         /* of the factor; 0 without */
  bool is_fallback;                    /* rounded to the nearest although calibrated: the Hessian was indefinite */
} nb_rounded;

/* A layer's weights before. */
typedef struct nb_dense_layer {
  const float *w; /* [rows, cols] */
  int64_t rows, cols;
} nb_dense_layer;

/* Solves one layer, whose cols are hessian->n. `factor` as nb_hessian_factorize made it of the hessian with
 * the grid's group_size; where it is indefinite the weights are rounded to the nearest. Free with nb_rounded_free. */
nibble_status nb_gptq_solve(const nb_dense_layer *layer, const nb_grid *grid, const nb_hessian *hessian,
                            const nb_factor *factor, nb_rounded *out, nibble_error *err);

/* The weights of rows [begin, end) as every reader of the artifact will have them: out [end - begin, cols]. */
void nb_rounded_values(const nb_rounded *rounded, int64_t begin, int64_t end, float *out);

/* A layer whose arrays are yet to be filled. Free with nb_rounded_free. */
nibble_status nb_rounded_create(nb_rounded *out, int64_t rows, int64_t cols, int64_t groups, nibble_error *err);
void nb_rounded_free(nb_rounded *rounded);

#endif
