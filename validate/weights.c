#include "validate/weights.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/parallel.h"
#include "base/stop.h"
#include "kernels/cpu/errors.h"
#include "kernels/gptq.h"
#include "validate/causes.h"
#include "validate/expected.h"
#include "validate/values.h"

enum {
  BAND = 1 << 14, /* weights, about: what a thread reads of both at a time */
  GPTQ_ROWS = 16,
  SPAN = 1 << 24, /* weights after which pages are given back: a tensor need not fit into memory */
  RUN = 1024,     /* weights whose sums in float keep seven digits */
};

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

/* What a thread works with. */
typedef struct buffers {
  float *w, *a;                       /* [band] the original's values and the artifact's */
  double *expected, *error, *squares; /* [units of a band] */
  nb_unit_sums *pieces;               /* [units or runs of a band] */
  void *scratch;                      /* nb_rounding_scratch */
} buffers;

typedef struct job {
  const nb_values *artifact, *original;
  const nb_rounding *rounding;
  int64_t band;  /* weights, a multiple of the unit */
  int64_t first; /* weight of the span at work */
  sums *bands;
  buffers *buffers; /* [threads] */
  nb_shared_error failed;
} job;

/* Weights [from, to) of the buffers, which are unit u: one by one, leaving out what is not finite, the slow way, for
 * damaged tensors. */
static void add_finite(buffers *b, int64_t u, int64_t from, int64_t to, int64_t begin, sums *s) {
  const float *w = b->w, *a = b->a;
  b->error[u] = b->squares[u] = 0;
  for (int64_t i = from; i < to; i++) {
    double d = (double)a[i] - (double)w[i];
    if (!isfinite(a[i])) {
      if (s->not_finite++ == 0) s->first_not_finite = begin + i;
      continue;
    }
    b->error[u] += d * d;
    b->squares[u] += (double)w[i] * (double)w[i];
    s->copy_squares += (double)a[i] * (double)a[i];
    s->product += (double)a[i] * (double)w[i];
    if (fabs(d) <= s->largest) continue;
    s->largest = fabs(d);
    s->largest_at = begin + i;
  }
}

/* What does not ask for units; s->largest_at: of the run. False if something is not finite, or too large for sums in
 * float. */
static bool add_runs(const float *w, const float *a, int64_t n, int64_t begin, sums *s) {
  const nb_cpu_errors *kernels = nb_cpu_errors_now();
  for (int64_t at = 0; at < n; at += RUN) {
    nb_run_sums run;
    int64_t count = nb_min_i64(RUN, n - at);
    kernels->run(w + at, a + at, count, &run);
    if (!isfinite(run.copies) || !isfinite(run.product)) return false;
    s->copy_squares += (double)run.copies;
    s->product += (double)run.product;
    if ((double)run.largest <= s->largest) continue;
    s->largest = (double)run.largest;
    s->largest_at = begin + at;
  }
  return true;
}

/* b->error and b->squares of every unit. False if something is not finite. */
static bool sum_units(buffers *b, int64_t n, int64_t unit) {
  const nb_cpu_errors *kernels = nb_cpu_errors_now();
  if (unit <= RUN) kernels->units(b->w, b->a, n, unit, b->pieces);
  for (int64_t u = 0; u * unit < n; u++) {
    const nb_unit_sums *piece = unit <= RUN ? &b->pieces[u] : b->pieces;
    int64_t count = nb_min_i64(unit, n - u * unit), pieces = 1;
    if (unit > RUN) {
      kernels->units(b->w + u * unit, b->a + u * unit, count, RUN, b->pieces);
      pieces = nb_ceil_div(count, RUN);
    }
    b->error[u] = b->squares[u] = 0;
    for (int64_t i = 0; i < pieces; i++) {
      b->error[u] += (double)piece[i].error;
      b->squares[u] += (double)piece[i].squares;
    }
    if (!isfinite(b->error[u]) || !isfinite(b->squares[u])) return false;
  }
  return true;
}

static void sum_band(buffers *b, int64_t n, int64_t unit, int64_t begin, sums *s) {
  const sums none = {.first_not_finite = -1, .first_damaged = -1, .largest_at = begin};
  *s = none;
  if (add_runs(b->w, b->a, n, begin, s) && sum_units(b, n, unit)) return;
  *s = none;
  for (int64_t at = 0, u = 0; at < n; at += unit, u++) add_finite(b, u, at, nb_min_i64(at + unit, n), begin, s);
}

/* Groups of GPTQ in a unit of n weights, `from` in the buffers of a band that begins at weight `begin`. */
static void judge_groups(const job *j, const buffers *b, int64_t from, int64_t n, int64_t begin, sums *s) {
  const nb_packed *m = j->rounding->packed;
  nb_group_damage found;
  nb_rounding_groups(j->rounding, b->w + from, b->a + from, n, b->scratch, &found);
  if (found.first < 0) return;
  int64_t at = begin + from;
  int64_t in_row = n < m->cols ? at % m->cols / n : found.first;
  if (!s->damaged) s->first_damaged = at / m->cols * m->groups + in_row;
  s->damaged += found.scales + found.zeros;
  s->damaged_scales += found.scales;
}

/* The units of a band, whose errors and expected errors are known. */
static void judge_units(const job *j, const buffers *b, int64_t n, int64_t begin, sums *s) {
  int64_t unit = j->rounding->unit;
  bool groups = j->rounding->packed && !s->not_finite;
  for (int64_t u = 0; u * unit < n; u++) {
    double error = b->error[u], expected = b->expected[u];
    s->expected += expected;
    if (j->rounding->expectation.every_block) {
      bool damaged = error > UNIT_FACTOR * expected + UNIT_SHARE * b->squares[u];
      if (damaged && s->damaged++ == 0) s->first_damaged = (begin + u * unit) / unit;
    } else if (groups && error > SUSPECT_FACTOR * expected) {
      judge_groups(j, b, u * unit, nb_min_i64(unit, n - u * unit), begin, s);
    }
  }
}

static void compare_band(void *ctx, int64_t from, int64_t to, int thread) {
  job *j = ctx;
  buffers *b = &j->buffers[thread];
  int64_t n = to - from, begin = j->first + from, unit = j->rounding->unit;
  sums *s = &j->bands[begin / j->band];
  nibble_error err;
  nibble_status status = nb_values_read(j->original, begin, n, b->w, &err);
  if (status == NIBBLE_OK) status = nb_values_read(j->artifact, begin, n, b->a, &err);
  if (status != NIBBLE_OK) {
    nb_shared_error_set(&j->failed, status, &err);
    return;
  }
  sum_band(b, n, unit, begin, s);
  for (int64_t u = 0; u * unit < n; u++) {
    s->error += b->error[u];
    s->squares += b->squares[u];
  }
  if (nb_rounding_errors(j->rounding, b->w, n, j->artifact->cols, b->scratch, b->expected)) {
    judge_units(j, b, n, begin, s);
  } else {
    s->expected = NAN;
  }
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

/* Of the run that has the largest error, its index. */
static nibble_status find_largest(const nb_values *artifact, const nb_values *original, sums *s, nibble_error *err) {
  float w[RUN], a[RUN];
  int64_t n = nb_min_i64(RUN, artifact->source.count - s->largest_at), i = 0;
  nibble_status status = nb_values_read(original, s->largest_at, n, w, err);
  if (status == NIBBLE_OK) status = nb_values_read(artifact, s->largest_at, n, a, err);
  if (status != NIBBLE_OK) return status;
  while (i < n && !((double)fabsf(a[i] - w[i]) >= s->largest)) i++;
  if (i < n) s->largest_at += i; /* else it was added one by one, and is known */
  return NIBBLE_OK;
}

static void free_job(job *j) {
  for (int t = 0; j->buffers && t < nb_threads(); t++) {
    free(j->buffers[t].w);
    free(j->buffers[t].expected);
    free(j->buffers[t].pieces);
    free(j->buffers[t].scratch);
  }
  free(j->buffers);
  free(j->bands);
}

static bool allocate_buffers(const job *j, buffers *b) {
  uint64_t units = (uint64_t)(j->band / j->rounding->unit);
  uint64_t pieces = units + (uint64_t)nb_ceil_div(j->rounding->unit, RUN);
  b->w = nb_alloc_aligned(2 * (uint64_t)j->band, sizeof *b->w);
  b->expected = nb_alloc(3 * units, sizeof *b->expected);
  b->pieces = nb_alloc(pieces, sizeof *b->pieces);
  b->scratch = nb_rounding_scratch(j->band);
  if (!b->w || !b->expected || !b->pieces || !b->scratch) return false;
  b->a = b->w + j->band;
  b->error = b->expected + units;
  b->squares = b->error + units;
  return true;
}

static nibble_status sum_up(const nb_values *artifact, const nb_values *original, const nb_rounding *rounding,
                            sums *out, nibble_error *err) {
  int64_t count = artifact->source.count, threads = nb_threads();
  job j = {.artifact = artifact, .original = original, .rounding = rounding};
  /* GPTQ's words lie by columns: kernels unpack many rows at once, and not the half of them. */
  int64_t whole =
      rounding->packed && nb_gptq_bits(rounding->packed->format) ? GPTQ_ROWS * artifact->cols : rounding->unit;
  j.band = whole * nb_max_i64(1, BAND / whole);
  int64_t bands = nb_ceil_div(count, j.band), span = j.band * nb_max_i64(1, SPAN / j.band);
  j.bands = nb_alloc((uint64_t)bands, sizeof *j.bands);
  j.buffers = nb_alloc((uint64_t)threads, sizeof *j.buffers);
  bool ok = j.bands && j.buffers;
  for (int64_t t = 0; ok && t < threads; t++) ok = allocate_buffers(&j, &j.buffers[t]);
  nibble_status status = ok ? NIBBLE_OK : nb_fail_memory(err, (size_t)(threads * j.band) * 8);
  for (; status == NIBBLE_OK && j.first < count; j.first += span) {
    int64_t n = nb_min_i64(span, count - j.first);
    status = nb_parallel_stoppable(n, j.band, compare_band, &j, err);
    if (status == NIBBLE_OK) status = nb_shared_error_get(&j.failed, err);
    nb_values_release(original, j.first, n);
    nb_values_release(artifact, j.first, n);
  }
  *out = (sums){.first_not_finite = -1, .first_damaged = -1};
  for (int64_t b = 0; status == NIBBLE_OK && b < bands; b++) join(out, &j.bands[b]);
  if (status == NIBBLE_OK && out->largest > 0) status = find_largest(artifact, original, out, err);
  free_job(&j);
  return status;
}

static void fill_row(nibble_weight_error *row, const nb_values *artifact, const sums *s) {
  double norm = sqrt(s->squares);
  const nb_source *source = &artifact->source;
  row->format =
      source->is_packed ? nb_format_info(source->weight.packed.format)->name : nb_tensor_type_name(source->tensor);
  row->rows = artifact->rows;
  row->cols = artifact->cols;
  row->relative_error = norm > 0 ? sqrt(s->error) / norm : s->error > 0 ? INFINITY : 0;
  row->expected_error = norm > 0 ? sqrt(s->expected) / norm : 0;
  row->snr_db = s->error > 0 ? 10 * log10(s->squares / s->error) : INFINITY;
  double both = sqrt(s->squares) * sqrt(s->copy_squares);
  row->cosine = s->error == 0 ? 1 : both > 0 ? s->product / both : 0;
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

typedef struct comparison {
  const nb_checkpoint *artifact, *original;
  nb_findings *findings;
  nb_weights *out;
} comparison;

/* A tensor of the original and what stands for it in the artifact. Adds a row if the shapes can be compared. */
static nibble_status compare_pair(const comparison *c, const nb_tensor *t, const nb_tensor *have, const char *name,
                                  nibble_error *err) {
  nb_values values = {0}, copy = {0};
  nibble_error unreadable;
  bool is_weight = have->layout || have->is_blocks || nb_dtype_is_float(have->dtype);
  nibble_status status = nb_values_open(c->original, t, &values, err), opened = NIBBLE_BAD_INPUT;
  if (status == NIBBLE_OK && is_weight) opened = nb_values_open(c->artifact, have, &copy, &unreadable);
  if (status != NIBBLE_OK) goto done;
  if (opened == NIBBLE_SYSTEM) {
    status = opened;
    if (err) *err = unreadable;
  } else if (opened != NIBBLE_OK) {
    /* The structure's checks have named the fault. */
    nb_find(c->findings, NIBBLE_WARNING, "error", "", nb_place_tensor(name),
            "it cannot be read, so it is not compared");
  } else if (copy.rows != values.rows || copy.cols != values.cols) {
    nb_find(c->findings, NIBBLE_FAULT, "shape", "wrong-shape", nb_place_tensor(name),
            "its shape is [%lld, %lld], the original's [%lld, %lld]", (long long)copy.rows, (long long)copy.cols,
            (long long)values.rows, (long long)values.cols);
  } else if (copy.source.count > 0) {
    nibble_weight_error *row = &c->out->rows[c->out->count];
    *row = (nibble_weight_error){.tensor = strdup(name)};
    if (!row->tensor) {
      status = nb_fail_memory(err, strlen(name));
      goto done;
    }
    c->out->count++;
    nb_suspect suspect = {
        .artifact = c->artifact, .original = c->original, .copy = &copy, .values = &values, .row = row};
    status = compare(&suspect, c->findings, err);
  }
done:
  nb_values_close(&copy);
  nb_values_close(&values);
  return status;
}

/* An output embedding of its own; NULL: there is none, or it is the input's. */
static const nb_tensor *own_head(const nb_checkpoint *c) {
  const nb_slot *slot = nb_checkpoint_slot(c, NB_HEAD);
  return slot ? slot->tensor : NULL;
}

static const nb_tensor *embedding_of(const nb_checkpoint *c) {
  const nb_slot *slot = nb_checkpoint_slot(c, NB_TOKEN_EMBED);
  return slot ? slot->tensor : NULL;
}

static nibble_status compare_tensor(const comparison *c, const nb_tensor *t, nibble_error *err) {
  const char *name = nb_tensor_weight_name(t);
  const nb_tensor *have = NULL;
  nibble_status status = nb_checkpoint_counterpart(c->artifact, name, &t->id, &have, err);
  bool tied = t->id.role == NB_HEAD && !t->id.is_bias && c->artifact->config.tie_word_embeddings;
  if (status == NIBBLE_OK && !have && tied && t == own_head(c->original)) have = embedding_of(c->artifact);
  if (status == NIBBLE_OK && have) return compare_pair(c, t, have, name, err);
  if (status == NIBBLE_OK && !tied)
    nb_find(c->findings, NIBBLE_WARNING, "missing", "", nb_place_tensor(name),
            "the original has it, the artifact does not");
  return status;
}

/* A head of the artifact's own stands for the original's embedding, if that is its head. */
static nibble_status compare_untied_head(const comparison *c, nibble_error *err) {
  const nb_tensor *head = own_head(c->artifact), *embedding = embedding_of(c->original);
  if (!head || !embedding || own_head(c->original) || !c->original->config.tie_word_embeddings) return NIBBLE_OK;
  return compare_pair(c, embedding, head, nb_tensor_weight_name(head), err);
}

nibble_status nb_weights_compare(const nb_checkpoint *artifact, const nb_checkpoint *original,
                                 const nibble_progress *progress, nb_findings *findings, nb_weights *out,
                                 nibble_error *err) {
  size_t count = nb_checkpoint_count(original);
  *out = (nb_weights){.rows = nb_alloc(count + 1, sizeof *out->rows)};
  if (!out->rows) return nb_fail_memory(err, count * sizeof *out->rows);
  const comparison c = {artifact, original, findings, out};
  uint64_t total = 0, done = 0;
  for (size_t i = 0; i < original->tensor_count; i++) total += original->tensors[i].bytes;
  nibble_status status = NIBBLE_OK;
  for (size_t i = 0; status == NIBBLE_OK && i < count; i++) {
    const nb_tensor *t = nb_checkpoint_at(original, i);
    if (t->views) continue; /* each by itself, since the artifact may have them so */
    nb_step(progress, t->name, done, total, "bytes");
    done += t->bytes;
    bool is_weight = t->layout || t->is_blocks || nb_dtype_is_float(t->dtype);
    if (!is_weight || t->is_part) continue;
    status = compare_tensor(&c, t, err);
    if (status == NIBBLE_OK) status = nb_stop_check(err);
  }
  if (status == NIBBLE_OK) status = compare_untied_head(&c, err);
  if (status == NIBBLE_OK && findings->failed) status = nb_fail_memory(err, sizeof(nibble_finding));
  return status;
}

void nb_weights_free(nb_weights *weights) {
  for (size_t i = 0; i < weights->count; i++) free((void *)(uintptr_t)weights->rows[i].tensor);
  free(weights->rows);
  *weights = (nb_weights){0};
}
