#include "quant/rtn.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/parallel.h"
#include "kernels/cpu/errors.h"
#include "quant/grid.h"

enum {
  ROW_BAND = 4 * NB_SEARCH_ROWS,
  RUN = 4096, /* weights whose errors are summed in float */
};

static int64_t size_of_group(const nb_grid *grid, int64_t cols) {
  return grid->group_size > 0 ? nb_min_i64(grid->group_size, cols) : cols;
}

int64_t nb_rtn_scratch(const nb_grid *grid, int64_t cols) { return size_of_group(grid, cols) * NB_SEARCH_ROWS; }

/* The grids of `count` rows' groups of n weights, w being the first row's. Only a search is worth turning them for. */
static void fit(const nb_grid *grid, const nb_rtn_rows *rows, const float *w, int64_t n, int64_t count, float *scratch,
                nb_group_grid *out) {
  for (int64_t r = 0; !grid->mse && r < count; r++) out[r] = nb_group_grid_fit(grid, w + r * rows->cols, n, NULL);
  if (!grid->mse) return;
  memset(scratch, 0, (size_t)(n * NB_SEARCH_ROWS) * sizeof *scratch);
  for (int64_t r = 0; r < count; r++) {
    for (int64_t k = 0; k < n; k++) scratch[k * NB_SEARCH_ROWS + r] = w[r * rows->cols + k];
  }
  nb_group_grids_fit(grid, scratch, n, NULL, count, out);
}

/* n weights of one group, from `at` on in the rows. */
static void round_group(nb_rtn_rows *rows, const nb_group_grid *grid, int64_t at, int64_t n) {
  const nb_grid_line rounding = {.scale = grid->scale, .zero = grid->zero, .max_code = grid->max_code};
  for (int64_t i = 0; i < n; i += RUN) {
    nb_unit_sums sums;
    nb_cpu_errors_now()->round(rows->w + at + i, nb_min_i64(RUN, n - i), &rounding, rows->codes + at + i, &sums);
    rows->error += (double)sums.error;
    rows->squares += (double)sums.squares;
  }
  rows->mended += grid->was_mended;
}

void nb_rtn_round(const nb_grid *grid, nb_rtn_rows *rows, float *scratch) {
  int64_t size = size_of_group(grid, rows->cols), together = grid->mse ? NB_SEARCH_ROWS : 1;
  rows->error = rows->squares = 0;
  rows->mended = 0;
  for (int64_t first = 0; first < rows->rows; first += together) {
    int64_t count = nb_min_i64(together, rows->rows - first);
    for (int64_t c = 0, to = first; c < rows->cols; c += size, to += rows->stride) {
      nb_group_grid grids[NB_SEARCH_ROWS];
      int64_t n = nb_min_i64(size, rows->cols - c), at = first * rows->cols + c;
      fit(grid, rows, rows->w + at, n, count, scratch, grids);
      for (int64_t r = 0; r < count; r++) {
        rows->scales[to + r] = grids[r].scale_bits;
        rows->zeros[to + r] = grids[r].zero;
        round_group(rows, &grids[r], at + r * rows->cols, n);
      }
    }
  }
}

typedef struct solve_job {
  const nb_dense_layer *layer;
  const nb_grid *grid;
  nb_rounded *out;
  float *scratch; /* scratch_floats for each thread */
  int64_t scratch_floats;
  nb_rtn_rows *bands; /* what became of each */
} solve_job;

static void solve_band(void *ctx, int64_t begin, int64_t end, int thread) {
  const solve_job *job = ctx;
  const nb_rounded *out = job->out;
  nb_rtn_rows *rows = &job->bands[begin / ROW_BAND];
  *rows = (nb_rtn_rows){.w = job->layer->w + begin * out->cols,
                        .rows = end - begin,
                        .cols = out->cols,
                        .codes = out->codes + begin * out->cols,
                        .scales = out->scales + begin,
                        .zeros = out->zeros + begin,
                        .stride = out->rows};
  nb_rtn_round(job->grid, rows, job->scratch + thread * job->scratch_floats);
}

nibble_status nb_rtn_solve(const nb_dense_layer *layer, const nb_grid *grid, nb_rounded *out, nibble_error *err) {
  int64_t size = size_of_group(grid, layer->cols), bands = nb_ceil_div(layer->rows, ROW_BAND);
  nibble_status status = nb_rounded_create(out, layer->rows, layer->cols, nb_ceil_div(layer->cols, size), err);
  if (status != NIBBLE_OK) return status;
  solve_job job = {.layer = layer, .grid = grid, .out = out, .scratch_floats = nb_rtn_scratch(grid, layer->cols)};
  uint64_t floats = (uint64_t)nb_threads() * (uint64_t)job.scratch_floats;
  job.scratch = nb_alloc_aligned(floats, sizeof(float));
  job.bands = nb_alloc((uint64_t)bands, sizeof *job.bands);
  if (job.scratch && job.bands) {
    out->scale_dtype = grid->bf16_scales ? NB_BF16 : NB_F16;
    for (int64_t c = 0; c < layer->cols; c++) out->g_idx[c] = (int32_t)(c / size);
    nb_parallel(layer->rows, ROW_BAND, solve_band, &job);
    for (int64_t b = 0; b < bands; b++) {
      out->weight_error += job.bands[b].error;
      out->weight_squares += job.bands[b].squares;
      out->mended += job.bands[b].mended;
    }
  } else {
    status = nb_fail_memory(err, floats * sizeof(float));
    nb_rounded_free(out);
  }
  free(job.scratch);
  free(job.bands);
  return status;
}
