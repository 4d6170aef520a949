#include <math.h>
#include <string.h>

#include "kernels/cpu/quantize_cpu.h"

typedef struct lanes {
  float squares[NB_SUM_LANES], error[NB_SUM_LANES], cross[NB_SUM_LANES], code_squares[NB_SUM_LANES];
} lanes;

static float sum_lanes(float *lane) {
  for (int half = NB_SUM_LANES / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; i++) lane[i] += lane[i + half];
  }
  return lane[0];
}

static void sum_block(lanes *l, nb_block_sums *out) {
  *out = (nb_block_sums){sum_lanes(l->squares), sum_lanes(l->error), sum_lanes(l->cross), sum_lanes(l->code_squares)};
}

static int rank_of(const nb_levels *levels, float v) {
  int path = 0;
  for (int level = 0; level < 4; level++) path = 2 * path + (v > levels->tree[level][path]);
  return path;
}

/* Codes of n scaled weights; the other half of an odd count's last byte is the code of zero. */
static void encode(const nb_levels *levels, const float *v, int64_t n, bool nested, uint8_t *codes,
                   nb_block_sums *sums) {
  lanes l = {0};
  for (int64_t i = 0; i < n; i++) {
    int rank = rank_of(levels, v[i]), lane = (int)(i / 2 % NB_SUM_LANES);
    float m = levels->values[rank], miss = v[i] - m;
    l.squares[lane] += v[i] * v[i];
    l.error[lane] += miss * miss;
    if (nested) {
      l.cross[lane] += miss * m;
      l.code_squares[lane] += m * m;
    }
    int code = levels->codes[rank];
    if (i % 2 == 0) {
      codes[i / 2] = (uint8_t)(code << 4 | levels->codes[rank_of(levels, 0)]);
    } else {
      codes[i / 2] = (uint8_t)((codes[i / 2] & 0xf0) | code);
    }
  }
  sum_block(&l, sums);
}

/* False if there is a NaN or an infinity. */
static bool find_absmax(const float *x, int64_t n, float *absmax) {
  *absmax = 0;
  for (int64_t i = 0; i < n; i++) {
    if (!isfinite(x[i])) return false;
    if (fabsf(x[i]) > *absmax) *absmax = fabsf(x[i]);
  }
  return true;
}

static int64_t blocks_4bit(const nb_levels *levels, const nb_quantize_run *run, int64_t block_size) {
  float v[NB_MAX_BLOCK_SIZE], *absmax = run->scales;
  size_t bytes = (size_t)block_size * nb_dtype_size(run->dtype);
  for (int64_t b = 0; b < run->count / block_size; b++) {
    nb_to_f32(run->dtype, (const char *)run->src + (size_t)b * bytes, (size_t)block_size, v);
    if (!find_absmax(v, block_size, &absmax[b])) return b;
    float reciprocal = 1.0f / (absmax[b] > NB_MIN_ABSMAX ? absmax[b] : NB_MIN_ABSMAX);
    for (int64_t i = 0; i < block_size; i++) v[i] *= reciprocal;
    encode(levels, v, block_size, run->nested, (uint8_t *)run->codes + b * block_size / 2, &run->sums[b]);
  }
  return -1;
}

bool nb_tail_4bit(const nb_levels *levels, const nb_quantize_run *tail) {
  float v[NB_MAX_BLOCK_SIZE], *absmax = tail->scales;
  int64_t n = tail->count;
  nb_to_f32(tail->dtype, tail->src, (size_t)n, v);
  if (!find_absmax(v, n, absmax)) return false;
  if (*absmax < NB_MIN_ABSMAX) *absmax = NB_MIN_ABSMAX; /* here the bound is what gets stored */
  for (int64_t i = 0; i < n; i++) v[i] /= *absmax;
  encode(levels, v, n, tail->nested, tail->codes, tail->sums);
  return true;
}

static bool row_int8(nb_dtype dtype, const void *src, int64_t cols, int8_t *codes, float *scb, nb_block_sums *sums) {
  size_t size = nb_dtype_size(dtype);
  float x;
  *scb = 0;
  for (int64_t c = 0; c < cols; c++) {
    nb_to_f32(dtype, (const char *)src + (size_t)c * size, 1, &x);
    float half = fabsf(nb_f16_to_f32(nb_f32_to_f16(x)));
    if (!isfinite(half)) return false;
    if (half > *scb) *scb = half;
  }
  /* In an empty row bitsandbytes multiplies zero by infinity and casts the NaN to int8, which gives 0. */
  float scale = *scb > 0 ? 1.0f / *scb * 127.0f : 0;
  lanes l = {0};
  for (int64_t c = 0; c < cols; c++) {
    nb_to_f32(dtype, (const char *)src + (size_t)c * size, 1, &x);
    float code = rintf(nb_f16_to_f32(nb_f32_to_f16(x)) * scale), v = x * scale, miss = v - code;
    codes[c] = (int8_t)code;
    l.squares[c % NB_SUM_LANES] += v * v;
    l.error[c % NB_SUM_LANES] += miss * miss;
  }
  sum_block(&l, sums);
  return true;
}

const nb_cpu_quantize nb_cpu_quantize_scalar = {blocks_4bit, row_int8};
