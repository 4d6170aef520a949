/* Dequantization and dot kernels of GPTQ's packed integers, for any target that has vectors. Codes run down columns of
 * words, so that lanes are output features:
 *
 *   words  w0 = row r, columns 0..7   r+1   r+2 ...   r+VF-1       (4 bits)
 *   codes  (w0 >> 4 * c) & 15         column c of VF rows at once, no weight ever crosses a lane */
#ifndef NB_KERNELS_CPU_GPTQ_TARGET_H
#define NB_KERNELS_CPU_GPTQ_TARGET_H

#include <stdbool.h>

#include "base/checked.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/vec.h"
#include "kernels/gptq.h"

enum { CHUNK_COLS = 32 /* columns whose words end where one ends, at any width */ };

/* Where the words, scales and zero points of a row and of those after it begin, and how far it is to the next. */
typedef struct gptq_rows {
  const uint32_t *words;
  const char *scales;
  const uint8_t *zeros;
  int64_t step;
} gptq_rows;

/* The scales and zero points of VF rows in one group. */
typedef struct group_params {
  vf scale, zero;
} group_params;

static inline __attribute__((always_inline)) gptq_rows rows_at(const nb_packed *m, int bits, int64_t row) {
  gptq_rows rows;
  rows.words = (const uint32_t *)m->codes + nb_gptq_at(m, row, nb_gptq_words(m->cols, bits), &rows.step);
  int64_t at = nb_gptq_at(m, row, m->groups, &rows.step);
  rows.scales = (const char *)m->scale.data + at * (m->scale.dtype == NB_F32 ? 4 : 2);
  rows.zeros = m->zeros + at;
  return rows;
}

static inline group_params load_params(const nb_packed *m, const gptq_rows *rows, int64_t group, int v) {
  int64_t at = group * rows->step + v * VF;
  const uint16_t *scales = (const uint16_t *)(const void *)rows->scales + at;
  group_params p = {.zero = vu_to_f32(vu_load_u8(rows->zeros + at))};
  p.scale = m->scale.dtype == NB_F16    ? vf_load_f16(scales)
            : m->scale.dtype == NB_BF16 ? vf_load_bf16(scales)
                                        : vf_load((const float *)(const void *)rows->scales + at);
  return p;
}

/* Code i of a chunk whose words for VF rows are v[0..bits), in the lowest bits, others above it; bits and i are
 * constants where this is inlined. */
static inline __attribute__((always_inline)) vu chunk_bits(const vu *v, int bits, int i) {
  int word = i * bits / 32, shift = i * bits % 32;
  vu code = vu_shift_right(v[word], shift);
  if (shift + bits > 32) code = vu_or(code, vu_shift_left(v[word + 1], 32 - shift));
  return code;
}

static inline __attribute__((always_inline)) vf chunk_code(const vu *v, int bits, int i) {
  return vu_to_f32(vu_and(chunk_bits(v, bits, i), (1u << bits) - 1));
}

/* Where no table of 16 floats fits a register, a code that does not reach the top of its word is not shifted down: it
 * becomes a float where it is, and x is divided by the same power of two beforehand. */
static inline __attribute__((always_inline)) bool in_place(int bits, int i) {
  return (VF < 16 || bits > 4) && i * bits % 32 + bits < 32;
}

static inline __attribute__((always_inline)) float place(int bits, int i) {
  return in_place(bits, i) ? (float)(1u << i * bits % 32) : 1;
}

/* The same for a product: less the middle of its range, or in its place and as it is. */
static inline __attribute__((always_inline)) vf dot_code(const vu *v, int bits, int i) {
  if (!in_place(bits, 0)) return vu_centred(chunk_bits(v, bits, i), bits);
  int word = i * bits / 32, shift = i * bits % 32;
  if (in_place(bits, i)) return vu_to_f32(vu_and(v[word], ((1u << bits) - 1) << shift));
  return shift + bits == 32 ? vu_to_f32(vu_shift_right(v[word], shift)) : chunk_code(v, bits, i);
}

static inline __attribute__((always_inline)) void load_chunk(const gptq_rows *rows, int bits, int64_t col, int first,
                                                             vu *v) {
  const uint32_t *words = rows->words + col / CHUNK_COLS * bits * rows->step + first * VF;
  for (int w = 0; w < bits; w++) v[w] = vu_load(words + w * rows->step);
}

static inline void prepare_gptq(int bits, const float *x, int64_t cols, float *out) {
  for (int64_t c = 0; c < cols; c++) out[c] = x[c] / place(bits, (int)(c % CHUNK_COLS));
}
static inline void prepare_gptq2(const float *x, int64_t cols, float *out) { prepare_gptq(2, x, cols, out); }
static inline void prepare_gptq3(const float *x, int64_t cols, float *out) { prepare_gptq(3, x, cols, out); }
static inline void prepare_gptq4(const float *x, int64_t cols, float *out) { prepare_gptq(4, x, cols, out); }
static inline void prepare_gptq8(const float *x, int64_t cols, float *out) { prepare_gptq(8, x, cols, out); }

/* VF rows x 32 columns that begin at a chunk: columns into rows of `block`, then turned into place. */
static inline __attribute__((always_inline)) void dequantize_chunk(const nb_packed *m, const gptq_rows *rows, int bits,
                                                                   int64_t col, float *out, int64_t stride) {
  float block[CHUNK_COLS * VF];
  vu v[8];
  load_chunk(rows, bits, col, 0, v);
  int64_t group = -1;
  group_params p = {0};
#pragma GCC unroll 32
  for (int i = 0; i < CHUNK_COLS; i++) {
    int64_t g = nb_gptq_group(m, col + i);
    if (g != group) p = load_params(m, rows, group = g, 0);
    vf_store(block + i * VF, vf_mul(p.scale, vf_sub(chunk_code(v, bits, i), p.zero)));
  }
  for (int i = 0; i < CHUNK_COLS; i += VF) vf_transpose(block + i * VF, VF, out + i, stride);
}

/* VF rows are a vector of a column already. */
static inline __attribute__((always_inline)) void columns_bits(int bits, nb_tile t, float *out, int64_t stride) {
  const nb_packed *m = t.packed;
  for (int64_t r = 0; r < t.rows; r += VF) {
    gptq_rows from = rows_at(m, bits, t.row + r);
    group_params p = {0};
    int64_t group = -1;
    for (int64_t c = 0; c < t.cols; c += CHUNK_COLS) {
      vu v[8];
      load_chunk(&from, bits, t.col + c, 0, v);
      float *to = out + c * stride + r;
#pragma GCC unroll 32
      for (int i = 0; i < CHUNK_COLS; i++) {
        if (m->g_idx || i == 0 || m->scale.block_cols % CHUNK_COLS != 0) {
          int64_t g = nb_gptq_group(m, t.col + c + i);
          if (g != group) p = load_params(m, &from, group = g, 0);
        }
        vf_store(to + i * stride, vf_mul(p.scale, vf_sub(chunk_code(v, bits, i), p.zero)));
      }
    }
  }
}

/* The whole chunks of VF rows in vectors, what is left around them in plain C. */
static inline __attribute__((always_inline)) void dequantize_bits(int bits, nb_tile t, float *out, int64_t stride) {
  const nb_packed *m = t.packed;
  int64_t first = nb_ceil_div(t.col, CHUNK_COLS) * CHUNK_COLS, last = (t.col + t.cols) / CHUNK_COLS * CHUNK_COLS;
  bool in_vectors = first < last && !(m->band && t.row % VF != 0);
  int64_t whole = in_vectors ? t.rows / VF * VF : 0, end = t.col + t.cols;
  for (int64_t r = 0; r < whole; r += VF) {
    int64_t row = t.row + r;
    float *to = out + r * stride;
    gptq_rows from = rows_at(m, bits, row);
    if (first > t.col) nb_gptq_dequantize((nb_tile){m, row, VF, t.col, first - t.col}, to, stride);
    for (int64_t c = first; c < last; c += CHUNK_COLS) dequantize_chunk(m, &from, bits, c, to + c - t.col, stride);
    if (end > last) nb_gptq_dequantize((nb_tile){m, row, VF, last, end - last}, to + last - t.col, stride);
  }
  if (whole < t.rows)
    nb_gptq_dequantize((nb_tile){m, t.row + whole, t.rows - whole, t.col, t.cols}, out + whole * stride, stride);
}

static bool fits_gptq(const nb_packed *m) { return m->cols % CHUNK_COLS == 0 && m->rows % VF == 0; }

/* Rows of x, their number a constant, against VF rows of weights. */
static inline __attribute__((always_inline)) void dot_rows_gptq(const nb_packed *m, int bits, int64_t row, nb_rows x,
                                                                vf *sums) {
  gptq_rows rows = rows_at(m, bits, row);
  int64_t group = -1;
  group_params p = {0};
  for (int i = 0; i < x.count; i++) sums[i] = vf_zero();
  for (int64_t col = 0; col < m->cols; col += CHUNK_COLS) {
    vu v[8];
    load_chunk(&rows, bits, col, 0, v);
#pragma GCC unroll 32
    for (int c = 0; c < CHUNK_COLS; c++) {
      if (m->g_idx || c == 0 || m->scale.block_cols % CHUNK_COLS != 0) {
        int64_t g = nb_gptq_group(m, col + c);
        if (g != group) p = load_params(m, &rows, group = g, 0);
      }
      vf weight = vf_mul(p.scale, vf_sub(chunk_code(v, bits, c), p.zero));
      for (int i = 0; i < x.count; i++)
        sums[i] = vf_fma(weight, vf_set1(x.data[i * x.stride + col + c] * place(bits, c)), sums[i]);
    }
  }
}

/* Rows that are worked on together where groups hold whole chunks: neighbours in memory, and chains of additions that
 * hide each other's latency. */
enum { GPTQ_VECTORS = 4, GPTQ_AHEAD = 16 /* rows of words to ask for ahead, where they are far apart */ };

/* The sum of 32 values of x as prepare_gptq left them. */
static inline __attribute__((always_inline)) float sum_chunk(int bits, const float *x) {
  vf sum = vf_zero();
  for (int c = 0; c < CHUNK_COLS; c += VF) {
    float places[VF];
    for (int i = 0; i < VF; i++) places[i] = place(bits, c + i);
    sum = vf_fma(vf_load(x + c), vf_load(places), sum);
  }
  return vf_sum(sum);
}

/* The same for `vectors` * VF rows, a scale being applied to the sum of its group's chunk. */
static inline __attribute__((always_inline)) void dot_groups_gptq(const nb_packed *m, int bits, int vectors,
                                                                  int64_t row, nb_rows x, nb_sums out) {
  gptq_rows rows = rows_at(m, bits, row);
  const float middle = in_place(bits, 0) ? 0 : (float)(1 << (bits - 1));
  const int64_t ahead = m->band ? NB_AHEAD / (int64_t)sizeof(uint32_t) : GPTQ_AHEAD * rows.step;
  /* Words whose columns are multiplied before the next are loaded: one with AVX2, whose 16 registers hold no more
   * beside the sums, unless codes cross words. */
  const int run_words = VF == 8 && 32 % bits == 0 ? 1 : bits, run_cols = run_words * 32 / bits;
  const int runs = bits / run_words;
  group_params p[GPTQ_VECTORS];
  vf sums[NB_DOT_MAX][GPTQ_VECTORS];
  for (int v = 0; v < vectors; v++) {
    p[v] = (group_params){.scale = vf_zero(), .zero = vf_zero()};
    for (int i = 0; i < x.count; i++) sums[i][v] = vf_zero();
  }
  for (int64_t col = 0, group = -1; col < m->cols; col += CHUNK_COLS) {
    if (col / m->scale.block_cols != group) {
      group = col / m->scale.block_cols;
      for (int v = 0; v < vectors; v++) {
        p[v] = load_params(m, &rows, group, v);
        p[v].zero = vf_sub(vf_set1(middle), p[v].zero);
      }
    }
    vf part[NB_DOT_MAX][GPTQ_VECTORS];
    for (int v = 0; v < vectors; v++) {
      for (int i = 0; i < x.count; i++) part[i][v] = vf_zero();
    }
    const uint32_t *at = rows.words + col / CHUNK_COLS * bits * rows.step;
#pragma GCC unroll 1
    for (int run = 0; run < runs; run++, at += run_words * rows.step) {
      const float *from_x = x.data + col + run * run_cols;
      vu words[GPTQ_VECTORS][8];
      for (int w = 0; w < run_words; w++) {
        for (int v = 0; v < vectors * VF; v += 16) __builtin_prefetch(at + ahead + w * rows.step + v);
        for (int v = 0; v < vectors; v++) words[v][w] = vu_load(at + w * rows.step + v * VF);
      }
#pragma GCC unroll 32
      for (int c = 0; c < run_cols; c++) {
        for (int v = 0; v < vectors; v++) {
          vf code = dot_code(words[v], bits, c);
          for (int i = 0; i < x.count; i++) part[i][v] = vf_fma(code, vf_set1(from_x[i * x.stride + c]), part[i][v]);
        }
      }
    }
    for (int i = 0; i < x.count; i++) {
      vf sum_x = vf_set1(sum_chunk(bits, x.data + i * x.stride + col));
      for (int v = 0; v < vectors; v++)
        sums[i][v] = vf_fma(p[v].scale, vf_fma(p[v].zero, sum_x, part[i][v]), sums[i][v]);
    }
  }
  for (int i = 0; i < x.count; i++) {
    for (int v = 0; v < vectors; v++) vf_store(out.data + i * out.stride + v * VF, sums[i][v]);
  }
}

/* Whether groups hold whole chunks. */
static inline bool in_groups(const nb_packed *m) { return !m->g_idx && m->scale.block_cols % CHUNK_COLS == 0; }

/* With AVX2, converting codes of 4 and 8 bits for every four rows of x is faster than storing floats and loading them.
 * Measured. */
static inline int64_t prefill_from_gptq(const nb_packed *m) { return in_groups(m) ? 25 : NB_PREFILL_FROM; }

static inline __attribute__((always_inline)) void dot_n_gptq(const nb_packed *m, int bits, int64_t begin, int64_t end,
                                                             nb_rows x, nb_sums out) {
  const int together = x.count == 1 ? GPTQ_VECTORS : GPTQ_VECTORS / 2;
  int64_t r = begin;
  if (in_groups(m)) {
    for (; nb_gptq_beside(m, together * VF) && r + together * VF <= end; r += together * VF, out.data += together * VF)
      dot_groups_gptq(m, bits, together, r, x, out);
    for (; r < end; r += VF, out.data += VF) dot_groups_gptq(m, bits, 1, r, x, out);
  }
  for (; r < end; r += VF, out.data += VF) {
    vf sums[NB_DOT_MAX];
    dot_rows_gptq(m, bits, r, x, sums);
    for (int i = 0; i < x.count; i++) vf_store(out.data + i * out.stride, sums[i]);
  }
}

static inline __attribute__((always_inline)) void dot_bits(const nb_packed *m, int bits, int64_t begin, int64_t end,
                                                           nb_rows x, nb_sums out) {
  switch (x.count) {
    case 1: dot_n_gptq(m, bits, begin, end, nb_first_rows(x, 1), out); break;
    case 2: dot_n_gptq(m, bits, begin, end, nb_first_rows(x, 2), out); break;
    case 3: dot_n_gptq(m, bits, begin, end, nb_first_rows(x, 3), out); break;
    default: dot_n_gptq(m, bits, begin, end, nb_first_rows(x, 4), out); break;
  }
}

static void dequantize_gptq2(nb_tile t, float *out, int64_t stride) { dequantize_bits(2, t, out, stride); }
static void dequantize_gptq3(nb_tile t, float *out, int64_t stride) { dequantize_bits(3, t, out, stride); }
static void dequantize_gptq4(nb_tile t, float *out, int64_t stride) { dequantize_bits(4, t, out, stride); }
static void dequantize_gptq8(nb_tile t, float *out, int64_t stride) { dequantize_bits(8, t, out, stride); }
static void dot_gptq2(const nb_packed *m, int64_t begin, int64_t end, nb_rows x, nb_sums out) {
  dot_bits(m, 2, begin, end, x, out);
}
static void dot_gptq3(const nb_packed *m, int64_t begin, int64_t end, nb_rows x, nb_sums out) {
  dot_bits(m, 3, begin, end, x, out);
}
static void dot_gptq4(const nb_packed *m, int64_t begin, int64_t end, nb_rows x, nb_sums out) {
  dot_bits(m, 4, begin, end, x, out);
}
static void dot_gptq8(const nb_packed *m, int64_t begin, int64_t end, nb_rows x, nb_sums out) {
  dot_bits(m, 8, begin, end, x, out);
}
static void columns_gptq2(nb_tile t, float *out, int64_t stride) { columns_bits(2, t, out, stride); }
static void columns_gptq3(nb_tile t, float *out, int64_t stride) { columns_bits(3, t, out, stride); }
static void columns_gptq4(nb_tile t, float *out, int64_t stride) { columns_bits(4, t, out, stride); }
static void columns_gptq8(nb_tile t, float *out, int64_t stride) { columns_bits(8, t, out, stride); }

#endif
