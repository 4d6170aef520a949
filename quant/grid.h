/* The integer grid of one group of weights: value = scale * (code - zero). The scale is a float16 or bfloat16 from the
 * start, as it will be stored, so that the solver sees the error that the artifact will have. */
#ifndef NB_QUANT_GRID_H
#define NB_QUANT_GRID_H

#include <stdbool.h>
#include <stdint.h>

#include "quant/gptq.h"

typedef struct nb_group_grid {
  float scale;         /* positive, finite, exactly what is stored: */
  uint16_t scale_bits; /* a float16 or bfloat16 */
  uint8_t zero, max_code;
  bool was_mended; /* the scale that fits best is out of its dtype's range */
} nb_group_grid;

/* The grid for n weights: from their least and largest (0 always among them), or with grid->mse the shrunk range that
 * has the least squared error; `importance` [n] weighs the errors, NULL: all alike. */
nb_group_grid nb_group_grid_fit(const nb_grid *grid, const float *w, int64_t n, const float *importance);

/* The same of `count` groups at once, at most NB_SEARCH_ROWS (kernels/cpu/errors.h), which is much faster: their
 * weights lie turned, w [n, NB_SEARCH_ROWS]; what lies in the lanes of groups that are not there has no effect. */
void nb_group_grids_fit(const nb_grid *grid, const float *w, int64_t n, const float *importance, int64_t count,
                        nb_group_grid *out);

/* The squared error of rounding n weights to the grid, each weighed by importance [n]; NULL: all alike. */
float nb_group_grid_error(const nb_group_grid *g, const float *w, int64_t n, const float *importance);

/* True if a scale stored as these bits can be one of the grid's: a number in the range that its dtype is trusted with.
 */
bool nb_grid_has_scale(const nb_grid *grid, uint16_t bits);

/* Rounds half to even, as torch does; |x| < 2^22. */
static inline float nb_round_even(float x) {
  const float big = 12582912.0f; /* 1.5 * 2^23: its last bit is worth 1 */
  return (x + big) - big;
}

/* The code of w, a whole number. */
static inline float nb_grid_code(float w, float scale, float zero, float max_code) {
  float steps = w / scale;
  steps = steps < -1024 ? -1024 : steps;
  steps = steps > 1024 ? 1024 : steps;
  float code = nb_round_even(steps) + zero;
  code = code < 0 ? 0 : code;
  return code > max_code ? max_code : code;
}

static inline uint8_t nb_group_grid_round(const nb_group_grid *g, float w) {
  return (uint8_t)nb_grid_code(w, g->scale, g->zero, g->max_code);
}

static inline float nb_group_grid_value(const nb_group_grid *g, uint8_t code) {
  return g->scale * (float)((int)code - (int)g->zero);
}

#endif
