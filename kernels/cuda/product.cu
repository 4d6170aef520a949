/* y = x W^T for 1 to 64 rows of activations: bound by the reading of W, which happens once and in packed form.
 *
 * Specification: y[i][r] = sum over c of f16(x[i][c]) * w[r][c] (+ bias[r]) (+ y[i][r] before), added in float32, in an
 * order that depends on the shapes only; w is scale * (code - zero) with nothing rounded but the scale's product with a
 * sum, or for nf4 and fp4 the 16 values rounded to float16. f16 is that of product.h; with two_parts it has 22 bits.
 *
 * Each multiprocessor has one block, which takes a run of units (tiles.h says what those are). The weights are the A of
 * m16n8k16, and go from global memory straight to the registers of the lane that needs them (tiles.h), `depth` units
 * ahead and from one set on into the next, so that reading never pauses; the activations are its B and lie in shared
 * memory, all of them or a chunk of columns at a time, in rows that start 16 banks apart:
 *
 *          A: slab of W [16, 64]          B: x^T [64, 8]              D [16, 8] += A B
 *      lane 4g + t: rows g, g + 8;     lane 4g + t: row g of x,     lane 4g + t: rows g, g + 8 of W,
 *      columns 8t.., 32 + 8t..         the same columns             rows 2t, 2t + 1 of x
 *
 * Warps that share a row tile take its column tiles in turn, so that together they read one stream. At the end of a set
 * their sums meet in shared memory, those of several blocks in global memory, where the last block to arrive adds all
 * in order. docs/results.md counts the instructions of the inner loop.
 */
#include "kernels/cuda/decode.h"

enum { X_PAD = 32 };

/* What a block works on, the same in all its threads but for lane and warp. */
typedef struct job {
  const uint32_t *table;
  const float *nested_map;
  unsigned short *x; /* [columns, stride] */
  float *sums;       /* [warps, 32, columns] */
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

static __device__ __forceinline__ float load_x(const nb_product_args &a, int row, int64_t col) {
  int64_t at = row * a.ldx + col;
  if (a.x_dtype == NB_X_F32) return ((const float *)a.x)[at];
  uint32_t bits = ((const uint16_t *)a.x)[at];
  return a.x_dtype == NB_X_F16 ? nb_half_to_float(bits) : nb_bits_float(bits << 16);
}

/* Eight activations at tiled columns k .. k + 7 of a row, zeros where there are none. */
static __device__ __forceinline__ void load_eight(const nb_product_args &a, const nb_device_matrix *w, int row,
                                                  int64_t k, float v[8]) {
  bool is_plain = !w->order && k + 8 <= w->tiles.cols && a.ldx % 8 == 0 && (uintptr_t)a.x % 16 == 0;
  if (a.x_dtype == NB_X_F32 && is_plain) {
    const float4 *at = (const float4 *)((const float *)a.x + row * a.ldx + k);
    float4 low = at[0], high = at[1];
    v[0] = low.x, v[1] = low.y, v[2] = low.z, v[3] = low.w;
    v[4] = high.x, v[5] = high.y, v[6] = high.z, v[7] = high.w;
    return;
  }
  if (a.x_dtype == NB_X_BF16 && is_plain) {
    uint4 eight = *(const uint4 *)((const uint16_t *)a.x + row * a.ldx + k);
    const uint32_t words[4] = {eight.x, eight.y, eight.z, eight.w};
#pragma unroll
    for (int i = 0; i < 4; i++)
      v[2 * i] = nb_bits_float(words[i] << 16), v[2 * i + 1] = nb_bits_float(words[i] & 0xffff0000u);
    return;
  }
#pragma unroll
  for (int i = 0; i < 8; i++) {
    int64_t col = w->order ? w->order[k + i] : k + i;
    v[i] = col >= 0 && col < w->tiles.cols ? load_x(a, row, col) : 0;
  }
}

/* True if eight activations can be copied as they are. */
static __device__ __forceinline__ bool is_copy(const nb_product_args &a, const nb_device_matrix *w, int64_t k) {
  return a.x_dtype == NB_X_F16 && !w->order && k + 8 <= w->tiles.cols && a.ldx % 8 == 0 && (uintptr_t)a.x % 16 == 0;
}

static __device__ __forceinline__ float bounded(float v) { return fminf(fmaxf(v, -65504.0f), 65504.0f); }

static __device__ __forceinline__ uint4 narrow_eight(const float v[8], float scale) {
  uint32_t p[4];
#pragma unroll
  for (int i = 0; i < 4; i++) p[i] = nb_pair_f16(bounded(v[2 * i] * scale), bounded(v[2 * i + 1] * scale));
  return make_uint4(p[0], p[1], p[2], p[3]);
}

/* What is left of v after its rounding. */
static __device__ __forceinline__ void subtract_rounded(float v[8], uint4 rounded) {
  const uint32_t words[4] = {rounded.x, rounded.y, rounded.z, rounded.w};
#pragma unroll
  for (int i = 0; i < 4; i++) {
    v[2 * i] -= nb_half_to_float(words[i] & 0xffffu) * (1 / NB_X_SCALE);
    v[2 * i + 1] -= nb_half_to_float(words[i] >> 16) * (1 / NB_X_SCALE);
  }
}

/* Column tiles [begin, begin + tiles) of the activations to their place in shared memory, where `origin` comes first.
 */
static __device__ __forceinline__ void stage_x(const nb_product_args &a, const job &j, int begin, int tiles,
                                               int origin) {
  int units = tiles * NB_TILE_COLS / 8, total = units * a.n;
  const nb_device_matrix *w = &a.layer[0].w;
  for (int i = (int)threadIdx.x; i < total; i += (int)blockDim.x) {
    int row = i / units, unit = i % units;
    int64_t k = (int64_t)begin * NB_TILE_COLS + unit * 8;
    uint4 *to =
        (uint4 *)(j.x + (a.two_parts ? 2 * row : row) * j.x_stride + (begin - origin) * NB_TILE_COLS + unit * 8);
    if (is_copy(a, w, k)) {
      *to = *(const uint4 *)((const uint16_t *)a.x + row * a.ldx + k);
      continue;
    }
    float v[8];
    load_eight(a, w, row, k, v);
    uint4 first = narrow_eight(v, a.x_dtype == NB_X_F16 ? 1.0f : NB_X_SCALE);
    *to = first;
    if (!a.two_parts) continue;
    subtract_rounded(v, first);
    *(uint4 *)((unsigned short *)to + j.x_stride) = narrow_eight(v, NB_X_REST);
  }
}

/* All activations that the block will need, where all fit: a run of units, perhaps from the end of one set into the
 * next, or every unit. */
template <int WARPS_K>
static __device__ __forceinline__ void stage_all(const nb_product_args &a, const job &j) {
  uint32_t units = a.plan.set_units, first = j.begin % units, last = first + (j.end - j.begin);
  uint32_t begin = last < 2 * units ? first : 0,
           wrapped = last > units && last < 2 * units ? min(last - units, first) : 0;
#pragma unroll 1
  for (int part = 0; part < 2; part++) {
    int from = (int)(part ? 0 : begin) * WARPS_K, to = (int)(part ? wrapped : min(last, units)) * WARPS_K;
    to = min(to, (int)a.layer[0].w.tiles.col_tiles);
    if (from < to) stage_x(a, j, from, to - from, 0);
  }
}

/* Brings the chunk of activations that has unit `at` of a set. Every thread comes by the same barriers. */
template <int WARPS_K>
static __device__ __forceinline__ void stage_chunk(const nb_product_args &a, const job &j, uint32_t at) {
  uint32_t begin = at - at % a.plan.chunk_units;
  int from = (int)begin * WARPS_K;
  int to = min(from + (int)a.plan.chunk_units * WARPS_K, (int)a.layer[0].w.tiles.col_tiles);
  __syncthreads(); /* everyone is done with the chunk before */
  stage_x(a, j, from, to - from, from);
  __syncthreads();
}

/* The B registers of all 4 steps for 8 columns of x^T: row `g` of them, at the lane's columns of the tile at `x`. */
static __device__ __forceinline__ void load_b(const job &j, const unsigned short *x, int n_tile, uint32_t b[8]) {
  int row = n_tile * 8 + j.lane / 4;
  if (row >= j.columns) row = j.columns - 1; /* what comes of it is not kept */
  const unsigned short *at = x + row * j.x_stride + j.lane % 4 * 8;
  uint4 low = *(const uint4 *)at, high = *(const uint4 *)(at + 32);
  b[0] = low.x, b[1] = low.y, b[2] = low.z, b[3] = low.w;
  b[4] = high.x, b[5] = high.y, b[6] = high.z, b[7] = high.w;
}

/* One tile of 32 x 64 weights into the sums. */
template <int KIND, int N_TILES>
static __device__ __forceinline__ void multiply_tile(const nb_device_matrix *w, const job &j, const uint4 *units,
                                                     uint4 fetched, const unsigned short *x,
                                                     float sums[2][N_TILES][4]) {
  const int words = nb_unit_size<KIND>::words;
  nb_lane_scales scales = nb_make_scales<KIND>(fetched, j.nested_map, w->nested_offset, w->tiles.scale_is_bf16, j.lane);
  uint32_t a[2][4][4];
#pragma unroll
  for (int slab = 0; slab < 2; slab++)
    nb_decode<KIND>(j.table, j.lane, (const uint32_t *)units + slab * words, slab, &scales, a[slab]);
#pragma unroll
  for (int n = 0; n < N_TILES; n++) {
    uint32_t b[8];
    load_b(j, x, n, b);
#pragma unroll
    for (int slab = 0; slab < 2; slab++) {
      float part[4] = {0, 0, 0, 0};
      float *d = nb_unit_size<KIND>::scaled ? part : sums[slab][n];
#pragma unroll
      for (int s = 0; s < 4; s++) nb_mma_f16(d, a[slab][s], b[2 * s], b[2 * s + 1]);
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

/* The warps' sums to shared memory. */
template <int N_TILES>
static __device__ __forceinline__ void store_sums(const job &j, float sums[2][N_TILES][4]) {
  int warp = (int)threadIdx.x / 32, g = j.lane / 4, t = j.lane % 4;
#pragma unroll
  for (int slab = 0; slab < 2; slab++) {
#pragma unroll
    for (int n = 0; n < N_TILES; n++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        int row = slab * 16 + i / 2 * 8 + g, column = n * 8 + 2 * t + i % 2;
        if (column < j.columns) j.sums[(warp * NB_TILE_ROWS + row) * j.columns + column] = sums[slab][n][i];
      }
    }
  }
}

/* The sum of one row and column over the warps along k, in their order. */
template <int WARPS_K>
static __device__ __forceinline__ float add_warps(const nb_product_args &a, const job &j, int row_in_set, int column) {
  int warp_n = row_in_set / NB_TILE_ROWS, row = row_in_set % NB_TILE_ROWS;
  float sum = 0;
#pragma unroll
  for (int k = 0; k < WARPS_K; k++) {
    const float *at = j.sums + ((warp_n * WARPS_K + k) * NB_TILE_ROWS + row) * j.columns;
    sum += a.two_parts ? fmaf(at[2 * column + 1], 1 / NB_X_REST, at[2 * column] * (1 / NB_X_SCALE)) : at[column];
  }
  if (!a.two_parts && a.x_dtype != NB_X_F16) sum *= 1 / NB_X_SCALE;
  return sum;
}

/* True in the block that is the last of a set's `parts`; the others' partial sums can be read then. */
static __device__ __forceinline__ bool is_last(const nb_product_args &a, uint32_t set, uint32_t parts, unsigned *flag) {
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    unsigned before = atomicAdd(&a.arrived[set], 1u);
    *flag = before == parts - 1;
    if (*flag) a.arrived[set] = 0; /* for the next launch */
  }
  __syncthreads();
  __threadfence();
  return *flag != 0;
}

/* The block's sums of a set: out, or to where the last block of the set finds them. */
template <int N_TILES>
static __device__ __forceinline__ void end_set(const nb_product_args &a, const job &j, const place &p,
                                               float sums[2][N_TILES][4]) {
  constexpr int WARPS_K = nb_product_warps_k(N_TILES), SET_ROWS = nb_product_warps(N_TILES) / WARPS_K * NB_TILE_ROWS;
  __syncthreads(); /* what the sums take the place of has been read */
  store_sums<N_TILES>(j, sums);
  __syncthreads();
  int total = SET_ROWS * a.n;
  uint32_t first_unit = p.next_set - a.plan.set_units;
  uint32_t first = nb_block_of_unit(&a.plan, first_unit),
           last = nb_block_of_unit(&a.plan, first_unit + a.plan.set_units - 1);
  int64_t first_row = (p.row_tile - j.warp_n) * NB_TILE_ROWS, rows = p.layer->w.tiles.rows;
  /* A block has a part in two sets at most, its first and its last. */
  float *mine = a.partial + ((int64_t)blockIdx.x * 2 + (first_unit > j.begin)) * total;
  for (int i = (int)threadIdx.x; i < total; i += (int)blockDim.x) {
    int row = i % SET_ROWS, column = i / SET_ROWS;
    if (first_row + row >= rows) continue;
    float sum = add_warps<WARPS_K>(a, j, row, column);
    if (first == last) {
      finish(p.layer, first_row + row, column, sum);
    } else {
      mine[i] = sum;
    }
  }
  if (first == last || !is_last(a, p.set, last - first + 1, j.flag)) return;
  for (int i = (int)threadIdx.x; i < total; i += (int)blockDim.x) {
    int row = i % SET_ROWS, column = i / SET_ROWS;
    if (first_row + row >= rows) continue;
    float sum = 0;
    for (uint32_t b = first; b <= last; b++) {
      bool is_second = first_unit > nb_first_unit(&a.plan, b);
      sum += nb_load_fresh(&a.partial[((int64_t)b * 2 + is_second) * total + i]);
    }
    finish(p.layer, first_row + row, column, sum);
  }
}

/* ---- the block's run of units ----------------------------------------------------------------------------------- */

/* Goes to a unit of a set, both counted over all layers. */
template <int N_TILES>
static __device__ __forceinline__ place go_to(const nb_product_args &a, const job &j, uint32_t set, uint32_t unit) {
  constexpr int WARPS_K = nb_product_warps_k(N_TILES), WARPS_N = nb_product_warps(N_TILES) / WARPS_K;
  uint32_t first = set * a.plan.set_units;
  place p;
  int layer = 0;
  while (layer + 1 < a.count && (int)set >= a.first_set[layer + 1]) layer++;
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
  const uint4 *codes; /* of its tile, this lane's first */
  nb_scale_place scales;
} reader;

template <int KIND, int N_TILES>
static __device__ __forceinline__ reader read_from(const nb_product_args &a, const job &j, uint32_t set,
                                                   uint32_t unit) {
  reader r;
  r.at = go_to<N_TILES>(a, j, set, unit);
  const nb_device_matrix *w = &r.at.layer->w;
  int64_t tile = r.at.row_tile * w->tiles.col_tiles + r.at.tile;
  r.codes = (const uint4 *)w->codes + tile * nb_tile_quads<KIND>() + j.lane;
  r.scales = nb_place_scales<KIND>(w, r.at.row_tile, j.lane);
  return r;
}

/* Fetches the warp's tile of the reader's unit, and goes on to the next. */
template <int KIND, int N_TILES>
static __device__ __forceinline__ void fetch(reader *r, uint4 *units, uint4 *scales) {
  constexpr int WARPS_K = nb_product_warps_k(N_TILES);
  if (r->at.tile < r->at.end) {
    nb_load_units<KIND>(r->codes, units);
    *scales = nb_fetch_scales<KIND>(&r->scales, r->at.tile);
  }
  r->at.tile += WARPS_K;
  r->codes += WARPS_K * nb_tile_quads<KIND>();
}

/* The table of pairs, once for each bank, and the map of double quantization after it. */
template <int KIND>
static __device__ __forceinline__ void fill_tables(const nb_device_matrix *w, uint32_t *table) {
  if constexpr (KIND == NB_TILED_LUT4 || KIND == NB_TILED_LUT4_TWICE) {
    for (int i = (int)threadIdx.x; i < 256 * 8; i += (int)blockDim.x) {
      uint32_t pair = w->pairs[i / 8];
      ((uint4 *)table)[i / 8 * (NB_PAIR_STRIDE / 4) + i % 8] = make_uint4(pair, pair, pair, pair);
    }
  }
  if constexpr (KIND == NB_TILED_LUT4_TWICE) {
    for (int i = (int)threadIdx.x; i < 256; i += (int)blockDim.x)
      table[256 * NB_PAIR_STRIDE + i] = __float_as_uint(w->nested_map[i]);
  }
}

/* The ring of tiles in flight: [0] is the next to be multiplied. */
template <int KIND, int DEPTH>
struct ring {
  uint4 units[DEPTH][2 * nb_unit_size<KIND>::quads], scales[DEPTH];
  __device__ __forceinline__ void turn(void) {
#pragma unroll
    for (int d = 0; d + 1 < DEPTH; d++) {
#pragma unroll
      for (int i = 0; i < 2 * nb_unit_size<KIND>::quads; i++) units[d][i] = units[d + 1][i];
      scales[d] = scales[d + 1];
    }
  }
};

/* Multiplies `count` units between two events. The ring is where it was after DEPTH of them, so it need not be turned
 * but for the few that are left. */
template <int KIND, int N_TILES, int DEPTH>
static __device__ __forceinline__ void multiply_some(const job &j, place *p, reader *r, ring<KIND, DEPTH> *flight,
                                                     uint32_t count, const unsigned short *x,
                                                     float sums[2][N_TILES][4]) {
  constexpr int WARPS_K = nb_product_warps_k(N_TILES);
  const nb_device_matrix *w = &p->layer->w;
#pragma unroll 1
  for (; count >= DEPTH; count -= DEPTH, x += DEPTH * WARPS_K * NB_TILE_COLS, p->tile += DEPTH * WARPS_K) {
#pragma unroll
    for (int d = 0; d < DEPTH; d++) {
      if (p->tile + d * WARPS_K < p->end)
        multiply_tile<KIND, N_TILES>(w, j, flight->units[d], flight->scales[d], x + d * WARPS_K * NB_TILE_COLS, sums);
      fetch<KIND, N_TILES>(r, flight->units[d], &flight->scales[d]);
    }
  }
#pragma unroll 1
  for (; DEPTH > 1 && count > 0; count--, x += WARPS_K * NB_TILE_COLS, p->tile += WARPS_K) {
    if (p->tile < p->end) multiply_tile<KIND, N_TILES>(w, j, flight->units[0], flight->scales[0], x, sums);
    flight->turn();
    fetch<KIND, N_TILES>(r, flight->units[DEPTH - 1], &flight->scales[DEPTH - 1]);
  }
}

template <int KIND, int N_TILES>
static __device__ __forceinline__ void multiply(const nb_product_args &a, const job &j) {
  constexpr int DEPTH = nb_product_depth((nb_tiled_kind)KIND, N_TILES), WARPS_K = nb_product_warps_k(N_TILES);
  ring<KIND, DEPTH> flight;
  float sums[2][N_TILES][4] = {};
  uint32_t set_units = a.plan.set_units, chunk = a.plan.chunk_units;
  bool whole = chunk == set_units;
  nb_let_next_start();
  reader r = read_from<KIND, N_TILES>(a, j, j.begin / set_units, j.begin);
  place p = r.at;
#pragma unroll 1
  for (uint32_t u = j.begin; u < j.begin + DEPTH; u++) {
    flight.turn();
    if (u == r.at.next_set) r = read_from<KIND, N_TILES>(a, j, r.at.set + 1, u);
    fetch<KIND, N_TILES>(&r, flight.units[DEPTH - 1], &flight.scales[DEPTH - 1]);
  }
  fill_tables<KIND>(&a.layer[0].w, (uint32_t *)j.table);
  nb_wait_for_previous(); /* x, y and the partial sums are its to read and write until then; weights are nobody's */
  if (whole) stage_all<WARPS_K>(a, j);
  __syncthreads();
#pragma unroll 1
  for (uint32_t u = j.begin; u < j.end;) {
    if (u + DEPTH == r.at.next_set) r = read_from<KIND, N_TILES>(a, j, r.at.set + 1, u + DEPTH);
    uint32_t unit = u + set_units - p.next_set, in_chunk = whole ? unit : unit % chunk;
    if (!whole && (in_chunk == 0 || u == j.begin)) stage_chunk<WARPS_K>(a, j, unit);
    uint32_t stop = min(min(j.end, p.next_set), min(r.at.next_set - DEPTH, u - in_chunk + chunk));
    const unsigned short *x = j.x + ((int)in_chunk * WARPS_K + j.warp_k) * NB_TILE_COLS;
    multiply_some<KIND, N_TILES, DEPTH>(j, &p, &r, &flight, stop - u, x, sums);
    u = stop;
    if (u < p.next_set && u < j.end) continue;
    end_set<N_TILES>(a, j, p, sums);
#pragma unroll
    for (int i = 0; i < 2 * N_TILES * 4; i++) sums[i / (4 * N_TILES)][i / 4 % N_TILES][i % 4] = 0;
    p = go_to<N_TILES>(a, j, p.set + 1, u);
  }
}

template <int KIND, int N_TILES>
static __global__ void __launch_bounds__(nb_product_warps(N_TILES) * 32, 1)
    product_kernel(const __grid_constant__ nb_product_args a) {
  constexpr int WARPS_K = nb_product_warps_k(N_TILES);
  unsigned char *shared = nb_shared();
  int warp = (int)threadIdx.x / 32;
  job j;
  j.table = (const uint32_t *)shared;
  j.nested_map = (const float *)(j.table + 256 * NB_PAIR_STRIDE);
  j.x = (unsigned short *)(shared + nb_product_table_bytes((nb_tiled_kind)KIND));
  j.sums = (float *)(shared + a.plan.sums_offset);
  j.flag = (unsigned *)(shared + a.plan.shared_bytes - 16);
  j.columns = a.two_parts ? 2 * a.n : a.n;
  j.x_stride = (int)a.plan.chunk_units * WARPS_K * NB_TILE_COLS + X_PAD;
  j.lane = (int)threadIdx.x % 32;
  j.warp_k = warp % WARPS_K;
  j.warp_n = warp / WARPS_K;
  j.begin = nb_first_unit(&a.plan, blockIdx.x);
  j.end = nb_first_unit(&a.plan, blockIdx.x + 1);
  multiply<KIND, N_TILES>(a, j);
}

/* ---- the launch ------------------------------------------------------------------------------------------------- */

typedef void (*kernel_fn)(nb_product_args);

static kernel_fn kernel_for(nb_tiled_kind kind, int n_tiles) {
  static const kernel_fn kernels[NB_TILED_COUNT][4] = {
      {NULL, NULL, NULL, NULL},
      {product_kernel<NB_TILED_F16, 1>, product_kernel<NB_TILED_F16, 2>, product_kernel<NB_TILED_F16, 4>,
       product_kernel<NB_TILED_F16, 8>},
      {product_kernel<NB_TILED_LUT4, 1>, product_kernel<NB_TILED_LUT4, 2>, product_kernel<NB_TILED_LUT4, 4>,
       product_kernel<NB_TILED_LUT4, 8>},
      {product_kernel<NB_TILED_LUT4_TWICE, 1>, product_kernel<NB_TILED_LUT4_TWICE, 2>,
       product_kernel<NB_TILED_LUT4_TWICE, 4>, product_kernel<NB_TILED_LUT4_TWICE, 8>},
      {product_kernel<NB_TILED_INT8, 1>, product_kernel<NB_TILED_INT8, 2>, product_kernel<NB_TILED_INT8, 4>,
       product_kernel<NB_TILED_INT8, 8>},
      {product_kernel<NB_TILED_GPTQ4, 1>, product_kernel<NB_TILED_GPTQ4, 2>, product_kernel<NB_TILED_GPTQ4, 4>,
       product_kernel<NB_TILED_GPTQ4, 8>},
      {product_kernel<NB_TILED_GPTQ8, 1>, product_kernel<NB_TILED_GPTQ8, 2>, product_kernel<NB_TILED_GPTQ8, 4>,
       product_kernel<NB_TILED_GPTQ8, 8>},
  };
  return kernels[kind][n_tiles == 1 ? 0 : n_tiles == 2 ? 1 : n_tiles == 4 ? 2 : 3];
}

static bool multiply_rows(const nb_workspace *ws, const nb_device_layer *layers, int count, const void *x,
                          nb_x_dtype dtype, int64_t ldx, int n) {
  nb_tiled_kind kind = layers[0].w.tiles.kind;
  nb_product_args a = {};
  a.count = count, a.x = x, a.x_dtype = dtype, a.ldx = ldx, a.n = n;
  /* A second part costs nothing as long as the tensor cores have columns to spare. */
  a.two_parts = dtype == NB_X_F32 && n <= 4;
  int columns = a.two_parts ? 2 * n : n, n_tiles = nb_product_n_tiles(columns), warps = nb_product_warps(n_tiles);
  int warps_n = warps / nb_product_warps_k(n_tiles);
  for (int i = 0; i < count; i++) {
    a.layer[i] = layers[i];
    a.first_set[i + 1] = a.first_set[i] + (int)((layers[i].w.tiles.row_tiles + warps_n - 1) / warps_n);
  }
  int sets = a.first_set[count];
  if (!nb_product_plan_make(kind, sets, layers[0].w.tiles.col_tiles, columns, ws->processors, ws->shared_limit,
                            &a.plan))
    return false;
  if (sets > ws->arrived_count || (int64_t)a.plan.blocks * 2 * warps_n * NB_TILE_ROWS * n > ws->partial_floats)
    return false;
  a.partial = ws->partial;
  a.arrived = ws->arrived;
  nb_launch_early(kernel_for(kind, n_tiles), dim3(a.plan.blocks), warps * 32, a.plan.shared_bytes, ws->stream, a);
  return true;
}

bool nb_product_small(const nb_workspace *ws, const nb_device_layer *layers, int count, const void *x, nb_x_dtype dtype,
                      int64_t ldx, int n) {
  if (multiply_rows(ws, layers, count, x, dtype, ldx, n)) return true;
  if (n <= 8) return false;
  /* Where shared memory is short: one half of the rows after the other, neither of which may fail if the first does
   * not, as it is no smaller. */
  nb_device_layer rest[NB_PRODUCT_FUSED];
  int half = (n + 1) / 2;
  for (int i = 0; i < count; i++) {
    rest[i] = layers[i];
    rest[i].y += half * layers[i].w.tiles.rows;
  }
  const char *second = (const char *)x + half * ldx * (dtype == NB_X_F32 ? 4 : 2);
  return nb_product_small(ws, layers, count, x, dtype, ldx, half) &&
         nb_product_small(ws, rest, count, second, dtype, ldx, n - half);
}
