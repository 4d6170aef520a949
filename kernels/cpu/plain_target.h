/* Dot kernels and dequantization of f32, f16, bf16 and int8, for any target that has vectors. They differ in how VF
 * weights are loaded, no more. */
#ifndef NB_KERNELS_CPU_PLAIN_TARGET_H
#define NB_KERNELS_CPU_PLAIN_TARGET_H

#include <string.h>

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/vec.h"

/* How VF weights become floats, and the bytes of one. A constant where it is passed. */
typedef struct plain_form {
  vf (*load)(const void *p);
  size_t size;
} plain_form;

static inline vf vf_load_f32(const void *p) { return vf_load(p); }

static const plain_form plain_f32 = {vf_load_f32, 4}, plain_f16 = {vf_load_f16, 2}, plain_bf16 = {vf_load_bf16, 2},
                        plain_int8 = {vf_load_i8, 1};

/* The last n < VF weights, without touching what lies after them. */
static inline __attribute__((always_inline)) vf load_tail(plain_form f, const char *w, int64_t n) {
  char buffer[VF * sizeof(float)] = {0};
  memcpy(buffer, w, (size_t)n * f.size);
  return f.load(buffer);
}

/* Rows of x, their number a constant, against one row of weights. Eight sums at most: two multipliers of four cycles
 * each. */
static inline __attribute__((always_inline)) void dot_row(plain_form f, const char *w, int64_t cols, nb_rows x,
                                                          float *sums) {
  const int unroll = x.count == 1 ? 4 : 2;
  vf sum[NB_DOT_MAX][4];
  for (int i = 0; i < x.count; i++) {
    for (int u = 0; u < unroll; u++) sum[i][u] = vf_zero();
  }
  int64_t c = 0;
  for (; c + unroll * VF <= cols; c += unroll * VF) {
    for (size_t line = 0; line < (size_t)(unroll * VF) * f.size; line += 64)
      __builtin_prefetch(w + (size_t)c * f.size + line + NB_AHEAD);
    for (int u = 0; u < unroll; u++) {
      vf weight = f.load(w + (size_t)(c + u * VF) * f.size);
      for (int i = 0; i < x.count; i++)
        sum[i][u] = vf_fma(weight, vf_load(x.data + i * x.stride + c + u * VF), sum[i][u]);
    }
  }
  for (; c + VF <= cols; c += VF) {
    vf weight = f.load(w + (size_t)c * f.size);
    for (int i = 0; i < x.count; i++) sum[i][0] = vf_fma(weight, vf_load(x.data + i * x.stride + c), sum[i][0]);
  }
  if (c < cols) {
    vf weight = load_tail(f, w + (size_t)c * f.size, cols - c);
    for (int i = 0; i < x.count; i++)
      sum[i][1] = vf_fma(weight, vf_load_part(x.data + i * x.stride + c, cols - c), sum[i][1]);
  }
  for (int i = 0; i < x.count; i++) {
    vf total = vf_add(sum[i][0], sum[i][1]);
    if (unroll == 4) total = vf_add(total, vf_add(sum[i][2], sum[i][3]));
    sums[i] = vf_sum(total);
  }
}

static inline __attribute__((always_inline)) void dot_rows(plain_form f, const nb_packed *w, int64_t begin, int64_t end,
                                                           nb_rows x, nb_sums out) {
  for (int64_t r = begin; r < end; r++) {
    const char *row = (const char *)w->codes + (size_t)(r * w->cols) * f.size;
    float sums[NB_DOT_MAX];
    switch (x.count) {
      case 1: dot_row(f, row, w->cols, nb_first_rows(x, 1), sums); break;
      case 2: dot_row(f, row, w->cols, nb_first_rows(x, 2), sums); break;
      case 3: dot_row(f, row, w->cols, nb_first_rows(x, 3), sums); break;
      default: dot_row(f, row, w->cols, nb_first_rows(x, 4), sums); break;
    }
    float scale = w->scale.data ? nb_row_scale(w, r) : 1;
    for (int64_t i = 0; i < x.count; i++) out.data[i * out.stride + r - begin] = sums[i] * scale;
  }
}

static void dot_f32(const nb_packed *w, int64_t begin, int64_t end, nb_rows x, nb_sums out) {
  dot_rows(plain_f32, w, begin, end, x, out);
}
static void dot_f16(const nb_packed *w, int64_t begin, int64_t end, nb_rows x, nb_sums out) {
  dot_rows(plain_f16, w, begin, end, x, out);
}
static void dot_bf16(const nb_packed *w, int64_t begin, int64_t end, nb_rows x, nb_sums out) {
  dot_rows(plain_bf16, w, begin, end, x, out);
}
static void dot_int8(const nb_packed *w, int64_t begin, int64_t end, nb_rows x, nb_sums out) {
  dot_rows(plain_int8, w, begin, end, x, out);
}

static inline __attribute__((always_inline)) void dequantize_rows(plain_form f, nb_tile t, float *out, int64_t stride) {
  for (int64_t r = 0; r < t.rows; r++, out += stride) {
    const char *at = (const char *)t.packed->codes + (size_t)((t.row + r) * t.packed->cols + t.col) * f.size;
    vf scale = vf_set1(t.packed->scale.data ? nb_row_scale(t.packed, t.row + r) : 1);
    int64_t c = 0;
    for (; c + VF <= t.cols; c += VF) vf_store(out + c, vf_mul(f.load(at + (size_t)c * f.size), scale));
    if (c < t.cols)
      vf_store_part(out + c, vf_mul(load_tail(f, at + (size_t)c * f.size, t.cols - c), scale), t.cols - c);
  }
}

static void dequantize_f16(nb_tile t, float *out, int64_t stride) { dequantize_rows(plain_f16, t, out, stride); }
static void dequantize_bf16(nb_tile t, float *out, int64_t stride) { dequantize_rows(plain_bf16, t, out, stride); }
static void dequantize_int8(nb_tile t, float *out, int64_t stride) { dequantize_rows(plain_int8, t, out, stride); }

#endif
