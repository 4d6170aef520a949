#include "validate/causes.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/stop.h"
#include "kernels/cpu/kernels.h"
#include "kernels/gptq.h"
#include "validate/trial.h"

/* An attempt explains an error if it brings it down to this many times what the format makes, or to this share (the
 * rounding of 16 bits), and to less than half of what it was. */
static const double LIMIT_FACTOR = 1.5, LIMIT_LEAST = 0.004;

/* ---- reading in another way ---- */

static bool read_flat(const nb_trials *t, const nb_reading *r, int64_t first, int64_t count, float *out) {
  const nb_values *copy = t->suspect->copy;
  if (first < 0 || first > copy->source.count - count) return false;
  if (r->packed) {
    nb_packed_read(nb_dequantizer(r->packed->format), r->packed, first, count, out);
    return true;
  }
  return nb_values_read(copy, first, count, out, NULL) == NIBBLE_OK;
}

static bool read_row(const nb_trials *t, const nb_reading *r, int64_t row, float *out) {
  if (r->row) row = r->row(row, t->rows, r->heads);
  if (!r->transposed) return read_flat(t, r, row * t->cols + r->shift, t->cols, out);
  for (int64_t c = 0; c < t->cols; c++) {
    if (!read_flat(t, r, c * t->rows + row, 1, out + c)) return false;
  }
  return true;
}

bool nb_trial_read(const nb_trials *t, const nb_reading *r, nb_fit *out) {
  if (nb_stop_asked()) return false;
  double squares = 0, copy_squares = 0, product = 0;
  for (int i = 0; i < t->sample_count; i++) {
    const float *want = t->want + (size_t)i * (size_t)t->cols;
    /* A row at either end has nowhere to come from; the others tell. */
    if (!read_row(t, r, t->sample[i], t->have)) continue;
    for (int64_t c = 0; c < t->cols; c++) {
      double h = (double)t->have[c] + (double)r->offset, w = want[c];
      squares += w * w;
      copy_squares += h * h;
      product += h * w;
    }
  }
  if (!(squares > 0) || !isfinite(copy_squares) || !(copy_squares > 0)) return false;
  out->error = sqrt(fmax(0, copy_squares - 2 * product + squares) / squares);
  out->factor = product / copy_squares;
  out->error_with_factor = sqrt(fmax(0, 1 - product * product / (copy_squares * squares)));
  return true;
}

static bool keep(nb_trials *t, double error, const char *cause, const char *format, va_list args) {
  if (!(error <= t->limit) || !(error < t->now / 2) || !(error < t->best)) return false;
  t->best = error;
  t->suspect->row->cause = cause;
  t->suspect->row->cause_error = error;
  int used = snprintf(t->text, t->room, "; %.3g if ", error);
  if (used > 0 && (size_t)used < t->room) vsnprintf(t->text + used, t->room - (size_t)used, format, args);
  return true;
}

bool nb_trial_keep(nb_trials *t, double error, const char *cause, const char *format, ...) {
  va_list args;
  va_start(args, format);
  bool kept = keep(t, error, cause, format, args);
  va_end(args);
  return kept;
}

void nb_trial(nb_trials *t, const nb_reading *reading, const char *cause, const char *format, ...) {
  nb_fit fit;
  if (!nb_trial_read(t, reading, &fit)) return;
  va_list args;
  va_start(args, format);
  keep(t, fit.error, cause, format, args);
  va_end(args);
}

/* ---- mistakes that any format can have ---- */

static void try_factor(nb_trials *t) {
  nb_fit fit;
  if (!nb_trial_read(t, &(nb_reading){0}, &fit)) return;
  bool negated = fabs(fit.factor + 1) < 0.02;
  nb_trial_keep(t, fit.error_with_factor, negated ? "sign-flipped" : "scaled-by-a-factor",
                negated ? "every sign is flipped" : "every value is multiplied by %.6g", fit.factor);
}

/* llama.cpp's converter interleaves the two halves of each head's rows of Q and K; and back. */
static int64_t interleaved(int64_t row, int64_t rows, int64_t heads) {
  int64_t n = rows / heads, head = row / n, r = row % n;
  return head * n + r % (n / 2) * 2 + r / (n / 2);
}

static int64_t separated(int64_t row, int64_t rows, int64_t heads) {
  int64_t n = rows / heads, head = row / n, r = row % n;
  return head * n + r % 2 * (n / 2) + r / 2;
}

static int64_t reversed(int64_t row, int64_t rows, int64_t heads) {
  (void)heads;
  return rows - 1 - row;
}

static void try_row_orders(nb_trials *t) {
  const nb_config *config = &t->suspect->artifact->config;
  const int64_t heads[] = {config->num_attention_heads, config->num_key_value_heads};
  for (size_t i = 0; config->family && i < 2; i++) {
    if (heads[i] < 1 || t->rows % heads[i] || t->rows / heads[i] % 2) continue;
    nb_trial(t, &(nb_reading){.row = interleaved, .heads = heads[i]}, "rows-permuted",
             "its rows are taken as interleaved over %lld heads, as in GGUF", (long long)heads[i]);
    nb_trial(t, &(nb_reading){.row = separated, .heads = heads[i]}, "rows-permuted",
             "its rows are interleaved over %lld heads, as if a permutation was undone twice", (long long)heads[i]);
  }
  if (t->rows > 1) nb_trial(t, &(nb_reading){.row = reversed}, "rows-reversed", "its rows are read from the last");
}

static void try_shifts(nb_trials *t) {
  const nb_source *s = &t->suspect->copy->source;
  int64_t block = t->cols;
  if (s->is_packed && !s->weight.packed.groups) block = nb_packed_unit(&s->weight.packed);
  if (!s->is_packed && s->tensor->is_blocks) block = nb_format_info(s->tensor->format)->block.weights;
  const int64_t shifts[] = {1, block, t->cols};
  for (int i = 0; i < 6; i++) {
    int64_t shift = i % 2 ? -shifts[i / 2] : shifts[i / 2];
    nb_trial(t, &(nb_reading){.shift = shift}, "elements-shifted", "everything is moved by %lld weights",
             (long long)shift);
  }
}

static void try_transposed(nb_trials *t) {
  if (t->rows > 1 && t->cols > 1)
    nb_trial(t, &(nb_reading){.transposed = true}, "transposed", "it is read as [%lld, %lld] and transposed",
             (long long)t->cols, (long long)t->rows);
}

/* A norm whose 1 was added (Gemma keeps weight - 1), or taken away. */
static void try_offsets(nb_trials *t) {
  for (int sign = -1; sign <= 1; sign += 2)
    nb_trial(t, &(nb_reading){.offset = (float)sign}, "off-by-one", "%+d is added to every value", sign);
}

/* The sample of another tensor of the original against the artifact's as it stands. */
static void try_other_tensors(nb_trials *t) {
  const nb_checkpoint *original = t->suspect->original;
  float *want = t->want;
  float *others = nb_alloc_aligned((uint64_t)t->sample_count * (uint64_t)t->cols, sizeof *others);
  for (size_t i = 0; others && i < original->tensor_count; i++) {
    const nb_tensor *tensor = &original->tensors[i];
    bool is_weight = tensor->layout || tensor->is_blocks || nb_dtype_is_float(tensor->dtype);
    nb_values other;
    if (!is_weight || tensor == t->suspect->values->source.tensor || tensor->is_part) continue;
    if (nb_values_open(original, tensor, &other, NULL) == NIBBLE_OK && other.rows == t->rows && other.cols == t->cols) {
      bool ok = true;
      for (int k = 0; ok && k < t->sample_count; k++)
        ok = nb_values_read(&other, t->sample[k] * t->cols, t->cols, others + k * t->cols, NULL) == NIBBLE_OK;
      t->want = others;
      if (ok) nb_trial(t, &(nb_reading){0}, "weight-of-other-tensor", "it is taken for '%s'", other.source.name);
      t->want = want;
    }
    nb_values_close(&other);
  }
  free(others);
}

/* ---- the sample ---- */

static void choose_rows(nb_trials *t) {
  const nibble_weight_error *row = t->suspect->row;
  int64_t blocks = row->damaged_blocks, count = t->rows * t->cols;
  const nb_source *s = &t->suspect->copy->source;
  int64_t unit = s->is_packed ? nb_packed_unit(&s->weight.packed) : t->cols;
  bool groups =
      s->is_packed && s->weight.packed.groups; /* of GPTQ: where only few are damaged, weights.c has named it */
  if (!groups && blocks > 0 && 5 * blocks < nb_ceil_div(count, unit)) {
    /* Damage in few places drowns in a sample of all: look where it is. */
    int64_t at = row->first_damaged_block * unit / t->cols;
    t->is_local = true;
    t->sample[t->sample_count++] = at;
    if (row->max_row != at) t->sample[t->sample_count++] = row->max_row;
    return;
  }
  int64_t n = nb_min_i64(t->rows, NB_TRIAL_ROWS);
  for (int64_t i = 0; i < n; i++) t->sample[t->sample_count++] = i * t->rows / n;
}

static bool read_sample(nb_trials *t) {
  choose_rows(t);
  t->want = nb_alloc_aligned((uint64_t)t->sample_count * (uint64_t)t->cols, sizeof *t->want);
  t->have = nb_alloc_aligned((uint64_t)t->cols, sizeof *t->have);
  if (!t->want || !t->have) return false;
  for (int i = 0; i < t->sample_count; i++) {
    if (nb_values_read(t->suspect->values, t->sample[i] * t->cols, t->cols, t->want + i * t->cols, NULL) != NIBBLE_OK)
      return false;
  }
  nb_fit fit;
  t->now = nb_trial_read(t, &(nb_reading){0}, &fit) ? fit.error : INFINITY;
  return true;
}

static void try_whole(nb_trials *t) {
  try_factor(t);
  try_offsets(t);
  try_shifts(t);
  try_row_orders(t);
  try_transposed(t);
  try_other_tensors(t);
}

void nb_cause_find(const nb_suspect *suspect, char *text, size_t room) {
  nibble_weight_error *row = suspect->row;
  nb_trials t = {
      .suspect = suspect, .rows = row->rows, .cols = row->cols, .best = INFINITY, .text = text, .room = room};
  row->cause = "";
  text[0] = 0;
  double expected = isnan(row->expected_error) ? 0.02 : row->expected_error;
  t.limit = fmax(LIMIT_FACTOR * expected, LIMIT_LEAST);
  if (read_sample(&t)) {
    const nb_source *s = &suspect->copy->source;
    if (!t.is_local) try_whole(&t);
    if (s->is_packed && !nb_gptq_bits(s->weight.packed.format)) {
      nb_trials_bnb(&t);
    } else if (!t.is_local) {
      (s->is_packed ? nb_trials_gptq : s->tensor->is_blocks ? nb_trials_gguf : nb_trials_plain)(&t);
    }
  }
  free(t.want);
  free(t.have);
  if (!*row->cause && t.is_local) row->cause = "blocks-damaged";
}
