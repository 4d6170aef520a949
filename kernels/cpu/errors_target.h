/* The functions of errors.h in GCC's and Clang's portable vectors, which become what registers there are. Left to
 * themselves, compilers make permutations of such loops. */
#ifndef NB_KERNELS_CPU_ERRORS_TARGET_H
#define NB_KERNELS_CPU_ERRORS_TARGET_H

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/checked.h"
#include "kernels/cpu/errors.h"
#include "kernels/cpu/target.h"

enum { LANES = 16, GRID_LANES = 8, EXP_LANES = 8 };

typedef float lanes __attribute__((vector_size(LANES * sizeof(float))));
typedef int32_t lane_bits __attribute__((vector_size(LANES * sizeof(float))));
typedef float grid_lanes __attribute__((vector_size(GRID_LANES * sizeof(float))));
typedef int32_t grid_bits __attribute__((vector_size(GRID_LANES * sizeof(float))));
typedef uint8_t grid_bytes __attribute__((vector_size(GRID_LANES * sizeof(float))));
typedef uint8_t code_lanes __attribute__((vector_size(GRID_LANES)));
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

static const float ROUND = 12582912.0f; /* 1.5 * 2^23: its last bit is worth 1 */

/* Through pointers, as passing vectors by value is another convention on each instruction set. */
static inline void clamp(grid_lanes *x, const grid_lanes *least, const grid_lanes *most) {
  grid_bits below = *x < *least;
  *x = (grid_lanes)(((grid_bits)*least & below) | ((grid_bits)*x & ~below));
  grid_bits above = *x > *most;
  *x = (grid_lanes)(((grid_bits)*most & above) | ((grid_bits)*x & ~above));
}

/* The least and the largest of each lane, so far and with x. */
typedef struct extremes {
  grid_lanes least, most;
} extremes;

static inline void take(extremes *e, const grid_lanes *x) {
  grid_bits less = *x<e->least, more = *x> e->most;
  e->least = (grid_lanes)(((grid_bits)*x & less) | ((grid_bits)e->least & ~less));
  e->most = (grid_lanes)(((grid_bits)*x & more) | ((grid_bits)e->most & ~more));
}

static inline void take_both(extremes *e, const extremes *other) {
  take(e, &other->least);
  take(e, &other->most);
}

static void range(const float *w, int64_t n, float *low, float *high) {
  extremes even = {{0}, {0}}, odd = even; /* two, as each waits for the one before */
  grid_lanes x;
  int64_t i = 0, rest = n % (2 * GRID_LANES);
  for (; i + 2 * GRID_LANES <= n; i += 2 * GRID_LANES) {
    memcpy(&x, w + i, sizeof x);
    take(&even, &x);
    memcpy(&x, w + i + GRID_LANES, sizeof x);
    take(&odd, &x);
  }
  for (; rest > 0; rest -= GRID_LANES, i += GRID_LANES) {
    x = (grid_lanes){0};
    memcpy(&x, w + i, (size_t)nb_min_i64(rest, GRID_LANES) * sizeof *w);
    take(&even, &x);
  }
  take_both(&even, &odd);
  odd.least = __builtin_shufflevector(even.least, even.least, 4, 5, 6, 7, 0, 1, 2, 3);
  odd.most = __builtin_shufflevector(even.most, even.most, 4, 5, 6, 7, 0, 1, 2, 3);
  take_both(&even, &odd);
  odd.least = __builtin_shufflevector(even.least, even.least, 2, 3, 0, 1, 6, 7, 4, 5);
  odd.most = __builtin_shufflevector(even.most, even.most, 2, 3, 0, 1, 6, 7, 4, 5);
  take_both(&even, &odd);
  *low = even.least[0] < even.least[1] ? even.least[0] : even.least[1];
  *high = even.most[0] > even.most[1] ? even.most[0] : even.most[1];
}

static float grid(const float *w, int64_t n, float scale, float least, float most, const float *importance) {
  grid_lanes sums = {0}, x, weights, low = {0}, high = {0};
  low += least;
  high += most;
  float inverse = 1 / scale;
  int64_t i = 0;
  for (; i + GRID_LANES <= n; i += GRID_LANES) {
    memcpy(&x, w + i, sizeof x);
    grid_lanes steps = x * inverse;
    clamp(&steps, &low, &high);
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

enum { MOST_STEPS = 1024 /* more than any code is from its zero point; keeps the sum below ROUND's whole numbers */ };

/* GRID_LANES weights as nb_grid_code (quant/grid.h) rounds them. */
static inline void round_lanes(const grid_lanes *x, const nb_grid_line *g, grid_lanes *codes) {
  grid_lanes none = {0}, most = none + (float)MOST_STEPS, least = -most, max_code = none + g->max_code;
  grid_lanes steps = *x / g->scale;
  clamp(&steps, &least, &most);
  *codes = ((steps + ROUND) - ROUND) + g->zero;
  clamp(codes, &none, &max_code);
}

/* The same, their codes as bytes, and what it costs. */
static inline void round_eight(const grid_lanes *x, const nb_grid_line *g, code_lanes *codes, grid_lanes *error,
                               grid_lanes *squares) {
  grid_lanes rounded;
  round_lanes(x, g, &rounded);
  grid_bytes bytes = (grid_bytes)(rounded + ROUND); /* a whole number is in its last bits, here the lowest byte */
  *codes = __builtin_shufflevector(bytes, bytes, 0, 4, 8, 12, 16, 20, 24, 28);
  grid_lanes d = *x - g->scale * (rounded - g->zero);
  *error += d * d;
  *squares += *x * *x;
}

static void round_run(const float *w, int64_t n, const nb_grid_line *g, uint8_t *codes, nb_unit_sums *sums) {
  grid_lanes error = {0}, squares = {0}, x = {0};
  code_lanes eight;
  int64_t i = 0, rest = n % GRID_LANES;
  for (; i + GRID_LANES <= n; i += GRID_LANES) {
    memcpy(&x, w + i, sizeof x);
    round_eight(&x, g, &eight, &error, &squares);
    memcpy(codes + i, &eight, sizeof eight);
  }
  if (rest > 0) {
    x = (grid_lanes){0}; /* which costs nothing: 0 is a point of every grid */
    memcpy(&x, w + i, (size_t)rest * sizeof *w);
    round_eight(&x, g, &eight, &error, &squares);
    memcpy(codes + i, &eight, (size_t)rest);
  }
  *sums = (nb_unit_sums){0};
  for (int k = 0; k < GRID_LANES; k++) {
    sums->error += error[k];
    sums->squares += squares[k];
  }
}

/* A grid for each lane, as quant/grid.c makes one. */
typedef struct grids {
  grid_lanes scale, inverse, least, most;
} grids;

static inline void make_grids(const grid_lanes *low, const grid_lanes *high, const nb_grid_search *s, grids *out) {
  grid_lanes none = {0}, least = none + s->least_scale, most = none + s->most_scale, zero = none + s->middle;
  grid_lanes scale = (*high - *low) / s->max_code;
  clamp(&scale, &least, &most);
  /* To the nearest number of the stored dtype, half to even. */
  grid_bits bits = (grid_bits)scale;
  int32_t unit = 1 << s->dropped_bits;
  bits += ((bits >> s->dropped_bits) & 1) + (unit / 2 - 1);
  scale = (grid_lanes)(bits & -unit);
  if (s->middle < 0) {
    grid_lanes max_code = none + s->max_code;
    zero = -*low / scale;
    clamp(&zero, &none, &max_code);
    zero = (zero + ROUND) - ROUND;
  }
  *out = (grids){.scale = scale, .inverse = 1 / scale, .least = -zero, .most = s->max_code - zero};
}

static inline void add_errors(const grids *g, const float *w, float importance, grid_lanes *sum) {
  grid_lanes x;
  memcpy(&x, w, sizeof x);
  grid_lanes steps = x * g->inverse;
  clamp(&steps, &g->least, &g->most);
  grid_lanes d = x - g->scale * ((steps + ROUND) - ROUND);
  *sum += d * d * importance;
}

static inline void add_up(const grid_lanes *sums, grid_lanes *out) {
  *out = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

static inline bool all_above(const grid_lanes *x, const grid_lanes *limit) {
  grid_bits above = *x > *limit;
  int64_t pairs[GRID_LANES / 2];
  memcpy(pairs, &above, sizeof pairs);
  return (pairs[0] & pairs[1] & pairs[2] & pairs[3]) == -1;
}

/* What `grid` sums up across its lanes is here in as many sums, so that a lane can be a group of its own. Sums only
 * grow: where all are above `limit` already, the rest is left out. */
static inline void grid_errors(const grids *g, const nb_search_groups *groups, const grid_lanes *limit,
                               grid_lanes *out) {
  static const float alike = 1;
  const float *w = groups->w, *importance = groups->importance ? groups->importance : &alike;
  int64_t n = groups->n, step = groups->importance ? 1 : 0;
  grid_lanes sums[GRID_LANES] = {0};
  int64_t i = 0;
  while (i + GRID_LANES <= n) {
    for (int k = 0; k < GRID_LANES; k++)
      add_errors(g, w + (i + k) * NB_SEARCH_ROWS, importance[(i + k) * step], &sums[k]);
    i += GRID_LANES;
    if (i % (2 * GRID_LANES) != 0) continue;
    add_up(sums, out);
    if (all_above(out, limit)) return;
  }
  for (; i < n; i++) add_errors(g, w + i * NB_SEARCH_ROWS, importance[i * step], &sums[0]);
  add_up(sums, out);
}

static void search(const nb_search_groups *groups, const nb_grid_search *s, float *part) {
  _Static_assert((int)NB_SEARCH_ROWS == (int)GRID_LANES, "a lane is a group");
  grid_lanes lows, highs, best = {0}, least_error = {0};
  memcpy(&lows, groups->low, sizeof lows);
  memcpy(&highs, groups->high, sizeof highs);
  best += 1;
  least_error += INFINITY;
  for (int i = 0; i < s->tried; i++) {
    float p = 1 - (float)i / (float)s->steps;
    grid_lanes l = lows * p, h = highs * p, error, parts = {0};
    grids g;
    make_grids(&l, &h, s, &g);
    grid_errors(&g, groups, &least_error, &error);
    grid_bits less = error < least_error;
    parts += p;
    least_error = (grid_lanes)(((grid_bits)error & less) | ((grid_bits)least_error & ~less));
    best = (grid_lanes)(((grid_bits)parts & less) | ((grid_bits)best & ~less));
  }
  memcpy(part, &best, sizeof best);
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

const nb_cpu_errors NB_OF_TARGET(nb_cpu_errors) = {
    .units = units,
    .run = run,
    .range = range,
    .grid = grid,
    .round = round_run,
    .search = search,
    .exp_sums = exp_sums,
};

#endif
