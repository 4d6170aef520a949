/* One look at every byte of a tensor, in parallel bands and at the speed of memory: what a sound weight cannot look
 * like. Nothing here knows a file or judges; structure*.c does. Counts come with the index of the first. */
#ifndef NB_VALIDATE_SCAN_H
#define NB_VALIDATE_SCAN_H

#include "kernels/formats.h"

/* How many elements (blocks, rows) are so, and the first of them; -1: none. */
typedef struct nb_tally {
  int64_t count, first;
} nb_tally;

typedef struct nb_plain_scan {
  nb_tally not_finite;
  bool all_equal; /* every element has the same bits */
  bool all_zero;  /* and they are zero, of either sign */
} nb_plain_scan;

/* count elements of a plain float dtype, unaligned. */
void nb_scan_plain(nb_dtype dtype, const void *values, int64_t count, nb_plain_scan *out);

/* Of nf4 and fp4, the index of a tally is a block's; of int8 a row's. A quantizer that rounds to nearest gives the
 * weight that makes a block's absmax a code of value 1 or -1. */
typedef struct nb_codes_scan {
  int64_t blocks;        /* in all */
  bool all_equal;        /* every code of the matrix is the same */
  bool all_zero;         /* and stands for zero */
  bool high_half_equal;  /* nf4, fp4: all codes in the high halves of the bytes are the same, those in the low halves */
  bool low_half_equal;   /* are not, or the other way round */
  nb_tally constant;     /* whole blocks of one code that does not stand for zero */
  nb_tally unscaled;     /* the scale is zero, the codes are not */
  nb_tally without_peak; /* no code of value 1 or -1, although the scale is not zero */
  nb_tally saturated;    /* more than half of a whole block's codes have the value 1 or -1 */
  nb_tally below_lowest; /* int8: rows with -128, which no weight becomes */
} nb_codes_scan;

/* The codes of a 4-bit matrix, block by block. Without scales they are
 * taken as 1. */
void nb_scan_codes4(const nb_packed *m, nb_codes_scan *out);

/* The codes of an int8 matrix, row by row. */
void nb_scan_codes8(const nb_packed *m, nb_codes_scan *out);

/* The scales of a matrix: absmax or SCB, or what double quantization restores. */
typedef struct nb_scales_scan {
  int64_t count;
  nb_tally not_finite, negative, zero;
  nb_tally far;     /* by more than 2^24 from the others' geometric mean */
  double mean_log2; /* of those that are finite and above zero; 0 if there is none */
} nb_scales_scan;

/* `tolerance`: how far below zero rounding may put one (double quantization: a zero block's scale). */
void nb_scan_scales(const nb_packed *m, int64_t count, double tolerance, nb_scales_scan *out);

#endif
