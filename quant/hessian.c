#include "quant/hessian.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/parallel.h"
#include "quant/blas.h"
#include "runner/device.h"

enum { BAND = 64 };

/* ---- gathering -------------------------------------------------------------------------------------------------- */

/* Where it is gathered; without what a GPU's part of the work needs, AUTO means the CPU. */
static nibble_status choose_device(const nibble_context *context, nb_hessian *h, nibble_error *err) {
  nibble_status status = nb_device_module(context, &h->gpu, err);
  if (status != NIBBLE_OK || !h->gpu) return status;
  if ((status = h->gpu->hessian_create(&h->on_gpu, h->n, err)) == NIBBLE_OK) return NIBBLE_OK;
  h->gpu = NULL;
  return nb_device_allow_cpu(context, "calibration", NULL) == NIBBLE_OK ? NIBBLE_OK : status;
}

nibble_status nb_hessian_create(const nibble_context *context, int64_t n, nb_hessian *out, nibble_error *err) {
  *out = (nb_hessian){.n = n};
  nibble_status status = nb_blas_load(err);
  if (status == NIBBLE_OK) status = choose_device(context, out, err);
  if (status != NIBBLE_OK) return status;
  uint64_t count = 0;
  if (nb_mul_u64((uint64_t)n, (uint64_t)n, &count)) out->sum = nb_alloc(count, sizeof(float));
  if (out->sum) return NIBBLE_OK;
  nb_hessian_free(out);
  return nb_fail_memory(err, (size_t)n * (size_t)n * sizeof(float));
}

void nb_hessian_free(nb_hessian *hessian) {
  if (hessian->gpu) hessian->gpu->hessian_free(hessian->on_gpu);
  free(hessian->sum);
  *hessian = (nb_hessian){0};
}

void nb_hessian_add(nb_hessian *hessian, const float *x, int64_t rows, int64_t ldx) {
  if (!hessian->gpu) {
    nb_dense_gram(x, rows, ldx, hessian->n, hessian->sum);
  } else if (hessian->gpu_status == NIBBLE_OK) {
    hessian->gpu_status = hessian->gpu->hessian_add(hessian->on_gpu, x, rows, ldx, &hessian->gpu_error);
  }
  hessian->tokens += rows;
}

/* Rows [begin, end) below the diagonal, from the columns above it. */
static void mirror_band(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  nb_hessian *h = ctx;
  for (int64_t j = 0; j < end; j++) {
    for (int64_t i = nb_max_i64(begin, j + 1); i < end; i++) h->sum[i * h->n + j] = h->sum[j * h->n + i];
  }
}

/* ---- order ------------------------------------------------------------------------------------------------------ */

typedef struct ranked {
  float key;
  int32_t index;
} ranked;

/* Largest first; equal ones as they lie, so that the order is one and the same everywhere. */
static int compare_ranked(const void *a, const void *b) {
  const ranked *x = a, *y = b;
  if (x->key != y->key) return x->key > y->key ? -1 : 1;
  return x->index < y->index ? -1 : 1;
}

static void order_by_activation(const nb_hessian *h, nb_factor *f, ranked *rank) {
  for (int64_t i = 0; i < f->n; i++) rank[i] = (ranked){h->sum[i * f->n + i], (int32_t)i};
  qsort(rank, (size_t)f->n, sizeof *rank, compare_ranked);
  for (int64_t i = 0; i < f->n; i++) {
    f->column[i] = rank[i].index;
    f->group[i] = (int32_t)(i / f->group_size);
  }
}

/* A short last group stays last, as in GPTQModel. */
static void order_by_groups(const nb_hessian *h, nb_factor *f, ranked *rank, ranked *groups) {
  int64_t whole = f->n / f->group_size, at = 0;
  for (int64_t i = 0; i < f->n; i++) rank[i] = (ranked){h->sum[i * f->n + i], (int32_t)i};
  for (int64_t g = 0; g < f->groups; g++) {
    ranked *first = rank + g * f->group_size;
    qsort(first, (size_t)nb_min_i64(f->group_size, f->n - g * f->group_size), sizeof *rank, compare_ranked);
    groups[g] = (ranked){first->key, (int32_t)g};
  }
  qsort(groups, (size_t)whole, sizeof *groups, compare_ranked);
  for (int64_t g = 0; g < f->groups; g++) {
    int64_t begin = groups[g].index * f->group_size, end = nb_min_i64(begin + f->group_size, f->n);
    for (int64_t i = begin; i < end; i++, at++) {
      f->column[at] = rank[i].index;
      f->group[at] = groups[g].index;
    }
  }
}

static nibble_status make_order(const nb_hessian *h, nb_column_order order, nb_factor *f, nibble_error *err) {
  ranked *rank = nb_alloc((uint64_t)(f->n + f->groups), sizeof *rank);
  if (!rank) return nb_fail_memory(err, (size_t)f->n * sizeof *rank);
  if (order == NB_ORDER_ACTIVATION) {
    order_by_activation(h, f, rank);
  } else if (order == NB_ORDER_GROUPS) {
    order_by_groups(h, f, rank, rank + f->n);
  } else {
    for (int64_t i = 0; i < f->n; i++) {
      f->column[i] = (int32_t)i;
      f->group[i] = (int32_t)(i / f->group_size);
    }
  }
  free(rank);
  return NIBBLE_OK;
}

/* ---- factor ----------------------------------------------------------------------------------------------------- */

typedef struct factor_job {
  const nb_hessian *h;
  nb_factor *f;
  double add, *work;
  atomic_bool has_overflow;
} factor_job;

/* H in the solver's order, turned end to end, with `add` on the diagonal: [n, n]. */
static void fill_reversed(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const factor_job *job = ctx;
  const nb_factor *f = job->f;
  int64_t n = f->n;
  for (int64_t i = begin; i < end; i++) {
    const float *row = job->h->sum + f->column[n - 1 - i] * n;
    for (int64_t j = 0; j < n; j++) job->work[i * n + j] = (double)row[f->column[n - 1 - j]];
    double *diagonal = &job->work[i * n + i];
    *diagonal = (f->dead[f->column[n - 1 - i]] ? 1 : *diagonal) + job->add;
  }
}

/* Element (i, j) of the lower triangle is (n-1-i, n-1-j) of the upper one. */
static void keep_columns(void *ctx, const double *columns, int64_t begin, int64_t end) {
  factor_job *job = ctx;
  int64_t n = job->f->n, rows = n - begin;
  for (int64_t i = 0; i < n; i++) {
    float *upper = job->f->upper + (n - 1 - i) * n + n - 1;
    for (int64_t j = begin; j < end; j++) {
      float u = j > i ? 0 : (float)columns[(j - begin) * rows + i - begin];
      if (!isfinite(u)) atomic_store_explicit(&job->has_overflow, true, memory_order_relaxed);
      upper[-j] = u;
    }
  }
}

static void keep_band(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const factor_job *job = ctx;
  for (int64_t j = begin; j < end; j++) keep_columns(ctx, job->work + j * (job->f->n + 1), j, j + 1);
}

static nibble_status invert_on_gpu(factor_job *job, bool *is_definite, nibble_error *err) {
  nibble_status status = job->h->gpu->hessian_factorize(job->h->on_gpu, job->work, is_definite, err);
  if (status == NIBBLE_OK && *is_definite) nb_parallel(job->f->n, BAND, keep_band, job);
  return status;
}

/* The paper takes the Cholesky factor of the inverse. One factorization does it: where H turned end to end is L L^T,
 * H^-1 = U^T U with U = L^-1 turned end to end, which is upper triangular. */
static nibble_status try_factor(factor_job *job, bool *is_done, nibble_error *err) {
  nb_parallel(job->f->n, BAND, fill_reversed, job);
  nibble_status status = job->h->gpu ? invert_on_gpu(job, is_done, err)
                                     : nb_invert_factor(job->work, job->f->n, keep_columns, job, is_done, err);
  if (atomic_load(&job->has_overflow)) *is_done = false;
  return status;
}

static nibble_status find_damp(const nb_hessian *h, const nb_factor_options *options, nb_factor *f, nibble_error *err) {
  uint64_t bytes = (uint64_t)f->n * (uint64_t)f->n * sizeof(double);
  double mean = 0;
  factor_job job = {.h = h, .f = f, .work = nb_alloc_aligned(bytes, 1)};
  if (!job.work) return nb_fail_memory(err, bytes);
  for (int64_t i = 0; i < f->n; i++) mean += (f->dead[i] ? 1 : (double)h->sum[i * f->n + i]) / (double)f->n;
  nibble_status status = NIBBLE_OK;
  bool is_done = false;
  for (f->damp = options->damp; isfinite(mean) && f->damp<1; f->damp = f->damp> 0.005 ? f->damp * 2 : 0.01) {
    job.add = f->damp * mean;
    atomic_store(&job.has_overflow, false);
    status = try_factor(&job, &is_done, err);
    if (is_done || status != NIBBLE_OK) break;
  }
  f->is_indefinite = !is_done;
  free(job.work);
  return status;
}

nibble_status nb_hessian_factorize(nb_hessian *h, const nb_factor_options *options, nb_factor *out, nibble_error *err) {
  int64_t n = h->n, size = options->group_size > 0 ? nb_min_i64(options->group_size, n) : n;
  nibble_status status = h->gpu_status;
  *out = (nb_factor){.n = n, .group_size = size, .groups = nb_ceil_div(n, size)};
  if (status != NIBBLE_OK) return nb_fail(err, status, "%s", h->gpu_error.message);
  if (h->gpu && (status = h->gpu->hessian_sum(h->on_gpu, h->sum, err)) != NIBBLE_OK) return status;
  nb_parallel(n, BAND, mirror_band, h);
  out->column = nb_alloc((uint64_t)n, sizeof *out->column);
  out->group = nb_alloc((uint64_t)n, sizeof *out->group);
  out->dead = nb_alloc((uint64_t)n, sizeof *out->dead);
  out->upper = nb_alloc_aligned((uint64_t)n * (uint64_t)n, sizeof *out->upper);
  if (!out->column || !out->group || !out->dead || !out->upper)
    status = nb_fail_memory(err, (size_t)n * (size_t)n * sizeof *out->upper);
  for (int64_t i = 0; status == NIBBLE_OK && i < n; i++) out->dead[i] = h->sum[i * n + i] == 0;
  if (status == NIBBLE_OK) status = make_order(h, options->order, out, err);
  if (status == NIBBLE_OK) status = find_damp(h, options, out, err);
  if (status != NIBBLE_OK) nb_factor_free(out);
  return status;
}

void nb_factor_free(nb_factor *factor) {
  free(factor->column);
  free(factor->group);
  free(factor->dead);
  free(factor->upper);
  *factor = (nb_factor){0};
}
