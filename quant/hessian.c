#include "quant/hessian.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "quant/blas.h"

/* ---- gathering -------------------------------------------------------------------------------------------------- */

nibble_status nb_hessian_create(nb_hessian *out, int64_t n, nibble_error *err) {
  *out = (nb_hessian){.n = n};
  nibble_status status = nb_blas_load(err);
  if (status != NIBBLE_OK) return status;
  uint64_t count = 0;
  if (nb_mul_u64((uint64_t)n, (uint64_t)n, &count)) out->sum = nb_alloc(count, sizeof(float));
  return out->sum ? NIBBLE_OK : nb_fail_memory(err, (size_t)n * (size_t)n * sizeof(float));
}

void nb_hessian_free(nb_hessian *hessian) {
  free(hessian->sum);
  *hessian = (nb_hessian){0};
}

void nb_hessian_add(nb_hessian *hessian, const float *x, int64_t rows, int64_t ldx) {
  nb_dense_gram(x, rows, ldx, hessian->n, hessian->sum);
  hessian->tokens += rows;
}

static void mirror(nb_hessian *h) {
  for (int64_t i = 0; i < h->n; i++) {
    for (int64_t j = i + 1; j < h->n; j++) h->sum[j * h->n + i] = h->sum[i * h->n + j];
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

/* H in the solver's order, turned end to end, with `add` on the diagonal: [n, n]. */
static void fill_reversed(const nb_hessian *h, const nb_factor *f, double add, double *out) {
  int64_t n = f->n;
  for (int64_t i = 0; i < n; i++) {
    const float *row = h->sum + f->column[n - 1 - i] * n;
    for (int64_t j = 0; j < n; j++) out[i * n + j] = (double)row[f->column[n - 1 - j]];
    double *diagonal = &out[i * n + i];
    *diagonal = (f->dead[f->column[n - 1 - i]] ? 1 : *diagonal) + add;
  }
}

/* The paper takes the Cholesky factor of the inverse. One factorization does it: where H turned end to end is L L^T,
 * H^-1 = U^T U with U = L^-1 turned end to end, which is upper triangular. */
static bool try_factor(const nb_hessian *h, nb_factor *f, double add, double *work) {
  int64_t n = f->n;
  fill_reversed(h, f, add, work);
  if (!nb_invert_factor(work, n)) return false;
  for (int64_t i = 0; i < n; i++) {
    for (int64_t j = 0; j < n; j++) {
      /* Element (n-1-i, n-1-j) of LAPACK's lower triangle, whose columns follow each other. */
      float u = j < i ? 0 : (float)work[(n - 1 - j) * n + (n - 1 - i)];
      if (!isfinite(u)) return false;
      f->upper[i * n + j] = u;
    }
  }
  return true;
}

static nibble_status find_damp(const nb_hessian *h, const nb_factor_options *options, nb_factor *f, nibble_error *err) {
  uint64_t bytes = (uint64_t)f->n * (uint64_t)f->n * sizeof(double);
  double mean = 0, *work = nb_alloc_aligned(bytes, 1);
  if (!work) return nb_fail_memory(err, bytes);
  for (int64_t i = 0; i < f->n; i++) mean += (f->dead[i] ? 1 : (double)h->sum[i * f->n + i]) / (double)f->n;
  f->is_indefinite = true;
  for (f->damp = options->damp; isfinite(mean) && f->damp<1; f->damp = f->damp> 0.005 ? f->damp * 2 : 0.01) {
    f->is_indefinite = !try_factor(h, f, f->damp * mean, work);
    if (!f->is_indefinite) break;
  }
  free(work);
  return NIBBLE_OK;
}

nibble_status nb_hessian_factorize(nb_hessian *h, const nb_factor_options *options, nb_factor *out, nibble_error *err) {
  int64_t n = h->n, size = options->group_size > 0 ? nb_min_i64(options->group_size, n) : n;
  *out = (nb_factor){.n = n, .group_size = size, .groups = nb_ceil_div(n, size)};
  mirror(h);
  out->column = nb_alloc((uint64_t)n, sizeof *out->column);
  out->group = nb_alloc((uint64_t)n, sizeof *out->group);
  out->dead = nb_alloc((uint64_t)n, sizeof *out->dead);
  out->upper = nb_alloc_aligned((uint64_t)n * (uint64_t)n, sizeof *out->upper);
  nibble_status status = NIBBLE_OK;
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
