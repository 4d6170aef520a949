#include "quant/grid.h"

#include <math.h>

#include "base/dtype.h"
#include "kernels/cpu/errors.h"

/* Of the paper's code (IST-DASLab/gptq, quant.py): shrink the range by hundredths, down to a fifth. */
enum { SHRINK_STEPS = 100, SHRINK_TRIED = 80 };

/* The scales that each dtype is trusted with: float16's normal numbers; of bfloat16's what leaves room for products. */
static const struct {
  float least, most;
} scale_ranges[] = {[false] = {0x1p-14f, 65504.0f}, [true] = {0x1p-60f, 0x1p60f}};

static void find_range(const nb_grid *grid, const float *w, int64_t n, float *low, float *high) {
  float lo, hi;
  nb_cpu_errors_now()->range(w, n, &lo, &hi);
  if (grid->sym) {
    hi = hi > -lo ? hi : -lo;
    lo = -hi;
  }
  if (lo == 0 && hi == 0) {
    lo = -1;
    hi = 1;
  }
  *low = lo;
  *high = hi;
}

/* The grid that spans [low, high]. */
static nb_group_grid span(const nb_grid *grid, float low, float high) {
  nb_group_grid g = {.max_code = (uint8_t)((1 << grid->bits) - 1)};
  float scale = (high - low) / (float)g.max_code;
  float least = scale_ranges[grid->bf16_scales].least, most = scale_ranges[grid->bf16_scales].most;
  g.was_mended = !(scale >= least && scale <= most);
  scale = scale >= least ? scale : least;
  scale = scale <= most ? scale : most;
  g.scale_bits = grid->bf16_scales ? nb_f32_to_bf16(scale) : nb_f32_to_f16(scale);
  g.scale = grid->bf16_scales ? nb_bf16_to_f32(g.scale_bits) : nb_f16_to_f32(g.scale_bits);
  if (grid->sym) {
    g.zero = (uint8_t)(1 << (grid->bits - 1));
  } else {
    float zero = nb_round_even(fminf(-low / g.scale, 1024));
    g.zero = (uint8_t)(zero > (float)g.max_code ? (float)g.max_code : zero);
  }
  return g;
}

float nb_group_grid_error(const nb_group_grid *g, const float *w, int64_t n, const float *importance) {
  float zero = g->zero;
  return nb_cpu_errors_now()->grid(w, n, g->scale, -zero, (float)g->max_code - zero, importance);
}

nb_group_grid nb_group_grid_fit(const nb_grid *grid, const float *w, int64_t n, const float *importance) {
  float low, high, least_error = INFINITY;
  find_range(grid, w, n, &low, &high);
  nb_group_grid best = span(grid, low, high);
  for (int i = 0; grid->mse && i < SHRINK_TRIED; i++) {
    float part = 1 - (float)i / SHRINK_STEPS;
    nb_group_grid g = span(grid, low * part, high * part);
    float error = nb_group_grid_error(&g, w, n, importance);
    if (error < least_error) {
      least_error = error;
      best = g;
    }
  }
  return best;
}
