/* What is particular to a packed format in a product, for each instruction set: unpacking a tile to float32 (prefill
 * then multiplies it as gemm.h does) and multiplying packed rows with a few rows of x at once (decode). A row a format;
 * a hole is filled by the next lesser instruction set, in the end by nb_format_row.dequantize. */
#ifndef NB_KERNELS_CPU_KERNELS_H
#define NB_KERNELS_CPU_KERNELS_H

#include "kernels/cpu/isa.h"
#include "kernels/formats.h"

enum {
  NB_DOT_MAX = 4, /* rows of x that one call of a dot kernel takes */
  NB_GROUP4 = 64, /* 4-bit weights that a dot kernel unpacks at a time: the usual block */
  /* From this many rows of x on, unpacking the weights to memory once costs less than unpacking them in registers for a
   * few rows at a time, if a format does not know better. */
  NB_PREFILL_FROM = 9,
  NB_STEP4 = 32, /* and those that dequantization does */
  /* Bytes of weights to ask for ahead of those in work: one core reads half as fast without. A processor's own
   * prefetching ends at each page and is slow to follow several rows at once. */
  NB_AHEAD = 12288,
};

/* Rows of activations. */
typedef struct nb_rows {
  const float *data; /* [count, cols of the weight] */
  int64_t stride;    /* floats from row to row */
  int64_t count;     /* 1 to NB_DOT_MAX for a dot kernel */
} nb_rows;

/* Where a dot kernel puts its sums: that of row i of x and row begin + r of the weight to data[i * stride + r]. */
typedef struct nb_sums {
  float *data;
  int64_t stride;
} nb_sums;

/* The first `count` rows: a constant count makes loops over them unroll. */
static inline nb_rows nb_first_rows(nb_rows x, int64_t count) {
  x.count = count;
  return x;
}

/* Multiplies rows [begin, end) of a weight with rows of x that are as `prepare` left them. */
typedef void (*nb_dot_fn)(const nb_packed *w, int64_t begin, int64_t end, nb_rows x, nb_sums out);

typedef struct nb_format_kernels {
  nb_dequantize_fn dequantize;

  bool (*fits)(const nb_packed *w); /* whether `dot` can do this shape; NULL: any */
  /* Copies a row of x [cols] in the order in which the registers of `dot` hold the weights: x is put in that order
   * once, so that the weights need not be put in theirs for every row. NULL: x as it is. */
  void (*prepare)(const float *x, int64_t cols, float *out);
  nb_dot_fn dot;
  /* dequantize for a matrix that `fits` and a tile of whole panels of prefill.c, turned: column c lies at out + c *
   * stride. NULL: rows come out as easily. */
  nb_dequantize_fn columns;
  /* Rows of x from which on prefill.c is faster than `dot`. NULL: NB_PREFILL_FROM. */
  int64_t (*prefill_from)(const nb_packed *w);
} nb_format_kernels;

/* The dequantize function for the instruction set in use. */
nb_dequantize_fn nb_dequantizer(nb_format format);

/* The row whose `dot` multiplies this matrix on the instruction set in use; NULL if there is none. */
const nb_format_kernels *nb_dot_kernels(const nb_packed *w);

extern const nb_format_kernels nb_kernels_avx2[NB_FORMAT_COUNT], nb_kernels_avx512[NB_FORMAT_COUNT],
    nb_kernels_neon[NB_FORMAT_COUNT];

#endif
