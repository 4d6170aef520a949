/* Dot kernels and dequantization of f32, f16, bf16 and int8, for any target that has vectors. They differ in how VF
 * weights are loaded, no more. */
#ifndef NB_KERNELS_CPU_PLAIN_TARGET_H
#define NB_KERNELS_CPU_PLAIN_TARGET_H

#include <string.h>

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/vec.h"

typedef vf (*load_fn)(const void *p);

static inline vf vf_load_f32(const void *p) { return vf_load(p); }

/* The last n < VF weights, without touching what lies after them. */
static inline __attribute__((always_inline)) vf load_tail(load_fn load, size_t size, const char *w, int64_t n) {
  char buffer[VF * sizeof(float)] = {0};
  memcpy(buffer, w, (size_t)n * size);
  return load(buffer);
}

/* n (a constant) rows of x against one row of weights. Eight sums at most: two multipliers of four cycles each. */
static inline __attribute__((always_inline)) void dot_row(load_fn load, size_t size, int n, const char *w, int64_t cols,
                                                          const float *x, int64_t ldx, float *sums) {
  const int unroll = n == 1 ? 4 : 2;
  vf sum[NB_DOT_MAX][4];
  for (int i = 0; i < n; i++) {
    for (int u = 0; u < unroll; u++) sum[i][u] = vf_zero();
  }
  int64_t c = 0;
  for (; c + unroll * VF <= cols; c += unroll * VF) {
    for (size_t line = 0; line < (size_t)(unroll * VF) * size; line += 64)
      __builtin_prefetch(w + (size_t)c * size + line + NB_AHEAD);
    for (int u = 0; u < unroll; u++) {
      vf weight = load(w + (size_t)(c + u * VF) * size);
      for (int i = 0; i < n; i++) sum[i][u] = vf_fma(weight, vf_load(x + i * ldx + c + u * VF), sum[i][u]);
    }
  }
  for (; c + VF <= cols; c += VF) {
    vf weight = load(w + (size_t)c * size);
    for (int i = 0; i < n; i++) sum[i][0] = vf_fma(weight, vf_load(x + i * ldx + c), sum[i][0]);
  }
  if (c < cols) {
    vf weight = load_tail(load, size, w + (size_t)c * size, cols - c);
    for (int i = 0; i < n; i++) sum[i][1] = vf_fma(weight, vf_load_part(x + i * ldx + c, cols - c), sum[i][1]);
  }
  for (int i = 0; i < n; i++) {
    vf total = vf_add(sum[i][0], sum[i][1]);
    if (unroll == 4) total = vf_add(total, vf_add(sum[i][2], sum[i][3]));
    sums[i] = vf_sum(total);
  }
}

static inline __attribute__((always_inline)) void dot_rows(load_fn load, size_t size, const nb_packed *w, int64_t begin,
                                                           int64_t end, const float *x, int64_t ldx, int64_t n,
                                                           float *out, int64_t ldout) {
  for (int64_t r = begin; r < end; r++) {
    const char *row = (const char *)w->codes + (size_t)(r * w->cols) * size;
    float sums[NB_DOT_MAX];
    switch (n) {
      case 1: dot_row(load, size, 1, row, w->cols, x, ldx, sums); break;
      case 2: dot_row(load, size, 2, row, w->cols, x, ldx, sums); break;
      case 3: dot_row(load, size, 3, row, w->cols, x, ldx, sums); break;
      default: dot_row(load, size, 4, row, w->cols, x, ldx, sums); break;
    }
    float scale = w->scale.data ? nb_row_scale(w, r) : 1;
    for (int64_t i = 0; i < n; i++) out[i * ldout + r - begin] = sums[i] * scale;
  }
}

static void dot_f32(const nb_packed *w, int64_t begin, int64_t end, const float *x, int64_t ldx, int64_t n, float *out,
                    int64_t ldout) {
  dot_rows(vf_load_f32, 4, w, begin, end, x, ldx, n, out, ldout);
}
static void dot_f16(const nb_packed *w, int64_t begin, int64_t end, const float *x, int64_t ldx, int64_t n, float *out,
                    int64_t ldout) {
  dot_rows(vf_load_f16, 2, w, begin, end, x, ldx, n, out, ldout);
}
static void dot_bf16(const nb_packed *w, int64_t begin, int64_t end, const float *x, int64_t ldx, int64_t n, float *out,
                     int64_t ldout) {
  dot_rows(vf_load_bf16, 2, w, begin, end, x, ldx, n, out, ldout);
}
static void dot_int8(const nb_packed *w, int64_t begin, int64_t end, const float *x, int64_t ldx, int64_t n, float *out,
                     int64_t ldout) {
  dot_rows(vf_load_i8, 1, w, begin, end, x, ldx, n, out, ldout);
}

static inline __attribute__((always_inline)) void dequantize_rows(load_fn load, size_t size, const nb_packed *m,
                                                                  int64_t row, int64_t rows, int64_t col, int64_t cols,
                                                                  float *out, int64_t stride) {
  for (int64_t r = 0; r < rows; r++, out += stride) {
    const char *at = (const char *)m->codes + (size_t)((row + r) * m->cols + col) * size;
    vf scale = vf_set1(m->scale.data ? nb_row_scale(m, row + r) : 1);
    int64_t c = 0;
    for (; c + VF <= cols; c += VF) vf_store(out + c, vf_mul(load(at + (size_t)c * size), scale));
    if (c < cols)
      vf_store_part(out + c, vf_mul(load_tail(load, size, at + (size_t)c * size, cols - c), scale), cols - c);
  }
}

static void dequantize_f16(const nb_packed *m, int64_t row, int64_t rows, int64_t col, int64_t cols, float *out,
                           int64_t stride) {
  dequantize_rows(vf_load_f16, 2, m, row, rows, col, cols, out, stride);
}
static void dequantize_bf16(const nb_packed *m, int64_t row, int64_t rows, int64_t col, int64_t cols, float *out,
                            int64_t stride) {
  dequantize_rows(vf_load_bf16, 2, m, row, rows, col, cols, out, stride);
}
static void dequantize_int8(const nb_packed *m, int64_t row, int64_t rows, int64_t col, int64_t cols, float *out,
                            int64_t stride) {
  dequantize_rows(vf_load_i8, 1, m, row, rows, col, cols, out, stride);
}

#endif
