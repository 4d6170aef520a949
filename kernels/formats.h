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

/* A weight [rows, cols] = [out_features, in_features], row-major. The buffers are borrowed. */
typedef struct nb_packed {
  nb_format format;
  int64_t rows, cols;
  const void *codes; /* f32, f16, bf16: the values; int8: I8 [rows, cols]; nf4, fp4: two codes a byte, the first in
                        the high half, over the flattened matrix, U8 [ceil(rows*cols/2)]; GGUF: blocks, row by row,
                        as the file has them; gptq: U32 words [ceil(cols*bits/32), rows] */

  /* nf4, fp4: blocks of block_size weights run across rows; the last may be shorter. */
  int64_t block_size;
  const float *quant_map; /* [16], the value of each code */
  const float *absmax;    /* [ceil(rows*cols/block_size)]; NULL with double quantization. int8: SCB, [rows] */

  /* Double quantization: absmax[b] = quant_map8[absmax_codes[b]] * nested_absmax[b / nested_block_size] + offset. */
  const uint8_t *absmax_codes;
  const float *nested_quant_map; /* [256] */
  const float *nested_absmax;    /* [ceil(blocks/nested_block_size)] */
  int64_t nested_block_size;     /* 0: none */
  float nested_offset;

  /* gptq2 to gptq8: weight = scale * (code - zero). */
  int64_t groups, group_size;
  const int32_t *g_idx; /* [cols], each column's group; NULL: column / group_size, the last group may be shorter */
  const void *scales;   /* [groups, rows] */
  nb_dtype scale_dtype; /* a float dtype */
  const uint8_t *zeros; /* [groups, rows] */

  /* Words, scales and zeros lie as nb_gptq_repack puts them (gptq.h). */
  bool in_bands;
  const int32_t
      *order; /* [cols]: column j is the layer's column order[j], to which nb_matmul picks its x; NULL: as is */
} nb_packed;

/* Writes the tile [row, row+rows) x [col, col+cols) as float32 to out, `stride` floats from row to row. */
typedef void (*nb_dequantize_fn)(const nb_packed *m, int64_t row, int64_t rows, int64_t col, int64_t cols, float *out,
                                 int64_t stride);

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
  float q8_steps;              /* CODEBOOK: steps from 0 to 1 that the codebook is rounded to in those */

  /* The name of its line in `memory`, and of another with double quantization; NULL: no such line. */
  const char *footprint, *nested_footprint;
} nb_format_row;

const nb_format_row *nb_format_info(nb_format format);

/* The format of a plain float dtype, or the format of that name; false if there is none. */
bool nb_format_of_dtype(nb_dtype dtype, nb_format *out);
bool nb_format_named(const char *name, nb_format *out);

/* absmax of block b, whichever way it is stored (nf4, fp4). */
static inline float nb_block_absmax(const nb_packed *m, int64_t block) {
  if (m->absmax) return m->absmax[block];
  /* bitsandbytes writes 256, and a division by a variable would show in a dot kernel. */
  int64_t nested = m->nested_block_size == 256 ? block / 256 : block / m->nested_block_size;
  return m->nested_quant_map[m->absmax_codes[block]] * m->nested_absmax[nested] + m->nested_offset;
}

/* A matrix of the format as quantizers write it, still without buffers: its scales are of `block` weights each, or of
 * the usual number if 0, and quantized themselves if `nested`. */
nb_packed nb_packed_usual(nb_format format, int64_t rows, int64_t cols, int64_t block, bool nested);

/* Weights that follow each other in a row, or in the flattened matrix, and share a scale. */
int64_t nb_packed_unit(const nb_packed *m);

/* Bytes that the matrix's codes take, and all of its buffers, scales and maps included. Look at the shape only. */
int64_t nb_packed_code_bytes(const nb_packed *m);
int64_t nb_packed_bytes(const nb_packed *m);

/* The 16 values of nf4 and fp4 in code order, as bitsandbytes 0.50 writes them to quant_map. */
extern const float nb_nf4_map[16];
extern const float nb_fp4_map[16];

#endif
