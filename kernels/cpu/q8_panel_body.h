/* Panels of weights for many rows of x (nb_q8_panel), for instruction sets with enough registers, in the terms of
 * q8_body.h, which the including file has included before.
 *
 *   codes   row r: columns 4k..4k+3   r+1   r+2 ...   r+VF-1        one vector; PANEL_VECTORS of them side by side,
 *   x       columns 4k..4k+3 of one row in every lane               NB_Q8_PANEL_ROWS of them: all sums in registers */
#include <string.h>

enum { PANEL_VECTORS = NB_Q8_PANEL / VF, BLOCK_WORDS = NB_Q8_BLOCK / 4 };

static inline __attribute__((always_inline)) void pack_panel(const q8_format f, const nb_packed *w, int64_t begin,
                                                             int64_t end, nb_q8_panel *out) {
  q8_tables t = make_tables(w);
  out->bias = f.bias;
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
      vi codes;
      vf scale, minimum;
      f.unpack(w, &t, begin + r, step, &codes, &scale, &minimum);
      vi_store(bytes, codes);
      vf_store(lanes[0], scale);
      vf_store(lanes[1], minimum);
      for (int b = 0; b < Q_BLOCKS; b++) {
        scales[b * NB_Q8_PANEL + r] = lanes[0][b * 8];
        minima[b * NB_Q8_PANEL + r] = lanes[1][b * 8] * 8;
      }
      for (int k = 0; k < Q_COLS / 4; k++) memcpy(to + (k * NB_Q8_PANEL + r) * 4, bytes + k * 4, 4);
    }
  }
}

static inline __attribute__((always_inline)) void panel_rows(int n, const nb_q8_panel *panel, const nb_q8_x *x,
                                                             float *out) {
  vf sum[NB_Q8_PANEL_ROWS][PANEL_VECTORS];
  for (int i = 0; i < n; i++) {
    for (int v = 0; v < PANEL_VECTORS; v++) sum[i][v] = vf_zero();
  }
  for (int64_t block = 0; block < x->blocks; block++) {
    const uint8_t *codes = panel->codes + block * NB_Q8_BLOCK * NB_Q8_PANEL;
    vi dot[NB_Q8_PANEL_ROWS][PANEL_VECTORS];
    for (int i = 0; i < n; i++) {
      vi start = vu_set1((uint32_t)(-panel->bias * x->totals[i * x->blocks + block]));
      for (int v = 0; v < PANEL_VECTORS; v++) dot[i][v] = start;
    }
#pragma GCC unroll 8
    for (int k = 0; k < BLOCK_WORDS; k++) {
      for (int i = 0; i < n; i++) {
        vi four = vi_words(x->codes + i * x->cols + block * NB_Q8_BLOCK + k * 4);
        for (int v = 0; v < PANEL_VECTORS; v++)
          dot[i][v] = vi_dot(dot[i][v], vi_load(codes + (k * NB_Q8_PANEL + v * VF) * 4), four, true);
      }
    }
    const float *scales = panel->scales + block * NB_Q8_PANEL, *minima = panel->minima + block * NB_Q8_PANEL;
    for (int i = 0; i < n; i++) {
      vf scale_x = vf_set1(x->scales[i * x->blocks + block]), sum_x = vf_set1(x->sums[i * x->blocks + block]);
      for (int v = 0; v < PANEL_VECTORS; v++) {
        vf scale = vf_mul(vf_load(scales + v * VF), scale_x);
        sum[i][v] = vf_fma(vi_to_f32(dot[i][v]), scale, sum[i][v]);
        if (panel->has_minimum) sum[i][v] = vf_fma(vf_load(minima + v * VF), sum_x, sum[i][v]);
      }
    }
  }
  for (int i = 0; i < n; i++) {
    for (int v = 0; v < PANEL_VECTORS; v++) vf_store(out + i * NB_Q8_PANEL + v * VF, sum[i][v]);
  }
}

static void multiply_panel(const nb_q8_panel *panel, const nb_q8_x *x, int64_t n, float *out) {
  switch (n) {
    case 1: panel_rows(1, panel, x, out); break;
    case 2: panel_rows(2, panel, x, out); break;
    default: panel_rows(3, panel, x, out); break;
  }
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
