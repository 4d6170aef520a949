/* The matrices that have no fast kernel, and rows of an embedding. Every weight has the value that nb_dequantize gives
 * it on the CPU. */
#include "kernels/cuda/decode.h"

enum { WARPS = 8, X_ROWS = 8 };

/* ---- single weights --------------------------------------------------------------------------------------------- */

static __device__ __forceinline__ float block_scale(const nb_packed &m, int64_t block) {
  if (!m.second.block_cols) return ((const float *)m.scale.data)[block];
  uint8_t code = ((const uint8_t *)m.scale.data)[block];
  return fmaf(m.scale.codebook[code], ((const float *)m.second.data)[block / m.second.block_cols], m.scale.offset);
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
  int64_t at = (m.g_idx ? m.g_idx[col] : col / m.scale.block_cols) * m.rows + row;
  int code = (int)gptq_code((const uint32_t *)m.codes + row, m.rows, col, w.gptq_bits);
  float scale = m.scale.dtype == NB_F32 ? ((const float *)m.scale.data)[at]
                                        : nb_scale_bits(((const uint16_t *)m.scale.data)[at], m.scale.dtype == NB_BF16);
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
    case NB_FORMAT_INT8: return (float)((const int8_t *)m.codes)[at] * (((const float *)m.scale.data)[row] / 127.0f);
    default: {
      uint32_t byte = ((const uint8_t *)m.codes)[at >> 1];
      return m.codebook[at & 1 ? byte & 15u : byte >> 4] * block_scale(m, at / m.scale.block_cols);
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
