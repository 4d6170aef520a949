/* The packed formats: how a weight matrix lies in memory, and the arithmetic on one that does not care where it came
 * from. A matrix is one descriptor, nb_packed; what differs between formats is one row of the table in formats.c.
 * Data goes in through quantize (a run of the flattened weights at a time), comes out through dequantize (any tile)
 * and is multiplied as it lies through nb_matmul (matmul.h). Nothing here allocates or knows a file. */
#ifndef NB_KERNELS_FORMATS_H
#define NB_KERNELS_FORMATS_H

#include "base/dtype.h"

typedef enum nb_format {
  NB_FORMAT_F32,
  NB_FORMAT_F16,
  NB_FORMAT_BF16,
  NB_FORMAT_NF4, /* bitsandbytes, Dettmers et al. 2023, arXiv:2305.14314 */
  NB_FORMAT_FP4,
  NB_FORMAT_INT8, /* a scale a row, Dettmers et al. 2022, arXiv:2208.07339 */
  NB_FORMAT_Q4_0, /* GGUF's blocks; gguf_blocks.h */
  NB_FORMAT_Q4_1,
  NB_FORMAT_Q5_0,
  NB_FORMAT_Q5_1,
  NB_FORMAT_Q8_0,
  NB_FORMAT_Q2_K,
  NB_FORMAT_Q3_K,
  NB_FORMAT_Q4_K,
  NB_FORMAT_Q5_K,
  NB_FORMAT_Q6_K,
  NB_FORMAT_GPTQ2, /* GPTQ's packed integers; gptq.h */
  NB_FORMAT_GPTQ3,
  NB_FORMAT_GPTQ4,
  NB_FORMAT_GPTQ8,
  NB_FORMAT_COUNT
} nb_format;

/* Scales: each is the factor of a block of the weights, [block_rows, block_cols], or of a run of the flattened matrix.
 * Their order is the format's. */
typedef struct nb_scales {
  const void *data;
  nb_dtype dtype;                 /* U8: codes, whose values are in `codebook` */
  int64_t block_rows, block_cols; /* block_rows 0: runs of block_cols, which cross rows; the last may be shorter */
  const float *codebook;          /* [256]; NULL: data has the values */
  float offset;                   /* added to each after its own scale was applied */
} nb_scales;

/* A weight [rows, cols] = [out_features, in_features], row-major: a grid of codes, and scales for blocks of it. What a
 * format has not stays zero. The buffers are borrowed.
 *
 *   format       codebook  scale                           second                 zeros
 *   nf4, fp4     16        runs of block_cols, F32         -                      -
 *    double      16        the same, U8 codes, an offset   runs of scales, F32    -
 *   int8         -         [1, cols], F32                  -                      -
 *   gptq         -         [1, group], a float dtype       -                      U8, as the scales
 *   GGUF's       -         in the blocks of codes
 *
 * [128, 128] of fp8, [1, 32] with a codebook of mxfp4, [1, 16] with a second scale of nvfp4 are others of the kind. */
typedef struct nb_packed {
  nb_format format;
  int64_t rows, cols;
  const void *codes;     /* f32, f16, bf16: the values; int8: I8 [rows, cols]; nf4, fp4: two codes a byte, the first in
                            the high half, over the flattened matrix, U8 [ceil(rows*cols/2)]; GGUF: blocks, row by row,
                            as the file has them; gptq: U32 words [ceil(cols*bits/32), rows] */
  const float *codebook; /* [16], the value of each code */
  nb_scales scale;
  nb_scales second; /* of the scales; block_cols counts them. 0: none */

  /* Groups of columns, of which each row has a scale and a zero point: weight = scale * (code - zero). */
  int64_t groups;
  const uint8_t *zeros; /* [groups, rows], as scale.data */
  const int32_t *g_idx; /* [cols], each column's group; NULL: column / scale.block_cols, the last may be shorter */
  const int32_t *order; /* [cols]: stored column j is input feature order[j], for which nb_matmul permutes x; NULL: all
                           columns lie in their natural order */
  int band;             /* rows of a band in which words, scales and zeros lie as nb_gptq_repack puts them (gptq.h); 0:
                           as files have them */
} nb_packed;

/* Rows [row, row + rows) and columns [col, col + cols) of a matrix. */
typedef struct nb_tile {
  const nb_packed *packed;
  int64_t row, rows, col, cols;
} nb_tile;

/* All of it. */
static inline nb_tile nb_whole(const nb_packed *m) {
  nb_tile t = {m, 0, m->rows, 0, m->cols};
  return t;
}

/* Writes a tile as float32 to out, `stride` floats from row to row. */
typedef void (*nb_dequantize_fn)(nb_tile t, float *out, int64_t stride);

/* How a code and its scales make a weight. Formats of one scheme share their code; what else they differ in is data. */
typedef enum nb_scheme {
  NB_SCHEME_PLAIN,     /* the value itself, of a float dtype */
  NB_SCHEME_CODEBOOK,  /* scale * codebook[code], two codes a byte */
  NB_SCHEME_SYMMETRIC, /* scale * code / peak, a signed byte */
  NB_SCHEME_AFFINE,    /* scale * (code - zero), packed into words */
  NB_SCHEME_BLOCKS,    /* blocks that hold their own scales, each in its own way */
} nb_scheme;

/* How the products of a GPU have a weight: repacked into tiles (cuda/tiles.h). */
typedef enum nb_tiled_kind {
  NB_TILED_NONE,       /* stays as the source has it: an odd shape, or a format that is not made for speed */
  NB_TILED_F16,        /* float16, or bfloat16 that was rounded to it */
  NB_TILED_LUT4,       /* nf4, fp4: a float32 scale for each row of a tile */
  NB_TILED_LUT4_TWICE, /* the same with double quantization */
  NB_TILED_INT8,       /* stored with 128 added; a scale a row */
  NB_TILED_GPTQ4,      /* a 16-bit scale and a zero point for each group and row, in one word */
  NB_TILED_GPTQ8,
  NB_TILED_COUNT
} nb_tiled_kind;

/* A block of NB_SCHEME_BLOCKS. Places count bytes from its start. */
typedef struct nb_block_layout {
  int weights, bytes;
  int group;             /* weights that share one of its scales */
  int scale, minimum;    /* where float16s lie: the scale, and the minimum; -1: none */
  int codes, code_bytes; /* the codes' bytes, or where they are cut in two, those with the low bits */
} nb_block_layout;

/* How far the behaviour of a model may move whose linear layers are in a format: what that does to a model of 135 M
 * weights, which loses more than larger ones, and some room. docs/results.md has the figures measured. */
typedef struct nb_limits {
  double max_kl;           /* mean KL divergence, in nats */
  double max_ppl_increase; /* a share: 0.01 is 1% */
  double min_top1;         /* share of tokens of which the likeliest is the same */
} nb_limits;

struct nb_q8_form;
struct nb_quantize_run;

/* All that a format is. Adding one is adding its row in formats.c, and the kernels that the row names. */
typedef struct nb_format_row {
  const char *name; /* "nf4", as --method and reports spell it */
  nb_scheme scheme;
  int bits;                    /* a weight's code */
  nb_dtype plain;              /* PLAIN: the values' dtype; else what codes are stored in */
  nb_dequantize_fn dequantize; /* plain C, the specification; the fast ones are in kernels/cpu/kernels.h */
  /* Rounds a run of weights (quantize.h); NULL: no weight can be rounded by itself. */
  int64_t (*quantize)(const nb_packed *m, const struct nb_quantize_run *run);

  const float *codebook; /* CODEBOOK: [16], the value of each code */
  float peak;            /* what the largest weight of a block becomes; 1 or 127 */
  int64_t usual_block;   /* weights that share a scale where nobody asks for another number; 0: there is no choice */
  nb_block_layout block; /* BLOCKS; else zeros */
  nb_tiled_kind tiled;   /* on a GPU; NONE: slow, or by way of float16 */
  bool llm_int8;         /* has the product of int8.h */
  const struct nb_q8_form *q8; /* products with activations in eight bits (q8.h); NULL: in float32 */
  bool q8_is_cheap;            /* they cost less than 0.5% of perplexity (docs/results.md) */
  float q8_steps;              /* CODEBOOK: steps from 0 to 1 that the codebook is rounded to in those */

  nb_limits limits;
  nb_limits traded_limits;   /* AFFINE: where errors were traded against each other, as GPTQ does; zeros: the same */
  nb_limits llm_int8_limits; /* with the product of int8.h, which rounds activations, too */

  /* The name of its line in `memory`, and of another with double quantization; NULL: no such line. */
  const char *footprint, *nested_footprint;
} nb_format_row;

const nb_format_row *nb_format_info(nb_format format);

/* The format of a plain float dtype, or the format of that name; false if there is none. */
bool nb_format_of_dtype(nb_dtype dtype, nb_format *out);
bool nb_format_named(const char *name, nb_format *out);

/* Scale number b of runs (nf4, fp4), whichever way it is stored. */
static inline float nb_block_scale(const nb_packed *m, int64_t b) {
  if (!m->second.block_cols) return ((const float *)m->scale.data)[b];
  /* bitsandbytes writes 256, and a division by a variable would show in a dot kernel. */
  int64_t above = m->second.block_cols == 256 ? b / 256 : b / m->second.block_cols;
  return m->scale.codebook[((const uint8_t *)m->scale.data)[b]] * ((const float *)m->second.data)[above] +
         m->scale.offset;
}

/* The factor of an int8 row's codes. */
static inline float nb_row_scale(const nb_packed *m, int64_t row) {
  return ((const float *)m->scale.data)[row] / 127.0f;
}

/* A matrix of the format as quantizers write it, still without buffers: its scales are of `block` weights each, or of
 * the usual number if 0, and quantized themselves if `nested`. */
nb_packed nb_packed_usual(nb_format format, int64_t rows, int64_t cols, int64_t block, bool nested);

/* Weights that follow each other in a row, or in the flattened matrix, and share a scale. */
int64_t nb_packed_unit(const nb_packed *m);

/* How many scales it has, those of scales left out; 0 where the codes hold them. */
int64_t nb_scale_count(const nb_packed *m);

/* Bytes that the matrix's codes take, and all of its buffers, scales and maps included. Look at the shape only. */
int64_t nb_packed_code_bytes(const nb_packed *m);
int64_t nb_packed_bytes(const nb_packed *m);

/* The 16 values of nf4 and fp4 in code order, as bitsandbytes 0.50 writes them to quant_map. */
extern const float nb_nf4_map[16];
extern const float nb_fp4_map[16];

#endif
