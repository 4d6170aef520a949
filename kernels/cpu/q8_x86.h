/* Integer dot kernels for AVX2, AVX-VNNI and AVX-512, of the formats whose rows lie one after the other. 32 weights
 * take 8 lanes, so that a vector holds one block (of 256 bits) or two (AVX-512). Codes are unsigned, the weight's plus
 * a constant `bias`: each sum begins at -bias times the sum of x, which is common to all rows of weights. Beside the
 * names of vi_scalar.h they are written in these, which vi_avx2.h, vi_avxvnni.h and vi_avx512.h have:
 *
 *   vi_set1(byte), vi_load(p), vi_minus(v)
 *   vi_lookup(map, codes)      bytes of vi_map by codes
 *   vi_high_low(at)            Q_COLS / 2 bytes at `at`, as Q_COLS codes of 4 bits: of each 16, the high halves first
 *   vi_join(first, second)     a vector of one block (the second is ignored) or two; vf_join for floats
 *   vi_table_of(map)           what vi_table_dot looks codes up in: vi_map's bytes
 *   vi_table_start(x)          what a sum of vi_table_dot begins at
 *   vi_table_dot(sum, t, codes, x)   sum plus the products of the bytes that the codes stand for with x
 *   Q_ROWS                     rows of weights of a byte each that are worked on together
 *   vf_lanes(p)                *p in the lanes of the first block, p[1] in those of the second, if there is one */
#ifndef NB_KERNELS_CPU_Q8_X86_H
#define NB_KERNELS_CPU_Q8_X86_H

#include "base/checked.h"
#include "kernels/cpu/blocks_x86.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/q8_cpu.h"
#include "kernels/cpu/q8_target.h"
#include "kernels/cpu/vec.h"
#include "kernels/cpu/vi.h"

enum { Q_COLS = 4 * VF, Q_BLOCKS = Q_COLS / NB_Q8_BLOCK };

/* Q_COLS weights of a row, those of a step along the columns. */
typedef struct q8_unpacked {
  vi codes;
  vf scale, minimum;
} q8_unpacked;

typedef struct q8_format {
  /* Columns step * Q_COLS and on of a row. */
  q8_unpacked (*unpack)(const nb_packed *w, const q8_tables *t, int64_t row, int64_t step);
  int bias;
  int rows; /* of weights that are worked on together; in a row of the table for one row of x */
  bool wide, has_minimum;
  bool whole_rows; /* share a scale, which is applied at the end; unpack's is not looked at */
} q8_format;

/* A weight to multiply with. */
typedef struct q8_weight {
  const nb_packed *packed;
  q8_tables tables;
} q8_weight;

/* A step's columns of n rows of x against f.rows rows of weights from `row` on: adds to sum; f and n are constants. */
static inline __attribute__((always_inline)) void q8_step(const q8_format f, int n, const q8_weight *w, int64_t row,
                                                          int64_t step, const nb_q8_x *x, vf sum[][NB_Q8_ROWS]) {
  const int bias = f.wide ? f.bias - WIDE_LESS : f.bias;
  vi codes[NB_Q8_ROWS], start[NB_Q8_ROWS];
  vf scale_x[NB_Q8_ROWS], sum_x[NB_Q8_ROWS];
  for (int i = 0; i < n; i++) {
    codes[i] = vi_load(x->codes + i * x->cols + step * Q_COLS);
    start[i] = bias ? vi_minus(vi_dot(vi_zero(), vi_set1((int8_t)bias), codes[i], false)) : vi_zero();
    scale_x[i] = vf_lanes(x->scales + i * x->blocks + step * Q_BLOCKS);
    if (f.has_minimum) sum_x[i] = vf_lanes(x->sums + i * x->blocks + step * Q_BLOCKS);
  }
#pragma GCC unroll 4
  for (int r = 0; r < f.rows; r++) {
    q8_unpacked u = f.unpack(w->packed, &w->tables, row + r, step);
#pragma GCC unroll 4
    for (int i = 0; i < n; i++) {
      vf dot = vi_to_f32(vi_dot(start[i], u.codes, codes[i], f.wide));
      vf scale = f.whole_rows ? scale_x[i] : vf_mul(u.scale, scale_x[i]);
      sum[r][i] = vf_fma(dot, scale, sum[r][i]);
      if (f.has_minimum) sum[r][i] = vf_fma(u.minimum, sum_x[i], sum[r][i]);
    }
  }
}

/* n rows of x against f.rows rows of weights from `row` on; f and n are constants. One against one has two sums that
 * take turns, so that an addition need not wait for the one before; columns are an even number of blocks. */
static inline __attribute__((always_inline)) void q8_rows(const q8_format f, int n, const q8_weight *w, int64_t row,
                                                          const nb_q8_x *x, nb_sums out) {
  const int turns = f.rows * n == 1 && Q_BLOCKS == 1 ? 2 : 1;
  vf sum[2][4][NB_Q8_ROWS];
  for (int t = 0; t < turns; t++) {
    for (int r = 0; r < f.rows; r++) {
      for (int i = 0; i < n; i++) sum[t][r][i] = vf_zero();
    }
  }
  for (int64_t step = 0; step < w->packed->cols / Q_COLS; step += turns) {
    for (int t = 0; t < turns; t++) q8_step(f, n, w, row, step + t, x, sum[t]);
  }
  for (int r = 0; r < f.rows; r++) {
    float scale = f.whole_rows ? nb_row_scale(w->packed, row + r) : 1;
    for (int i = 0; i < n; i++) {
      vf total = turns == 2 ? vf_add(sum[0][r][i], sum[1][r][i]) : sum[0][r][i];
      out.data[i * out.stride + r] = vf_sum(total) * scale;
    }
  }
}

/* nf4 and fp4, whose scales are those of 64 columns at least (nb_q8_fits): PAIR of them a step. What a scale is worth
 * is worked out for a run of steps at once, out of the way of the products. */
enum { PAIR = 64, PAIR_VECTORS = PAIR / Q_COLS, PAIR_RUN = 64, ROWS_4BIT = 4 };

typedef struct q8_pair {
  vi codes[PAIR_VECTORS], start[PAIR_VECTORS];
  vf scales[PAIR_VECTORS];
} q8_pair;

static inline q8_pair load_pair(const nb_q8_x *x, int64_t row, int64_t pair) {
  q8_pair p;
  for (int v = 0; v < PAIR_VECTORS; v++) {
    p.codes[v] = vi_load(x->codes + row * x->cols + pair * PAIR + v * Q_COLS);
    p.start[v] = vi_table_start(p.codes[v]);
    p.scales[v] = vf_lanes(x->scales + row * x->blocks + pair * (PAIR / NB_Q8_BLOCK) + v * Q_BLOCKS);
  }
  return p;
}

/* Of weights flat, flat + PAIR, ... */
static inline void pair_scales(const q8_weight *w, uint64_t flat, int64_t count, float *out) {
  for (int64_t i = 0; i < count; i++)
    out[i] =
        nb_block_scale(w->packed, (int64_t)((flat + (uint64_t)i * PAIR) >> w->tables.block_shift)) * w->tables.step;
}

/* n rows of x against `rows` rows of weights from `row` on; n and rows are constants. */
static inline __attribute__((always_inline)) void q8_rows_4bit(int rows, int n, const q8_weight *w, int64_t row,
                                                               const nb_q8_x *x, nb_sums out) {
  const uint64_t cols = (uint64_t)w->packed->cols;
  const vi_table table = vi_table_of(w->tables.map);
  vf sum[ROWS_4BIT][NB_Q8_ROWS];
  float scales[ROWS_4BIT][PAIR_RUN];
  const uint8_t *at[ROWS_4BIT];
  for (int r = 0; r < rows; r++) {
    at[r] = (const uint8_t *)w->packed->codes + (uint64_t)(row + r) * cols / 2;
    for (int i = 0; i < n; i++) sum[r][i] = vf_zero();
  }
  for (int64_t pair = 0; pair < w->packed->cols / PAIR; pair++) {
    q8_pair p[NB_Q8_ROWS];
    int64_t k = pair % PAIR_RUN;
    for (int r = 0; k == 0 && r < rows; r++)
      pair_scales(w, (uint64_t)(row + r) * cols + (uint64_t)pair * PAIR,
                  nb_min_i64(PAIR_RUN, w->packed->cols / PAIR - pair), scales[r]);
    for (int i = 0; i < n; i++) p[i] = load_pair(x, i, pair);
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
      vf scale = vf_set1(scales[r][k]);
      vi codes[PAIR_VECTORS];
      __builtin_prefetch(at[r] + pair * (PAIR / 2) + NB_AHEAD);
      for (int v = 0; v < PAIR_VECTORS; v++) codes[v] = vi_high_low(at[r] + pair * (PAIR / 2) + v * (Q_COLS / 2));
#pragma GCC unroll 4
      for (int i = 0; i < n; i++) {
        vf part = vf_zero();
        for (int v = 0; v < PAIR_VECTORS; v++) {
          vf dot = vi_to_f32(vi_table_dot(p[i].start[v], table, codes[v], p[i].codes[v]));
          part = v == 0 ? vf_mul(dot, p[i].scales[v]) : vf_fma(dot, p[i].scales[v], part);
        }
        sum[r][i] = vf_fma(part, scale, sum[r][i]);
      }
    }
  }
  for (int r = 0; r < rows; r++) {
    for (int i = 0; i < n; i++) out.data[i * out.stride + r] = vf_sum(sum[r][i]);
  }
}

/* The rows of weights that a call of a dot kernel is for. */
typedef struct q8_range {
  int64_t begin, end;
} q8_range;

static inline __attribute__((always_inline)) void q8_n(q8_format f, int n, const q8_weight *w, q8_range range,
                                                       const nb_q8_x *x, nb_sums out) {
  q8_format one = f;
  f.rows = n == 1 ? f.rows : (f.rows + 1) / 2;
  one.rows = 1;
  int64_t r = range.begin;
  for (; r + f.rows <= range.end; r += f.rows, out.data += f.rows) q8_rows(f, n, w, r, x, out);
  for (; r < range.end; r++, out.data++) q8_rows(one, n, w, r, x, out);
}

static inline __attribute__((always_inline)) void q8_dot(const q8_format f, const nb_packed *packed, int64_t begin,
                                                         int64_t end, const nb_q8_x *x, nb_sums out) {
  const q8_weight w = {packed, make_tables(packed)};
  const q8_range range = {begin, end};
  switch (x->count) {
    case 1: q8_n(f, 1, &w, range, x, out); break;
    case 2: q8_n(f, 2, &w, range, x, out); break;
    case 3: q8_n(f, 3, &w, range, x, out); break;
    default: q8_n(f, 4, &w, range, x, out); break;
  }
}

/* How a format's 32 weights become a block, and where they lie in a row. A constant where it is passed. */
typedef struct q8_blocks {
  block32_fn block;
  bool two_scales;
  int64_t weights, bytes; /* of a block of the format */
} q8_blocks;

/* The row's first byte, and the start of loading what comes NB_AHEAD bytes later. */
static inline const uint8_t *q8_at(const nb_packed *w, int64_t row, int64_t step, q8_blocks f) {
  const uint8_t *at = (const uint8_t *)w->codes + row * (w->cols / f.weights * f.bytes);
  __builtin_prefetch(at + step * Q_COLS * f.bytes / f.weights + NB_AHEAD);
  return at;
}

static inline __attribute__((always_inline)) q8_unpacked unpack(q8_blocks f, const nb_packed *w, int64_t row,
                                                                int64_t step) {
  const uint8_t *at = q8_at(w, row, step, f);
  __m256i halves[2];
  __m256 scales[2], minima[2];
  for (int b = 0; b < Q_BLOCKS; b++) {
    block32 block = f.block(w, row, step * Q_BLOCKS + b, at);
    halves[b] = block.codes;
    scales[b] = f.two_scales ? _mm256_set_m128(_mm_set1_ps(block.scales[1]), _mm_set1_ps(block.scales[0]))
                             : _mm256_set1_ps(block.scales[0]);
    /* In each of the 8 lanes that a block's sums take: an eighth. */
    minima[b] = _mm256_set1_ps(block.minimum * -0.125f);
  }
  return (q8_unpacked){.codes = vi_join(halves[0], halves[Q_BLOCKS - 1]),
                       .scale = vf_join(scales[0], scales[Q_BLOCKS - 1]),
                       .minimum = vf_join(minima[0], minima[Q_BLOCKS - 1])};
}

static inline q8_unpacked unpack_4bit(const nb_packed *w, const q8_tables *t, int64_t row, int64_t step) {
  int64_t flat = row * w->cols + step * Q_COLS;
  const uint8_t *at = (const uint8_t *)w->codes + flat / 2;
  __builtin_prefetch(at + NB_AHEAD);
  return (q8_unpacked){.codes = vi_lookup(t->map, vi_high_low(at)),
                       .scale = vf_set1(nb_block_scale(w, flat >> t->block_shift) * t->step),
                       .minimum = vf_zero()};
}
static inline q8_unpacked unpack_int8(const nb_packed *w, const q8_tables *t, int64_t row, int64_t step) {
  (void)t;
  return unpack((q8_blocks){block_int8, false, 1, 1}, w, row, step);
}
static inline q8_unpacked unpack_q8_0(const nb_packed *w, const q8_tables *t, int64_t row, int64_t step) {
  (void)t;
  return unpack((q8_blocks){block_q8_0, false, 32, 34}, w, row, step);
}
static inline q8_unpacked unpack_q4_0(const nb_packed *w, const q8_tables *t, int64_t row, int64_t step) {
  (void)t;
  return unpack((q8_blocks){block_q4_0, false, 32, 18}, w, row, step);
}
static inline q8_unpacked unpack_q4_k(const nb_packed *w, const q8_tables *t, int64_t row, int64_t step) {
  (void)t;
  return unpack((q8_blocks){block_q4_k, false, 256, 144}, w, row, step);
}
static inline q8_unpacked unpack_q6_k(const nb_packed *w, const q8_tables *t, int64_t row, int64_t step) {
  (void)t;
  return unpack((q8_blocks){block_q6_k, true, 256, 210}, w, row, step);
}

static const q8_format format_4bit = {.unpack = unpack_4bit, .bias = 128, .wide = true};
static const q8_format format_int8 = {
    .unpack = unpack_int8, .bias = 128, .rows = Q_ROWS, .wide = true, .whole_rows = true};
static const q8_format format_q8_0 = {.unpack = unpack_q8_0, .bias = 128, .rows = Q_ROWS, .wide = true};
static const q8_format format_q4_0 = {.unpack = unpack_q4_0, .bias = 8, .rows = 4};
static const q8_format format_q4_k = {.unpack = unpack_q4_k, .rows = 2, .has_minimum = true};
static const q8_format format_q6_k = {.unpack = unpack_q6_k, .bias = 32, .rows = 2};

static inline __attribute__((always_inline)) void dot_4bit_n(int rows, int n, const q8_weight *w, q8_range range,
                                                             const nb_q8_x *x, nb_sums out) {
  int64_t r = range.begin;
  for (; r + rows <= range.end; r += rows, out.data += rows) q8_rows_4bit(rows, n, w, r, x, out);
  for (; r < range.end; r++, out.data++) q8_rows_4bit(1, n, w, r, x, out);
}

static void dot_4bit(const nb_packed *packed, int64_t begin, int64_t end, const nb_q8_x *x, nb_sums out) {
  const q8_weight w = {packed, make_tables(packed)};
  const q8_range range = {begin, end};
  switch (x->count) {
    case 1: dot_4bit_n(4, 1, &w, range, x, out); break;
    case 2: dot_4bit_n(2, 2, &w, range, x, out); break;
    case 3: dot_4bit_n(2, 3, &w, range, x, out); break;
    default: dot_4bit_n(2, 4, &w, range, x, out); break;
  }
}
static void dot_int8(const nb_packed *w, int64_t begin, int64_t end, const nb_q8_x *x, nb_sums out) {
  q8_dot(format_int8, w, begin, end, x, out);
}
static void dot_q8_0(const nb_packed *w, int64_t begin, int64_t end, const nb_q8_x *x, nb_sums out) {
  q8_dot(format_q8_0, w, begin, end, x, out);
}
static void dot_q4_0(const nb_packed *w, int64_t begin, int64_t end, const nb_q8_x *x, nb_sums out) {
  q8_dot(format_q4_0, w, begin, end, x, out);
}
static void dot_q4_k(const nb_packed *w, int64_t begin, int64_t end, const nb_q8_x *x, nb_sums out) {
  q8_dot(format_q4_k, w, begin, end, x, out);
}
static void dot_q6_k(const nb_packed *w, int64_t begin, int64_t end, const nb_q8_x *x, nb_sums out) {
  q8_dot(format_q6_k, w, begin, end, x, out);
}

#endif
