/* The matrices that have no fast kernel, and the work on weights that is not a product: rows of an embedding, panels of
 * 16-bit weights for cuBLAS, activations made narrow. Every weight has the value that nb_dequantize gives it on the
 * CPU, but for the rounding to 16 bits where that is the output. */
#include "kernels/cuda/decode.h"

enum { WARPS = 8, X_ROWS = 8 };

/* ---- single weights --------------------------------------------------------------------------------------------- */

static __device__ __forceinline__ float block_scale(const nb_packed &m, int64_t block) {
  if (m.absmax) return m.absmax[block];
  return fmaf(m.nested_quant_map[m.absmax_codes[block]], m.nested_absmax[block / m.nested_block_size], m.nested_offset);
}

/* Code number i of a stream of `bits` wide fields in words that lie `step` apart (gptq.h). */
static __device__ __forceinline__ uint32_t gptq_code(const uint32_t *words, int64_t step, int64_t i, int bits) {
  int64_t word = i * bits / 32;
  int shift = (int)(i * bits % 32);
  uint32_t code = words[word * step] >> shift;
  if (shift + bits > 32) code |= words[(word + 1) * step] << (32 - shift);
  return code & ((1u << bits) - 1);
}

static __device__ __forceinline__ float gptq_value(const nb_device_matrix &w, int64_t row, int64_t col) {
  const nb_packed &m = w.packed;
  int64_t at = (m.g_idx ? m.g_idx[col] : col / m.group_size) * m.rows + row;
  int code = (int)gptq_code((const uint32_t *)m.codes + row, m.rows, col, w.gptq_bits);
  float scale = m.scale_dtype == NB_F32 ? ((const float *)m.scales)[at]
                                        : nb_scale_bits(((const uint16_t *)m.scales)[at], m.scale_dtype == NB_BF16);
  return scale * (float)(code - (int)m.zeros[at]);
}

/* A weight of a matrix that lies as its source does. */
static __device__ __forceinline__ float source_value(const nb_device_matrix &w, int64_t row, int64_t col) {
  const nb_packed &m = w.packed;
  int64_t at = row * m.cols + col;
  if (w.gptq_bits) return gptq_value(w, row, col);
  switch (m.format) {
    case NB_FORMAT_F32: return ((const float *)m.codes)[at];
    case NB_FORMAT_F16: return nb_half_to_float(((const uint16_t *)m.codes)[at]);
    case NB_FORMAT_BF16: return nb_bits_float((uint32_t)((const uint16_t *)m.codes)[at] << 16);
    case NB_FORMAT_INT8: return (float)((const int8_t *)m.codes)[at] * (m.absmax[row] / 127.0f);
    default: {
      uint32_t byte = ((const uint8_t *)m.codes)[at >> 1];
      return m.quant_map[at & 1 ? byte & 15u : byte >> 4] * block_scale(m, at / m.block_size);
    }
  }
}

static __device__ __forceinline__ float twice_scale(const nb_device_matrix &w, int64_t row, int64_t tile_col,
                                                    uint32_t code) {
  int64_t block = row * (w.tiles.col_tiles / w.tiles.block_tiles) + tile_col / w.tiles.block_tiles;
  return fmaf(w.nested_map[code], w.nested_absmax[block >> 8], w.nested_offset);
}

/* A weight of a tiled matrix; `col` counts as the tiles do. */
static __device__ __forceinline__ float tiled_value(const nb_device_matrix &w, int64_t row, int64_t col) {
  const nb_tiles &t = w.tiles;
  uint32_t code = nb_tiles_code_at(w.codes, &t, row, col);
  int64_t row_tile = row / NB_TILE_ROWS, tile_col = col / NB_TILE_COLS;
  int64_t at = (row_tile * t.col_tiles + tile_col) * NB_TILE_ROWS + nb_scale_slot((int)(row % NB_TILE_ROWS));
  switch (t.kind) {
    case NB_TILED_F16: return nb_half_to_float(code);
    case NB_TILED_INT8: return (float)((int)code - 128) * ((const float *)w.scales)[row];
    case NB_TILED_LUT4: return w.quant_map[code] * ((const float *)w.scales)[at];
    case NB_TILED_LUT4_TWICE: return w.quant_map[code] * twice_scale(w, row, tile_col, ((const uint8_t *)w.scales)[at]);
    default: {
      int64_t group = row_tile * t.groups + tile_col / t.group_tiles;
      uint32_t word = ((const uint32_t *)w.scales)[group * NB_TILE_ROWS + nb_scale_slot((int)(row % NB_TILE_ROWS))];
      return nb_scale_bits(word & 0xffffu, t.scale_is_bf16) * (float)((int)code - (int)(word >> 16));
    }
  }
}

/* ---- rows of a table -------------------------------------------------------------------------------------------- */

typedef struct rows_args {
  nb_device_matrix w;
  const int32_t *ids;
  float *out; /* [n, cols] */
} rows_args;

static __global__ void rows_kernel(const __grid_constant__ rows_args a) {
  nb_let_next_start();
  nb_wait_for_previous();
  const nb_tiles &t = a.w.tiles;
  bool tiled = t.kind != NB_TILED_NONE;
  int64_t cols = a.w.packed.cols, row = a.ids[blockIdx.x];
  float *out = a.out + blockIdx.x * cols;
  int64_t places = tiled ? t.col_tiles * NB_TILE_COLS : cols;
  for (int64_t i = threadIdx.x; i < places; i += blockDim.x) {
    int64_t col = a.w.order ? a.w.order[i] : i;
    if (col < 0 || col >= cols) continue;
    out[col] = tiled ? tiled_value(a.w, row, i) : source_value(a.w, row, i);
  }
}

void nb_rows_of(const nb_workspace *ws, const nb_device_matrix *w, const int32_t *ids, int64_t n, float *out) {
  rows_args a = {};
  a.w = *w, a.ids = ids, a.out = out;
  nb_launch_early(rows_kernel, dim3((unsigned)n), 256, 0, ws->stream, a);
}

/* ---- any product ------------------------------------------------------------------------------------------------ */

typedef struct plain_args {
  nb_device_layer layer;
  const float *x;
  int64_t ldx, n;
} plain_args;

/* A warp makes one row's sums with up to X_ROWS rows of x, its lanes along the columns. */
static __global__ void __launch_bounds__(WARPS * 32) plain_kernel(const __grid_constant__ plain_args a) {
  nb_let_next_start();
  nb_wait_for_previous();
  int lane = (int)threadIdx.x % 32;
  int64_t row = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32, first = (int64_t)blockIdx.y * X_ROWS;
  const nb_device_matrix &w = a.layer.w;
  if (row >= w.packed.rows) return;
  int count = (int)min(a.n - first, (int64_t)X_ROWS);
  float sums[X_ROWS] = {0};
  for (int64_t c = lane; c < w.packed.cols; c += 32) {
    float weight = source_value(w, row, c);
#pragma unroll
    for (int i = 0; i < X_ROWS; i++) {
      if (i < count) sums[i] = fmaf(a.x[(first + i) * a.ldx + c], weight, sums[i]);
    }
  }
#pragma unroll
  for (int i = 0; i < X_ROWS; i++) {
    float sum = nb_warp_sum(sums[i]);
    if (lane != 0 || i >= count) continue;
    if (a.layer.bias) sum += a.layer.bias[row];
    float *y = a.layer.y + (first + i) * w.packed.rows + row;
    *y = a.layer.accumulate ? *y + sum : sum;
  }
}

void nb_product_plain(const nb_workspace *ws, const nb_device_layer *layer, const float *x, int64_t ldx, int64_t n) {
  plain_args a = {};
  a.layer = *layer, a.x = x, a.ldx = ldx, a.n = n;
  dim3 blocks((unsigned)((layer->w.packed.rows + WARPS - 1) / WARPS), (unsigned)((n + X_ROWS - 1) / X_ROWS));
  nb_launch_early(plain_kernel, blocks, WARPS * 32, 0, ws->stream, a);
}

/* ---- panels ----------------------------------------------------------------------------------------------------- */

typedef struct panel_args {
  nb_device_matrix w;
  int64_t first, rows;
  uint16_t *out; /* [rows, col_tiles * 64] */
} panel_args;

static __device__ __forceinline__ uint32_t scale_pair(uint32_t pair, float scale) {
  return nb_pair_f16(nb_half_to_float(pair & 0xffffu) * scale, nb_half_to_float(pair >> 16) * scale);
}

/* A lane's unit of a slab as 16-bit weights, a[step][register] as in tiles.h. */
template <int KIND>
static __device__ __forceinline__ void widen(const float *map, const uint32_t *words, int slab, const nb_lane_scales *s,
                                             const float *row_scale, uint32_t out[4][4]) {
  if constexpr (KIND == NB_TILED_LUT4 || KIND == NB_TILED_LUT4_TWICE) {
#pragma unroll
    for (int i = 0; i < 16; i++) {
      uint32_t byte = words[i / 4] >> (8 * (i % 4)) & 255u;
      float scale = s->scale[2 * slab + i % 2];
      out[i / 4][i % 4] = nb_pair_f16(map[byte >> 4] * scale, map[byte & 15] * scale);
    }
  } else {
    nb_decode<KIND>(NULL, 0, words, slab, s, out);
    if constexpr (KIND != NB_TILED_F16) {
#pragma unroll
      for (int i = 0; i < 16; i++) {
        int half = 2 * slab + i % 2;
        out[i / 4][i % 4] = scale_pair(out[i / 4][i % 4], KIND == NB_TILED_INT8 ? row_scale[half] : s->scale[half]);
      }
    }
  }
}

/* A warp takes one tile; a lane's 8 columns of a row are 16 bytes of the output. */
template <int KIND>
static __global__ void __launch_bounds__(WARPS * 32) panel_kernel(const __grid_constant__ panel_args a) {
  const nb_device_matrix &w = a.w;
  const int words = nb_unit_size<KIND>::words;
  float *map = (float *)nb_shared(), *nested = map + 16;
  if (w.quant_map && threadIdx.x < 16) map[threadIdx.x] = w.quant_map[threadIdx.x];
  if (KIND == NB_TILED_LUT4_TWICE) nested[threadIdx.x] = w.nested_map[threadIdx.x];
  __syncthreads();
  int lane = (int)threadIdx.x % 32, kt = (int)blockIdx.x * WARPS + (int)threadIdx.x / 32;
  if (kt >= w.tiles.col_tiles) return;
  int64_t rt = a.first / NB_TILE_ROWS + blockIdx.y, stride = w.tiles.col_tiles * NB_TILE_COLS;
  uint4 units[2 * nb_unit_size<KIND>::quads];
  nb_load_units<KIND>((const uint4 *)w.codes + (rt * w.tiles.col_tiles + kt) * nb_tile_quads<KIND>() + lane, units);
  nb_scale_place place = nb_place_scales<KIND>(&w, rt, lane);
  nb_lane_scales s = nb_make_scales<KIND>(nb_fetch_scales<KIND>(&place, (uint32_t)kt), nested, w.nested_offset,
                                          w.tiles.scale_is_bf16, lane);
  float row_scale[4] = {1, 1, 1, 1};
  for (int i = 0; KIND == NB_TILED_INT8 && i < 4; i++)
    row_scale[i] = ((const float *)w.scales)[rt * NB_TILE_ROWS + lane / 4 + 8 * i];
#pragma unroll
  for (int slab = 0; slab < 2; slab++) {
    uint32_t v[4][4];
    widen<KIND>(map, (const uint32_t *)units + slab * words, slab, &s, row_scale, v);
#pragma unroll
    for (int i = 0; i < 2; i++) {
      int64_t row = (int64_t)blockIdx.y * NB_TILE_ROWS + slab * 16 + i * 8 + lane / 4;
      if (row >= a.rows) continue;
      uint4 *to = (uint4 *)(a.out + row * stride + kt * NB_TILE_COLS + lane % 4 * 8);
      to[0] = make_uint4(v[0][i], v[0][i + 2], v[1][i], v[1][i + 2]);
      to[4] = make_uint4(v[2][i], v[2][i + 2], v[3][i], v[3][i + 2]);
    }
  }
}

void nb_dequantize_panel(const nb_workspace *ws, const nb_device_matrix *w, int64_t first, int64_t rows,
                         uint16_t *out) {
  static void (*const kernels[NB_TILED_COUNT])(panel_args) = {NULL,
                                                              panel_kernel<NB_TILED_F16>,
                                                              panel_kernel<NB_TILED_LUT4>,
                                                              panel_kernel<NB_TILED_LUT4_TWICE>,
                                                              panel_kernel<NB_TILED_INT8>,
                                                              panel_kernel<NB_TILED_GPTQ4>,
                                                              panel_kernel<NB_TILED_GPTQ8>};
  panel_args a = {};
  a.w = *w, a.first = first, a.rows = rows, a.out = out;
  dim3 blocks((unsigned)((w->tiles.col_tiles + WARPS - 1) / WARPS),
              (unsigned)((rows + NB_TILE_ROWS - 1) / NB_TILE_ROWS));
  nb_launch(kernels[w->tiles.kind], blocks, WARPS * 32, (16 + 256) * 4, ws->stream, a);
}

typedef struct narrow_args {
  const void *x;
  nb_x_dtype dtype;
  int64_t ldx, cols, width; /* of the output */
  const int32_t *order;
  float scale;
  uint16_t *out;
} narrow_args;

static __global__ void narrow_kernel(const __grid_constant__ narrow_args a) {
  int64_t row = blockIdx.x, i = (int64_t)blockIdx.y * blockDim.x + threadIdx.x;
  if (i >= a.width) return;
  int64_t col = a.order ? a.order[i] : i;
  float v = 0;
  if (col >= 0 && col < a.cols) {
    int64_t at = row * a.ldx + col;
    if (a.dtype == NB_X_F32) {
      v = ((const float *)a.x)[at];
    } else {
      uint32_t bits = ((const uint16_t *)a.x)[at];
      v = a.dtype == NB_X_F16 ? nb_half_to_float(bits) : nb_bits_float(bits << 16);
    }
  }
  uint32_t pair = nb_pair_f16(fminf(fmaxf(v * a.scale, -65504.0f), 65504.0f), 0);
  a.out[row * a.width + i] = (uint16_t)pair;
}

void nb_narrow(const nb_workspace *ws, const nb_device_matrix *w, const void *x, nb_x_dtype dtype, int64_t ldx,
               int64_t n, uint16_t *out) {
  narrow_args a = {};
  a.x = x, a.dtype = dtype, a.ldx = ldx, a.cols = w->tiles.cols, a.width = w->tiles.col_tiles * NB_TILE_COLS;
  a.order = w->order, a.scale = dtype == NB_X_F16 ? 1.0f : NB_X_SCALE, a.out = out;
  nb_launch(narrow_kernel, dim3((unsigned)n, (unsigned)((a.width + 255) / 256)), 256, 0, ws->stream, a);
}
