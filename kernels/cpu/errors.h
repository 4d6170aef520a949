/* Sums over weights, or logits, and over what stands for them, at the speed of memory: for who measures how far a
 * packed model is from what it was, and who searches the grid that keeps it near. One file of plain C
 * (errors_target.h), compiled once an instruction set; its lanes are always as many, so that results are the same to
 * the last bit on every processor. */
#ifndef NB_KERNELS_CPU_ERRORS_H
#define NB_KERNELS_CPU_ERRORS_H

#include <stdint.h>

#include "kernels/cpu/isa.h"

typedef struct nb_unit_sums {
  float error;   /* (a - w)^2 */
  float squares; /* w * w */
} nb_unit_sums;

/* A grid: value = scale * (code - zero), codes from 0 to max_code, whole numbers all. */
typedef struct nb_grid_line {
  float scale, zero, max_code;
} nb_grid_line;

typedef struct nb_run_sums {
  float copies;  /* a * a */
  float product; /* a * w */
  float largest; /* |a - w|; of no use where a value is not finite */
} nb_run_sums;

enum { NB_SEARCH_ROWS = 8 /* groups whose grids are searched at once: as many as the parts of a sum of errors */ };

/* Which grids a search tries: they span a part 1 - i / steps of the weights' range, for i < tried. */
typedef struct nb_grid_search {
  int steps, tried;
  float max_code, middle;        /* middle: the zero point, or less than 0 for one where it fits best */
  float least_scale, most_scale; /* of the dtype that scales are stored in, all of whose numbers here are normal */
  int dropped_bits;              /* of float32's mantissa, by that dtype */
} nb_grid_search;

/* What it searches them for: NB_SEARCH_ROWS groups of n weights. */
typedef struct nb_search_groups {
  const float *w; /* [n, NB_SEARCH_ROWS] */
  int64_t n;
  const float *low, *high; /* [NB_SEARCH_ROWS], the groups' ranges */
  const float *importance; /* [n], what errors are weighed by, or NULL */
} nb_search_groups;

typedef struct nb_cpu_errors {
  /* Of n weights w and what stands for them, a, for each `unit` of them (the last may be shorter). Sums are float:
   * units of some thousands keep them exact to six digits. What is not finite makes them so. out: [ceil(n / unit)]. */
  void (*units)(const float *w, const float *a, int64_t n, int64_t unit, nb_unit_sums *out);

  /* Of some thousands at a time. */
  void (*run)(const float *w, const float *a, int64_t n, nb_run_sums *out);

  /* The least and the largest of 0 and w. */
  void (*range)(const float *w, int64_t n, float *low, float *high);

  /* The squared error of rounding w to whole numbers of `scale`, from `least` to `most` of them, half to even; each
   * weighed by importance [n] unless that is NULL. */
  float (*grid)(const float *w, int64_t n, float scale, float least, float most, const float *importance);

  /* Rounds n finite weights to the grid, half to even, with the sums of the errors and the weights: some thousands at a
   * time. What is not finite makes `squares` so, and is no code's. */
  void (*round)(const float *w, int64_t n, const nb_grid_line *g, uint8_t *codes, nb_unit_sums *sums);

  /* The part of its range whose grid has the least of `grid`'s errors, for each group: part [NB_SEARCH_ROWS]. The
   * largest of equal ones, and 1 where no error is finite. */
  void (*search)(const nb_search_groups *groups, const nb_grid_search *search, float *part);

  /* Of two rows of n logits, less their largest: the sums of exp(x - max_x), exp(y - max_y) and
   * exp(x - max_x) ((x - max_x) - (y - max_y)), which a Kullback-Leibler divergence is made of. */
  void (*exp_sums)(const float *x, const float *y, int64_t n, float max_x, float max_y, double sums[3]);
} nb_cpu_errors;

/* For the instruction set in use. */
const nb_cpu_errors *nb_cpu_errors_now(void);

extern const nb_cpu_errors nb_cpu_errors_scalar, nb_cpu_errors_avx2, nb_cpu_errors_avx512;

#endif
