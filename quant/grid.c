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

/* Makes the range that a grid spans of a group's least and largest weight. */
static void make_range(const nb_grid *grid, float *low, float *high) {
  if (grid->sym) {
    *high = *high > -*low ? *high : -*low;
    *low = -*high;
  }
  if (*low == 0 && *high == 0) {
    *low = -1;
    *high = 1;
  }
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

bool nb_grid_has_scale(const nb_grid *grid, uint16_t bits) {
  float scale = grid->bf16_scales ? nb_bf16_to_f32(bits) : nb_f16_to_f32(bits);
  return scale >= scale_ranges[grid->bf16_scales].least && scale <= scale_ranges[grid->bf16_scales].most;
}

float nb_group_grid_error(const nb_group_grid *g, const float *w, int64_t n, const float *importance) {
  float zero = g->zero;
  return nb_cpu_errors_now()->grid(w, n, g->scale, -zero, (float)g->max_code - zero, importance);
}

nb_group_grid nb_group_grid_fit(const nb_grid *grid, const float *w, int64_t n, const float *importance) {
  float low, high, least_error = INFINITY;
  nb_cpu_errors_now()->range(w, n, &low, &high);
  make_range(grid, &low, &high);
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

void nb_group_grids_fit(const nb_grid *grid, const float *w, int64_t n, const float *importance, int64_t count,
                        nb_group_grid *out) {
  float low[NB_SEARCH_ROWS] = {0}, high[NB_SEARCH_ROWS] = {0}, part[NB_SEARCH_ROWS];
  for (int64_t i = 0; i < n; i++, w += NB_SEARCH_ROWS) {
    for (int64_t r = 0; r < NB_SEARCH_ROWS; r++) {
      low[r] = w[r] < low[r] ? w[r] : low[r];
      high[r] = w[r] > high[r] ? w[r] : high[r];
    }
  }
  w -= n * NB_SEARCH_ROWS;
  for (int64_t r = 0; r < NB_SEARCH_ROWS; r++) {
    make_range(grid, &low[r], &high[r]);
    part[r] = 1;
  }
  if (grid->mse) {
    nb_grid_search search = {.steps = SHRINK_STEPS,
                             .tried = SHRINK_TRIED,
                             .max_code = (float)((1 << grid->bits) - 1),
                             .middle = grid->sym ? (float)(1 << (grid->bits - 1)) : -1,
                             .least_scale = scale_ranges[grid->bf16_scales].least,
                             .most_scale = scale_ranges[grid->bf16_scales].most,
                             .dropped_bits = grid->bf16_scales ? 16 : 13};
    nb_search_groups groups = {.w = w, .n = n, .low = low, .high = high, .importance = importance};
    nb_cpu_errors_now()->search(&groups, &search, part);
  }
  for (int64_t r = 0; r < count; r++) out[r] = span(grid, low[r] * part[r], high[r] * part[r]);
}
