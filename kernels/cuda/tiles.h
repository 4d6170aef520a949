/* How a weight lies on the GPU: repacked once at load into tiles of 32 rows by 64 columns, in which every lane of a
 * warp finds, 16 bytes at a time, exactly the weights that it feeds to mma.m16n8k16. The arithmetic of that layout is
 * here, in plain C that host and device share, so that it is tested without a GPU. nb_tiles_plan says how a matrix is
 * laid out (or that it must stay as it is), nb_tiles_pack makes bands of it, nb_tiles_code_at finds one weight.
 *
 *   tile [32 rows x 64 columns] = 2 slabs of 16 rows; a slab = 32 units, one a lane; a unit = 2 rows x 16 columns.
 *   lane = 4 g + t holds rows g and g + 8 of the slab and columns 8t .. 8t + 7 and 32 + 8t .. 32 + 8t + 7 of the tile:
 *
 *        columns   0..7   8..15  16..23  24..31 | 32..39  40..47  48..55  56..63
 *        row g     t = 0  t = 1  t = 2   t = 3  | t = 0   t = 1   t = 2   t = 3
 *
 *   Step s of 4 multiplies 16 of the 64 columns: of each lane's 16 the 4 numbered 4s .. 4s + 3. Which columns the
 *   hardware thinks they are does not matter, as the activations are dealt out in the same way. Register j of step s:
 *
 *        j = 0: row g, columns 4s, 4s + 1        j = 1: row g + 8, the same columns
 *        j = 2: row g, columns 4s + 2, 4s + 3    j = 3: row g + 8, the same columns
 *
 *   (PTX ISA, "Matrix fragments for mma.m16n8k16".) Tiles of 32 rows follow each other along the columns. */
#ifndef NB_KERNELS_CUDA_TILES_H
#define NB_KERNELS_CUDA_TILES_H

#ifdef __cplusplus
extern "C" {
#endif
#include "kernels/formats.h"

#ifdef __CUDACC__
#define NB_BOTH __host__ __device__
#else
#define NB_BOTH
#endif
#ifdef __cplusplus
#define NB_CONST static constexpr NB_BOTH
#else
#define NB_CONST static inline
#endif

enum { NB_TILE_ROWS = 32, NB_TILE_COLS = 64, NB_TILE_SLABS = 2, NB_UNIT = 32 /* weights of a lane in a slab */ };

/* The layout of one matrix. */
typedef struct nb_tiles {
  nb_tiled_kind kind;
  int64_t rows, cols;
  int64_t row_tiles, col_tiles; /* padded to whole tiles with zeros */
  int unit_words;               /* 32-bit words of a unit: 4, 8 or 16 */
  int64_t groups;               /* gptq: of columns */
  int64_t group_tiles;          /* gptq: tiles that share a scale; each group is padded to so many */
  int64_t block_tiles;          /* nf4, fp4: tiles of a row that share a scale */
  bool reordered;               /* gptq: columns are in the order of nb_tiles_order */
  bool scale_is_bf16;           /* gptq: not float16 */
} nb_tiles;

/* False, with kind NONE, if the matrix must stay as it is. */
bool nb_tiles_plan(const nb_packed *m, nb_tiles *out);

/* Bytes of the codes and the scales of 32 rows. */
int64_t nb_tiles_code_bytes(const nb_tiles *t);
int64_t nb_tiles_scale_bytes(const nb_tiles *t);

/* A matrix and how it becomes tiles. */
typedef struct nb_tiling {
  const nb_packed *m;
  const nb_tiles *t;    /* nb_tiles_plan's */
  const int32_t *order; /* nb_tiles_order's; NULL where columns are not reordered */
} nb_tiling;

/* Packs row tiles [first, first + count). codes: count * nb_tiles_code_bytes, scales: count * nb_tiles_scale_bytes. */
void nb_tiles_pack(const nb_tiling *from, int64_t first, int64_t count, uint32_t *codes, void *scales);

/* order[i] is the source's column at place i, or -1 for padding; [col_tiles * 64]. */
void nb_tiles_order(const nb_packed *m, const nb_tiles *t, int32_t *order);

/* A weight of a tile: in which unit it is, and where there. */
typedef struct nb_unit_place {
  int slab, lane;
  int step, reg, pos; /* pos: 0 the low half of the register, 1 the high */
} nb_unit_place;

/* row [0, 32), col [0, 64) within the tile. */
static inline NB_BOTH nb_unit_place nb_place_in_tile(int row, int col) {
  int within = col % 32, e = within % 8;
  nb_unit_place p;
  p.slab = row / 16;
  p.lane = row % 8 * 4 + within / 8;
  p.step = col / 32 * 2 + e / 4;
  p.reg = row % 16 / 8 + e % 4 / 2 * 2;
  p.pos = e % 2;
  return p;
}

/* The word of a unit (0 .. unit_words - 1) that holds a weight, and the weight's lowest bit there. */
static inline NB_BOTH int nb_unit_word(nb_tiled_kind kind, nb_unit_place p, int *shift) {
  switch (kind) {
    case NB_TILED_LUT4:
    case NB_TILED_LUT4_TWICE:
      *shift = p.reg * 8 + (p.pos ? 0 : 4);
      return p.step;                                                     /* a byte is a pair, as in the file */
    case NB_TILED_GPTQ4: *shift = p.reg * 4 + p.pos * 16; return p.step; /* one mask takes a pair out */
    case NB_TILED_INT8:
    case NB_TILED_GPTQ8: *shift = (p.reg % 2 * 2 + p.pos) * 8; return p.step * 2 + p.reg / 2;
    default: *shift = p.pos * 16; return p.step * 4 + p.reg;
  }
}

/* Index of a unit's word in the codes. A warp's 32 lanes read 16 bytes each, side by side. */
static inline NB_BOTH int64_t nb_word_index(int unit_words, int64_t tile, int slab, int lane, int word) {
  int quads = unit_words / 4;
  return (((tile * NB_TILE_SLABS + slab) * quads + word / 4) * 32 + lane) * 4 + word % 4;
}

/* Index of a row's scale in a tile's (or a group's) 32: the four rows of a lane lie together. */
static inline NB_BOTH int nb_scale_slot(int row) { return row % 8 * 4 + row / 8; }

/* The bits of the weight at a row and a (reordered) column. */
static inline NB_BOTH uint32_t nb_tiles_code_at(const uint32_t *codes, const nb_tiles *t, int64_t row, int64_t col) {
  nb_unit_place p = nb_place_in_tile((int)(row % NB_TILE_ROWS), (int)(col % NB_TILE_COLS));
  int64_t tile = row / NB_TILE_ROWS * t->col_tiles + col / NB_TILE_COLS;
  int shift, word = nb_unit_word(t->kind, p, &shift), bits = t->unit_words;
  return codes[nb_word_index(t->unit_words, tile, p.slab, p.lane, word)] >> shift & ((1u << bits) - 1);
}

/* ---- the plan of a product -------------------------------------------------------------------------------------- */

enum {
  NB_PRODUCT_MAX_ROWS = 64,   /* of activations */
  NB_PRODUCT_TWO_PARTS = 4,   /* most rows of float32 activations that are split in two parts */
  NB_PRODUCT_FUSED = 4,       /* layers in one launch */
  NB_PRODUCT_WARPS = 16,      /* of a block */
  NB_PAIR_STRIDE = 64,        /* words from pair to pair of the table in shared memory (decode.h) */
  NB_LONG_X_BYTES = 60 << 10, /* most activations of a long product in shared memory */
};

/* How a product is shared out. A set is the row tiles that a block works on at a time; a unit is a step along the
 * columns in which each of its warps takes one tile. A long product has one row tile a set, along which all warps go
 * together: activations of all columns must fit in shared memory, so it is for few of them. A tall one has a row tile
 * for every two warps: each piece of the activations serves 256 rows, and blocks share sets.
 *
 * Every block, and there is one a multiprocessor, takes a run of units: whole sets where that keeps nearly all busy,
 * else the same number of units, give or take one, from somewhere in one set to somewhere in another, so that none
 * waits for the last. Sets that several blocks have a part in are added up in order by the one that comes last.
 *
 * For example, 4 row tiles of 12 column tiles on three blocks of four warps (a real block has sixteen). The number in a
 * tile is the block that reads it:
 *
 *      long: a set is one row tile, a unit 4 tiles side by      tall: a set is 2 row tiles (4 warps / 2), a unit 2
 *      side, one a warp. 12 units, 4 a block                    columns of them. 12 units, 4 a block
 *
 *      set 0   0 0 0 0 | 0 0 0 0 | 0 0 0 0                      set 0   0 0 | 0 0 | 0 0 | 0 0 | 1 1 | 1 1
 *      set 1   0 0 0 0 | 1 1 1 1 | 1 1 1 1                              0 0 | 0 0 | 0 0 | 0 0 | 1 1 | 1 1
 *      set 2   1 1 1 1 | 1 1 1 1 | 2 2 2 2                      set 1   1 1 | 1 1 | 2 2 | 2 2 | 2 2 | 2 2
 *      set 3   2 2 2 2 | 2 2 2 2 | 2 2 2 2                              1 1 | 1 1 | 2 2 | 2 2 | 2 2 | 2 2
 *
 * In the long product block 1 shares set 1 with block 0 and set 2 with block 2. Each leaves its partial sums of a
 * shared set, and the one that arrives last adds them in the order of the blocks. */
typedef struct nb_product_plan {
  bool is_long;
  int n_tiles; /* of 8 rows of activations: 1, 2 or 4 */
  uint32_t set_units, units, blocks;
  uint32_t run_units;   /* of each block but the last; 0: evenly shared out */
  uint32_t chunk_units; /* tall: of activations that come at a time */
  int stages;           /* tiles that a warp has in flight */
  int64_t x_offset, sums_offset, shared_bytes;
} nb_product_plan;

static inline NB_BOTH uint32_t nb_first_unit(const nb_product_plan *p, uint32_t block) {
  if (p->run_units) return block * p->run_units < p->units ? block * p->run_units : p->units;
  return block * p->units / p->blocks;
}

/* The block that has a unit. */
static inline NB_BOTH uint32_t nb_block_of_unit(const nb_product_plan *p, uint32_t unit) {
  return p->run_units ? unit / p->run_units : ((unit + 1) * p->blocks - 1) / p->units;
}

NB_CONST int nb_product_warps_k(bool is_long) { return is_long ? NB_PRODUCT_WARPS : 2; }

NB_CONST bool nb_is_lut4(nb_tiled_kind kind) { return kind == NB_TILED_LUT4 || kind == NB_TILED_LUT4_TWICE; }

NB_CONST bool nb_is_4bit(nb_tiled_kind kind) { return nb_is_lut4(kind) || kind == NB_TILED_GPTQ4; }

/* Tiles that a warp has in flight: enough bytes on a multiprocessor to hide the memory's latency; or one, where shared
 * memory is too short for that. */
NB_CONST int nb_product_stages(nb_tiled_kind kind, int n_tiles) {
  return nb_is_4bit(kind) ? (n_tiles <= 2 ? 4 : 3) : kind == NB_TILED_F16 ? 2 : 3;
}

/* Bytes of a tile's scales in memory, where each has its own: nf4 and fp4; else 0. */
NB_CONST int nb_tile_scale_bytes(nb_tiled_kind kind) {
  return kind == NB_TILED_LUT4 ? NB_TILE_ROWS * 4 : kind == NB_TILED_LUT4_TWICE ? NB_TILE_ROWS : 0;
}

/* Bytes of a tile in shared memory: of its codes and, behind them, its scales (decode.h). */
NB_CONST int nb_code_stage_bytes(nb_tiled_kind kind) {
  return nb_is_4bit(kind) ? 1024 : kind == NB_TILED_F16 ? 4096 : 2048;
}
NB_CONST int nb_stage_bytes(nb_tiled_kind kind) {
  int scales = kind == NB_TILED_LUT4_TWICE ? 32 + 128 : kind == NB_TILED_INT8 || kind == NB_TILED_F16 ? 0 : 128;
  return nb_code_stage_bytes(kind) + scales;
}

/* Bytes of shared memory before the stages: the table of pairs and the map of double quantization, or nothing. */
NB_CONST int nb_product_table_bytes(nb_tiled_kind kind) {
  return kind == NB_TILED_LUT4         ? 256 * NB_PAIR_STRIDE * 4
         : kind == NB_TILED_LUT4_TWICE ? 256 * NB_PAIR_STRIDE * 4 + 256 * 4
                                       : 0;
}

/* What a launch multiplies. */
typedef struct nb_product_shape {
  nb_tiled_kind kind;
  int64_t sets; /* of all fused layers together */
  int64_t col_tiles;
  int columns; /* that the tensor cores see: rows of activations, twice as many where each is split in two parts */
} nb_product_shape;

/* stages: nb_product_stages, or 1 where n_tiles is 1. shared_limit: bytes that a block can have. False if the shape is
 * beyond the kernel, or a long product has too many activations. */
bool nb_product_plan_make(const nb_product_shape *s, bool is_long, int stages, int processors, int64_t shared_limit,
                          nb_product_plan *out);

/* Of 8 rows of activations each: 1, 2 or 4. */
static inline int nb_product_n_tiles(int columns) { return columns <= 8 ? 1 : columns <= 16 ? 2 : 4; }

#ifdef __cplusplus
}
#endif
#endif
