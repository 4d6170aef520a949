/* Integer dot kernels in terms of a vec_*.h and of these, which the including file has defined before:
 *   vi                      a vector of 4 * VF bytes, or of VF sums of 32 bits
 *   vi_load(p), vi_set1(byte), vi_words(p)          and 4 bytes of memory in every lane
 *   vi_dot(sum, w, x, wide) sum plus, in each lane, the products of 4 unsigned bytes of w with 4 signed ones of x. A
 *                           constant: `wide` if w may be above 127; then what it adds is w - WIDE_LESS times x
 *   vi_map(map, steps)      16 floats in [-1, 1] in whole steps, plus 128, as bytes in each 128 bits
 *   vf_lanes(p)             *p in the lanes of the first block of 32, p[1] in those of the second, if there is one
 *
 * 32 weights take 8 lanes, so that a vector holds one block (AVX2) or two (AVX-512). Codes are unsigned, the weight's
 * plus a constant `bias`: each sum begins at -bias times the sum of x, which is common to all rows of weights. */
#include "base/checked.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/q8_cpu.h"
#include "kernels/gptq.h"

enum { Q_COLS = 4 * VF, Q_BLOCKS = Q_COLS / NB_Q8_BLOCK };

typedef struct q8_tables {
  vi map;     /* nf4, fp4: the 16 values in whole steps plus 128, in each 128 bits */
  float step; /* what one of those is worth */
  int block_shift;
} q8_tables;

/* Q_COLS weights from column `step` * Q_COLS of a row on. */
typedef void (*q8_unpack_fn)(const nb_packed *w, const q8_tables *t, int64_t row, int64_t step, vi *codes, vf *scale,
                             vf *minimum);

typedef struct q8_format {
  q8_unpack_fn unpack;
  int bias, rows; /* rows of weights that are worked on together for one row of x */
  bool wide, has_minimum;
} q8_format;

/* n rows of x against `rows` rows of weights, constants both. */
static inline __attribute__((always_inline)) void q8_rows(const q8_format f, int n, int rows, const nb_packed *w,
                                                          const q8_tables *t, int64_t row, const nb_q8_x *x, float *out,
                                                          int64_t ldout) {
  const int bias = f.wide ? f.bias - WIDE_LESS : f.bias;
  vf sum[4][NB_Q8_ROWS];
  for (int r = 0; r < rows; r++) {
    for (int i = 0; i < n; i++) sum[r][i] = vf_zero();
  }
  for (int64_t step = 0; step < w->cols / Q_COLS; step++) {
    vi codes[NB_Q8_ROWS], start[NB_Q8_ROWS];
    vf scale_x[NB_Q8_ROWS], sum_x[NB_Q8_ROWS];
    for (int i = 0; i < n; i++) {
      codes[i] = vi_load(x->codes + i * x->cols + step * Q_COLS);
      start[i] = bias ? vi_minus(vi_dot(vi_zero(), vi_set1((int8_t)bias), codes[i], false)) : vi_zero();
      scale_x[i] = vf_lanes(x->scales + i * x->blocks + step * Q_BLOCKS);
      if (f.has_minimum) sum_x[i] = vf_lanes(x->sums + i * x->blocks + step * Q_BLOCKS);
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
      vi weights;
      vf scale, minimum;
      f.unpack(w, t, row + r, step, &weights, &scale, &minimum);
#pragma GCC unroll 4
      for (int i = 0; i < n; i++) {
        vf dot = vi_to_f32(vi_dot(start[i], weights, codes[i], f.wide));
        sum[r][i] = vf_fma(dot, vf_mul(scale, scale_x[i]), sum[r][i]);
        if (f.has_minimum) sum[r][i] = vf_fma(minimum, sum_x[i], sum[r][i]);
      }
    }
  }
  for (int r = 0; r < rows; r++) {
    for (int i = 0; i < n; i++) out[i * ldout + r] = vf_sum(sum[r][i]);
  }
}

static inline __attribute__((always_inline)) void q8_n(const q8_format f, int n, const nb_packed *w, const q8_tables *t,
                                                       int64_t begin, int64_t end, const nb_q8_x *x, float *out,
                                                       int64_t ldout) {
  const int together = n == 1 ? f.rows : (f.rows + 1) / 2;
  int64_t r = begin;
  for (; r + together <= end; r += together) q8_rows(f, n, together, w, t, r, x, out + r - begin, ldout);
  for (; r < end; r++) q8_rows(f, n, 1, w, t, r, x, out + r - begin, ldout);
}

static inline q8_tables make_tables(const nb_packed *w) {
  q8_tables t = {.map = vi_zero()};
  if (w->codebook) {
    t.block_shift = __builtin_ctzll((unsigned long long)w->scale.block_cols);
    float steps = nb_format_info(w->format)->q8_steps;
    t.map = vi_map(w->codebook, steps);
    t.step = 1 / steps;
  }
  return t;
}

static inline __attribute__((always_inline)) void q8_dot(const q8_format f, const nb_packed *w, int64_t begin,
                                                         int64_t end, const nb_q8_x *x, int64_t n, float *out,
                                                         int64_t ldout) {
  q8_tables t = make_tables(w);
  switch (n) {
    case 1: q8_n(f, 1, w, &t, begin, end, x, out, ldout); break;
    case 2: q8_n(f, 2, w, &t, begin, end, x, out, ldout); break;
    case 3: q8_n(f, 3, w, &t, begin, end, x, out, ldout); break;
    default: q8_n(f, 4, w, &t, begin, end, x, out, ldout); break;
  }
}

/* ---- GPTQ: lanes are rows of weights, 4 columns a word of bytes -------------------------------------------------- */

static inline vf gptq_scales(const nb_packed *w, int64_t at) {
  const uint16_t *halves = (const uint16_t *)w->scale.data + at;
  return w->scale.dtype == NB_F16    ? vf_load_f16(halves)
         : w->scale.dtype == NB_BF16 ? vf_load_bf16(halves)
                                     : vf_load((const float *)w->scale.data + at);
}

/* n rows of x against `vectors` * VF rows of weights, constants all. */
static inline __attribute__((always_inline)) void q8_gptq_rows(int bits, int n, int vectors, const nb_packed *w,
                                                               int64_t row, const nb_q8_x *x, float *out,
                                                               int64_t ldout) {
  const int fields = 8 / bits; /* that share a byte; the columns of a word's bytes are `fields` apart */
  const uint32_t mask = 0x01010101u * ((1u << bits) - 1);
  int64_t step, at = nb_gptq_at(w, row, w->groups, &step);
  const uint32_t *words = (const uint32_t *)w->codes + nb_gptq_at(w, row, nb_gptq_words(w->cols, bits), &step);
  const int64_t ahead = w->in_bands ? NB_AHEAD / (int64_t)sizeof *words : 16 * step;
  vf sum[NB_Q8_ROWS][4], scale[4], zero[4];
  for (int v = 0; v < vectors; v++) {
    for (int i = 0; i < n; i++) sum[i][v] = vf_zero();
    scale[v] = zero[v] = vf_zero();
  }
  for (int64_t block = 0, group = -1; block < x->blocks; block++) {
    int64_t g = block * NB_Q8_BLOCK / w->scale.block_cols;
    if (g != group) {
      group = g;
      for (int v = 0; v < vectors; v++) {
        scale[v] = gptq_scales(w, at + g * step + v * VF);
        zero[v] = vu_to_f32(vu_load_u8(w->zeros + at + g * step + v * VF));
        if (bits == 8) zero[v] = vf_sub(zero[v], vf_set1(WIDE_LESS));
      }
    }
    vi dot[NB_Q8_ROWS][4];
    for (int i = 0; i < n; i++) {
      for (int v = 0; v < vectors; v++) dot[i][v] = vi_zero();
    }
#pragma GCC unroll 8
    for (int k = 0; k < bits; k++, words += step) {
      for (int v = 0; v < vectors; v++) {
        vu word = vu_load(words + v * VF);
        __builtin_prefetch(words + ahead + v * VF);
        for (int field = 0; field < fields; field++) {
          vi codes = fields == 1 ? (vi)word : (vi)vu_and(vu_shift_right(word, field * bits), mask);
          for (int i = 0; i < n; i++) {
            const int8_t *four = x->codes + i * x->cols + block * NB_Q8_BLOCK + (k * fields + field) * 4;
            dot[i][v] = vi_dot(dot[i][v], codes, vi_words(four), bits == 8);
          }
        }
      }
    }
    for (int i = 0; i < n; i++) {
      vf scale_x = vf_set1(x->scales[i * x->blocks + block]), sum_x = vf_set1(-x->sums[i * x->blocks + block]);
      for (int v = 0; v < vectors; v++) {
        vf part = vf_fma(vi_to_f32(dot[i][v]), scale_x, vf_mul(zero[v], sum_x));
        sum[i][v] = vf_fma(scale[v], part, sum[i][v]);
      }
    }
  }
  for (int i = 0; i < n; i++) {
    for (int v = 0; v < vectors; v++) vf_store(out + i * ldout + v * VF, sum[i][v]);
  }
}

static inline __attribute__((always_inline)) void q8_gptq_n(int bits, int n, const nb_packed *w, int64_t begin,
                                                            int64_t end, const nb_q8_x *x, float *out, int64_t ldout) {
  const int together = n == 1 ? 4 : 2;
  int64_t r = begin;
  for (; r + together * VF <= end; r += together * VF) q8_gptq_rows(bits, n, together, w, r, x, out + r - begin, ldout);
  for (; r < end; r += VF) q8_gptq_rows(bits, n, 1, w, r, x, out + r - begin, ldout);
}

static inline __attribute__((always_inline)) void q8_gptq(int bits, const nb_packed *w, int64_t begin, int64_t end,
                                                          const nb_q8_x *x, int64_t n, float *out, int64_t ldout) {
  switch (n) {
    case 1: q8_gptq_n(bits, 1, w, begin, end, x, out, ldout); break;
    case 2: q8_gptq_n(bits, 2, w, begin, end, x, out, ldout); break;
    case 3: q8_gptq_n(bits, 3, w, begin, end, x, out, ldout); break;
    default: q8_gptq_n(bits, 4, w, begin, end, x, out, ldout); break;
  }
}

static void gptq2_q8(const nb_packed *w, int64_t begin, int64_t end, const nb_q8_x *x, int64_t n, float *out,
                     int64_t ldout) {
  q8_gptq(2, w, begin, end, x, n, out, ldout);
}
static void gptq4_q8(const nb_packed *w, int64_t begin, int64_t end, const nb_q8_x *x, int64_t n, float *out,
                     int64_t ldout) {
  q8_gptq(4, w, begin, end, x, n, out, ldout);
}
static void gptq8_q8(const nb_packed *w, int64_t begin, int64_t end, const nb_q8_x *x, int64_t n, float *out,
                     int64_t ldout) {
  q8_gptq(8, w, begin, end, x, n, out, ldout);
}

/* ---- formats whose rows lie one after the other ------------------------------------------------------------------ */

/* The row's first byte, and the start of loading what comes NB_AHEAD bytes later. */
static inline const uint8_t *q8_at(const nb_packed *w, int64_t row, int64_t step, int64_t block_weights,
                                   int64_t block_bytes) {
  const uint8_t *at = (const uint8_t *)w->codes + row * (w->cols / block_weights * block_bytes);
  __builtin_prefetch(at + step * Q_COLS * block_bytes / block_weights + NB_AHEAD);
  return at;
}
