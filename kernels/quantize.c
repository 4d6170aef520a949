#include "kernels/quantize.h"

#include <math.h>
#include <string.h>

#include "base/checked.h"
#include "kernels/cpu/quantize_cpu.h"

static const nb_cpu_quantize *const tables[NB_ISA_COUNT] = {
    [NB_ISA_SCALAR] = &nb_cpu_quantize_scalar,
#if defined(__x86_64__)
    [NB_ISA_AVX2] = &nb_cpu_quantize_avx2,
    [NB_ISA_AVX512] = &nb_cpu_quantize_avx512,
#elif defined(__aarch64__)
    [NB_ISA_NEON] = &nb_cpu_quantize_neon,
#endif
};

static const nb_cpu_quantize *table(void) {
  nb_isa isa = nb_isa_current();
  while (!tables[isa]) isa = nb_isa_fallback(isa);
  return tables[isa];
}

/* Codes by ascending value; those of the same value in their own order: FP4 has two zeros, and 0 takes what lies just
 * below zero and zero itself, 8 what lies above. */
static void sort_codes(const float *map, int32_t codes[16]) {
  for (int code = 0; code < 16; code++) {
    int rank = code;
    for (; rank > 0 && map[codes[rank - 1]] > map[code]; rank--) codes[rank] = codes[rank - 1];
    codes[rank] = code;
  }
}

/* A weight belongs to the value whose midpoints it lies between; on a midpoint, to the lower one. */
void nb_quantize_levels(nb_format format, nb_levels *out) {
  const float *map = nb_format_info(format)->codebook;
  sort_codes(map, out->codes);
  for (int rank = 0; rank < 16; rank++) out->values[rank] = map[out->codes[rank]];
  for (int level = 0; level < 4; level++) {
    int step = 16 >> level;
    for (int i = 0; i < 8; i++) {
      int above = step / 2 + i % (1 << level) * step; /* rank of the first value above this threshold */
      out->tree[level][i] = (out->values[above - 1] + out->values[above]) / 2;
    }
  }
}

/* The first of n values that is not finite, in float16 if `half`. */
static int64_t first_bad(nb_dtype dtype, const void *src, int64_t n, bool half) {
  size_t size = nb_dtype_size(dtype);
  for (int64_t i = 0; i < n; i++) {
    float x;
    nb_to_f32(dtype, (const char *)src + (size_t)i * size, 1, &x);
    if (half) x = nb_f16_to_f32(nb_f32_to_f16(x));
    if (!isfinite(x)) return i;
  }
  return -1;
}

int64_t nb_quantize_4bit(const nb_packed *m, const nb_quantize_run *run) {
  nb_levels levels;
  nb_quantize_levels(m->format, &levels);
  int64_t n = run->count, block_size = m->scale.block_cols, blocks = n / block_size, whole = blocks * block_size;
  const nb_cpu_quantize *cpu = block_size % 32 == 0 ? table() : &nb_cpu_quantize_scalar;
  if (cpu->blocks_4bit(&levels, run, block_size) >= 0) return first_bad(run->dtype, run->src, n, false);
  if (whole == n) return -1;
  nb_quantize_run tail = *run;
  tail.src = (const char *)run->src + (size_t)whole * nb_dtype_size(run->dtype);
  tail.count = n - whole;
  tail.codes = (uint8_t *)run->codes + whole / 2;
  tail.scales += blocks;
  tail.sums += blocks;
  return nb_tail_4bit(&levels, &tail) ? -1 : whole + first_bad(tail.dtype, tail.src, tail.count, false);
}

int64_t nb_quantize_int8(const nb_packed *m, const nb_quantize_run *run) {
  const nb_cpu_quantize *cpu = table();
  int64_t cols = m->cols;
  size_t row_bytes = (size_t)cols * nb_dtype_size(run->dtype);
  for (int64_t r = 0; r < run->count / cols; r++) {
    const char *row = (const char *)run->src + (size_t)r * row_bytes;
    if (!cpu->row_int8(run->dtype, row, cols, (int8_t *)run->codes + r * cols, &run->scales[r], &run->sums[r]))
      return r * cols + first_bad(run->dtype, row, cols, true);
  }
  return -1;
}

int64_t nb_quantize(const nb_packed *m, const nb_quantize_run *run) {
  return nb_format_info(m->format)->quantize(m, run);
}

/* A weight is w = a v, its copy s m: w - s m = a (v - m) + (a - s) m. */
void nb_block_error(const nb_block_sums *sums, float absmax, float scale, double *error, double *squares) {
  double a = absmax, shift = (double)absmax - (double)scale;
  *squares = a * a * (double)sums->squares;
  *error = a * a * (double)sums->error;
  if (shift != 0) *error += 2 * a * shift * (double)sums->cross + shift * shift * (double)sums->code_squares;
}

/* ---- torch's sum (ATen/native/cpu/SumKernel.cpp): 4 vectors of 8 lanes, each summed in a cascade of 4 levels ---- */

enum { SUM_LANES = 8, SUM_VECTORS = 4, SUM_WIDTH = SUM_LANES * SUM_VECTORS, SUM_LEVELS = 4 };

static int ceil_log2(int64_t n) {
  int bits = 0;
  while (((int64_t)1 << bits) < n) bits++;
  return bits;
}

/* Sums `rows` rows of `width` values into out[width]. */
static void cascade(const float *values, int64_t rows, int width, float *out) {
  float level[SUM_LEVELS][SUM_WIDTH] = {0};
  int power = ceil_log2(rows) / SUM_LEVELS;
  if (power < 4) power = 4;
  int64_t step = (int64_t)1 << power, row = 0;
  while (row + step <= rows) {
    for (int64_t end = row + step; row < end; row++) {
      for (int k = 0; k < width; k++) level[0][k] += values[row * width + k];
    }
    for (int j = 1; j < SUM_LEVELS; j++) {
      for (int k = 0; k < width; k++) {
        level[j][k] += level[j - 1][k];
        level[j - 1][k] = 0;
      }
      if (row & (step - 1) << (j * power)) break;
    }
  }
  for (; row < rows; row++) {
    for (int k = 0; k < width; k++) level[0][k] += values[row * width + k];
  }
  for (int k = 0; k < width; k++) {
    out[k] = level[0][k];
    for (int j = 1; j < SUM_LEVELS; j++) out[k] += level[j][k];
  }
}

/* Sums n / lanes vectors of `lanes` values: four of them side by side, the rest into the first. */
static void sum_vectors(const float *values, int64_t n, int lanes, float *out) {
  float side[SUM_WIDTH];
  int64_t vectors = n / lanes, together = vectors / SUM_VECTORS;
  cascade(values, together, SUM_VECTORS * lanes, side);
  for (int64_t v = together * SUM_VECTORS; v < vectors; v++) {
    for (int k = 0; k < lanes; k++) side[k] += values[v * lanes + k];
  }
  for (int k = 0; k < lanes; k++) {
    out[k] = side[k];
    for (int v = 1; v < SUM_VECTORS; v++) out[k] += side[v * lanes + k];
  }
}

float nb_mean(const float *values, int64_t n) {
  float sum = 0, lane[SUM_LANES];
  if (n < SUM_LANES) {
    sum_vectors(values, n, 1, &sum);
  } else {
    sum_vectors(values, n, SUM_LANES, lane);
    for (int64_t i = n / SUM_LANES * SUM_LANES; i < n; i++) sum += values[i];
    for (int k = 0; k < SUM_LANES; k++) sum += lane[k];
  }
  return sum / (float)n;
}

/* ---- the dynamic 8-bit type ---- */

enum { DYNAMIC_EXPONENTS = 7, DYNAMIC_POSITIVE = 127, STEPS = 65535 };

/* For each exponent 10^(i-6), 2^i values: the middles of as many equal steps from 0.1 to 1. Zero and one join them. */
void nb_dynamic_map(float map[256]) {
  static const float powers[DYNAMIC_EXPONENTS] = {1e-6f, 1e-5f, 1e-4f, 1e-3f, 1e-2f, 1e-1f, 1e0f};
  float positive[DYNAMIC_POSITIVE];
  int count = 0;
  for (int i = 0; i < DYNAMIC_EXPONENTS; i++) {
    int steps = 1 << i;
    float step = (1.0f - 0.1f) / (float)steps, below = 0.1f;
    for (int k = 1; k <= steps; k++) {
      /* torch.linspace counts from the nearer end, with one rounding. */
      float above = k < (steps + 1) / 2 ? fmaf(step, (float)k, 0.1f) : fmaf(-step, (float)(steps - k), 1.0f);
      positive[count++] = powers[i] * ((below + above) / 2);
      below = above;
    }
  }
  for (int i = 0; i < DYNAMIC_POSITIVE; i++) {
    map[i] = -positive[DYNAMIC_POSITIVE - 1 - i];
    map[DYNAMIC_POSITIVE + 1 + i] = positive[i];
  }
  map[DYNAMIC_POSITIVE] = 0;
  map[255] = 1;
}

/* The code of step i of 65535 from -1 to 1. */
static uint8_t code_of_step(const float middles[255], int step) {
  float at = (float)(2 * step) / (float)STEPS - 1.0f;
  int low = 0, high = 255;
  while (low < high) {
    int mid = (low + high) / 2;
    if (middles[mid] < at) {
      low = mid + 1;
    } else {
      high = mid;
    }
  }
  return (uint8_t)low;
}

void nb_quantize_dynamic(const float *values, int64_t n, float offset, const float map[256], uint8_t *codes,
                         float *absmax) {
  float middles[255];
  for (int i = 0; i < 255; i++) middles[i] = 0.5f * (map[i] + map[i + 1]);
  for (int64_t begin = 0; begin < n; begin += NB_NESTED_BLOCK_SIZE) {
    int64_t end = nb_min_i64(n, begin + NB_NESTED_BLOCK_SIZE);
    float most = 0;
    for (int64_t i = begin; i < end; i++) {
      float x = fabsf(values[i] - offset);
      if (x > most) most = x;
    }
    absmax[begin / NB_NESTED_BLOCK_SIZE] = most;
    if (most == 0) {
      memset(codes + begin, 0, (size_t)(end - begin));
      continue;
    }
    float reciprocal = 1.0f / most;
    for (int64_t i = begin; i < end; i++) {
      float v = (values[i] - offset) * reciprocal;
      v = v < -1 ? -1 : v > 1 ? 1 : v;
      /* The reciprocal of a subnormal is infinite, and zero times it no number: step 0 in bitsandbytes. */
      int step = isnan(v) ? 0 : (int)fmaf((v + 1.0f) * 0.5f, (float)STEPS, 0.5f);
      codes[i] = code_of_step(middles, step);
    }
  }
}
