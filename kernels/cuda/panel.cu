#include "kernels/cuda/panel.h"

#include "kernels/cuda/decode.h"

/* ---- panels ----------------------------------------------------------------------------------------------------- */

enum {
  WARPS = 8,
  TILES = 4,   /* of each warp: what the table below costs is shared, and blocks are still short (gemm.cu) */
  COPIES = 16, /* of the table of pairs: one for each lane of the half warp that reads 8 bytes a lane at a time */
  QUADS = NB_TILE_COLS / 8, /* uint4 of a row of a tile */
  TABLE_BYTES = 256 * COPIES * (int)sizeof(float2),
};

typedef struct panel_args {
  nb_device_matrix w;
  uint32_t first_tile, rows;
  uint16_t *out; /* [rows, col_tiles * 64] */
} panel_args;

template <int KIND>
static __device__ __forceinline__ constexpr bool is_lut4(void) {
  return KIND == NB_TILED_LUT4 || KIND == NB_TILED_LUT4_TWICE;
}

template <bool BF16>
static __device__ __forceinline__ uint32_t pair_of(float low, float high) {
  return BF16 ? nb_pair_bf16(low, high) : nb_pair_f16(low, high);
}

/* nf4, fp4: the two values of every byte of codes in float32, so that a weight is rounded once, after it is scaled. A
 * thread writes the copies of its own byte, each lane beginning with another, so that no two meet in a bank. */
static __device__ __forceinline__ void fill_pairs(float2 *table, const float *quant_map) {
  uint32_t byte = threadIdx.x;
  float2 pair = {quant_map[byte >> 4], quant_map[byte & 15]};
#pragma unroll
  for (uint32_t i = 0; i < COPIES; i++) table[byte * COPIES + (byte + i) % COPIES] = pair;
}

/* A lane's unit of a slab: byte j of words[s] is the pair a[s][j] of tiles.h. With 128 bytes from pair to pair, a byte
 * shifted to bit 7, over the offset of this lane's copy, is the place. */
template <bool BF16>
static __device__ __forceinline__ void widen_lut4(const unsigned char *table, uint32_t mine, const uint32_t *words,
                                                  const float *scale, uint32_t out[4][4]) {
#pragma unroll
  for (int s = 0; s < 4; s++) {
#pragma unroll
    for (int j = 0; j < 4; j++) {
      uint32_t at = j == 0 ? words[s] << 7 : words[s] >> (8 * j - 7);
      float2 v = *(const float2 *)(table + nb_mask_or(at, 255u << 7, mine));
      out[s][j] = pair_of<BF16>(v.x * scale[j % 2], v.y * scale[j % 2]);
    }
  }
}

/* The other formats: what nb_decode gives is exact in float16, and scaled in float32. */
template <int KIND, bool BF16>
static __device__ __forceinline__ void widen_codes(const uint32_t *words, int slab, const nb_lane_scales *s,
                                                   const float *scale, uint32_t out[4][4]) {
  nb_decode<KIND>(NULL, 0, words, slab, s, out);
  if constexpr (KIND != NB_TILED_F16 || BF16) {
#pragma unroll
    for (int i = 0; i < 16; i++) {
      uint32_t *pair = &out[i / 4][i % 4];
      float factor = KIND == NB_TILED_F16 ? 1.0f : scale[i % 2];
      *pair = pair_of<BF16>(nb_half_to_float(*pair & 0xffffu) * factor, nb_half_to_float(*pair >> 16) * factor);
    }
  }
}

/* A block takes WARPS * TILES tiles of a row tile, its warps tiles beside each other. A lane's 8 columns of a row are
 * 16 bytes of the output. */
template <int KIND, bool BF16>
static __global__ void __launch_bounds__(WARPS * 32) panel_kernel(const __grid_constant__ panel_args a) {
  const nb_device_matrix &w = a.w;
  unsigned char *table = nb_shared();
  float *nested = (float *)(table + TABLE_BYTES);
  uint32_t lane = threadIdx.x % 32, cols = (uint32_t)w.tiles.col_tiles, rt = a.first_tile + blockIdx.y;
  uint32_t kt = blockIdx.x * (WARPS * TILES) + threadIdx.x / 32, end = min(cols, (blockIdx.x + 1) * (WARPS * TILES));
  if (is_lut4<KIND>()) fill_pairs((float2 *)table, w.quant_map);
  if (KIND == NB_TILED_LUT4_TWICE) nested[threadIdx.x] = w.nested_map[threadIdx.x];
  if (is_lut4<KIND>()) __syncthreads();
  float row_scale[4] = {1, 1, 1, 1};
  for (int i = 0; KIND == NB_TILED_INT8 && i < 4; i++)
    row_scale[i] = ((const float *)w.scales)[rt * NB_TILE_ROWS + lane / 4 + 8 * (uint32_t)i];
  nb_scale_place place = nb_place_scales<KIND>(&w, rt, (int)lane);
  const uint4 *from = (const uint4 *)w.codes + ((int64_t)rt * cols + kt) * nb_tile_quads<KIND>() + lane;
  uint32_t row = blockIdx.y * NB_TILE_ROWS + lane / 4, eight_rows = 8 * cols * QUADS;
  uint4 *to = (uint4 *)a.out + (row * cols + kt) * QUADS + lane % 4;
  for (; kt < end; kt += WARPS, from += WARPS * nb_tile_quads<KIND>(), to += WARPS * QUADS) {
    uint4 units[2 * nb_unit_size<KIND>::quads];
    nb_load_units<KIND>(from, units);
    nb_lane_scales s = nb_make_scales<KIND>(nb_fetch_scales<KIND>(&place, kt), nested, w.nested_offset,
                                            w.tiles.scale_is_bf16, (int)lane);
    const float *scale = KIND == NB_TILED_INT8 ? row_scale : s.scale;
#pragma unroll
    for (int slab = 0; slab < 2; slab++) {
      const uint32_t *words = (const uint32_t *)units + slab * nb_unit_size<KIND>::words;
      uint32_t v[4][4];
      if constexpr (is_lut4<KIND>())
        widen_lut4<BF16>(table, lane % COPIES * (uint32_t)sizeof(float2), words, scale + 2 * slab, v);
      else
        widen_codes<KIND, BF16>(words, slab, &s, scale + 2 * slab, v);
#pragma unroll
      for (int i = 0; i < 2; i++) {
        uint32_t eighth = (uint32_t)(2 * slab + i);
        if (row + 8 * eighth >= a.rows) continue;
        uint4 *at = to + eighth * eight_rows;
        at[0] = make_uint4(v[0][i], v[0][i + 2], v[1][i], v[1][i + 2]);
        at[4] = make_uint4(v[2][i], v[2][i + 2], v[3][i], v[3][i + 2]);
      }
    }
  }
}

template <bool BF16>
static void launch_panel(cudaStream_t stream, const panel_args &a) {
  static void (*const kernels[NB_TILED_COUNT])(panel_args) = {NULL,
                                                              panel_kernel<NB_TILED_F16, BF16>,
                                                              panel_kernel<NB_TILED_LUT4, BF16>,
                                                              panel_kernel<NB_TILED_LUT4_TWICE, BF16>,
                                                              panel_kernel<NB_TILED_INT8, BF16>,
                                                              panel_kernel<NB_TILED_GPTQ4, BF16>,
                                                              panel_kernel<NB_TILED_GPTQ8, BF16>};
  nb_tiled_kind kind = a.w.tiles.kind;
  int64_t shared = kind == NB_TILED_LUT4 ? TABLE_BYTES : kind == NB_TILED_LUT4_TWICE ? TABLE_BYTES + 256 * 4 : 0;
  dim3 blocks((unsigned)((a.w.tiles.col_tiles + WARPS * TILES - 1) / (WARPS * TILES)),
              (a.rows + NB_TILE_ROWS - 1) / NB_TILE_ROWS);
  nb_launch(kernels[kind], blocks, WARPS * 32, shared, stream, a);
}

void nb_dequantize_panel(cudaStream_t stream, const nb_device_matrix *w, nb_x_dtype dtype, int64_t first, int64_t rows,
                         uint16_t *out) {
  panel_args a = {};
  a.w = *w, a.first_tile = (uint32_t)(first / NB_TILE_ROWS), a.rows = (uint32_t)rows, a.out = out;
  if (dtype == NB_X_BF16)
    launch_panel<true>(stream, a);
  else
    launch_panel<false>(stream, a);
}

/* ---- activations ------------------------------------------------------------------------------------------------ */

enum {
  NARROW_THREADS = 128,
  NARROW_PARTS = 4, /* of 8 elements, of each thread: loads in flight hide the memory's latency */
};

typedef struct narrow_args {
  const void *x;
  int64_t ldx;
  uint32_t cols, width; /* of the output */
  const int32_t *order;
  float scale;
  uint16_t *out;
} narrow_args;

/* Eight elements as they lie. */
template <int DTYPE>
struct eight {
  uint4 quads[DTYPE == NB_X_F32 ? 2 : 1];

  __device__ __forceinline__ float at(int i) const {
    const uint32_t *words = (const uint32_t *)quads;
    if (DTYPE == NB_X_F32) return nb_bits_float(words[i]);
    uint32_t bits = words[i / 2] >> (16 * (i % 2));
    return DTYPE == NB_X_F16 ? nb_half_to_float(bits & 0xffffu) : nb_bits_float(bits << 16);
  }
};

static __device__ __forceinline__ uint32_t narrow_pair(float low, float high, float scale) {
  return nb_pair_f16(fminf(fmaxf(low * scale, -65504.0f), 65504.0f), fminf(fmaxf(high * scale, -65504.0f), 65504.0f));
}

/* Columns in order, in whole and aligned eights: as fast as memory goes. Padding beyond them is zero. */
template <int DTYPE>
static __global__ void __launch_bounds__(NARROW_THREADS) narrow_kernel(const __grid_constant__ narrow_args a) {
  const int quads = sizeof(eight<DTYPE>) / sizeof(uint4);
  uint32_t first = blockIdx.y * (NARROW_THREADS * NARROW_PARTS) + threadIdx.x;
  const uint4 *from = (const uint4 *)((const char *)a.x + blockIdx.x * a.ldx * (DTYPE == NB_X_F32 ? 4 : 2));
  uint4 *to = (uint4 *)(a.out + (int64_t)blockIdx.x * a.width);
  eight<DTYPE> v[NARROW_PARTS] = {};
#pragma unroll
  for (int p = 0; p < NARROW_PARTS; p++) {
    uint32_t i = first + (uint32_t)p * NARROW_THREADS;
    if (i >= a.cols / 8) continue;
#pragma unroll
    for (int q = 0; q < quads; q++) v[p].quads[q] = from[i * (uint32_t)quads + (uint32_t)q];
  }
#pragma unroll
  for (int p = 0; p < NARROW_PARTS; p++) {
    uint32_t i = first + (uint32_t)p * NARROW_THREADS;
    if (i >= a.width / 8) continue;
    to[i] = make_uint4(narrow_pair(v[p].at(0), v[p].at(1), a.scale), narrow_pair(v[p].at(2), v[p].at(3), a.scale),
                       narrow_pair(v[p].at(4), v[p].at(5), a.scale), narrow_pair(v[p].at(6), v[p].at(7), a.scale));
  }
}

/* Columns in any order, or rows that are not aligned: eight single loads a thread. */
template <int DTYPE>
static __global__ void __launch_bounds__(NARROW_THREADS) gather_kernel(const __grid_constant__ narrow_args a) {
  uint32_t i = (blockIdx.y * NARROW_THREADS + threadIdx.x) * 8;
  if (i >= a.width) return;
  int64_t row = blockIdx.x * a.ldx;
  float v[8];
#pragma unroll
  for (uint32_t e = 0; e < 8; e++) {
    uint32_t col = a.order ? (uint32_t)a.order[i + e] : i + e; /* padding: -1, which is beyond all columns too */
    v[e] = 0;
    if (col >= a.cols) continue;
    if (DTYPE == NB_X_F32) {
      v[e] = ((const float *)a.x)[row + col];
    } else {
      uint32_t bits = ((const uint16_t *)a.x)[row + col];
      v[e] = DTYPE == NB_X_F16 ? nb_half_to_float(bits) : nb_bits_float(bits << 16);
    }
  }
  *(uint4 *)(a.out + (int64_t)blockIdx.x * a.width + i) =
      make_uint4(narrow_pair(v[0], v[1], a.scale), narrow_pair(v[2], v[3], a.scale), narrow_pair(v[4], v[5], a.scale),
                 narrow_pair(v[6], v[7], a.scale));
}

void nb_narrow(cudaStream_t stream, const nb_device_matrix *w, const void *x, nb_x_dtype dtype, int64_t ldx, int64_t n,
               uint16_t *out) {
  static void (*const plain[])(narrow_args) = {narrow_kernel<NB_X_F32>, narrow_kernel<NB_X_F16>,
                                               narrow_kernel<NB_X_BF16>};
  static void (*const gathered[])(narrow_args) = {gather_kernel<NB_X_F32>, gather_kernel<NB_X_F16>,
                                                  gather_kernel<NB_X_BF16>};
  narrow_args a = {};
  a.x = x, a.ldx = ldx, a.cols = (uint32_t)w->tiles.cols, a.width = (uint32_t)(w->tiles.col_tiles * NB_TILE_COLS);
  a.order = w->order, a.scale = dtype == NB_X_F16 ? 1.0f : NB_X_SCALE, a.out = out;
  bool is_plain = !w->order && a.cols % 8 == 0 && ldx % 8 == 0 && (uintptr_t)x % 16 == 0;
  uint32_t of_block = NARROW_THREADS * 8 * (is_plain ? NARROW_PARTS : 1);
  nb_launch(is_plain ? plain[dtype] : gathered[dtype], dim3((unsigned)n, (a.width + of_block - 1) / of_block),
            NARROW_THREADS, 0, stream, a);
}
