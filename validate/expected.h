/* The error of rounding each value of a weight to the nearest point of its format's grid. A sound artifact of a method
 * that rounds to the nearest (nf4, int8, rtn) has exactly this error; one of a calibrated method is compared with it.
 */
#ifndef NB_VALIDATE_EXPECTED_H
#define NB_VALIDATE_EXPECTED_H

#include "convert/source.h"

/* What a format is judged by. */
typedef struct nb_expectation {
  double factor;    /* an error this many times the expected one is too large */
  bool every_block; /* and so in each block (row): the quantizer rounds, and does not trade one against another */
} nb_expectation;

/* What an artifact's tensor, packed or not, is rounded to. */
typedef struct nb_rounding {
  const nb_packed *packed; /* NULL: plain */
  nb_dtype plain;
  bool is_gguf;
  nb_format gguf;
  bool symmetric; /* gptq: the grid's zero is in the middle */
  int64_t unit;   /* weights that are rounded without looking at others: a block, or a row */
  double slack;   /* squared error a weight that the scales' own rounding may add (double quantization) */
  nb_expectation expectation;
} nb_rounding;

void nb_rounding_of(const nb_checkpoint *artifact, const nb_source *source, nb_rounding *out);

/* Scratch for nb_rounding_errors of at most `weights` at a time; NULL without memory. free() it. */
void *nb_rounding_scratch(int64_t weights);

/* The squared error of each unit of w [count], whole units but for the matrix's last, to errors [units]; a row of the
 * matrix has `cols` weights. False if a weight is not finite (in float16, for int8). */
bool nb_rounding_errors(const nb_rounding *rounding, const float *w, int64_t count, int64_t cols, void *scratch,
                        double *errors);

/* GPTQ trades one group's error against another's, so a large one says little by itself; but one that a factor or an
 * offset takes away is a wrong scale or a wrong zero point. */
typedef struct nb_group_damage {
  int64_t scales, zeros; /* groups whose scale, whose zero point is wrong */
  int64_t first;         /* of either: its number in the unit; -1: none */
} nb_group_damage;

/* One unit of a GPTQ matrix, w the original's and a the artifact's [n], both finite. */
void nb_rounding_groups(const nb_rounding *rounding, const float *w, const float *a, int64_t n, void *scratch,
                        nb_group_damage *out);

#endif
