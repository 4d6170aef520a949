/* y = x W^T for 1 to 64 rows of activations: bound by the reading of W, which happens once and in packed form.
 *
 * Specification: y[i][r] = sum over c of f16(x[i][c]) * w[r][c] (+ bias[r]) (+ y[i][r] before), added in float32, in an
 * order that depends on the shapes only; w is scale * (code - zero) with nothing rounded but the scale's product with a
 * sum, or for nf4 and fp4 the 16 values rounded to float16. f16 is that of product.h; with two_parts it has 22 bits.
 *
 * Each multiprocessor has one block, which takes a run of units (tiles.h says what those are, and what long and tall
 * products are). Each of its sixteen warps reads a stream of tiles of its own, `stages` ahead and from one set on into
 * the next, by asynchronous copies into its own part of shared memory; lanes find there, 16 bytes at a time, what they
 * feed to the tensor cores. The weights are the A of m16n8k16; the activations are its B and lie in shared memory in
 * rows that start 16 banks apart:
 *
 *          A: slab of W [16, 64]          B: x^T [64, 8]              D [16, 8] += A B
 *      lane 4g + t: rows g, g + 8;     lane 4g + t: row g of x,     lane 4g + t: rows g, g + 8 of W,
 *      columns 8t.., 32 + 8t..         the same columns             rows 2t, 2t + 1 of x
 *
 * Loads straight to registers are no way to have several tiles in flight: the compiler counts all of them on one
 * scoreboard, and to wait for the oldest is then to wait for the newest. Groups of asynchronous copies are waited for
 * one by one.
 *
 * Weights depend on no earlier kernel. So a block is launched while the one before it in the stream still works, fills
 * its stages, has more of its run brought into the second-level cache, and only then waits for its activations.
 */
#include "kernels/cuda/activations.h"
#include "kernels/cuda/decode.h"

enum {
  X_PAD = 32,
  THREADS = NB_PRODUCT_WARPS * 32,
  PREFETCH_BYTES = 64 << 10, /* of a block, beyond the stages */
  AHEAD_BYTES = 96 << 10     /* of a block of the next launch */
};

/* What a block works on, the same in all its threads but for lane and warp. */
typedef struct job {
  nb_lookup lookup;
  const float *nested_map;
  unsigned char *stages; /* the warp's */
  unsigned short *x;     /* long: [columns, stride]; tall: two chunks of that */
  float *sums;           /* long: [2, warps, 32, columns]; tall: float4 [warps / 2, of a lane, lanes] */
  unsigned *flag;
  int x_stride, columns;
  int warp_k, warp_n, lane;
  uint32_t begin, end; /* units */
} job;

/* Where a warp is, reading or multiplying. */
typedef struct place {
  const nb_device_layer *layer;
  uint32_t set, next_set; /* next_set: its first unit */
  int64_t row_tile;
  uint32_t tile, end; /* the warp's next column tile, and where those of the block's part of the set end */
} place;

/* Eight activations to their place in a long product's shared memory. */
static __device__ __forceinline__ void put_eight(const nb_product_args &a, const job &j, int row, int64_t k,
                                                 float v[8]) {
  unsigned short *to = j.x + (a.two_parts ? 2 : 1) * row * j.x_stride + k;
  nb_put_eight(v, a.x_dtype, a.two_parts, (uint4 *)to, (uint4 *)(to + j.x_stride));
}

/* Column tiles [begin, begin + tiles) of a long product's activations to shared memory. All that a thread reads is on
 * its way before the first of it is used, as far as registers allow. */
template <int DTYPE>
static __device__ __forceinline__ void stage_plain(const nb_product_args &a, const job &j, int begin, int tiles) {
  enum { AT_ONCE = DTYPE == NB_X_F32 ? 3 : 4 };
  int eights = tiles * (NB_TILE_COLS / 8), total = eights * a.n, first = begin * NB_TILE_COLS;
#pragma unroll 1
  for (int i = (int)threadIdx.x; i < total; i += AT_ONCE * THREADS) {
    nb_eight<DTYPE> raw[AT_ONCE];
#pragma unroll
    for (int b = 0; b < AT_ONCE; b++) {
      int at = min(i + b * THREADS, total - 1);
      raw[b] = nb_read_eight<DTYPE>(a.x, at / eights * a.ldx + first + at % eights * 8);
    }
#pragma unroll
    for (int b = 0; b < AT_ONCE; b++) {
      int at = i + b * THREADS;
      float v[8];
      nb_widen_eight<DTYPE>(raw[b], v);
      if (at < total) put_eight(a, j, at / eights, first + at % eights * 8, v);
    }
  }
}

static __device__ __forceinline__ void stage_x(const nb_product_args &a, const job &j, int begin, int tiles) {
  int eights = tiles * (NB_TILE_COLS / 8), first = begin * NB_TILE_COLS;
  if (a.is_plain && a.x_dtype == NB_X_F16) {
    for (int row = 0; row < a.n; row++) {
      const unsigned short *from = (const unsigned short *)a.x + row * a.ldx + first;
      for (int i = (int)threadIdx.x; i < eights; i += THREADS)
        nb_copy_16(j.x + row * j.x_stride + first + i * 8, from + i * 8);
    }
  } else if (a.is_plain && a.x_dtype == NB_X_BF16) {
    stage_plain<NB_X_BF16>(a, j, begin, tiles);
  } else if (a.is_plain) {
    stage_plain<NB_X_F32>(a, j, begin, tiles);
  } else {
    const nb_device_matrix *w = &a.layer[0].w;
#pragma unroll 1
    for (int i = (int)threadIdx.x; i < eights * a.n; i += THREADS) {
      float v[8];
      int64_t k = first + i % eights * 8;
      nb_gather_eight({a.x, a.x_dtype, i / eights * a.ldx, w->tiles.cols, w->order}, k, v);
      put_eight(a, j, i / eights, k, v);
    }
  }
}

/* All that a long product's block will need: the columns of its run, which perhaps goes from the end of one set into
 * the next, or every one. */
static __device__ __forceinline__ void stage_run(const nb_product_args &a, const job &j) {
  uint32_t units = a.plan.set_units, first = j.begin % units, last = first + (j.end - j.begin);
  uint32_t begin = last < 2 * units ? first : 0,
           wrapped = last > units && last < 2 * units ? min(last - units, first) : 0;
#pragma unroll 1
  for (int part = 0; part < 2; part++) {
    int from = (int)(part ? 0 : begin) * NB_PRODUCT_WARPS,
        to = (int)(part ? wrapped : min(last, units)) * NB_PRODUCT_WARPS;
    to = min(to, (int)a.layer[0].w.tiles.col_tiles);
    if (from < to) stage_x(a, j, from, to - from);
  }
}

/* Begins to copy the activations of units [at, at + chunk) of a tall product's run. Each warp has rows of its own. */
static __device__ __forceinline__ void copy_chunk(const nb_product_args &a, const job &j, uint32_t at,
                                                  unsigned short *to) {
  constexpr uint32_t WARPS_K = nb_product_warps_k(false);
  uint32_t units = min(a.plan.chunk_units, j.end - at), tiles = (uint32_t)a.layer[0].w.tiles.col_tiles;
  for (int row = (int)threadIdx.x / 32; row < j.columns; row += NB_PRODUCT_WARPS) {
    const unsigned short *from = (const unsigned short *)a.x + row * a.ldx;
    for (uint32_t i = (uint32_t)j.lane; i < units * WARPS_K * 8; i += 32) {
      uint32_t tile = (at + i / 8 / WARPS_K) % a.plan.set_units * WARPS_K + i / 8 % WARPS_K;
      if (tile < tiles) nb_copy_16(to + row * j.x_stride + i * 8, from + tile * NB_TILE_COLS + i % 8 * 8);
    }
  }
}

/* The B registers of all 4 steps for 8 columns of x^T, at the lane's place. */
static __device__ __forceinline__ void load_b(const unsigned short *at, uint32_t b[8]) {
  uint4 low = *(const uint4 *)at, high = *(const uint4 *)(at + 32);
  b[0] = low.x, b[1] = low.y, b[2] = low.z, b[3] = low.w;
  b[4] = high.x, b[5] = high.y, b[6] = high.z, b[7] = high.w;
}

/* What a lane reads of the activations. */
template <int N_TILES>
struct lane_x {
  const unsigned short *x; /* where the tile's columns begin in shared memory */
  int at[N_TILES];         /* the lane's place of each 8 rows, from x; less than 0: it reads none */
  uint32_t b[8];           /* B registers; zeros of a lane that reads none */
};

/* One tile of 32 x 64 weights into the sums. */
template <int KIND, int N_TILES>
static __device__ __forceinline__ void multiply_tile(const nb_device_matrix *w, const job &j, const uint4 *units,
                                                     uint4 fetched, lane_x<N_TILES> &x, float sums[2][N_TILES][4]) {
  const int words = nb_unit_size<KIND>::words;
  nb_lane_scales scales = nb_make_scales<KIND>(fetched, j.nested_map, w->nested_offset, w->tiles.scale_is_bf16, j.lane);
  uint32_t a[2][4][4];
#pragma unroll
  for (int slab = 0; slab < 2; slab++)
    nb_decode<KIND>(&j.lookup, j.lane, (const uint32_t *)units + slab * words, slab, &scales, a[slab]);
#pragma unroll
  for (int n = 0; n < N_TILES; n++) {
    if (N_TILES > 1 || x.at[n] >= 0) load_b(x.x + x.at[n], x.b);
#pragma unroll
    for (int slab = 0; slab < 2; slab++) {
      float part[4] = {0, 0, 0, 0};
      float *d = nb_unit_size<KIND>::scaled ? part : sums[slab][n];
#pragma unroll
      for (int s = 0; s < 4; s++) nb_mma_f16(d, a[slab][s], x.b[2 * s], x.b[2 * s + 1]);
      if constexpr (nb_unit_size<KIND>::scaled) {
#pragma unroll
        for (int i = 0; i < 4; i++) sums[slab][n][i] = fmaf(scales.scale[2 * slab + i / 2], part[i], sums[slab][n][i]);
      }
    }
  }
}

/* ---- the end of a set ------------------------------------------------------------------------------------------- */

/* A finished sum on its way out. */
static __device__ __forceinline__ void finish(const nb_device_layer *layer, int64_t row, int column, float sum) {
  const nb_device_matrix *w = &layer->w;
  if (w->tiles.kind == NB_TILED_INT8) sum *= ((const float *)w->scales)[row];
  if (layer->bias) sum += layer->bias[row];
  float *y = layer->y + column * w->tiles.rows + row;
  *y = layer->accumulate ? *y + sum : sum;
}

/* The sum of a row of x that came in two parts. */
static __device__ __forceinline__ float add_parts(float first, float second) {
  return fmaf(second, 1 / NB_X_REST, first * (1 / NB_X_SCALE));
}

/* The blocks that have a part in a set, and where this one leaves its own. */
typedef struct shares {
  uint32_t first, last, first_unit;
  int64_t slot;
} shares;

static __device__ __forceinline__ shares shares_of(const nb_product_args &a, const job &j, const place &p) {
  shares s;
  s.first_unit = p.next_set - a.plan.set_units;
  s.first = nb_block_of_unit(&a.plan, s.first_unit);
  s.last = nb_block_of_unit(&a.plan, s.first_unit + a.plan.set_units - 1);
  /* A block shares two sets at most, its first and its last. */
  s.slot = (int64_t)blockIdx.x * 2 + (s.first_unit > j.begin);
  return s;
}

/* The place of another block's part. */
static __device__ __forceinline__ int64_t slot_of(const nb_product_args &a, const shares &s, uint32_t block) {
  return (int64_t)block * 2 + (s.first_unit > nb_first_unit(&a.plan, block));
}

/* A long product's set: 32 rows, which all warps have sums of. They meet in shared memory, where every second set has
 * the same place: when it is written again, all have come by the barrier of the set between. */
template <int N_TILES>
static __device__ __forceinline__ void end_long_set(const nb_product_args &a, const job &j, const place &p,
                                                    float sums[2][N_TILES][4]) {
  int g = j.lane / 4, t = j.lane % 4;
  float *here = j.sums + (p.set % 2) * (NB_PRODUCT_WARPS * NB_TILE_ROWS) * j.columns;
#pragma unroll
  for (int i = 0; i < 2 * N_TILES * 4; i++) {
    int slab = i / (N_TILES * 4), n = i / 4 % N_TILES;
    int row = slab * 16 + i % 4 / 2 * 8 + g, column = n * 8 + 2 * t + i % 2;
    if (column < j.columns) here[(j.warp_k * NB_TILE_ROWS + row) * j.columns + column] = sums[slab][n][i % 4];
  }
  __syncthreads();
  shares s = shares_of(a, j, p);
  int total = NB_TILE_ROWS * a.n;
  int64_t first_row = p.row_tile * NB_TILE_ROWS, rows = p.layer->w.tiles.rows;
  for (int i = (int)threadIdx.x; i < total; i += THREADS) {
    int row = i % NB_TILE_ROWS, column = i / NB_TILE_ROWS;
    if (first_row + row >= rows) continue;
    float sum = 0;
#pragma unroll
    for (int k = 0; k < NB_PRODUCT_WARPS; k++) {
      const float *at = here + (k * NB_TILE_ROWS + row) * j.columns;
      sum += a.two_parts ? add_parts(at[2 * column], at[2 * column + 1]) : at[column];
    }
    sum *= a.rescale;
    if (s.first == s.last) {
      finish(p.layer, first_row + row, column, sum);
    } else {
      a.partial[s.slot * total + i] = sum;
    }
  }
  if (s.first == s.last || !nb_came_last(&a.arrived[p.set], s.last - s.first + 1, j.flag)) return;
  for (int i = (int)threadIdx.x; i < total; i += THREADS) {
    int row = i % NB_TILE_ROWS, column = i / NB_TILE_ROWS;
    if (first_row + row >= rows) continue;
    float sum = 0;
#pragma unroll 4
    for (uint32_t b = s.first; b <= s.last; b++) sum += nb_load_fresh(&a.partial[slot_of(a, s, b) * total + i]);
    finish(p.layer, first_row + row, column, sum);
  }
}

/* A warp's finished sums out of its registers. */
template <int N_TILES>
static __device__ __forceinline__ void finish_tall(const nb_product_args &a, const job &j, const place &p,
                                                   float sums[2][N_TILES][4]) {
  int g = j.lane / 4, t = j.lane % 4;
  int64_t rows = p.layer->w.tiles.rows;
#pragma unroll
  for (int i = 0; i < 2 * N_TILES * 2; i++) {
    int slab = i / (N_TILES * 2), n = i / 2 % N_TILES;
    int64_t row = p.row_tile * NB_TILE_ROWS + slab * 16 + i % 2 * 8 + g;
    if (row >= rows) continue;
    float low = sums[slab][n][i % 2 * 2] * a.rescale, high = sums[slab][n][i % 2 * 2 + 1] * a.rescale;
    int column = n * 8 + 2 * t;
    if (column >= j.columns) continue;
    if (a.two_parts) {
      finish(p.layer, row, column / 2, add_parts(low, high));
      continue;
    }
    finish(p.layer, row, column, low);
    if (column + 1 < j.columns) finish(p.layer, row, column + 1, high);
  }
}

/* The second warp of each row tile hands its sums to the first. */
template <int N_TILES>
static __device__ __forceinline__ void add_second_warps(const job &j, float sums[2][N_TILES][4]) {
  float4 *at = (float4 *)j.sums + j.warp_n * 2 * N_TILES * 32 + j.lane;
  __syncthreads(); /* those of the set before have been read */
#pragma unroll
  for (int i = 0; i < 2 * N_TILES; i++) {
    const float *v = sums[i / N_TILES][i % N_TILES];
    if (j.warp_k == 1) at[i * 32] = make_float4(v[0], v[1], v[2], v[3]);
  }
  __syncthreads();
  if (j.warp_k == 1) return;
#pragma unroll
  for (int i = 0; i < 2 * N_TILES; i++) {
    float4 v = at[i * 32];
    float *sum = sums[i / N_TILES][i % N_TILES];
    sum[0] += v.x, sum[1] += v.y, sum[2] += v.z, sum[3] += v.w;
  }
}

/* A tall product's set: the first warps have all sums of their row tiles. Parts are left as they lie in registers. */
template <int N_TILES>
static __device__ __forceinline__ void end_tall_set(const nb_product_args &a, const job &j, const place &p,
                                                    float sums[2][N_TILES][4]) {
  constexpr int WARPS_N = NB_PRODUCT_WARPS / nb_product_warps_k(false);
  constexpr int QUADS = 2 * N_TILES, LANES = WARPS_N * 32, SET = QUADS * LANES; /* float4 of a lane, and of a set */
  add_second_warps<N_TILES>(j, sums);
  shares s = shares_of(a, j, p);
  bool is_first = j.warp_k == 0;
  if (s.first != s.last) {
    float4 *parts = (float4 *)a.partial + j.warp_n * 32 + j.lane;
#pragma unroll
    for (int i = 0; i < QUADS; i++) {
      const float *v = sums[i / N_TILES][i % N_TILES];
      if (is_first) parts[s.slot * SET + i * LANES] = make_float4(v[0], v[1], v[2], v[3]);
    }
    if (!nb_came_last(&a.arrived[p.set], s.last - s.first + 1, j.flag) || !is_first) return;
#pragma unroll
    for (int i = 0; i < QUADS * 4; i++) sums[i / 4 / N_TILES][i / 4 % N_TILES][i % 4] = 0;
      /* Several parts are on their way before the first is added, as many as registers allow. */
#pragma unroll(N_TILES == 1 ? 4 : N_TILES == 2 ? 2 : 1)
    for (uint32_t b = s.first; b <= s.last; b++) {
#pragma unroll
      for (int i = 0; i < QUADS; i++) {
        float4 v = nb_load_fresh(&parts[slot_of(a, s, b) * SET + i * LANES]);
        float *sum = sums[i / N_TILES][i % N_TILES];
        sum[0] += v.x, sum[1] += v.y, sum[2] += v.z, sum[3] += v.w;
      }
    }
  }
  if (is_first) finish_tall<N_TILES>(a, j, p, sums);
}

/* ---- the block's run of units ----------------------------------------------------------------------------------- */

/* The layer that a set, counted over all of them, belongs to. */
static __device__ __forceinline__ int layer_of_set(const int *first_set, int count, uint32_t set) {
  int layer = 0;
  while (layer + 1 < count && (int)set >= first_set[layer + 1]) layer++;
  return layer;
}

/* Goes to a unit of a set, both counted over all layers. */
template <bool IS_LONG>
static __device__ __forceinline__ place go_to(const nb_product_args &a, const job &j, uint32_t set, uint32_t unit) {
  constexpr int WARPS_K = nb_product_warps_k(IS_LONG), WARPS_N = NB_PRODUCT_WARPS / WARPS_K;
  uint32_t first = set * a.plan.set_units;
  place p;
  int layer = layer_of_set(a.first_set, a.count, set);
  p.layer = &a.layer[layer];
  p.set = set, p.next_set = first + a.plan.set_units;
  p.row_tile = (int64_t)((int)set - a.first_set[layer]) * WARPS_N + j.warp_n;
  p.tile = (unit - first) * WARPS_K + (uint32_t)j.warp_k;
  const nb_tiles &t = p.layer->w.tiles;
  bool is_there = first < j.end && p.row_tile < t.row_tiles;
  p.end = is_there ? min((j.end - first) * WARPS_K, (uint32_t)t.col_tiles) : 0;
  return p;
}

/* What a warp fetches next. */
typedef struct reader {
  place at;
  const unsigned char *codes; /* of its tile, this lane's first */
  nb_scale_place scales;
  uint32_t stage; /* where they go; of the tile that was multiplied last */
} reader;

template <int KIND, bool IS_LONG>
static __device__ __forceinline__ void read_from(const nb_product_args &a, const job &j, uint32_t set, uint32_t unit,
                                                 reader *r) {
  r->at = go_to<IS_LONG>(a, j, set, unit);
  const nb_device_matrix *w = &r->at.layer->w;
  int64_t tile = r->at.row_tile * w->tiles.col_tiles + r->at.tile;
  r->codes = (const unsigned char *)w->codes + tile * nb_code_stage_bytes((nb_tiled_kind)KIND) + j.lane * 16;
  r->scales = nb_place_scales<KIND>(w, r->at.row_tile, j.lane);
}

/* Begins to copy the warp's tile of the reader's unit to its stage, as a group, and goes on to the next unit. */
template <int KIND, int STAGES, bool IS_LONG>
static __device__ __forceinline__ void fetch(const job &j, reader *r) {
  constexpr int BYTES = nb_code_stage_bytes((nb_tiled_kind)KIND), WARPS_K = nb_product_warps_k(IS_LONG);
  unsigned char *to = j.stages + r->stage * nb_stage_bytes((nb_tiled_kind)KIND);
  bool is_there = r->at.tile < r->at.end;
  nb_stage_codes<KIND>(r->codes, is_there, j.lane, to);
  nb_stage_scales<KIND>(&r->scales, is_there, r->at.tile, j.lane, to + BYTES);
  nb_copies_commit();
  r->at.tile += WARPS_K;
  r->codes += WARPS_K * BYTES;
  r->stage = r->stage + 1 == STAGES ? 0 : r->stage + 1;
}

/* Where a layer's tiles lie: codes, and scales where each tile has its own. */
typedef struct layer_tiles {
  const void *codes, *scales;
  int tile_bytes, scale_bytes; /* of a tile; scales 0: they lie otherwise */
} layer_tiles;

/* Has tiles [first, end) of a layer brought into the second-level cache, but no more than `most`. */
static __device__ __forceinline__ void prefetch_tiles(layer_tiles t, int64_t first, int64_t end, int most) {
  int64_t tiles = min((int64_t)most, end - first);
  if (tiles <= 0) return;
  nb_prefetch((const char *)t.codes + first * t.tile_bytes, (uint32_t)(tiles * t.tile_bytes));
  if (t.scale_bytes) nb_prefetch((const char *)t.scales + first * t.scale_bytes, (uint32_t)(tiles * t.scale_bytes));
}

/* Has what follows the tiles in flight brought into the second-level cache: tiles lie in the order of the run, up to
 * the end of the layer, or in a tall product of the row tile. One lane of each warp asks for a piece; `unit` is the
 * reader's. */
template <int KIND, bool IS_LONG>
static __device__ __forceinline__ void prefetch_run(const job &j, const reader &r, uint32_t unit) {
  constexpr int BYTES = nb_code_stage_bytes((nb_tiled_kind)KIND), WARPS_K = nb_product_warps_k(IS_LONG);
  constexpr int PIECE = PREFETCH_BYTES / NB_PRODUCT_WARPS / BYTES; /* tiles of a warp */
  const nb_device_matrix *w = &r.at.layer->w;
  if (j.lane != 0 || unit >= j.end || r.at.row_tile >= w->tiles.row_tiles) return;
  /* The warps of a row tile read side by side, so the first of them is where the pieces begin. */
  int64_t first = r.at.row_tile * w->tiles.col_tiles + r.at.tile - j.warp_k;
  int64_t end = (r.at.row_tile + 1) * w->tiles.col_tiles;
  if (IS_LONG) end = min(first + (int64_t)(j.end - unit) * WARPS_K, w->tiles.row_tiles * w->tiles.col_tiles);
  layer_tiles t = {w->codes, w->scales, BYTES, nb_tile_scale_bytes((nb_tiled_kind)KIND)};
  prefetch_tiles(t, first + j.warp_k * PIECE, end, PIECE);
}

/* Has the beginning of a run of the next launch brought into the second-level cache. */
static __device__ __forceinline__ void prefetch_ahead(const nb_product_ahead &next, const job &j) {
  if (j.lane != 0 || blockIdx.x >= next.plan.blocks) return;
  uint32_t unit = nb_first_unit(&next.plan, blockIdx.x), set = unit / next.plan.set_units;
  int layer = layer_of_set(next.first_set, next.count, set);
  int piece = AHEAD_BYTES / NB_PRODUCT_WARPS / next.tile_bytes; /* tiles of a warp; it is a long product's */
  int64_t first = (int64_t)((int)set - next.first_set[layer]) * next.col_tiles +
                  (int64_t)(unit - set * next.plan.set_units) * NB_PRODUCT_WARPS + (j.warp_k + j.warp_n) * piece;
  layer_tiles t = {next.codes[layer], next.scales[layer], next.tile_bytes, next.scale_bytes};
  prefetch_tiles(t, first, next.tiles[layer], piece);
}

/* The table of pairs, once for each bank, and the map of double quantization after it. */
template <int KIND>
static __device__ __forceinline__ void fill_tables(const nb_device_matrix *w, uint32_t *table) {
  if constexpr (nb_is_lut4((nb_tiled_kind)KIND)) {
    for (int i = (int)threadIdx.x; i < 256 * 8; i += THREADS) {
      uint32_t pair = w->values[i / 8 / 16] | (uint32_t)w->values[i / 8 % 16] << 16;
      ((uint4 *)table)[i / 8 * (NB_PAIR_STRIDE / 4) + i % 8] = make_uint4(pair, pair, pair, pair);
    }
  }
  if constexpr (KIND == NB_TILED_LUT4_TWICE) {
    for (int i = (int)threadIdx.x; i < 256; i += THREADS)
      table[256 * NB_PAIR_STRIDE + i] = __float_as_uint(w->nested_map[i]);
  }
}

/* Multiplies `count` units between two events: has the stage of the tile before filled again, now that all lanes have
 * used what they read there, waits for the next tile and takes it out of its own. */
template <int KIND, int N_TILES, int STAGES, bool IS_LONG>
static __device__ __forceinline__ void multiply_some(const job &j, place *p, reader *r, uint32_t count,
                                                     lane_x<N_TILES> &x, float sums[2][N_TILES][4]) {
  constexpr int WARPS_K = nb_product_warps_k(IS_LONG);
  constexpr int QUADS = 2 * nb_unit_size<KIND>::quads, BYTES = nb_code_stage_bytes((nb_tiled_kind)KIND);
  const nb_device_matrix *w = &p->layer->w;
#pragma unroll 1
  for (; count > 0; count--, p->tile += WARPS_K, x.x += WARPS_K * NB_TILE_COLS) {
    __syncwarp();
    fetch<KIND, STAGES, IS_LONG>(j, r);
    const unsigned char *stage = j.stages + r->stage * nb_stage_bytes((nb_tiled_kind)KIND);
    uint4 units[QUADS];
    nb_copies_wait<STAGES - 1>();
    __syncwarp(); /* scales are copied by some lanes for all */
#pragma unroll
    for (int i = 0; i < QUADS; i++) units[i] = *(const uint4 *)(stage + (i * 32 + j.lane) * 16);
    uint4 scales = nb_staged_scales<KIND>(stage + BYTES, j.lane);
    if (p->tile < p->end) multiply_tile<KIND, N_TILES>(w, j, units, scales, x, sums);
  }
}

template <int KIND, int N_TILES, int STAGES, bool IS_LONG>
static __device__ __forceinline__ void multiply(const nb_product_args &a, job &j) {
  constexpr int WARPS_K = nb_product_warps_k(IS_LONG), AHEAD = STAGES - 1; /* units that the reader is ahead */
  float sums[2][N_TILES][4] = {};
  uint32_t set_units = a.plan.set_units, chunk = a.plan.chunk_units, chunk_at = j.begin;
  unsigned short *x_now = j.x, *x_next = j.x + j.columns * j.x_stride; /* tall: two chunks */
  /* Where the lane reads of each 8 rows of x; of a row that is not there nothing is kept. A lane of eight or fewer rows
   * then does not read: shared memory is what nf4 is bound by. */
  lane_x<N_TILES> x = {};
#pragma unroll
  for (int n = 0; n < N_TILES; n++) {
    int row = n * 8 + j.lane / 4;
    x.at[n] = N_TILES == 1 && row >= j.columns ? -1 : min(row, j.columns - 1) * j.x_stride + j.lane % 4 * 8;
  }
  nb_let_next_start();
  reader r;
  r.stage = 0;
  read_from<KIND, IS_LONG>(a, j, j.begin / set_units, j.begin, &r);
  place p = r.at;
#pragma unroll 1
  for (uint32_t u = j.begin; u < j.begin + AHEAD; u++) {
    if (u == r.at.next_set) read_from<KIND, IS_LONG>(a, j, r.at.set + 1, u, &r);
    fetch<KIND, STAGES, IS_LONG>(j, &r);
  }
  prefetch_run<KIND, IS_LONG>(j, r, j.begin + AHEAD);
  fill_tables<KIND>(&a.layer[0].w, (uint32_t *)j.lookup.table);
  nb_wait_for_previous(); /* x, y and the partial sums are its to read and write until then; weights are nobody's */
  if constexpr (IS_LONG)
    stage_run(a, j);
  else
    copy_chunk(a, j, j.begin, x_now);
  nb_copies_commit();
  nb_copies_wait<0>();
  __syncthreads();
  if constexpr (nb_is_lut4((nb_tiled_kind)KIND)) nb_fill_planes(&j.lookup, j.lane);
  /* Each further chunk of activations belongs to the group of the next tile. */
  if (!IS_LONG && chunk_at + chunk < j.end) copy_chunk(a, j, chunk_at + chunk, x_next);
#pragma unroll 1
  for (uint32_t u = j.begin; u < j.end;) {
    if (!IS_LONG && u == chunk_at + chunk) {
      /* Its copies belong to a tile of the chunk before, which has been waited for, unless a chunk is that short. */
      if (chunk < STAGES) nb_copies_wait<0>();
      __syncthreads(); /* the next chunk is there, and everyone is done with this one */
      unsigned short *done = x_now;
      x_now = x_next, x_next = done, chunk_at = u;
      if (u + chunk < j.end) copy_chunk(a, j, u + chunk, x_next);
    }
    if (u + AHEAD == r.at.next_set) read_from<KIND, IS_LONG>(a, j, r.at.set + 1, u + AHEAD, &r);
    uint32_t stop = min(min(j.end, p.next_set), r.at.next_set - AHEAD);
    if (!IS_LONG) stop = min(stop, chunk_at + chunk);
    x.x =
        IS_LONG ? j.x + p.tile * NB_TILE_COLS : x_now + ((u - chunk_at) * WARPS_K + (uint32_t)j.warp_k) * NB_TILE_COLS;
    multiply_some<KIND, N_TILES, STAGES, IS_LONG>(j, &p, &r, stop - u, x, sums);
    u = stop;
    if (u < p.next_set && u < j.end) continue;
    if (u == j.end) prefetch_ahead(a.ahead, j);
    if constexpr (IS_LONG)
      end_long_set<N_TILES>(a, j, p, sums);
    else
      end_tall_set<N_TILES>(a, j, p, sums);
#pragma unroll
    for (int i = 0; i < 2 * N_TILES * 4; i++) sums[i / (4 * N_TILES)][i / 4 % N_TILES][i % 4] = 0;
    p = go_to<IS_LONG>(a, j, p.set + 1, u);
  }
}

template <int KIND, int N_TILES, int STAGES, bool IS_LONG>
static __global__ void __launch_bounds__(THREADS, 1) product_kernel(const __grid_constant__ nb_product_args a) {
  constexpr int WARPS_K = nb_product_warps_k(IS_LONG);
  unsigned char *shared = nb_shared();
  int warp = (int)threadIdx.x / 32;
  job j;
  j.lookup.table = (const uint32_t *)shared;
  j.nested_map = (const float *)(j.lookup.table + 256 * NB_PAIR_STRIDE);
  j.stages = shared + nb_product_table_bytes((nb_tiled_kind)KIND) + warp * STAGES * nb_stage_bytes((nb_tiled_kind)KIND);
  j.x = (unsigned short *)(shared + a.plan.x_offset);
  j.sums = (float *)(shared + a.plan.sums_offset);
  j.flag = (unsigned *)(shared + a.plan.shared_bytes - 16);
  j.columns = a.columns;
  j.x_stride = (int)(IS_LONG ? a.plan.set_units : a.plan.chunk_units) * WARPS_K * NB_TILE_COLS + X_PAD;
  j.lane = (int)threadIdx.x % 32;
  j.warp_k = warp % WARPS_K;
  j.warp_n = warp / WARPS_K;
  j.begin = nb_first_unit(&a.plan, blockIdx.x);
  j.end = nb_first_unit(&a.plan, blockIdx.x + 1);
  multiply<KIND, N_TILES, STAGES, IS_LONG>(a, j);
}

/* ---- the launch ------------------------------------------------------------------------------------------------- */

typedef void (*kernel_fn)(nb_product_args);

enum { MAX_AT_ONCE = 32 }; /* rows of activations whose sums fit the registers */

template <int KIND, int N_TILES>
static kernel_fn kernel_of(const nb_product_plan *p) {
  constexpr int STAGES = nb_product_stages((nb_tiled_kind)KIND, N_TILES);
  if constexpr (N_TILES == 1) {
    if (p->is_long) return p->stages == 1 ? product_kernel<KIND, 1, 1, true> : product_kernel<KIND, 1, STAGES, true>;
    if (p->stages == 1) return product_kernel<KIND, 1, 1, false>;
  }
  return product_kernel<KIND, N_TILES, STAGES, false>;
}

template <int KIND>
static kernel_fn kernel_of_kind(const nb_product_plan *p) {
  return p->n_tiles == 1 ? kernel_of<KIND, 1>(p) : p->n_tiles == 2 ? kernel_of<KIND, 2>(p) : kernel_of<KIND, 4>(p);
}

static kernel_fn kernel_for(nb_tiled_kind kind, const nb_product_plan *p) {
  switch (kind) {
    case NB_TILED_F16: return kernel_of_kind<NB_TILED_F16>(p);
    case NB_TILED_LUT4: return kernel_of_kind<NB_TILED_LUT4>(p);
    case NB_TILED_LUT4_TWICE: return kernel_of_kind<NB_TILED_LUT4_TWICE>(p);
    case NB_TILED_INT8: return kernel_of_kind<NB_TILED_INT8>(p);
    case NB_TILED_GPTQ4: return kernel_of_kind<NB_TILED_GPTQ4>(p);
    default: return kernel_of_kind<NB_TILED_GPTQ8>(p);
  }
}

/* Plans a launch with long or tall sets. False if the shape or the workspace does not allow it. */
static bool plan_launch(const nb_workspace *ws, nb_product_args *a, bool is_long, int stages) {
  nb_tiled_kind kind = a->layer[0].w.tiles.kind;
  int warps_n = NB_PRODUCT_WARPS / nb_product_warps_k(is_long);
  for (int i = 0; i < a->count; i++)
    a->first_set[i + 1] = a->first_set[i] + (int)((a->layer[i].w.tiles.row_tiles + warps_n - 1) / warps_n);
  int sets = a->first_set[a->count];
  nb_product_shape shape = {kind, sets, a->layer[0].w.tiles.col_tiles, a->columns};
  if (!nb_product_plan_make(&shape, is_long, stages, ws->processors, ws->shared_limit, &a->plan)) return false;
  int64_t set_floats = is_long ? NB_TILE_ROWS * a->n : warps_n * NB_TILE_ROWS * 8 * a->plan.n_tiles;
  return sets <= ws->arrived_count && a->plan.blocks * 2 * set_floats <= ws->partial_floats;
}

/* Has x narrowed first, where it must be. False if there is no room for it. */
static bool narrow_x(const nb_workspace *ws, nb_product_args *a) {
  if (a->is_plain && a->x_dtype == NB_X_F16) return true;
  int64_t width = a->layer[0].w.tiles.col_tiles * NB_TILE_COLS;
  if (a->columns * width > ws->narrow_elements) return false;
  nb_narrow(ws->stream, &a->layer[0].w, {a->x, a->x_dtype, a->ldx, a->n}, a->two_parts, ws->narrow);
  a->x = ws->narrow;
  a->ldx = width;
  return true;
}

static nb_product_args args_of(const nb_device_layer *layers, int count, nb_device_rows x) {
  nb_product_args a = {};
  int n = (int)x.count;
  a.count = count, a.x = x.data, a.x_dtype = x.dtype, a.ldx = x.stride, a.n = n;
  for (int i = 0; i < count; i++) a.layer[i] = layers[i];
  /* A second part costs nothing as long as the tensor cores have columns to spare. */
  a.two_parts = x.dtype == NB_X_F32 && n <= NB_PRODUCT_TWO_PARTS;
  a.columns = a.two_parts ? 2 * n : n;
  a.rescale = x.dtype == NB_X_F16 || a.two_parts ? 1 : 1 / NB_X_SCALE;
  return a;
}

/* The product that is expected next, if it is a long one, with as many rows of the same type. */
static nb_product_ahead ahead_of(const nb_workspace *ws, nb_x_dtype dtype, int64_t n) {
  nb_product_ahead ahead = {};
  if (!ws->ahead) return ahead;
  nb_product_args a = args_of(ws->ahead, ws->ahead_count, {NULL, dtype, 0, n});
  const nb_tiles *t = &a.layer[0].w.tiles;
  if (!plan_launch(ws, &a, true, nb_product_stages(t->kind, 1))) return ahead;
  ahead.plan = a.plan, ahead.count = a.count, ahead.col_tiles = t->col_tiles;
  ahead.tile_bytes = nb_code_stage_bytes(t->kind);
  ahead.scale_bytes = nb_tile_scale_bytes(t->kind);
  for (int i = 0; i < a.count; i++) {
    const nb_device_matrix *w = &a.layer[i].w;
    ahead.first_set[i + 1] = a.first_set[i + 1];
    ahead.codes[i] = (const char *)w->codes, ahead.scales[i] = (const char *)w->scales;
    ahead.tiles[i] = w->tiles.row_tiles * w->tiles.col_tiles;
  }
  return ahead;
}

static bool multiply_rows(const nb_workspace *ws, const nb_device_layer *layers, int count, nb_device_rows x) {
  nb_product_args a = args_of(layers, count, x);
  const nb_device_matrix *w = &layers[0].w;
  nb_tiled_kind kind = w->tiles.kind;
  a.is_plain = !w->order && w->tiles.cols == w->tiles.col_tiles * NB_TILE_COLS && x.stride % 8 == 0 &&
               (uintptr_t)x.data % 16 == 0;
  int stages = nb_product_stages(kind, nb_product_n_tiles(a.columns));
  bool planned = plan_launch(ws, &a, true, stages) || plan_launch(ws, &a, false, stages);
  if (!planned && a.columns <= 8) planned = plan_launch(ws, &a, true, 1) || plan_launch(ws, &a, false, 1);
  if (!planned || !(a.plan.is_long || narrow_x(ws, &a))) return false;
  a.ahead = ahead_of(ws, x.dtype, x.count);
  a.partial = ws->partial;
  a.arrived = ws->arrived;
  nb_launch_early(kernel_for(kind, &a.plan), dim3(a.plan.blocks), THREADS, a.plan.shared_bytes, ws->stream, a);
  return true;
}

bool nb_product_small(const nb_workspace *ws, const nb_device_layer *layers, int count, nb_device_rows x) {
  if (x.count <= MAX_AT_ONCE && multiply_rows(ws, layers, count, x)) return true;
  if (x.count <= 8) return false;
  /* Too many rows, or too little shared memory: one half of them after the other, neither of which may fail if the
   * first does not, as it is no smaller. */
  nb_device_layer rest[NB_PRODUCT_FUSED];
  nb_device_rows first = x, second = x;
  first.count = (x.count + 1) / 2, second.count = x.count - first.count;
  second.data = (const char *)x.data + first.count * x.stride * (x.dtype == NB_X_F32 ? 4 : 2);
  for (int i = 0; i < count; i++) {
    rest[i] = layers[i];
    rest[i].y += first.count * layers[i].w.tiles.rows;
  }
  return nb_product_small(ws, layers, count, first) && nb_product_small(ws, rest, count, second);
}
