/* Integer dot kernels that all targets share: those of GPTQ's words, which hold one column of many rows, and the tables
 * that the kernels of nf4 and fp4 look codes up in. The other formats' are in q8_x86.h and q8_neon.h. */
#ifndef NB_KERNELS_CPU_Q8_TARGET_H
#define NB_KERNELS_CPU_Q8_TARGET_H

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/q8_cpu.h"
#include "kernels/cpu/vec.h"
#include "kernels/cpu/vi.h"
#include "kernels/gptq.h"

typedef struct q8_tables {
  vi map;     /* nf4, fp4: the 16 values as vi_map makes them */
  float step; /* what one of those is worth */
  int block_shift;
} q8_tables;

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

/* ---- GPTQ: lanes are rows of weights, 4 columns a word of bytes -------------------------------------------------- */

static inline vf gptq_scales(const nb_packed *w, int64_t at) {
  const uint16_t *halves = (const uint16_t *)w->scale.data + at;
  return w->scale.dtype == NB_F16    ? vf_load_f16(halves)
         : w->scale.dtype == NB_BF16 ? vf_load_bf16(halves)
                                     : vf_load((const float *)w->scale.data + at);
}

/* What a kernel of GPTQ's words is compiled for: constants where it is inlined. */
typedef struct gptq_step {
  int bits;    /* of a code */
  int n;       /* rows of x */
  int vectors; /* of VF rows of weights each, worked on together */
} gptq_step;

/* s.n rows of x against s.vectors * VF rows of weights, from `row` on. */
static inline __attribute__((always_inline)) void q8_gptq_rows(gptq_step s, const nb_packed *w, int64_t row,
                                                               const nb_q8_x *x, nb_sums out) {
  const int fields = 8 / s.bits; /* that share a byte; the columns of a word's bytes are `fields` apart */
  const uint32_t mask = 0x01010101u * ((1u << s.bits) - 1);
  int64_t step, at = nb_gptq_at(w, row, w->groups, &step);
  const uint32_t *words = (const uint32_t *)w->codes + nb_gptq_at(w, row, nb_gptq_words(w->cols, s.bits), &step);
  const int64_t ahead = w->band ? NB_AHEAD / (int64_t)sizeof *words : 16 * step;
  vf sum[NB_Q8_ROWS][4], scale[4], zero[4];
  for (int v = 0; v < s.vectors; v++) {
    for (int i = 0; i < s.n; i++) sum[i][v] = vf_zero();
    scale[v] = zero[v] = vf_zero();
  }
  for (int64_t block = 0, group = -1; block < x->blocks; block++) {
    int64_t g = block * NB_Q8_BLOCK / w->scale.block_cols;
    if (g != group) {
      group = g;
      for (int v = 0; v < s.vectors; v++) {
        scale[v] = gptq_scales(w, at + g * step + v * VF);
        zero[v] = vu_to_f32(vu_load_u8(w->zeros + at + g * step + v * VF));
        if (s.bits == 8) zero[v] = vf_sub(zero[v], vf_set1(WIDE_LESS));
      }
    }
    vi dot[NB_Q8_ROWS][4];
    for (int i = 0; i < s.n; i++) {
      for (int v = 0; v < s.vectors; v++) dot[i][v] = vi_zero();
    }
#pragma GCC unroll 8
    for (int k = 0; k < s.bits; k++, words += step) {
      for (int v = 0; v < s.vectors; v++) {
        vu word = vu_load(words + v * VF);
        __builtin_prefetch(words + ahead + v * VF);
        for (int field = 0; field < fields; field++) {
          vi codes = fields == 1 ? (vi)word : (vi)vu_and(vu_shift_right(word, field * s.bits), mask);
          for (int i = 0; i < s.n; i++) {
            const int8_t *four = x->codes + i * x->cols + block * NB_Q8_BLOCK + (k * fields + field) * 4;
            dot[i][v] = vi_dot(dot[i][v], codes, vi_words(four), s.bits == 8);
          }
        }
      }
    }
    for (int i = 0; i < s.n; i++) {
      vf scale_x = vf_set1(x->scales[i * x->blocks + block]), sum_x = vf_set1(-x->sums[i * x->blocks + block]);
      for (int v = 0; v < s.vectors; v++) {
        vf part = vf_fma(vi_to_f32(dot[i][v]), scale_x, vf_mul(zero[v], sum_x));
        sum[i][v] = vf_fma(scale[v], part, sum[i][v]);
      }
    }
  }
  for (int i = 0; i < s.n; i++) {
    for (int v = 0; v < s.vectors; v++) vf_store(out.data + i * out.stride + v * VF, sum[i][v]);
  }
}

static inline __attribute__((always_inline)) void q8_gptq_n(gptq_step s, const nb_packed *w, int64_t begin, int64_t end,
                                                            const nb_q8_x *x, nb_sums out) {
  gptq_step one = {s.bits, s.n, 1};
  int64_t r = begin, together = s.vectors * VF;
  for (; nb_gptq_beside(w, together) && r + together <= end; r += together, out.data += together)
    q8_gptq_rows(s, w, r, x, out);
  for (; r < end; r += VF, out.data += VF) q8_gptq_rows(one, w, r, x, out);
}

static inline __attribute__((always_inline)) void q8_gptq(int bits, const nb_packed *w, int64_t begin, int64_t end,
                                                          const nb_q8_x *x, nb_sums out) {
  switch (x->count) {
    case 1: q8_gptq_n((gptq_step){bits, 1, 4}, w, begin, end, x, out); break;
    case 2: q8_gptq_n((gptq_step){bits, 2, 2}, w, begin, end, x, out); break;
    case 3: q8_gptq_n((gptq_step){bits, 3, 2}, w, begin, end, x, out); break;
    default: q8_gptq_n((gptq_step){bits, 4, 2}, w, begin, end, x, out); break;
  }
}

static void gptq2_q8(const nb_packed *w, int64_t begin, int64_t end, const nb_q8_x *x, nb_sums out) {
  q8_gptq(2, w, begin, end, x, out);
}
static void gptq4_q8(const nb_packed *w, int64_t begin, int64_t end, const nb_q8_x *x, nb_sums out) {
  q8_gptq(4, w, begin, end, x, out);
}
static void gptq8_q8(const nb_packed *w, int64_t begin, int64_t end, const nb_q8_x *x, nb_sums out) {
  q8_gptq(8, w, begin, end, x, out);
}

#endif
