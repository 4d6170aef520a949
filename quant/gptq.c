#include "quant/gptq.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/dtype.h"
#include "base/parallel.h"
#include "kernels/cpu/errors.h"
#include "quant/blas.h"
#include "quant/grid.h"

enum {
  ROW_BAND = 32, /* rows solved together: enough to make the lazy updates matrix products */
  SUMS = 5,
  WEIGHED = 3,      /* the first of them */
  WEIGH_COLS = 256, /* columns of the Hessian that are multiplied at a time */
  BLOCK = 128,      /* columns whose updates to the rest are saved up (the paper's lazy batch) */
};

typedef struct solve_job {
  const float *w; /* [rows, cols] */
  const nb_grid *grid;
  const nb_hessian *hessian;
  const nb_factor *factor; /* NULL: round to the nearest */
  const float *importance; /* [cols] by place: how much an error in it costs; NULL: all alike */
  int64_t group_size;      /* resolved */
  nb_rounded *out;
  float *scratch; /* for each thread: scratch_floats */
  int64_t scratch_floats;
  double *sums;    /* [rows, SUMS]: output error, RTN's, the outputs themselves, weight error, weights */
  int64_t *mended; /* [rows] */
} solve_job;

static int32_t column_at(const solve_job *job, int64_t place) {
  return job->factor ? job->factor->column[place] : (int32_t)place;
}

static int32_t group_at(const solve_job *job, int64_t place) {
  return job->factor ? job->factor->group[place] : (int32_t)(place / job->group_size);
}

static bool begins_group(const solve_job *job, int64_t place) {
  return place == 0 || group_at(job, place) != group_at(job, place - 1);
}

/* A block of a band, turned so that a column of all its rows is adjacent. */
typedef struct turned {
  float w[BLOCK][ROW_BAND], errors[BLOCK][ROW_BAND];
  float scale[ROW_BAND], zero[ROW_BAND];
  float max_code;
} turned;

/* Rows [row, row + rows) at work. */
typedef struct band {
  const solve_job *job;
  int64_t row, rows;
  float *w;      /* [rows, cols] by place: what is left of them */
  float *errors; /* [rows, BLOCK] of the block that was rounded last, each over the factor's diagonal */
  float *group;  /* scratch: a group of NB_SEARCH_ROWS rows */
  turned t;
} band;

/* Fits the grid of the group that begins at place j to its weights as its block found them, without the updates since
 * then, as the paper's code and GPTQModel do; with them 3-bit models came out worse (docs/results.md). */
static void fit_group(band *b, int64_t j) {
  const solve_job *job = b->job;
  nb_rounded *out = job->out;
  turned *t = &b->t;
  const float *importance = job->importance ? job->importance + j : NULL;
  int64_t n = 1, at = group_at(job, j) * out->rows + b->row;
  while (j + n < out->cols && !begins_group(job, j + n)) n++;
  memset(b->group, 0, (size_t)(n * NB_SEARCH_ROWS) * sizeof *b->group);
  for (int64_t first = 0; first < b->rows; first += NB_SEARCH_ROWS) {
    int64_t count = nb_min_i64(NB_SEARCH_ROWS, b->rows - first);
    nb_group_grid grids[NB_SEARCH_ROWS];
    for (int64_t r = 0; r < count; r++) {
      for (int64_t k = 0; k < n; k++) b->group[k * NB_SEARCH_ROWS + r] = b->w[(first + r) * out->cols + j + k];
    }
    nb_group_grids_fit(job->grid, b->group, n, importance, count, grids);
    for (int64_t r = first; r < first + count; r++) {
      nb_group_grid g = grids[r - first];
      out->scales[at + r] = g.scale_bits;
      out->zeros[at + r] = g.zero;
      job->mended[b->row + r] += g.was_mended;
      t->scale[r] = g.scale;
      t->zero[r] = g.zero;
      t->max_code = g.max_code;
    }
  }
}

/* Column k of the block: its codes, and what rounding made of each weight. */
static void round_column(const turned *t, int64_t k, float *values, float *codes) {
  for (int64_t r = 0; r < ROW_BAND; r++) {
    codes[r] = nb_grid_code(t->w[k][r], t->scale[r], t->zero[r], t->max_code);
    values[r] = t->scale[r] * (codes[r] - t->zero[r]);
  }
}

/* Takes the errors of column k, each over the factor's diagonal, out of the columns after it up to `count`. */
static void spread_errors(turned *t, int64_t k, int64_t count, const float *values, const float *u) {
  float *error = t->errors[k];
  for (int64_t r = 0; r < ROW_BAND; r++) error[r] = (values[r] - t->w[k][r]) / u[0];
  for (int64_t i = k + 1; i < count; i++) {
    float *w = t->w[i], factor = u[i - k];
    for (int64_t r = 0; r < ROW_BAND; r++) w[r] += error[r] * factor;
  }
}

/* Places [begin, end) of all rows of a band: rounds one after the other and takes each error out of what is left of
 * the block. A group may go on from the block before. */
static void round_block(band *b, int64_t begin, int64_t end) {
  const solve_job *job = b->job;
  nb_rounded *out = job->out;
  turned *t = &b->t;
  float values[ROW_BAND], codes[ROW_BAND];
  for (int64_t r = 0; r < b->rows; r++) {
    for (int64_t k = begin; k < end; k++) t->w[k - begin][r] = b->w[r * out->cols + k];
  }
  for (int64_t j = begin; j < end; j++) {
    if (begins_group(job, j)) fit_group(b, j);
    round_column(t, j - begin, values, codes);
    uint8_t *column = out->codes + b->row * out->cols + column_at(job, j);
    for (int64_t r = 0; r < b->rows; r++) column[r * out->cols] = (uint8_t)codes[r];
    if (job->factor) spread_errors(t, j - begin, end - begin, values, job->factor->upper + j * out->cols + j);
  }
  for (int64_t r = 0; job->factor && r < b->rows; r++) {
    for (int64_t k = 0; k < end - begin; k++) b->errors[r * BLOCK + k] = t->errors[k][r];
  }
}

static void round_band(band *b) {
  const nb_factor *factor = b->job->factor;
  int64_t cols = b->job->out->cols;
  for (int64_t r = 0; r < ROW_BAND; r++) b->t.scale[r] = 1;
  for (int64_t i = 0; i < cols; i += BLOCK) {
    int64_t stop = nb_min_i64(i + BLOCK, cols);
    round_block(b, i, stop);
    if (!factor || stop == cols) continue;
    nb_dense_add(&(nb_dense_sum){.m = b->rows,
                                 .n = cols - stop,
                                 .k = stop - i,
                                 .a = {b->errors, BLOCK},
                                 .b = {factor->upper + i * cols + stop, cols},
                                 .c = b->w + stop,
                                 .ldc = cols});
  }
}

/* sums[r * SUMS + s] += times * (a [m, k] b [k, n]) . d, row by row, for row s * rows + r of m = WEIGHED * rows. */
static void add_weighed(const nb_dense_sum *product, const float *d, double times, double *sums) {
  int64_t rows = product->m / WEIGHED;
  memset(product->c, 0, (size_t)(product->m * product->ldc) * sizeof *product->c);
  nb_dense_add(product);
  for (int64_t i = 0; i < product->m; i++) {
    const float *a = d + i * product->a.ld, *b = product->c + i * product->ldc;
    double sum = 0;
    for (int64_t k = 0; k < product->n; k++) sum += (double)a[k] * (double)b[k];
    sums[i % rows * SUMS + i / rows] += times * sum;
  }
}

/* sums[r * SUMS + s] = v H v^T for v = d[s * rows + r], s < WEIGHED. H is symmetric: what lies left of the diagonal
 * counts twice. */
static void weigh(const solve_job *job, const float *d, int64_t rows, float *scratch, double *sums) {
  int64_t n = job->out->cols;
  for (int64_t j = 0; j < n; j += WEIGH_COLS) {
    const float *h = job->hessian->sum + j;
    nb_dense_sum left = {.m = WEIGHED * rows,
                         .n = nb_min_i64(WEIGH_COLS, n - j),
                         .k = j,
                         .a = {d, n},
                         .b = {h, n},
                         .c = scratch,
                         .ldc = WEIGH_COLS};
    nb_dense_sum diagonal = left;
    diagonal.k = left.n;
    diagonal.a.data = d + j;
    diagonal.b.data = h + j * n;
    if (j > 0) add_weighed(&left, d + j, 2, sums);
    add_weighed(&diagonal, d + j, 1, sums);
  }
}

/* d = the error of rounding each weight to the nearest on the min/max grid of groups as they lie. */
static void rtn_errors(const solve_job *job, const float *w, int64_t rows, float *d) {
  int64_t cols = job->out->cols;
  nb_grid plain = *job->grid;
  plain.mse = false;
  for (int64_t r = 0; r < rows; r++) {
    for (int64_t i = 0; i < cols; i += job->group_size) {
      const float *group = w + r * cols + i;
      int64_t n = nb_min_i64(job->group_size, cols - i);
      nb_group_grid params = nb_group_grid_fit(&plain, group, n, NULL);
      for (int64_t k = 0; k < n; k++)
        d[r * cols + i + k] = group[k] - nb_group_grid_value(&params, nb_group_grid_round(&params, group[k]));
    }
  }
}

void nb_rounded_values(const nb_rounded *rounded, int64_t begin, int64_t end, float *out) {
  bool is_bf16 = rounded->scale_dtype == NB_BF16;
  for (int64_t r = begin; r < end; r++, out += rounded->cols) {
    const uint8_t *codes = rounded->codes + r * rounded->cols;
    for (int64_t c = 0, stop; c < rounded->cols; c = stop) {
      int32_t group = rounded->g_idx[c];
      for (stop = c + 1; stop < rounded->cols && rounded->g_idx[stop] == group;) stop++;
      int64_t at = group * rounded->rows + r;
      float scale = is_bf16 ? nb_bf16_to_f32(rounded->scales[at]) : nb_f16_to_f32(rounded->scales[at]);
      int zero = rounded->zeros[at];
      for (int64_t k = c; k < stop; k++) out[k] = scale * (float)((int)codes[k] - zero);
    }
  }
}

static void rounded_errors(const solve_job *job, const float *w, int64_t begin, int64_t rows, float *d) {
  nb_rounded_values(job->out, begin, begin + rows, d);
  for (int64_t i = 0; i < rows * job->out->cols; i++) d[i] = w[i] - d[i];
}

static void square(const float *d, int64_t rows, int64_t n, double *sums) {
  for (int64_t r = 0; r < rows; r++, sums += SUMS) {
    for (int64_t i = 0; i < n; i++) *sums += (double)d[r * n + i] * (double)d[r * n + i];
  }
}

static void solve_band(void *ctx, int64_t begin, int64_t end, int thread) {
  const solve_job *job = ctx;
  int64_t cols = job->out->cols, rows = end - begin;
  float *w = job->scratch + thread * job->scratch_floats, *d = w + ROW_BAND * cols;
  float *errors = d + (int64_t)WEIGHED * ROW_BAND * cols, *product = errors + (int64_t)ROW_BAND * BLOCK;
  const float *source = job->w + begin * cols;
  for (int64_t r = 0; r < rows; r++) {
    for (int64_t j = 0; j < cols; j++) {
      int32_t c = column_at(job, j);
      w[r * cols + j] = job->factor && job->factor->dead[c] ? 0 : source[r * cols + c];
    }
  }
  /* d, of at least NB_SEARCH_ROWS rows, is yet to be filled. */
  band b = {.job = job, .row = begin, .rows = rows, .w = w, .errors = errors, .group = d};
  round_band(&b);
  double *sums = job->sums + begin * SUMS;
  rounded_errors(job, source, begin, rows, d);
  square(d, rows, cols, sums + 3);
  square(source, rows, cols, sums + 4);
  rtn_errors(job, source, rows, d + rows * cols);
  memcpy(d + 2 * rows * cols, source, (size_t)(rows * cols) * sizeof *d);
  weigh(job, d, rows, product, sums);
}

nibble_status nb_rounded_create(nb_rounded *out, int64_t rows, int64_t cols, int64_t groups, nibble_error *err) {
  uint64_t bytes;
  *out = (nb_rounded){.rows = rows, .cols = cols, .groups = groups};
  if (!nb_mul_u64((uint64_t)rows, (uint64_t)cols, &bytes)) return nb_fail_memory(err, SIZE_MAX);
  out->codes = nb_alloc(bytes, 1);
  out->scales = nb_alloc((uint64_t)groups * (uint64_t)rows, sizeof *out->scales);
  out->zeros = nb_alloc((uint64_t)groups * (uint64_t)rows, 1);
  out->g_idx = nb_alloc((uint64_t)cols, sizeof *out->g_idx);
  if (out->codes && out->scales && out->zeros && out->g_idx) return NIBBLE_OK;
  nb_rounded_free(out);
  return nb_fail_memory(err, bytes);
}

void nb_rounded_free(nb_rounded *rounded) {
  free(rounded->codes);
  free(rounded->scales);
  free(rounded->zeros);
  free(rounded->g_idx);
  *rounded = (nb_rounded){0};
}

static void sum_up(const solve_job *job) {
  double error = 0, rtn = 0, outputs = 0;
  nb_rounded *out = job->out;
  for (int64_t r = 0; r < out->rows; r++) {
    const double *sums = job->sums + r * SUMS;
    error += sums[0];
    rtn += sums[1];
    outputs += sums[2];
    out->weight_error += sums[3];
    out->weight_squares += sums[4];
    out->mended += job->mended[r];
  }
  out->error = outputs > 0 ? error / outputs : 0;
  out->rtn_error = outputs > 0 ? rtn / outputs : 0;
}

/* All of solve_band for all rows. */
static nibble_status solve_on_gpu(solve_job *job, nibble_error *err) {
  const nb_rounded *out = job->out;
  nb_cuda_gptq_layer layer = {.w = job->w,
                              .rows = out->rows,
                              .groups = out->groups,
                              .group_size = job->group_size,
                              .bits = job->grid->bits,
                              .sym = job->grid->sym,
                              .mse = job->grid->mse,
                              .bf16_scales = job->grid->bf16_scales,
                              .column = job->factor->column,
                              .group = job->factor->group,
                              .dead = job->factor->dead,
                              .upper = job->factor->upper,
                              .importance = job->importance,
                              .codes = out->codes,
                              .scales = out->scales,
                              .zeros = out->zeros,
                              .mended = job->mended,
                              .sums = job->sums};
  return job->hessian->gpu->gptq_solve(job->hessian->on_gpu, &layer, err);
}

static nibble_status solve(solve_job *job, int64_t rows, int64_t cols, nibble_error *err) {
  int64_t size = job->grid->group_size > 0 ? nb_min_i64(job->grid->group_size, cols) : cols;
  nibble_status status = nb_rounded_create(job->out, rows, cols, nb_ceil_div(cols, size), err);
  if (status != NIBBLE_OK) return status;
  job->out->scale_dtype = job->grid->bf16_scales ? NB_BF16 : NB_F16;
  job->group_size = size;
  job->scratch_floats = ROW_BAND * ((1 + WEIGHED) * cols + BLOCK + (int64_t)WEIGHED * WEIGH_COLS);
  uint64_t floats = (uint64_t)nb_threads() * (uint64_t)job->scratch_floats;
  job->scratch = nb_alloc_aligned(floats, sizeof(float));
  job->sums = nb_alloc((uint64_t)rows, SUMS * sizeof(double));
  job->mended = nb_alloc((uint64_t)rows, sizeof *job->mended);
  if (!job->scratch || !job->sums || !job->mended) {
    status = nb_fail_memory(err, floats * sizeof(float));
    nb_rounded_free(job->out);
    goto done;
  }
  for (int64_t j = 0; j < cols; j++) job->out->g_idx[column_at(job, j)] = group_at(job, j);
  if (job->factor && job->hessian->gpu) {
    status = solve_on_gpu(job, err);
  } else {
    status = nb_parallel_stoppable(rows, ROW_BAND, solve_band, job, err);
  }
  if (status == NIBBLE_OK) {
    sum_up(job);
  } else {
    nb_rounded_free(job->out);
  }
done:
  free(job->scratch);
  free(job->sums);
  free(job->mended);
  return status;
}

nibble_status nb_gptq_solve(const nb_dense_layer *layer, const nb_grid *grid, const nb_hessian *hessian,
                            const nb_factor *factor, nb_rounded *out, nibble_error *err) {
  solve_job job = {.w = layer->w, .grid = grid, .hessian = hessian, .out = out};
  if (!factor->is_indefinite) job.factor = factor;
  float *importance = NULL;
  if (grid->mse && job.factor) {
    importance = nb_alloc((uint64_t)factor->n, sizeof *importance);
    if (!importance) return nb_fail_memory(err, (size_t)factor->n * sizeof *importance);
    /* What the solver's own loss charges for an error in this place (the paper's equation 2). */
    for (int64_t i = 0; i < factor->n; i++) {
      float u = factor->upper[i * factor->n + i];
      importance[i] = 1 / (u * u);
    }
    job.importance = importance;
  }
  nibble_status status = solve(&job, layer->rows, layer->cols, err);
  out->damp = factor->damp;
  out->is_fallback = factor->is_indefinite;
  free(importance);
  return status;
}
