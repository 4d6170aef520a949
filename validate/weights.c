#include "validate/weights.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/parallel.h"
#include "convert/conform.h"
#include "validate/causes.h"
#include "validate/expected.h"
#include "validate/values.h"

enum { BAND = 1 << 15 /* weights, about: what a thread reads of both at a time */ };

/* A unit is damaged if its squared error exceeds the expected one by this much, or by this share of its squares: what
 * rounding the source to bfloat16 on the way may have added. */
static const double UNIT_FACTOR = 4, UNIT_SHARE = 3e-5;

/* A row or group of GPTQ whose squared error is so many times the expected one is looked into. */
static const double SUSPECT_FACTOR = 2;

/* Below this relative error nothing is wrong, whatever was expected. */
static const double NEGLIGIBLE = 1e-6;

/* Sums over a band, or over all of them in order. */
typedef struct sums {
  double error, expected, squares, copy_squares, product;
  double largest;
  int64_t largest_at;
  int64_t not_finite, first_not_finite; /* in the artifact */
  int64_t damaged, first_damaged;       /* units; of GPTQ groups */
  int64_t damaged_scales;               /* groups whose scale is wrong; of the others it is the zero point */
} sums;

typedef struct job {
  const nb_values *artifact, *original;
  const nb_rounding *rounding;
  int64_t band; /* weights, a multiple of the unit */
  sums *bands;
  void **scratch;  /* [threads] */
  float **values;  /* [threads], 2 * band each */
  double **errors; /* [threads], a double a unit */
  nb_shared_error failed;
} job;

/* Lanes that are summed side by side, so that compilers vectorize; always as many, so that results are the same on
 * every processor. Float holds what few additions make; doubles take over. */
enum { LANES = 16, RUN = 4096 };

static void add_lanes(const float *w, const float *a, int64_t n, sums *s) {
  float error[LANES] = {0}, squares[LANES] = {0}, copies[LANES] = {0}, products[LANES] = {0};
  for (int64_t i = 0; i + LANES <= n; i += LANES) {
    for (int k = 0; k < LANES; k++) {
      float x = w[i + k], y = a[i + k], d = y - x;
      error[k] += d * d;
      squares[k] += x * x;
      copies[k] += y * y;
      products[k] += x * y;
    }
  }
  for (int64_t i = n / LANES * LANES; i < n; i++) {
    float x = w[i], y = a[i], d = y - x;
    error[0] += d * d;
    squares[0] += x * x;
    copies[0] += y * y;
    products[0] += x * y;
  }
  for (int k = 0; k < LANES; k++) {
    s->error += (double)error[k];
    s->squares += (double)squares[k];
    s->copy_squares += (double)copies[k];
    s->product += (double)products[k];
  }
}

/* The bits of |a - w|: they order as integers do, and a NaN or infinity is above all others. */
static int32_t difference_bits(float w, float a) { return (int32_t)(nb_f32_to_bits(a - w) & 0x7fffffffu); }

static int32_t largest_bits(const float *w, const float *a, int64_t n) {
  int32_t most[LANES] = {0};
  for (int64_t i = 0; i + LANES <= n; i += LANES) {
    for (int k = 0; k < LANES; k++) {
      int32_t d = difference_bits(w[i + k], a[i + k]);
      most[k] = d > most[k] ? d : most[k];
    }
  }
  for (int64_t i = n / LANES * LANES; i < n; i++) {
    int32_t d = difference_bits(w[i], a[i]);
    most[0] = d > most[0] ? d : most[0];
  }
  for (int k = 1; k < LANES; k++) most[0] = most[k] > most[0] ? most[k] : most[0];
  return most[0];
}

/* One by one, leaving out what is not finite: the slow way, for damaged tensors. */
static void add_finite(const float *w, const float *a, int64_t n, int64_t at, sums *s) {
  for (int64_t i = 0; i < n; i++) {
    double d = (double)a[i] - (double)w[i];
    if (!isfinite(a[i])) {
      if (s->not_finite++ == 0) s->first_not_finite = at + i;
      continue;
    }
    s->error += d * d;
    s->squares += (double)w[i] * (double)w[i];
    s->copy_squares += (double)a[i] * (double)a[i];
    s->product += (double)a[i] * (double)w[i];
    if (fabs(d) <= s->largest) continue;
    s->largest = fabs(d);
    s->largest_at = at + i;
  }
}

static void add_run(const float *w, const float *a, int64_t n, int64_t at, sums *s) {
  sums run = {0};
  int32_t bits = largest_bits(w, a, n);
  add_lanes(w, a, n, &run);
  if (!isfinite(run.error) || !isfinite(run.copy_squares) || !isfinite(run.squares)) {
    add_finite(w, a, n, at, s);
    return;
  }
  s->error += run.error;
  s->squares += run.squares;
  s->copy_squares += run.copy_squares;
  s->product += run.product;
  double largest = (double)nb_bits_to_f32((uint32_t)bits);
  if (largest <= s->largest) return;
  s->largest = largest;
  int64_t i = 0;
  while (difference_bits(w[i], a[i]) != bits) i++;
  s->largest_at = at + i;
}

static void add_values(const float *w, const float *a, int64_t n, int64_t at, sums *s) {
  for (int64_t i = 0; i < n; i += RUN) add_run(w + i, a + i, nb_min_i64(RUN, n - i), at + i, s);
}

/* Groups of GPTQ in a unit that begins at weight `at`. */
static void judge_groups(const job *j, const float *w, const float *a, int64_t n, int64_t at, void *scratch, sums *s) {
  const nb_packed *m = j->rounding->packed;
  nb_group_damage found;
  nb_rounding_groups(j->rounding, w, a, n, scratch, &found);
  if (found.first < 0) return;
  int64_t in_row = n < m->cols ? at % m->cols / n : found.first;
  if (!s->damaged) s->first_damaged = at / m->cols * m->groups + in_row;
  s->damaged += found.scales + found.zeros;
  s->damaged_scales += found.scales;
}

static void compare_band(void *ctx, int64_t begin, int64_t end, int thread) {
  job *j = ctx;
  int64_t n = end - begin, unit = j->rounding->unit;
  float *w = j->values[thread], *a = w + j->band;
  double *expected = j->errors[thread];
  sums *s = &j->bands[begin / j->band];
  nibble_error err;
  nibble_status status = nb_values_read(j->original, begin, n, w, &err);
  if (status == NIBBLE_OK) status = nb_values_read(j->artifact, begin, n, a, &err);
  if (status != NIBBLE_OK) {
    nb_shared_error_set(&j->failed, status, &err);
    return;
  }
  *s = (sums){.first_not_finite = -1, .first_damaged = -1, .largest_at = begin};
  bool known = nb_rounding_errors(j->rounding, w, n, j->artifact->cols, j->scratch[thread], expected);
  for (int64_t u = 0; u * unit < n; u++) {
    sums before = *s;
    int64_t last = nb_min_i64(n, (u + 1) * unit);
    add_values(w + u * unit, a + u * unit, last - u * unit, begin + u * unit, s);
    if (!known) continue;
    s->expected += expected[u];
    double error = s->error - before.error, squares = s->squares - before.squares;
    if (j->rounding->expectation.every_block) {
      bool damaged = error > UNIT_FACTOR * expected[u] + UNIT_SHARE * squares;
      if (damaged && s->damaged++ == 0) s->first_damaged = (begin + u * unit) / unit;
    } else if (j->rounding->packed && error > SUSPECT_FACTOR * expected[u] && s->not_finite == before.not_finite) {
      judge_groups(j, w + u * unit, a + u * unit, last - u * unit, begin + u * unit, j->scratch[thread], s);
    }
  }
  if (!known) s->expected = NAN;
}

static void join(sums *into, const sums *s) {
  into->error += s->error;
  into->expected += s->expected;
  into->squares += s->squares;
  into->copy_squares += s->copy_squares;
  into->product += s->product;
  if (s->largest > into->largest) {
    into->largest = s->largest;
    into->largest_at = s->largest_at;
  }
  if (!into->not_finite) into->first_not_finite = s->first_not_finite;
  into->not_finite += s->not_finite;
  if (!into->damaged) into->first_damaged = s->first_damaged;
  into->damaged += s->damaged;
  into->damaged_scales += s->damaged_scales;
}

static void free_job(job *j) {
  for (int t = 0; t < nb_threads(); t++) {
    if (j->scratch) free(j->scratch[t]);
    if (j->values) free(j->values[t]);
    if (j->errors) free(j->errors[t]);
  }
  free(j->scratch);
  free(j->values);
  free(j->errors);
  free(j->bands);
}

static nibble_status sum_up(const nb_values *artifact, const nb_values *original, const nb_rounding *rounding,
                            sums *out, nibble_error *err) {
  int64_t count = artifact->source.count, threads = nb_threads();
  job j = {.artifact = artifact, .original = original, .rounding = rounding};
  j.band = rounding->unit * nb_max_i64(1, BAND / rounding->unit);
  int64_t bands = nb_ceil_div(count, j.band);
  j.bands = nb_alloc((uint64_t)bands + 1, sizeof *j.bands);
  j.scratch = nb_alloc((uint64_t)threads, sizeof *j.scratch);
  j.values = nb_alloc((uint64_t)threads, sizeof *j.values);
  j.errors = nb_alloc((uint64_t)threads, sizeof *j.errors);
  bool ok = j.bands && j.scratch && j.values && j.errors;
  for (int64_t t = 0; ok && t < threads; t++) {
    j.scratch[t] = nb_rounding_scratch(j.band);
    j.values[t] = nb_alloc_aligned(2 * (uint64_t)j.band, sizeof(float));
    j.errors[t] = nb_alloc((uint64_t)(j.band / rounding->unit) + 1, sizeof(double));
    ok = j.scratch[t] && j.values[t] && j.errors[t];
  }
  nibble_status status = ok ? NIBBLE_OK : nb_fail_memory(err, (size_t)(threads * j.band) * 8);
  if (ok) {
    nb_parallel(count, j.band, compare_band, &j);
    status = nb_shared_error_get(&j.failed, err);
    *out = (sums){.first_not_finite = -1, .first_damaged = -1};
    for (int64_t b = 0; b < bands; b++) join(out, &j.bands[b]);
  }
  free_job(&j);
  return status;
}

static void fill_row(nibble_weight_error *row, const nb_values *artifact, const sums *s) {
  double norm = sqrt(s->squares);
  const nb_source *source = &artifact->source;
  row->format = source->is_packed           ? nb_format_info(source->weight.packed.format)->name
                : source->tensor->is_blocks ? nb_format_info(source->tensor->format)->name
                                            : nb_dtype_name(source->tensor->dtype);
  row->rows = artifact->rows;
  row->cols = artifact->cols;
  row->relative_error = norm > 0 ? sqrt(s->error) / norm : s->error > 0 ? INFINITY : 0;
  row->expected_error = norm > 0 ? sqrt(s->expected) / norm : 0;
  row->snr_db = s->error > 0 ? 10 * log10(s->squares / s->error) : INFINITY;
  double both = sqrt(s->squares) * sqrt(s->copy_squares);
  row->cosine = both > 0 ? s->product / both : s->squares == s->copy_squares ? 1 : 0;
  row->max_error = s->largest;
  row->max_row = s->largest_at / nb_max_i64(1, artifact->cols);
  row->max_col = s->largest_at % nb_max_i64(1, artifact->cols);
  row->damaged_blocks = s->damaged;
  row->first_damaged_block = s->first_damaged;
}

static bool is_bad_as_a_whole(const nibble_weight_error *row, const nb_rounding *rounding) {
  return !isnan(row->expected_error) && row->relative_error > rounding->expectation.factor * row->expected_error &&
         row->relative_error * row->relative_error > UNIT_SHARE;
}

/* Whether the row is far worse than its format makes it. */
static bool is_bad(const nibble_weight_error *row, const nb_rounding *rounding, const sums *s) {
  if (s->not_finite) return true;
  return row->relative_error > NEGLIGIBLE && (s->damaged || is_bad_as_a_whole(row, rounding));
}

static void report(const nb_suspect *suspect, const nb_rounding *rounding, const sums *s, nb_findings *findings) {
  nibble_weight_error *row = suspect->row;
  char why[256] = "", place[96] = "";
  int64_t groups = rounding->packed ? rounding->packed->groups : 0;
  nb_place at = {row->tensor, row->first_damaged_block, s->largest_at, s->damaged ? s->damaged : 1};
  row->cause = "";
  if (s->not_finite) {
    row->cause = "not-finite";
    at.index = s->first_not_finite;
    snprintf(why, sizeof why, ": %lld values are NaN or infinite", (long long)s->not_finite);
  } else if (groups && s->damaged && !is_bad_as_a_whole(row, rounding)) {
    row->cause = s->damaged_scales ? "scales-damaged" : "zero-points-damaged";
    snprintf(why, sizeof why, "; another %s takes their error away", s->damaged_scales ? "scale" : "zero point");
  } else {
    nb_cause_find(suspect, why, sizeof why);
  }
  int64_t units = groups ? row->rows * groups : nb_ceil_div(row->rows * row->cols, rounding->unit);
  if (s->damaged)
    snprintf(place, sizeof place, ", in %lld of %lld %s", (long long)s->damaged, (long long)units,
             groups ? "groups" : "blocks");
  nb_find(findings, NIBBLE_FAULT, "error", row->cause, at, "relative error %.3g where %s makes %.3g%s%s",
          row->relative_error, row->format, row->expected_error, place, why);
}

static nibble_status compare(const nb_suspect *suspect, nb_findings *findings, nibble_error *err) {
  sums s = {0};
  nb_rounding rounding;
  nb_rounding_of(suspect->artifact, &suspect->copy->source, &rounding);
  nibble_status status = sum_up(suspect->copy, suspect->values, &rounding, &s, err);
  if (status != NIBBLE_OK) return status;
  nibble_weight_error *row = suspect->row;
  fill_row(row, suspect->copy, &s);
  row->flagged = is_bad(row, &rounding, &s);
  row->cause = "";
  if (row->flagged) report(suspect, &rounding, &s, findings);
  return NIBBLE_OK;
}

static nibble_status find_copy(const nb_checkpoint *artifact, const char *name, const nb_tensor **out,
                               nibble_error *err) {
  if (artifact->config.arch) return nb_conform_find(artifact, name, out, err);
  *out = nb_layout_find(artifact, name);
  return NIBBLE_OK;
}

/* One tensor of the original. Adds a row if the artifact has it in a shape that can be compared. */
static nibble_status compare_tensor(const nb_checkpoint *artifact, const nb_checkpoint *original, const nb_tensor *t,
                                    nb_findings *findings, nb_weights *out, nibble_error *err) {
  nb_values values = {0}, copy = {0};
  const nb_tensor *have = NULL;
  nibble_status status = nb_values_open(original, t, &values, err);
  if (status == NIBBLE_OK) status = find_copy(artifact, values.source.name, &have, err);
  if (status != NIBBLE_OK || !have) {
    bool tied = strcmp(t->name, "lm_head.weight") == 0 && artifact->config.tie_word_embeddings;
    if (status == NIBBLE_OK && !tied)
      nb_find(findings, NIBBLE_WARNING, "missing", "", nb_place_tensor(values.source.name),
              "the original has it, the artifact does not");
    nb_values_close(&values);
    return status;
  }
  nibble_error unreadable;
  bool is_weight = nb_layout_is_packed(artifact, have) || have->is_blocks || nb_dtype_is_float(have->dtype);
  nibble_status opened = is_weight ? nb_values_open(artifact, have, &copy, &unreadable) : NIBBLE_BAD_INPUT;
  if (opened == NIBBLE_SYSTEM) {
    status = opened;
    if (err) *err = unreadable;
  } else if (opened != NIBBLE_OK) {
    /* The structure's checks have named the fault. */
    nb_find(findings, NIBBLE_WARNING, "error", "", nb_place_tensor(values.source.name),
            "it cannot be read, so it is not compared");
  } else if (copy.rows != values.rows || copy.cols != values.cols) {
    nb_find(findings, NIBBLE_FAULT, "shape", "wrong-shape", nb_place_tensor(values.source.name),
            "its shape is [%lld, %lld], the original's [%lld, %lld]", (long long)copy.rows, (long long)copy.cols,
            (long long)values.rows, (long long)values.cols);
  } else if (copy.source.count > 0) {
    nibble_weight_error *row = &out->rows[out->count];
    *row = (nibble_weight_error){.tensor = strdup(values.source.name)};
    if (row->tensor) {
      out->count++;
      nb_suspect suspect = {.artifact = artifact, .original = original, .copy = &copy, .values = &values, .row = row};
      status = compare(&suspect, findings, err);
    } else {
      status = nb_fail_memory(err, strlen(values.source.name));
    }
  }
  nb_values_close(&copy);
  nb_values_close(&values);
  return status;
}

nibble_status nb_weights_compare(const nb_checkpoint *artifact, const nb_checkpoint *original,
                                 const nibble_progress *progress, nb_findings *findings, nb_weights *out,
                                 nibble_error *err) {
  *out = (nb_weights){.rows = nb_alloc(original->tensor_count + 1, sizeof *out->rows)};
  if (!out->rows) return nb_fail_memory(err, original->tensor_count * sizeof *out->rows);
  uint64_t total = 0, done = 0;
  for (size_t i = 0; i < original->tensor_count; i++) total += original->tensors[i].bytes;
  nibble_status status = NIBBLE_OK;
  for (size_t i = 0; status == NIBBLE_OK && i < original->tensor_count; i++) {
    const nb_tensor *t = &original->tensors[i];
    nb_step(progress, t->name, done, total, "bytes");
    done += t->bytes;
    bool is_weight = nb_layout_is_packed(original, t) || t->is_blocks || nb_dtype_is_float(t->dtype);
    if (!is_weight || nb_layout_is_part(original, t)) continue;
    status = compare_tensor(artifact, original, t, findings, out, err);
  }
  if (status == NIBBLE_OK && findings->failed) status = nb_fail_memory(err, sizeof(nibble_finding));
  return status;
}

void nb_weights_free(nb_weights *weights) {
  for (size_t i = 0; i < weights->count; i++) free((void *)(uintptr_t)weights->rows[i].tensor);
  free(weights->rows);
  *weights = (nb_weights){0};
}
