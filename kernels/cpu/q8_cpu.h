/* The inner loops of q8.c, a table of them for each instruction set; the scalar one is the specification. */
#ifndef NB_KERNELS_CPU_Q8_CPU_H
#define NB_KERNELS_CPU_Q8_CPU_H

#include "kernels/cpu/isa.h"
#include "kernels/cpu/kernels.h"
#include "kernels/q8.h"

/* Rows of x that one call of a dot kernel takes. */
enum { NB_Q8_ROWS = 4 };

/* And features and rows of x that a product with a panel takes. */
enum { NB_Q8_PANEL = 64, NB_Q8_PANEL_ROWS = 3 };

/* Rounded rows of x. Each block of 32 codes stands in the order of the kernel that reads them. */
typedef struct nb_q8_x {
  const int8_t *codes;   /* [count, cols] */
  const float *scales;   /* [count, cols/32] */
  const float *sums;     /* [count, cols/32]: scale * sum of the codes, for minima and zero points */
  const int32_t *totals; /* [count, cols/32]: sum of the codes */
  int64_t count;         /* rows: a dot kernel takes 1 to NB_Q8_ROWS */
  int64_t cols, blocks;
} nb_q8_x;

/* NB_Q8_PANEL rows of weights turned so that vectors hold one column of many rows: no sum crosses lanes, and scales,
 * which differ from row to row, are applied to a vector of them. Worth its making for many rows of x. */
typedef struct nb_q8_panel {
  uint8_t *codes; /* [cols / 4, NB_Q8_PANEL, 4], in the kernel's order, plus a bias */
  float *scales;  /* [cols / 32, NB_Q8_PANEL] */
  float *minima;  /* the same, negative; read only if has_minimum */
  int bias;
  bool wide; /* codes may be above 127 */
  bool has_minimum;
} nb_q8_panel;

/* Multiplies rows [begin, end) of a weight with rows of x. */
typedef void (*nb_q8_dot_fn)(const nb_packed *w, int64_t begin, int64_t end, const nb_q8_x *x, nb_sums out);

typedef struct nb_q8_kernel {
  const uint8_t *order; /* [32]: place j of a block holds the code of x[order[j]]; NULL: x[j] */
  nb_q8_dot_fn dot;     /* for a w that nb_q8_fits */
  /* Rows [begin, end) of w, NB_Q8_PANEL at most; those that are missing give 0. NULL: dot is as good. */
  void (*pack)(const nb_packed *w, int64_t begin, int64_t end, nb_q8_panel *out);
} nb_q8_kernel;

typedef void (*nb_q8_round_fn)(const float *x, int64_t cols, int8_t *codes, float *scales);

typedef struct nb_cpu_q8 {
  nb_q8_round_fn round;
  /* out[i * NB_Q8_PANEL + r] = row i of x times row r of the panel, for 1 to NB_Q8_PANEL_ROWS rows of x. */
  void (*multiply)(const nb_q8_panel *panel, const nb_q8_x *x, float *out);
  const nb_q8_kernel *formats; /* [NB_FORMAT_COUNT] */
} nb_cpu_q8;

extern const nb_cpu_q8 nb_cpu_q8_avx2, nb_cpu_q8_avxvnni, nb_cpu_q8_avx512, nb_cpu_q8_neon, nb_cpu_q8_dotprod;

/* Orders in which 4-bit and 2-bit codes come out of their bytes: of bitsandbytes' (evens, then odds) and of GPTQ's
 * words (a word's bytes by their first fields, then their second, ...). */
extern const uint8_t nb_q8_evens_odds[NB_Q8_BLOCK], nb_q8_words4[NB_Q8_BLOCK], nb_q8_words2[NB_Q8_BLOCK];

#endif
