/* The functions of errors.h in GCC's and Clang's portable vectors, which become what registers there are. The including
 * file names them in its table. Left to themselves, compilers make permutations of such loops. */
#include <math.h>
#include <string.h>

#include "base/checked.h"
#include "kernels/cpu/errors.h"

enum { LANES = 16, GRID_LANES = 8 };

typedef float lanes __attribute__((vector_size(LANES * sizeof(float))));
typedef int32_t lane_bits __attribute__((vector_size(LANES * sizeof(float))));
typedef float grid_lanes __attribute__((vector_size(GRID_LANES * sizeof(float))));
typedef int32_t grid_bits __attribute__((vector_size(GRID_LANES * sizeof(float))));

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
