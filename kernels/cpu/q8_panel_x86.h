/* Panels of weights for many rows of x (nb_q8_panel), for AVX2, AVX-VNNI and AVX-512, and the table of all their
 * formats. Beside the names of q8_x86.h they are written in these, which vi_avx2.h, vi_avxvnni.h and vi_avx512.h have:
 *
 *   PANEL_TOGETHER               vectors side by side whose sums for NB_Q8_PANEL_ROWS rows of x fit the registers
 *   vi_store(p, v), vi_add(a, b)
 *   panel_codes(codes, wide)     codes in the form that panel_dot likes, WIDE_LESS less if wide
 *   panel_dot(sum, w, x, wide)   adds the products to a block's sum
 *   panel_sum(sum, wide)         such a sum of 32 columns as VF integers
 *
 *   codes   row r: columns 4k..4k+3   r+1   r+2 ...   r+VF-1        one vector
 *   x       columns 4k..4k+3 of one row in every lane */
#ifndef NB_KERNELS_CPU_Q8_PANEL_X86_H
#define NB_KERNELS_CPU_Q8_PANEL_X86_H

#include <string.h>

#include "kernels/cpu/q8_cpu.h"
#include "kernels/cpu/q8_target.h"
#include "kernels/cpu/q8_x86.h"
#include "kernels/cpu/vec.h"
#include "kernels/cpu/vi.h"
#include "kernels/gptq.h"

enum { PANEL_VECTORS = NB_Q8_PANEL / VF, BLOCK_WORDS = NB_Q8_BLOCK / 4 };

static inline __attribute__((always_inline)) void pack_panel(const q8_format f, const nb_packed *w, int64_t begin,
                                                             int64_t end, nb_q8_panel *out) {
  q8_tables t = make_tables(w);
  out->bias = f.wide ? f.bias - WIDE_LESS : f.bias;
  out->wide = f.wide;
  out->has_minimum = f.has_minimum;
  for (int64_t step = 0; step < w->cols / Q_COLS; step++) {
    float *scales = out->scales + step * Q_BLOCKS * NB_Q8_PANEL, *minima = out->minima + (scales - out->scales);
    uint8_t *to = out->codes + step * Q_COLS * NB_Q8_PANEL;
    memset(scales, 0, sizeof(float) * Q_BLOCKS * NB_Q8_PANEL);
    if (end - begin < NB_Q8_PANEL) {
      memset(minima, 0, sizeof(float) * Q_BLOCKS * NB_Q8_PANEL);
      memset(to, 0, Q_COLS * NB_Q8_PANEL);
    }
    for (int64_t r = 0; r < end - begin; r++) {
      uint8_t bytes[Q_COLS];
      float lanes[2][VF];
      q8_unpacked u = f.unpack(w, &t, begin + r, step);
      vi_store(bytes, panel_codes(u.codes, f.wide));
      vf_store(lanes[0], u.scale);
      vf_store(lanes[1], u.minimum);
      for (int b = 0; b < Q_BLOCKS; b++) {
        scales[b * NB_Q8_PANEL + r] = lanes[0][b * 8];
        minima[b * NB_Q8_PANEL + r] = lanes[1][b * 8] * 8;
      }
      for (int k = 0; k < Q_COLS / 4; k++) memcpy(to + (k * NB_Q8_PANEL + r) * 4, bytes + k * 4, 4);
    }
  }
}

/* PANEL_TOGETHER vectors of the panel's rows, from vector `first` on, against n rows of x; constants but for `first`.
 */
static inline __attribute__((always_inline)) void panel_rows(int n, bool wide, const nb_q8_panel *panel, int first,
                                                             const nb_q8_x *x, float *out) {
  vf sum[NB_Q8_PANEL_ROWS][PANEL_TOGETHER];
  for (int i = 0; i < n; i++) {
    for (int v = 0; v < PANEL_TOGETHER; v++) sum[i][v] = vf_zero();
  }
  for (int64_t block = 0; block < x->blocks; block++) {
    const uint8_t *codes = panel->codes + (block * NB_Q8_BLOCK * NB_Q8_PANEL + first * VF * 4);
    vi dot[NB_Q8_PANEL_ROWS][PANEL_TOGETHER];
    for (int i = 0; i < n; i++) {
      for (int v = 0; v < PANEL_TOGETHER; v++) dot[i][v] = vi_zero();
    }
#pragma GCC unroll 8
    for (int k = 0; k < BLOCK_WORDS; k++) {
      for (int i = 0; i < n; i++) {
        vi four = vi_words(x->codes + i * x->cols + block * NB_Q8_BLOCK + k * 4);
        for (int v = 0; v < PANEL_TOGETHER; v++)
          dot[i][v] = panel_dot(dot[i][v], vi_load(codes + (k * NB_Q8_PANEL + v * VF) * 4), four, wide);
      }
    }
    const float *scales = panel->scales + block * NB_Q8_PANEL + first * VF;
    const float *minima = panel->minima + block * NB_Q8_PANEL + first * VF;
    for (int i = 0; i < n; i++) {
      vf scale_x = vf_set1(x->scales[i * x->blocks + block]), sum_x = vf_set1(x->sums[i * x->blocks + block]);
      vi start = vu_set1((uint32_t)(-panel->bias * x->totals[i * x->blocks + block]));
      for (int v = 0; v < PANEL_TOGETHER; v++) {
        vf scale = vf_mul(vf_load(scales + v * VF), scale_x);
        sum[i][v] = vf_fma(vi_to_f32(vi_add(panel_sum(dot[i][v], wide), start)), scale, sum[i][v]);
        if (panel->has_minimum) sum[i][v] = vf_fma(vf_load(minima + v * VF), sum_x, sum[i][v]);
      }
    }
  }
  for (int i = 0; i < n; i++) {
    for (int v = 0; v < PANEL_TOGETHER; v++) vf_store(out + i * NB_Q8_PANEL + (first + v) * VF, sum[i][v]);
  }
}

static inline __attribute__((always_inline)) void multiply_rows(int n, const nb_q8_panel *panel, const nb_q8_x *x,
                                                                float *out) {
  for (int first = 0; first < PANEL_VECTORS; first += PANEL_TOGETHER) {
    if (panel->wide) {
      panel_rows(n, true, panel, first, x, out);
    } else {
      panel_rows(n, false, panel, first, x, out);
    }
  }
}

static void multiply_panel(const nb_q8_panel *panel, const nb_q8_x *x, float *out) {
  switch (x->count) {
    case 1: multiply_rows(1, panel, x, out); break;
    case 2: multiply_rows(2, panel, x, out); break;
    default: multiply_rows(3, panel, x, out); break;
  }
}

/* Words of GPTQ hold one column of many rows already, if not every byte. */
static inline __attribute__((always_inline)) void pack_gptq(int bits, const nb_packed *w, int64_t begin, int64_t end,
                                                            nb_q8_panel *out) {
  const uint32_t mask = 0x01010101u * ((1u << bits) - 1);
  const bool wide = bits == 8;
  out->bias = 0;
  out->wide = wide;
  out->has_minimum = true;
  if (end - begin < NB_Q8_PANEL) {
    memset(out->codes, 0, (size_t)w->cols * NB_Q8_PANEL);
    memset(out->scales, 0, sizeof(float) * (size_t)w->cols / NB_Q8_BLOCK * NB_Q8_PANEL);
    memset(out->minima, 0, sizeof(float) * (size_t)w->cols / NB_Q8_BLOCK * NB_Q8_PANEL);
  }
  for (int64_t r = 0; r < end - begin; r += VF) {
    int64_t step, at = nb_gptq_at(w, begin + r, w->groups, &step);
    const uint32_t *words = (const uint32_t *)w->codes + nb_gptq_at(w, begin + r, nb_gptq_words(w->cols, bits), &step);
    uint8_t *to = out->codes + r * 4;
    for (int64_t word = 0; word < nb_gptq_words(w->cols, bits); word++) {
      vu v = vu_load(words + word * step);
      for (int field = 0; field < 8 / bits; field++, to += (int64_t)NB_Q8_PANEL * 4)
        vi_store(to, panel_codes(vu_and(vu_shift_right(v, field * bits), mask), wide));
    }
    for (int64_t block = 0; block < w->cols / NB_Q8_BLOCK; block++) {
      int64_t from = at + block * NB_Q8_BLOCK / w->scale.block_cols * step;
      vf scale = gptq_scales(w, from), zero = vu_to_f32(vu_load_u8(w->zeros + from));
      vf_store(out->scales + block * NB_Q8_PANEL + r, scale);
      vf_store(out->minima + block * NB_Q8_PANEL + r, vf_mul(scale, vf_sub(vf_set1(wide ? WIDE_LESS : 0), zero)));
    }
  }
}

static void pack_gptq2(const nb_packed *w, int64_t begin, int64_t end, nb_q8_panel *out) {
  pack_gptq(2, w, begin, end, out);
}
static void pack_gptq4(const nb_packed *w, int64_t begin, int64_t end, nb_q8_panel *out) {
  pack_gptq(4, w, begin, end, out);
}
static void pack_gptq8(const nb_packed *w, int64_t begin, int64_t end, nb_q8_panel *out) {
  pack_gptq(8, w, begin, end, out);
}

static void pack_4bit(const nb_packed *w, int64_t begin, int64_t end, nb_q8_panel *out) {
  pack_panel(format_4bit, w, begin, end, out);
}
static void pack_int8(const nb_packed *w, int64_t begin, int64_t end, nb_q8_panel *out) {
  pack_panel(format_int8, w, begin, end, out);
}
static void pack_q8_0(const nb_packed *w, int64_t begin, int64_t end, nb_q8_panel *out) {
  pack_panel(format_q8_0, w, begin, end, out);
}
static void pack_q4_0(const nb_packed *w, int64_t begin, int64_t end, nb_q8_panel *out) {
  pack_panel(format_q4_0, w, begin, end, out);
}
static void pack_q4_k(const nb_packed *w, int64_t begin, int64_t end, nb_q8_panel *out) {
  pack_panel(format_q4_k, w, begin, end, out);
}

static const nb_q8_kernel formats[NB_FORMAT_COUNT] = {
    [NB_FORMAT_NF4] = {nb_q8_evens_odds, dot_4bit, pack_4bit},
    [NB_FORMAT_FP4] = {nb_q8_evens_odds, dot_4bit, pack_4bit},
    [NB_FORMAT_INT8] = {NULL, dot_int8, pack_int8},
    [NB_FORMAT_Q4_0] = {NULL, dot_q4_0, pack_q4_0},
    [NB_FORMAT_Q8_0] = {NULL, dot_q8_0, pack_q8_0},
    [NB_FORMAT_Q4_K] = {NULL, dot_q4_k, pack_q4_k},
    [NB_FORMAT_Q6_K] = {.dot = dot_q6_k},
    [NB_FORMAT_GPTQ2] = {nb_q8_words2, gptq2_q8, pack_gptq2},
    [NB_FORMAT_GPTQ4] = {nb_q8_words4, gptq4_q8, pack_gptq4},
    [NB_FORMAT_GPTQ8] = {NULL, gptq8_q8, pack_gptq8},
};

#endif
