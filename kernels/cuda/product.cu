/* y = x W^T for 1 to 64 rows of activations: bound by the reading of W, which happens once and in packed form.
 *
 * Specification: y[i][r] = sum over c of f16(x[i][c]) * w[r][c] (+ bias[r]) (+ y[i][r] before), added in float32, in an
 * order that depends on the shapes only; w is scale * (code - zero) with nothing rounded but the scale's product with a
 * sum, or for nf4 and fp4 the 16 values rounded to float16. f16 is that of product.h; with two_parts it has 22 bits.
 *
 * A block has 8 warps and takes warps_n row tiles (warps_n = 8 / warps_k). The weights are the A of m16n8k16, and go
 * from global memory straight to the registers of the lane that needs them (tiles.h), `depth` tiles ahead; the
 * activations are its B and lie in shared memory, a chunk of columns at a time, in rows that start 16 banks apart:
 *
 *          A: slab of W [16, 64]          B: x^T [64, 8]              D [16, 8] += A B
 *      lane 4g + t: rows g, g + 8;     lane 4g + t: row g of x,     lane 4g + t: rows g, g + 8 of W,
 *      columns 8t.., 32 + 8t..         the same columns             rows 2t, 2t + 1 of x
 *
 * Warps that share a row tile take its column tiles in turn, so that together they read one stream. Their sums meet in
 * shared memory, those of several blocks (splits) in global memory, where the last block to arrive adds all in order.
 */
#include "kernels/cuda/decode.h"

enum { THREADS = NB_PRODUCT_WARPS * 32, X_PAD = 32 };

typedef struct job {
  const nb_device_layer *layer;
  int set, split; /* set: counted over all layers */
  int64_t row_tile, first_tile_of_set;
  int warp_k, warp_n, lane;
  int k_begin, k_end; /* column tiles */
  const uint32_t *table;
  const float *nested_map;
  unsigned short *x; /* [columns, stride] */
  int x_stride, columns;
} job;

static __device__ __forceinline__ float load_x(const nb_product_args &a, int row, int64_t col) {
  int64_t at = row * a.ldx + col;
  if (a.x_dtype == NB_X_F32) return ((const float *)a.x)[at];
  uint32_t bits = ((const uint16_t *)a.x)[at];
  return a.x_dtype == NB_X_F16 ? nb_half_to_float(bits) : nb_bits_float(bits << 16);
}

/* Eight activations at tiled columns k .. k + 7 of a row, zeros where there are none. */
static __device__ __forceinline__ void load_eight(const nb_product_args &a, const nb_device_matrix *w, int row,
                                                  int64_t k, float v[8]) {
  if (a.x_dtype == NB_X_F32 && !w->order && k + 8 <= w->tiles.cols && a.ldx % 4 == 0 && (uintptr_t)a.x % 16 == 0) {
    const float4 *at = (const float4 *)((const float *)a.x + row * a.ldx + k);
    float4 low = at[0], high = at[1];
    v[0] = low.x, v[1] = low.y, v[2] = low.z, v[3] = low.w;
    v[4] = high.x, v[5] = high.y, v[6] = high.z, v[7] = high.w;
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

/* Column tiles [begin, begin + tiles) of the activations to shared memory. */
static __device__ __forceinline__ void stage_x(const nb_product_args &a, const job &j, int begin, int tiles) {
  int units = tiles * NB_TILE_COLS / 8, total = units * a.n;
  const nb_device_matrix *w = &j.layer->w;
  for (int i = (int)threadIdx.x; i < total; i += THREADS) {
    int row = i / units, unit = i % units;
    int64_t k = (int64_t)begin * NB_TILE_COLS + unit * 8;
    uint4 *to = (uint4 *)(j.x + (a.two_parts ? 2 * row : row) * j.x_stride + unit * 8);
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

/* The B registers of all 4 steps for 8 columns of x^T: row `g` of them, at the lane's columns of the tile. */
static __device__ __forceinline__ void load_b(const job &j, int n_tile, int tile_in_chunk, uint32_t b[8]) {
  int row = n_tile * 8 + j.lane / 4;
  if (row >= j.columns) row = j.columns - 1; /* what comes of it is not kept */
  const unsigned short *at = j.x + row * j.x_stride + tile_in_chunk * NB_TILE_COLS + j.lane % 4 * 8;
  uint4 low = *(const uint4 *)at, high = *(const uint4 *)(at + 32);
  b[0] = low.x, b[1] = low.y, b[2] = low.z, b[3] = low.w;
  b[4] = high.x, b[5] = high.y, b[6] = high.z, b[7] = high.w;
}

/* One tile of 32 x 64 weights into the sums. */
template <int KIND, int N_TILES>
static __device__ __forceinline__ void multiply_tile(const job &j, const uint4 *units, uint4 fetched, int kt,
                                                     int tile_in_chunk, float sums[2][N_TILES][4]) {
  const int words = nb_unit_size<KIND>::words;
  nb_lane_scales scales = nb_make_scales<KIND>(&j.layer->w, fetched, j.nested_map, j.row_tile, kt, j.lane);
  uint32_t a[2][4][4];
#pragma unroll
  for (int slab = 0; slab < 2; slab++)
    nb_decode<KIND>(j.table, j.lane, (const uint32_t *)units + slab * words, slab, &scales, a[slab]);
#pragma unroll
  for (int n = 0; n < N_TILES; n++) {
    uint32_t b[8];
    load_b(j, n, tile_in_chunk, b);
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

/* All columns of the block's split. Every thread comes by the same barriers. */
template <int KIND, int N_TILES>
static __device__ __forceinline__ void multiply(const nb_product_args &a, const job &j, float sums[2][N_TILES][4]) {
  const int depth = KIND == NB_TILED_F16                              ? (N_TILES <= 2 ? 2 : 1)
                    : KIND == NB_TILED_INT8 || KIND == NB_TILED_GPTQ8 ? 2
                                                                      : 3; /* nb_product_depth */
  const nb_device_matrix *w = &j.layer->w;
  int warps_k = a.plan.warps_k, chunk = (int)a.plan.chunk_tiles, stride = warps_k * depth;
  int64_t first = j.row_tile * w->tiles.col_tiles;
  bool mine = j.row_tile < w->tiles.row_tiles;
  uint4 units[depth][2 * nb_unit_size<KIND>::quads], scales[depth];
#pragma unroll
  for (int d = 0; d < depth; d++) {
    int kt = j.k_begin + j.warp_k + d * warps_k;
    if (!mine || kt >= j.k_end) continue;
    nb_load_units<KIND>(w, first + kt, j.lane, units[d]);
    scales[d] = nb_fetch_scales<KIND>(w, j.row_tile, kt, j.lane);
  }
  for (int begin = j.k_begin; begin < j.k_end; begin += chunk) {
    int end = min(begin + chunk, j.k_end);
    __syncthreads(); /* everyone is done with the chunk before, and the tables are there */
    stage_x(a, j, begin, end - begin);
    __syncthreads();
    for (int at = begin + j.warp_k; at < end; at += stride) {
#pragma unroll
      for (int d = 0; d < depth; d++) {
        int kt = at + d * warps_k, next = kt + stride;
        if (!mine || kt >= end) continue;
        multiply_tile<KIND, N_TILES>(j, units[d], scales[d], kt, kt - begin, sums);
        if (next >= j.k_end) continue;
        nb_load_units<KIND>(w, first + next, j.lane, units[d]);
        scales[d] = nb_fetch_scales<KIND>(w, j.row_tile, next, j.lane);
      }
    }
  }
}

/* A finished sum on its way out. */
static __device__ __forceinline__ void finish(const job &j, int64_t row, int column, float sum) {
  const nb_device_matrix *w = &j.layer->w;
  if (w->tiles.kind == NB_TILED_INT8) sum *= ((const float *)w->scales)[row];
  if (j.layer->bias) sum += j.layer->bias[row];
  float *y = j.layer->y + column * w->tiles.rows + row;
  *y = j.layer->accumulate ? *y + sum : sum;
}

/* The warps' sums to shared memory, [warps, 32 rows, 8 N_TILES]. */
template <int N_TILES>
static __device__ __forceinline__ void store_sums(float *shared, const job &j, float sums[2][N_TILES][4]) {
  int warp = (int)threadIdx.x / 32, g = j.lane / 4, t = j.lane % 4;
#pragma unroll
  for (int slab = 0; slab < 2; slab++) {
#pragma unroll
    for (int n = 0; n < N_TILES; n++) {
      float *to = shared + ((warp * NB_TILE_ROWS + slab * 16 + g) * N_TILES + n) * 8 + 2 * t;
      to[0] = sums[slab][n][0], to[1] = sums[slab][n][1];
      to += 8 * N_TILES * 8;
      to[0] = sums[slab][n][2], to[1] = sums[slab][n][3];
    }
  }
}

/* The sum of one row and column over the warps along k, in their order. */
static __device__ __forceinline__ float add_warps(const nb_product_args &a, const float *shared, int row_in_set,
                                                  int column, int width) {
  int warp_n = row_in_set / NB_TILE_ROWS, row = row_in_set % NB_TILE_ROWS;
  float sum = 0;
  for (int k = 0; k < a.plan.warps_k; k++) {
    const float *at = shared + ((warp_n * a.plan.warps_k + k) * NB_TILE_ROWS + row) * width;
    sum += a.two_parts ? fmaf(at[2 * column + 1], 1 / NB_X_REST, at[2 * column] * (1 / NB_X_SCALE)) : at[column];
  }
  if (!a.two_parts && a.x_dtype != NB_X_F16) sum *= 1 / NB_X_SCALE;
  return sum;
}

/* True in the block that is the last of its set; the others' partial sums can be read then. */
static __device__ __forceinline__ bool is_last(const nb_product_args &a, const job &j, unsigned *flag) {
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    unsigned before = atomicAdd(&a.arrived[j.set], 1u);
    *flag = before == (unsigned)a.plan.splits - 1;
    if (*flag) a.arrived[j.set] = 0; /* for the next launch */
  }
  __syncthreads();
  __threadfence();
  return *flag != 0;
}

template <int N_TILES>
static __device__ __forceinline__ void write_out(const nb_product_args &a, const job &j, float *shared,
                                                 unsigned *flag) {
  int set_rows = NB_PRODUCT_WARPS / a.plan.warps_k * NB_TILE_ROWS, total = set_rows * a.n;
  int64_t first = j.first_tile_of_set * NB_TILE_ROWS, rows = j.layer->w.tiles.rows;
  float *partial = a.partial + (int64_t)j.set * a.plan.splits * total;
  for (int i = (int)threadIdx.x; i < total; i += THREADS) {
    int row = i % set_rows, column = i / set_rows;
    if (first + row >= rows) continue;
    float sum = add_warps(a, shared, row, column, N_TILES * 8);
    if (a.plan.splits > 1) {
      partial[(int64_t)j.split * total + i] = sum;
    } else {
      finish(j, first + row, column, sum);
    }
  }
  if (a.plan.splits == 1 || !is_last(a, j, flag)) return;
  for (int i = (int)threadIdx.x; i < total; i += THREADS) {
    int row = i % set_rows, column = i / set_rows;
    if (first + row >= rows) continue;
    float sum = 0;
    for (int s = 0; s < a.plan.splits; s++) sum += nb_load_fresh(&partial[(int64_t)s * total + i]);
    finish(j, first + row, column, sum);
  }
}

/* What this thread is to do. */
static __device__ __forceinline__ job take_job(const nb_product_args &a) {
  job j;
  int warp = (int)threadIdx.x / 32, warps_n = NB_PRODUCT_WARPS / a.plan.warps_k, layer = 0;
  j.set = (int)blockIdx.x / a.plan.splits;
  j.split = (int)blockIdx.x % a.plan.splits;
  while (j.set >= a.first_set[layer + 1]) layer++;
  j.layer = &a.layer[layer];
  j.lane = (int)threadIdx.x % 32;
  j.warp_k = warp % a.plan.warps_k;
  j.warp_n = warp / a.plan.warps_k;
  j.first_tile_of_set = (int64_t)(j.set - a.first_set[layer]) * warps_n;
  j.row_tile = j.first_tile_of_set + j.warp_n;
  j.k_begin = j.split * (int)a.plan.split_tiles;
  j.k_end = min(j.k_begin + (int)a.plan.split_tiles, (int)j.layer->w.tiles.col_tiles);
  j.columns = a.two_parts ? 2 * a.n : a.n;
  j.x_stride = (int)a.plan.chunk_tiles * NB_TILE_COLS + X_PAD;
  return j;
}

/* The table of pairs, once for each bank, and the map of double quantization after it. */
template <int KIND>
static __device__ __forceinline__ void fill_tables(const nb_device_matrix *w, uint32_t *table) {
  if constexpr (KIND == NB_TILED_LUT4 || KIND == NB_TILED_LUT4_TWICE) {
    for (int i = (int)threadIdx.x; i < 256 * 8; i += THREADS) {
      uint32_t pair = w->pairs[i / 8];
      ((uint4 *)table)[i] = make_uint4(pair, pair, pair, pair);
    }
  }
  if constexpr (KIND == NB_TILED_LUT4_TWICE) {
    for (int i = (int)threadIdx.x; i < 256; i += THREADS) table[256 * 32 + i] = __float_as_uint(w->nested_map[i]);
  }
}

template <int KIND, int N_TILES>
static __global__ void __launch_bounds__(THREADS, N_TILES <= 2 ? 2 : 1)
    product_kernel(const __grid_constant__ nb_product_args a) {
  unsigned char *shared = nb_shared();
  unsigned *flag = (unsigned *)(shared + a.plan.shared_bytes - 16);
  job j = take_job(a);
  uint32_t *table = (uint32_t *)shared;
  j.table = table;
  j.nested_map = (const float *)(table + 256 * 32);
  j.x = (unsigned short *)(shared + nb_product_table_bytes((nb_tiled_kind)KIND));
  fill_tables<KIND>(&j.layer->w, table);
  float sums[2][N_TILES][4] = {};
  multiply<KIND, N_TILES>(a, j, sums);
  __syncthreads(); /* the activations give their place to the sums */
  float *all = (float *)j.x;
  store_sums<N_TILES>(all, j, sums);
  __syncthreads();
  write_out<N_TILES>(a, j, all, flag);
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

bool nb_product_small(const nb_workspace *ws, const nb_device_layer *layers, int count, const void *x, nb_x_dtype dtype,
                      int64_t ldx, int n) {
  nb_tiled_kind kind = layers[0].w.tiles.kind;
  nb_product_args a = {};
  a.count = count, a.x = x, a.x_dtype = dtype, a.ldx = ldx, a.n = n;
  /* A second part costs nothing as long as the tensor cores have columns to spare. */
  a.two_parts = dtype == NB_X_F32 && n <= 4;
  int64_t row_tiles = 0;
  for (int i = 0; i < count; i++) row_tiles += layers[i].w.tiles.row_tiles;
  a.plan = nb_product_plan_make(kind, row_tiles, layers[0].w.tiles.col_tiles, a.two_parts ? 2 * n : n, ws->processors);
  int warps_n = NB_PRODUCT_WARPS / a.plan.warps_k;
  for (int i = 0; i < count; i++) {
    a.layer[i] = layers[i];
    a.first_set[i + 1] = a.first_set[i] + (int)((layers[i].w.tiles.row_tiles + warps_n - 1) / warps_n);
  }
  int sets = a.first_set[count];
  if (a.plan.splits > 1 &&
      (sets > ws->arrived_count || (int64_t)sets * a.plan.splits * warps_n * NB_TILE_ROWS * n > ws->partial_floats))
    return false;
  a.partial = ws->partial;
  a.arrived = ws->arrived;
  nb_launch(kernel_for(kind, a.plan.n_tiles), dim3((unsigned)(sets * a.plan.splits)), THREADS, a.plan.shared_bytes,
            ws->stream, a);
  return true;
}
