/* The functions of errors.h in GCC's and Clang's portable vectors, which become what registers there are. The including
 * file names them in its table. Left to themselves, compilers make permutations of such loops. */
#include <math.h>
#include <string.h>

#include "base/checked.h"
#include "kernels/cpu/errors.h"

enum { LANES = 16, GRID_LANES = 8, EXP_LANES = 8 };

typedef float lanes __attribute__((vector_size(LANES * sizeof(float))));
typedef int32_t lane_bits __attribute__((vector_size(LANES * sizeof(float))));
typedef float grid_lanes __attribute__((vector_size(GRID_LANES * sizeof(float))));
typedef int32_t grid_bits __attribute__((vector_size(GRID_LANES * sizeof(float))));
typedef float logits __attribute__((vector_size(EXP_LANES * sizeof(float))));
typedef double exps __attribute__((vector_size(EXP_LANES * sizeof(double))));
typedef int64_t exp_bits __attribute__((vector_size(EXP_LANES * sizeof(double))));

static inline nb_unit_sums unit_sums(const float *w, const float *a, int64_t n) {
  lanes error = {0}, squares = {0}, x, y;
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    memcpy(&x, w + i, sizeof x);
    memcpy(&y, a + i, sizeof y);
    y -= x;
    error += y * y;
    squares += x * x;
  }
  /* Both at once, in a tree: halves are added to halves, until two lanes are left. */
  lanes s = __builtin_shufflevector(error, squares, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
            __builtin_shufflevector(error, squares, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
  s += __builtin_shufflevector(s, s, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11);
  s += __builtin_shufflevector(s, s, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
  s += __builtin_shufflevector(s, s, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
  nb_unit_sums out = {s[0], s[8]};
  for (; i < n; i++) {
    float d = a[i] - w[i];
    out.error += d * d;
    out.squares += w[i] * w[i];
  }
  return out;
}

static void units(const float *w, const float *a, int64_t n, int64_t unit, nb_unit_sums *out) {
  for (int64_t at = 0; at < n; at += unit) *out++ = unit_sums(w + at, a + at, nb_min_i64(unit, n - at));
}

static void run(const float *w, const float *a, int64_t n, nb_run_sums *out) {
  lanes copies = {0}, product = {0}, x, y;
  lane_bits largest = {0}; /* of numbers above zero, which order as integers do */
  *out = (nb_run_sums){0};
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    memcpy(&x, w + i, sizeof x);
    memcpy(&y, a + i, sizeof y);
    copies += y * y;
    product += x * y;
    lane_bits d = (lane_bits)(y - x) & 0x7fffffff, more = d > largest;
    largest = (d & more) | (largest & ~more);
  }
  for (; i < n; i++) {
    out->copies += a[i] * a[i];
    out->product += w[i] * a[i];
    out->largest = fmaxf(out->largest, fabsf(a[i] - w[i]));
  }
  lanes most = (lanes)largest;
  for (int k = 0; k < LANES; k++) {
    out->copies += copies[k];
    out->product += product[k];
    out->largest = fmaxf(out->largest, most[k]);
  }
}

static void range(const float *w, int64_t n, float *low, float *high) {
  lanes least = {0}, most = {0}, x;
  float lo = 0, hi = 0;
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    memcpy(&x, w + i, sizeof x);
    lane_bits less = x<least, more = x> most;
    least = (lanes)(((lane_bits)x & less) | ((lane_bits)least & ~less));
    most = (lanes)(((lane_bits)x & more) | ((lane_bits)most & ~more));
  }
  for (; i < n; i++) {
    lo = w[i] < lo ? w[i] : lo;
    hi = w[i] > hi ? w[i] : hi;
  }
  for (int k = 0; k < LANES; k++) {
    lo = least[k] < lo ? least[k] : lo;
    hi = most[k] > hi ? most[k] : hi;
  }
  *low = lo;
  *high = hi;
}

static const float ROUND = 12582912.0f; /* 1.5 * 2^23: its last bit is worth 1 */

static float grid(const float *w, int64_t n, float scale, float least, float most, const float *importance) {
  grid_lanes sums = {0}, x, weights, low = {0}, high = {0};
  low += least;
  high += most;
  float inverse = 1 / scale;
  int64_t i = 0;
  for (; i + GRID_LANES <= n; i += GRID_LANES) {
    memcpy(&x, w + i, sizeof x);
    grid_lanes steps = x * inverse;
    grid_bits below = steps<low, above = steps> high;
    steps = (grid_lanes)(((grid_bits)low & below) | ((grid_bits)high & above) | ((grid_bits)steps & ~(below | above)));
    grid_lanes d = x - scale * ((steps + ROUND) - ROUND);
    d *= d;
    if (importance) {
      memcpy(&weights, importance + i, sizeof weights);
      d *= weights;
    }
    sums += d;
  }
  for (; i < n; i++) {
    float steps = w[i] * inverse;
    steps = steps < least ? least : steps;
    steps = steps > most ? most : steps;
    float d = w[i] - scale * ((steps + ROUND) - ROUND);
    sums[0] += importance ? d * d * importance[i] : d * d;
  }
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

enum { SERIES = 14 };
static const double inverse_factorials[SERIES] = {
    1 / 6227020800.0, 1 / 479001600.0, 1 / 39916800.0, 1 / 3628800.0, 1 / 362880.0, 1 / 40320.0, 1 / 5040.0,
    1 / 720.0,        1 / 120.0,       1 / 24.0,       1 / 6.0,       1 / 2.0,      1,           1,
};

/* exp(x) of x <= 0 in place, to the last bits of a double: x = n ln 2 + r with |r| <= ln(2) / 2, ln 2 in two parts, and
 * 14 terms of the series for exp(r), the next of which is below 2^-57. */
static inline void exp_lanes(exps *x) {
  const double least = -700, big = 0x1.8p52; /* 1.5 * 2^52: its last bit is worth 1 */
  exp_bits above = *x > least;
  exps limited = (exps)((exp_bits)*x & above) + least * __builtin_convertvector(above + 1, exps);
  exps n = limited * 1.4426950408889634 + big;
  exp_bits scale = (exp_bits)n << 52;
  n -= big;
  exps r = (limited - n * 0x1.62e42fefa0000p-1) - n * 0x1.cf79abc9e3b3ap-40;
  exps p = {0};
  for (int k = 0; k < SERIES; k++) p = p * r + inverse_factorials[k];
  *x = (exps)((exp_bits)p + scale);
}

static void exp_sums(const float *x, const float *y, int64_t n, float max_x, float max_y, double sums[3]) {
  exps sum_x = {0}, sum_y = {0}, weighted = {0};
  for (int64_t i = 0; i < n; i += EXP_LANES) {
    logits a = {0}, b = {0};
    int64_t count = nb_min_i64(EXP_LANES, n - i);
    memcpy(&a, x + i, (size_t)count * sizeof *x);
    memcpy(&b, y + i, (size_t)count * sizeof *y);
    for (int64_t k = count; k < EXP_LANES; k++) {
      a[k] = max_x - 1000; /* whose exp is nothing */
      b[k] = max_y - 1000;
    }
    exps from = __builtin_convertvector(a, exps) - (double)max_x, to = __builtin_convertvector(b, exps) - (double)max_y;
    exps difference = from - to;
    exp_lanes(&from);
    exp_lanes(&to);
    sum_x += from;
    sum_y += to;
    weighted += from * difference;
  }
  sums[0] = sums[1] = sums[2] = 0;
  for (int k = 0; k < EXP_LANES; k++) {
    sums[0] += sum_x[k];
    sums[1] += sum_y[k];
    sums[2] += weighted[k];
  }
}
