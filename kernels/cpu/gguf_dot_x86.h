/* Exact dot kernels of GGUF's blocks, for AVX2 and AVX-512: 32 codes become floats and weights in registers, in their
 * natural order. */
#ifndef NB_KERNELS_CPU_GGUF_DOT_X86_H
#define NB_KERNELS_CPU_GGUF_DOT_X86_H

#include "kernels/cpu/blocks_x86.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/vec.h"

typedef struct gguf_format {
  block32_fn block;
  int bias;
  bool has_minimum;
  int64_t block_weights, block_bytes;
} gguf_format;

enum { BLOCK_COLS = 32, BLOCK_VECTORS = BLOCK_COLS / VF };

/* Rows of x against `rows` rows of weights, both numbers constants. */
static inline __attribute__((always_inline)) void dot_rows_gguf(const gguf_format f, const nb_packed *w, int rows,
                                                                int64_t row, nb_rows x, nb_sums out) {
  int64_t row_bytes = w->cols / f.block_weights * f.block_bytes;
  const float *at_x = x.data;
  vf sum[2][NB_DOT_MAX][2];
  for (int r = 0; r < rows; r++) {
    for (int i = 0; i < x.count; i++) sum[r][i][0] = sum[r][i][1] = vf_zero();
  }
  for (int64_t b = 0; b < w->cols / BLOCK_COLS; b++, at_x += BLOCK_COLS) {
#pragma GCC unroll 2
    for (int r = 0; r < rows; r++) {
      const uint8_t *at = (const uint8_t *)w->codes + (row + r) * row_bytes;
      __builtin_prefetch(at + b * BLOCK_COLS * f.block_bytes / f.block_weights + NB_AHEAD);
      block32 block = f.block(w, row + r, b, at);
      _Alignas(32) int8_t codes[BLOCK_COLS];
      _mm256_store_si256((__m256i *)(void *)codes, _mm256_sub_epi8(block.codes, _mm256_set1_epi8((char)f.bias)));
#pragma GCC unroll 4
      for (int v = 0; v < BLOCK_VECTORS; v++) {
        vf scale = vf_set1(block.scales[v * VF / 16]), code = vf_load_i8(codes + v * VF);
        vf weight = f.has_minimum ? vf_fma(code, scale, vf_set1(-block.minimum)) : vf_mul(code, scale);
        for (int i = 0; i < x.count; i++)
          sum[r][i][v % 2] = vf_fma(weight, vf_load(at_x + i * x.stride + v * VF), sum[r][i][v % 2]);
      }
    }
  }
  for (int r = 0; r < rows; r++) {
    for (int i = 0; i < x.count; i++) out.data[i * out.stride + r] = vf_sum(vf_add(sum[r][i][0], sum[r][i][1]));
  }
}

static inline __attribute__((always_inline)) void dot_n_gguf(const gguf_format f, const nb_packed *w, int64_t begin,
                                                             int64_t end, nb_rows x, nb_sums out) {
  int64_t r = begin;
  for (; r + 2 <= end; r += 2, out.data += 2) dot_rows_gguf(f, w, 2, r, x, out);
  if (r < end) dot_rows_gguf(f, w, 1, r, x, out);
}

static inline __attribute__((always_inline)) void dot_gguf(const gguf_format f, const nb_packed *w, int64_t begin,
                                                           int64_t end, nb_rows x, nb_sums out) {
  switch (x.count) {
    case 1: dot_n_gguf(f, w, begin, end, nb_first_rows(x, 1), out); break;
    case 2: dot_n_gguf(f, w, begin, end, nb_first_rows(x, 2), out); break;
    case 3: dot_n_gguf(f, w, begin, end, nb_first_rows(x, 3), out); break;
    default: dot_n_gguf(f, w, begin, end, nb_first_rows(x, 4), out); break;
  }
}

static void dot_q4_0(const nb_packed *w, int64_t begin, int64_t end, nb_rows x, nb_sums out) {
  dot_gguf((gguf_format){block_q4_0, 8, false, 32, 18}, w, begin, end, x, out);
}
static void dot_q8_0(const nb_packed *w, int64_t begin, int64_t end, nb_rows x, nb_sums out) {
  dot_gguf((gguf_format){block_q8_0, -128, false, 32, 34}, w, begin, end, x, out);
}
static void dot_q4_k(const nb_packed *w, int64_t begin, int64_t end, nb_rows x, nb_sums out) {
  dot_gguf((gguf_format){block_q4_k, 0, true, 256, 144}, w, begin, end, x, out);
}
static void dot_q6_k(const nb_packed *w, int64_t begin, int64_t end, nb_rows x, nb_sums out) {
  dot_gguf((gguf_format){block_q6_k, 32, false, 256, 210}, w, begin, end, x, out);
}

#endif
