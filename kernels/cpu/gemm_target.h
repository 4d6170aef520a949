/* The functions of gemm.h, for any target that has vectors. */
#ifndef NB_KERNELS_CPU_GEMM_TARGET_H
#define NB_KERNELS_CPU_GEMM_TARGET_H

#include "base/checked.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/vec.h"

/* A block of sums in registers, `rows` of `vectors` each. */
typedef struct gemm_block {
  int vectors, rows;
} gemm_block;

/* Multiplies one block, whose size is a constant at every call, so that all loops unroll.
 *
 *            x[i][0..VF)  x[i][VF..2VF)
 *   w[0][i]  sum[0][0]    sum[0][1]         for each i: load the vectors of x once,
 *   w[1][i]  sum[1][0]    sum[1][1]         then broadcast each w and multiply-add it to a row of sums
 *   ... */
static inline __attribute__((always_inline)) void block(gemm_block b, int64_t k, const float *x, nb_gemm_operand w,
                                                        float *c, bool add) {
  const int vectors = b.vectors, rows = b.rows;
  vf sum[GEMM_ROWS][GEMM_VECTORS];
  for (int r = 0; r < rows; r++) {
    for (int v = 0; v < vectors; v++) sum[r][v] = add ? vf_load(c + (r * vectors + v) * VF) : vf_zero();
  }
  for (int64_t i = 0; i < k; i++, x += vectors * VF, w.data += w.k_stride) {
    vf xs[GEMM_VECTORS];
    for (int v = 0; v < vectors; v++) xs[v] = vf_load(x + v * VF);
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) {
      vf one = vf_set1(w.data[r * w.row_stride]);
      for (int v = 0; v < vectors; v++) sum[r][v] = vf_fma(one, xs[v], sum[r][v]);
    }
  }
  for (int r = 0; r < rows; r++) {
    for (int v = 0; v < vectors; v++) vf_store(c + (r * vectors + v) * VF, sum[r][v]);
  }
}

static inline nb_gemm_operand rows_from(nb_gemm_operand w, int64_t row) {
  w.data += row * w.row_stride;
  return w;
}

/* All rows for one number of vectors: full blocks, then 4, 2 and 1 rows. */
static inline __attribute__((always_inline)) void block_rows(int vectors, nb_gemm_size size, const float *x,
                                                             nb_gemm_operand w, float *c, bool add) {
  int64_t r = 0, lanes = vectors * VF, rows = size.rows, k = size.k;
  for (; r + GEMM_ROWS <= rows; r += GEMM_ROWS)
    block((gemm_block){vectors, GEMM_ROWS}, k, x, rows_from(w, r), c + r * lanes, add);
  for (; r + 4 <= rows; r += 4) block((gemm_block){vectors, 4}, k, x, rows_from(w, r), c + r * lanes, add);
  for (; r + 2 <= rows; r += 2) block((gemm_block){vectors, 2}, k, x, rows_from(w, r), c + r * lanes, add);
  for (; r < rows; r++) block((gemm_block){vectors, 1}, k, x, rows_from(w, r), c + r * lanes, add);
}

static void gemm_multiply(nb_gemm_size size, const float *x, nb_gemm_operand w, float *c, bool add) {
  if (size.lanes == VF) {
    block_rows(1, size, x, w, c, add);
  } else {
    block_rows(GEMM_VECTORS, size, x, w, c, add);
  }
}

static void gemm_pack(const float *x, int64_t ldx, int64_t n, int64_t k, int64_t lanes, float *out) {
  for (int64_t lane = 0; lane < lanes; lane += VF) {
    int64_t full = n - lane >= VF ? k - k % VF : 0;
    for (int64_t i = 0; i < full; i += VF) vf_transpose(x + lane * ldx + i, ldx, out + i * lanes + lane, lanes);
    for (int64_t i = full; i < k; i++) {
      for (int64_t l = lane; l < lane + VF; l++) out[i * lanes + l] = l < n ? x[l * ldx + i] : 0;
    }
  }
}

/* One vector of outputs: VF features of one row of x, fewer at the end. */
static inline void finish(vf v, const float *bias, bool accumulate, float *y) {
  if (bias) v = vf_add(v, vf_load(bias));
  if (accumulate) v = vf_add(v, vf_load(y));
  vf_store(y, v);
}

static void gemm_unpack(const float *c, int64_t lanes, int64_t n, int64_t rows, nb_gemm_out out) {
  float block[VF * VF];
  for (int64_t r = 0; r < rows; r += VF) {
    int64_t part = nb_min_i64(VF, rows - r);
    for (int64_t lane = 0; lane < n; lane += VF) {
      if (part == VF) {
        vf_transpose(c + r * lanes + lane, lanes, block, VF);
      } else {
        for (int64_t i = 0; i < part * VF; i++) block[i % VF * VF + i / VF] = c[(r + i / VF) * lanes + lane + i % VF];
      }
      for (int64_t i = 0; i < nb_min_i64(VF, n - lane); i++) {
        float *to = out.y + (lane + i) * out.ldy + r;
        if (part == VF) {
          finish(vf_load(block + i * VF), out.bias ? out.bias + r : NULL, out.accumulate, to);
          continue;
        }
        for (int64_t j = 0; j < part; j++) {
          to[j] = block[i * VF + j] + (out.bias ? out.bias[r + j] : 0) + (out.accumulate ? to[j] : 0);
        }
      }
    }
  }
}

static float gemm_dot(const float *x, const float *w, int64_t n) {
  vf a = vf_zero(), b = vf_zero(), c = vf_zero(), d = vf_zero();
  int64_t i = 0;
  for (; i + 4 * VF <= n; i += 4 * VF) {
    a = vf_fma(vf_load(x + i), vf_load(w + i), a);
    b = vf_fma(vf_load(x + i + VF), vf_load(w + i + VF), b);
    c = vf_fma(vf_load(x + i + 2 * VF), vf_load(w + i + 2 * VF), c);
    d = vf_fma(vf_load(x + i + 3 * VF), vf_load(w + i + 3 * VF), d);
  }
  for (; i + VF <= n; i += VF) a = vf_fma(vf_load(x + i), vf_load(w + i), a);
  b = vf_fma(vf_load_part(x + i, n - i), vf_load_part(w + i, n - i), b);
  return vf_sum(vf_add(vf_add(a, b), vf_add(c, d)));
}

static double gemm_peak(int64_t rounds, float *sink) {
  enum { SUMS = 12 }; /* more than latency times multipliers, fewer than registers */
  vf sum[SUMS], a = vf_set1(0.999f), b = vf_set1(0.001f);
  for (int i = 0; i < SUMS; i++) sum[i] = vf_set1((float)i);
  for (int64_t round = 0; round < rounds; round++) {
    for (int i = 0; i < SUMS; i++) sum[i] = vf_fma(sum[i], a, b);
  }
  for (int i = 1; i < SUMS; i++) sum[0] = vf_add(sum[0], sum[i]);
  *sink = vf_sum(sum[0]);
  return (double)rounds * SUMS * VF * 2;
}

const nb_cpu_gemm NB_OF_TARGET(nb_cpu_gemm) = {
    .lanes = GEMM_VECTORS * VF,
    .narrow = VF,
    .pack = gemm_pack,
    .multiply = gemm_multiply,
    .unpack = gemm_unpack,
    .dot = gemm_dot,
    .peak = gemm_peak,
};

#endif
