/* nf4 and fp4, for any target that has vectors: a matrix is a flat run of codes, two a byte, the first in the high
 * half, in blocks that have a scale each and need not begin or end where a row does. */
#ifndef NB_KERNELS_CPU_BLOCKS4_TARGET_H
#define NB_KERNELS_CPU_BLOCKS4_TARGET_H

#include <stdbool.h>

#include "base/checked.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/lookup4.h"
#include "kernels/cpu/vec.h"

/* True if rows are whole blocks and blocks are whole groups, as in any ordinary model. */
static bool fits_4bit(const nb_packed *w) {
  return w->scale.block_cols % NB_GROUP4 == 0 && w->cols % w->scale.block_cols == 0;
}

/* Rows of x against `rows` rows of weights from `row` on, both numbers constants: each block is summed, then scaled. */
static inline __attribute__((always_inline)) void dot_rows_4bit(const nb_packed *w, const tables4 *tables, int rows,
                                                                int64_t row, nb_rows x, nb_sums out) {
  const uint8_t *codes = (const uint8_t *)w->codes + row * w->cols / 2;
  const float *at = x.data;
  int64_t blocks = w->cols / w->scale.block_cols, first = row * blocks;
  vf sum[DOT_ROWS][NB_DOT_MAX];
  for (int r = 0; r < rows; r++) {
    for (int i = 0; i < x.count; i++) sum[r][i] = vf_zero();
  }
  for (int64_t b = 0; b < blocks; b++) {
    vf part[DOT_ROWS][NB_DOT_MAX];
    for (int r = 0; r < rows; r++) {
      for (int i = 0; i < x.count; i++) part[r][i] = vf_zero();
    }
    for (int64_t g = 0; g < w->scale.block_cols; g += NB_GROUP4, codes += NB_GROUP4 / 2, at += NB_GROUP4) {
      for (int r = 0; r < rows; r++) {
        vf weight[NB_GROUP4 / VF];
        __builtin_prefetch(codes + r * w->cols / 2 + NB_AHEAD);
        unpack_group(codes + r * w->cols / 2, tables, weight);
        for (int i = 0; i < x.count; i++) {
          for (int v = 0; v < NB_GROUP4 / VF; v++) {
            part[r][i] = vf_fma(weight[v], vf_load(at + i * x.stride + v * VF), part[r][i]);
          }
        }
      }
    }
    for (int r = 0; r < rows; r++) {
      vf scale = vf_set1(nb_block_scale(w, first + r * blocks + b));
      for (int i = 0; i < x.count; i++) sum[r][i] = vf_fma(part[r][i], scale, sum[r][i]);
    }
  }
  for (int r = 0; r < rows; r++) {
    for (int i = 0; i < x.count; i++) out.data[i * out.stride + r] = vf_sum(sum[r][i]);
  }
}

/* DOT_ROWS rows at a time where sums and weights fit the registers: more rows in flight hide each other's latency. */
static inline __attribute__((always_inline)) void dot_n_4bit(const nb_packed *w, int64_t begin, int64_t end, nb_rows x,
                                                             nb_sums out) {
  tables4 tables = make_tables4(w->codebook);
  const int together = x.count == 1 ? DOT_ROWS : (DOT_ROWS + 1) / 2;
  int64_t r = begin;
  for (; r + together <= end; r += together, out.data += together) dot_rows_4bit(w, &tables, together, r, x, out);
  for (; r < end; r++, out.data++) dot_rows_4bit(w, &tables, 1, r, x, out);
}

static void dot_4bit(const nb_packed *w, int64_t begin, int64_t end, nb_rows x, nb_sums out) {
  switch (x.count) {
    case 1: dot_n_4bit(w, begin, end, nb_first_rows(x, 1), out); break;
    case 2: dot_n_4bit(w, begin, end, nb_first_rows(x, 2), out); break;
    case 3: dot_n_4bit(w, begin, end, nb_first_rows(x, 3), out); break;
    default: dot_n_4bit(w, begin, end, nb_first_rows(x, 4), out); break;
  }
}

/* A run of codes begins and ends with a row, a block or in the middle of a byte: those ends are done one by one. */
static void dequantize_4bit(nb_tile t, float *out, int64_t stride) {
  const nb_packed *m = t.packed;
  tables4 tables = make_tables4(m->codebook);
  const uint8_t *codes = m->codes;
  for (int64_t r = 0; r < t.rows; r++, out += stride) {
    int64_t start = (t.row + r) * m->cols + t.col, end = start + t.cols, at = start;
    for (int64_t block = at / m->scale.block_cols; at < end; block++) {
      int64_t stop = nb_min_i64(end, (block + 1) * m->scale.block_cols);
      float scale = nb_block_scale(m, block);
      if (at & 1) out[at - start] = m->codebook[codes[at >> 1] & 15] * scale, at++;
      for (; at + NB_STEP4 <= stop; at += NB_STEP4) unpack_32(codes + (at >> 1), &tables, scale, out + (at - start));
      for (; at < stop; at++) {
        out[at - start] = m->codebook[at & 1 ? codes[at >> 1] & 15 : codes[at >> 1] >> 4] * scale;
      }
    }
  }
}

#endif
