/* The quantizers, float weights to codes and scales, bit for bit as bitsandbytes 0.50.2 computes them on the CPU.
 * Everything works on a run of the weights, so that a caller can stream a matrix and give runs to threads; a run of
 * 4-bit weights starts on a block boundary, a run of int8 is whole rows. Source values may lie unaligned.
 * Beside the codes come sums that tell the error made, so that nobody has to look at the weights a second time.
 * The scalar versions in cpu/quantize_scalar.c are the specification; docs/formats.md says the same in words. */
#ifndef NB_KERNELS_QUANTIZE_H
#define NB_KERNELS_QUANTIZE_H

#include "kernels/formats.h"

enum { NB_MAX_BLOCK_SIZE = 4096, NB_NESTED_BLOCK_SIZE = 256 };

/* Sums over one block (a row for int8) of v, the weights scaled by 1 / absmax (127 / absmax), and m, what their codes
 * stand for at that scale. The last two are made for 4 bits only, and only if asked for. */
typedef struct nb_block_sums {
  float squares;      /* v * v */
  float error;        /* (v - m)^2 */
  float cross;        /* (v - m) * m */
  float code_squares; /* m * m */
} nb_block_sums;

/* Weights to be quantized, and where to: whole blocks (rows for int8), so that only the run at a matrix's end may have
 * a shorter one. */
typedef struct nb_quantize_run {
  nb_dtype dtype; /* F32, F16 or BF16 */
  const void *src;
  int64_t count;
  bool nested;         /* asks for all four sums */
  void *codes;         /* packed as the format has them */
  float *scales;       /* [ceil(count / nb_packed_unit)] */
  nb_block_sums *sums; /* as scales */
} nb_quantize_run;

/* Quantizes a run of m's weights; of m the format, the columns and the size of blocks are looked at. The format's row
 * has to have a quantizer. Returns -1, or the index of the first weight that is not finite (in float16, for int8), with
 * nothing of use written. */
int64_t nb_quantize(const nb_packed *m, const nb_quantize_run *run);

/* The quantizers of the rows in formats.c. Codebooks: every block but the last is multiplied by the reciprocal of its
 * absmax; what is left of a last, shorter block is divided by it. A block is even and has at most NB_MAX_BLOCK_SIZE
 * weights. int8 goes by way of float16. */
int64_t nb_quantize_4bit(const nb_packed *m, const nb_quantize_run *run);
int64_t nb_quantize_int8(const nb_packed *m, const nb_quantize_run *run);

/* The error of a block whose scale in the end is `scale` where the codes were chosen by `absmax` (they differ with
 * double quantization only), and the sum of its weights' squares. */
void nb_block_error(const nb_block_sums *sums, float absmax, float scale, double *error, double *squares);

/* Mean of n > 0 values, summed in the order in which torch's one-threaded CPU kernel sums them. (With more threads
 * torch cuts 32768 and more values into as many runs, and the last bits of its own result change.) */
float nb_mean(const float *values, int64_t n);

/* The 256 values of the dynamic 8-bit type (Dettmers 2015, arXiv:1511.04561), ascending. */
void nb_dynamic_map(float map[256]);

/* Quantizes n values, less `offset`, in blocks of NB_NESTED_BLOCK_SIZE to the nearest of `map`, through bitsandbytes'
 * table of 65536 steps. codes: [n], absmax: [ceil(n / NB_NESTED_BLOCK_SIZE)]. */
void nb_quantize_dynamic(const float *values, int64_t n, float offset, const float map[256], uint8_t *codes,
                         float *absmax);

#endif
