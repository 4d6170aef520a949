#include "validate/expected.h"

#include <math.h>
#include <string.h>

#include "base/checked.h"
#include "kernels/cpu/errors.h"
#include "kernels/gptq.h"
#include "kernels/quantize.h"
#include "quant/grid.h"

enum { PIECE = 4096 }; /* weights whose float sums keep six digits */

/* Dynamic 8-bit codes lie at most this share of their block's absmax apart, near 1; half of it is the error. */
static const double NESTED_ERROR = 0.008;

static bool is_symmetric(const nb_config *config) {
  const cJSON *quant = nb_json_object(config->json, "quantization_config");
  return quant && cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(quant, "sym"));
}

static double nested_slack(const nb_packed *m) {
  int64_t blocks = nb_ceil_div(m->rows * m->cols, m->scale.block_cols);
  const float *nested = m->second.data;
  float largest = 0; /* as double, gcc 12 for aarch64 would crash here */
  for (int64_t i = 0; i < nb_ceil_div(blocks, m->second.block_cols); i++) largest = fmaxf(largest, fabsf(nested[i]));
  double slack = NESTED_ERROR * (double)largest;
  return slack * slack;
}

void nb_rounding_of(const nb_checkpoint *artifact, const nb_source *source, nb_rounding *out) {
  const nb_packed *m = source->is_packed ? &source->weight.packed : NULL;
  int64_t rows = source->ndim >= 2 ? source->shape[0] : 1;
  *out = (nb_rounding){
      .packed = m, .plain = source->tensor->dtype, .unit = nb_max_i64(1, source->count / nb_max_i64(1, rows))};
  /* Rounding twice, to float16 and then to bfloat16 say, makes up to half as much again. */
  out->expectation = (nb_expectation){.factor = 2, .every_block = true};
  if (source->tensor->is_blocks) {
    out->is_gguf = true;
    out->gguf = source->tensor->format;
    out->expectation = (nb_expectation){.factor = 1.6}; /* their quantizers search, and K-quants round their scales */
  }
  if (!m) return;
  if (nb_format_info(m->format)->quantize) {
    out->expectation.factor = m->second.block_cols ? 1.2 : 1.1;
    out->unit = nb_packed_unit(m);
    if (m->second.block_cols) out->slack = nested_slack(m);
  } else {
    /* GPTQ makes the weights' error larger so that the outputs' is smaller. */
    out->expectation = (nb_expectation){.factor = 3};
    if (!m->g_idx && m->cols % m->scale.block_cols == 0) out->unit = m->scale.block_cols;
    out->symmetric = is_symmetric(&artifact->config);
  }
}

typedef struct scratch {
  nb_block_sums *sums; /* [weights + 1], as many as there can be units */
  float *scales;       /* [weights + 1] */
  float *gathered;     /* [weights] */
  uint8_t *codes;      /* [2 * weights] */
  int32_t *order;      /* [weights] a row's columns, group by group */
  int32_t *starts;     /* [weights + 1] where each group begins in it */
} scratch;

void *nb_rounding_scratch(int64_t weights) {
  uint64_t n = (uint64_t)weights + 1;
  scratch *s = nb_alloc_aligned(sizeof *s + n * (sizeof *s->sums + 4 * sizeof(float) + 2), 1);
  if (!s) return NULL;
  s->sums = (nb_block_sums *)(s + 1);
  s->scales = (float *)(s->sums + n);
  s->gathered = s->scales + n;
  s->order = (int32_t *)(s->gathered + n);
  s->starts = s->order + n;
  s->codes = (uint8_t *)(s->starts + n);
  return s;
}

/* Of a format whose quantizer rounds each weight to the nearest: its own. */
static bool errors_of_quantizer(const nb_rounding *r, const float *w, int64_t count, scratch *s, double *errors) {
  float peak = nb_format_info(r->packed->format)->peak;
  nb_quantize_run run = {
      .dtype = NB_F32, .src = w, .count = count, .codes = s->codes, .scales = s->scales, .sums = s->sums};
  if (nb_quantize(r->packed, &run) >= 0) return false;
  for (int64_t b = 0; b < nb_ceil_div(count, r->unit); b++) {
    double squares;
    float scale = s->scales[b] / peak;
    nb_block_error(&s->sums[b], scale, scale, &errors[b], &squares);
    errors[b] += r->slack * (double)nb_min_i64(r->unit, count - b * r->unit);
  }
  return true;
}

static double grid_error(const nb_grid *grid, const float *w, int64_t n) {
  nb_group_grid g = nb_group_grid_fit(grid, w, n, NULL);
  return (double)nb_group_grid_error(&g, w, n, NULL);
}

/* Whole groups of GPTQ, which lie in order. */
static bool errors_gptq(const nb_rounding *r, const float *w, int64_t count, double *errors) {
  nb_grid grid = {.bits = nb_gptq_bits(r->packed->format), .sym = r->symmetric};
  for (int64_t g = 0; g < count / r->unit; g++) errors[g] = grid_error(&grid, w + g * r->unit, r->unit);
  return true;
}

/* Counts g_idx out, so that rows can be gathered group by group. */
static void order_columns(const nb_packed *m, scratch *s) {
  if (!m->g_idx) return;
  memset(s->starts, 0, (size_t)(m->groups + 1) * sizeof *s->starts);
  for (int64_t i = 0; i < m->cols; i++) s->starts[m->g_idx[i] + 1]++;
  for (int64_t g = 0; g < m->groups; g++) s->starts[g + 1] += s->starts[g];
  for (int64_t i = 0; i < m->cols; i++) s->order[s->starts[m->g_idx[i]]++] = (int32_t)i;
  for (int64_t g = m->groups; g > 0; g--) s->starts[g] = s->starts[g - 1];
  s->starts[0] = 0;
}

/* The weights of a row that lie in group g; how many there are. */
static int64_t gather(const nb_packed *m, const scratch *s, int64_t g, const float *w, float *out) {
  if (m->g_idx) {
    int64_t first = s->starts[g], n = s->starts[g + 1] - first;
    for (int64_t i = 0; i < n; i++) out[i] = w[s->order[first + i]];
    return n;
  }
  int64_t first = g * m->scale.block_cols, n = nb_max_i64(0, nb_min_i64(m->scale.block_cols, m->cols - first));
  if (n) memcpy(out, w + first, (size_t)n * sizeof *w);
  return n;
}

/* A row of GPTQ: groups of columns, which g_idx may scatter. */
static double gptq_row(const nb_rounding *r, const float *w, scratch *s) {
  const nb_packed *m = r->packed;
  nb_grid grid = {.bits = nb_gptq_bits(m->format), .sym = r->symmetric};
  double sum = 0;
  for (int64_t g = 0; g < m->groups; g++) {
    int64_t n = gather(m, s, g, w, s->gathered);
    if (n) sum += grid_error(&grid, s->gathered, n);
  }
  return sum;
}

/* A group's error is a mistake's if it is so many times what rounding makes, and what is left without the mistake is
 * not: of GPTQModel's groups one in a hundred has 3.8 times the error of rounding to nearest. */
static const double MISTAKE_FACTOR = 16, LEFT_FACTOR = 4, LEFT_SHARE = 0.06;
enum { LEAST_GROUP = 8 }; /* weights: fewer are explained by anything */

static void judge_group(const nb_grid *grid, const float *w, const float *a, int64_t n, int64_t number,
                        nb_group_damage *out) {
  double squares = 0, copies = 0, product = 0, sum = 0, error = 0, expected = grid_error(grid, w, n);
  for (int64_t i = 0; i < n; i++) {
    double x = (double)w[i], y = (double)a[i], d = y - x;
    squares += x * x;
    copies += y * y;
    product += x * y;
    sum += d;
    error += d * d;
  }
  if (!(error > MISTAKE_FACTOR * expected) || n < LEAST_GROUP) return;
  double limit = fmin(LEFT_FACTOR * expected, LEFT_SHARE * squares);
  bool scale = copies > 0 && squares - product * product / copies < limit;
  bool zero = error - sum * sum / (double)n < limit;
  out->scales += scale;
  out->zeros += zero && !scale;
  if ((scale || zero) && out->first < 0) out->first = number;
}

void nb_rounding_groups(const nb_rounding *r, const float *w, const float *a, int64_t n, void *memory,
                        nb_group_damage *out) {
  scratch *s = memory;
  const nb_packed *m = r->packed;
  nb_grid grid = {.bits = nb_gptq_bits(m->format), .sym = r->symmetric};
  *out = (nb_group_damage){.first = -1};
  if (n < m->cols) {
    judge_group(&grid, w, a, n, 0, out);
    return;
  }
  order_columns(m, s);
  for (int64_t g = 0; g < m->groups; g++) {
    int64_t count = gather(m, s, g, w, s->gathered);
    gather(m, s, g, a, s->scales);
    if (count) judge_group(&grid, s->gathered, s->scales, count, g, out);
  }
}

/* Their blocks as grids. That their own scales are quantized, too, is left to the factor. */
static double blocks_row(nb_format format, const float *w, int64_t cols) {
  const nb_format_row *info = nb_format_info(format);
  nb_grid grid = {.bits = info->bits};
  double sum = 0;
  for (int64_t i = 0; i < cols; i += info->block.group)
    sum += grid_error(&grid, w + i, nb_min_i64(info->block.group, cols - i));
  return sum;
}

/* Whether every weight is a bfloat16 already, as those of most originals are. */
static bool all_bf16(const float *w, int64_t n) {
  uint32_t any = 0;
  for (int64_t i = 0; i < n; i++) any |= nb_f32_to_bits(w[i]);
  return (any & 0xffff) == 0;
}

static double plain_row(nb_dtype dtype, const float *w, int64_t cols, scratch *s) {
  if (dtype == NB_F32 || dtype == NB_F64 || (dtype == NB_BF16 && all_bf16(w, cols))) return 0;
  if (!nb_from_f32(dtype, w, (size_t)cols, s->codes)) return 0;
  nb_to_f32(dtype, s->codes, (size_t)cols, s->gathered);
  double sum = 0;
  for (int64_t i = 0; i < cols; i += PIECE) {
    int64_t n = nb_min_i64(PIECE, cols - i);
    nb_unit_sums piece;
    nb_cpu_errors_now()->units(w + i, s->gathered + i, n, n, &piece);
    sum += (double)piece.error;
  }
  return sum;
}

static bool all_finite(const float *w, int64_t n) {
  uint32_t bad = 0;
  for (int64_t i = 0; i < n; i++) bad |= (nb_f32_to_bits(w[i]) & 0x7f800000u) == 0x7f800000u;
  return !bad;
}

bool nb_rounding_errors(const nb_rounding *r, const float *w, int64_t count, int64_t cols, void *memory,
                        double *errors) {
  scratch *s = memory;
  if (r->packed && nb_format_info(r->packed->format)->quantize) return errors_of_quantizer(r, w, count, s, errors);
  if (!all_finite(w, count)) return false;
  if (r->packed && r->unit < cols) return errors_gptq(r, w, count, errors);
  if (r->packed) order_columns(r->packed, s);
  for (int64_t row = 0; row < count / cols; row++) {
    const float *at = w + row * cols;
    errors[row] = r->is_gguf  ? blocks_row(r->gguf, at, cols)
                  : r->packed ? gptq_row(r, at, s)
                              : plain_row(r->plain, at, cols, s);
  }
  return true;
}
