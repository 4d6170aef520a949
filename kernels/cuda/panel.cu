#include "kernels/cuda/panel.h"

extern "C" {
#include "base/checked.h"
}
#include "kernels/cuda/decode.h"

enum {
  WARPS = 16,
  BLOCKS = 2,  /* of a multiprocessor, at the most: one is not enough to have writes go on without a pause */
  COPIES = 16, /* of the table of pairs: one for each lane of the half warp that reads 8 bytes a lane at a time */
  QUADS = NB_TILE_COLS / 8, /* uint4 of a row of a tile */
  TABLE_BYTES = 256 * COPIES * (int)sizeof(float2),
  SCALE_BYTES = 160, /* of a tile, in shared memory: as nb_stage_scales lays them, or int8's of the rows */
};

typedef struct panel_args {
  nb_device_matrix w;
  uint32_t first_tile, row_tiles, rows;
  uint16_t *out; /* [rows, col_tiles * 64] */
} panel_args;

/* Tiles of a warp that are on their way to it or there: with all its warps, a multiprocessor has some 100 KB in flight,
 * and a block less than 99 KB of shared memory, which is what it has on the smallest devices. */
template <int KIND>
static __device__ __forceinline__ constexpr int stages(void) {
  return nb_is_4bit((nb_tiled_kind)KIND) ? 3 : KIND == NB_TILED_F16 ? 1 : 2;
}

NB_CONST int stage_bytes(nb_tiled_kind kind) { return nb_code_stage_bytes(kind) + SCALE_BYTES; }

/* Of the table of pairs and the map of double quantization, which come before the stages. */
NB_CONST int table_bytes(nb_tiled_kind kind) {
  return kind == NB_TILED_LUT4 ? (int)TABLE_BYTES : kind == NB_TILED_LUT4_TWICE ? TABLE_BYTES + 256 * 4 : 0;
}

template <bool BF16>
static __device__ __forceinline__ uint32_t pair_of(float low, float high) {
  return BF16 ? nb_pair_bf16(low, high) : nb_pair_f16(low, high);
}

/* nf4, fp4: the two values of every byte of codes in float32, so that a weight is rounded once, after it is scaled. A
 * thread writes the copies of its own byte, each lane beginning with another, so that no two meet in a bank. */
static __device__ __forceinline__ void fill_pairs(float2 *table, const float *quant_map) {
  uint32_t byte = threadIdx.x % 256;
  float2 pair = {quant_map[byte >> 4], quant_map[byte & 15]};
#pragma unroll
  for (uint32_t i = threadIdx.x / 256; i < COPIES; i += WARPS * 32 / 256)
    table[byte * COPIES + (byte + i) % COPIES] = pair;
}

/* Half of a unit, which is 8 columns of 2 rows: two of the four steps. Byte j of words[s] is the pair a[s][j] of
 * tiles.h. With 128 bytes from pair to pair, a byte shifted to bit 7, over the offset of this lane's copy, is the
 * place. */
template <bool BF16>
static __device__ __forceinline__ void widen_lut4(const unsigned char *table, uint32_t mine, const uint32_t *words,
                                                  const float *scale, uint32_t out[4][4]) {
#pragma unroll
  for (int s = 0; s < 2; s++) {
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
                                                   uint32_t out[4][4]) {
  nb_decode<KIND>(NULL, 0, words, slab, s, out);
  if constexpr (KIND != NB_TILED_F16 || BF16) {
#pragma unroll
    for (int i = 0; i < 8; i++) {
      uint32_t *pair = &out[i / 4][i % 4];
      float factor = KIND == NB_TILED_F16 ? 1.0f : s->scale[2 * slab + i % 2];
      *pair = pair_of<BF16>(nb_half_to_float(*pair & 0xffffu) * factor, nb_half_to_float(*pair >> 16) * factor);
    }
  }
}

/* A tile of the panel, and how a warp goes from one of its tiles to the next. */
typedef struct tile_place {
  uint32_t row, col; /* in tiles */
} tile_place;

static __device__ __forceinline__ void advance(tile_place *p, const tile_place *by, uint32_t cols) {
  p->row += by->row, p->col += by->col;
  if (p->col >= cols) p->col -= cols, p->row++;
}

/* Begins to copy a tile, if it is there, to a stage: codes, and behind them scales. */
template <int KIND>
static __device__ __forceinline__ void begin_tile(const panel_args &a, const tile_place &p, int lane,
                                                  unsigned char *stage) {
  const nb_device_matrix &w = a.w;
  unsigned char *scales = stage + nb_code_stage_bytes((nb_tiled_kind)KIND);
  if (p.row < a.row_tiles) {
    int64_t rt = a.first_tile + p.row;
    const unsigned char *from =
        (const unsigned char *)w.codes + (rt * w.tiles.col_tiles + p.col) * nb_code_stage_bytes((nb_tiled_kind)KIND);
    nb_stage_codes<KIND>(from + lane * 16, true, lane, stage);
    nb_scale_place place = nb_place_scales<KIND>(&w, rt, lane);
    nb_stage_scales<KIND>(&place, true, p.col, lane, scales);
    if (KIND == NB_TILED_INT8)
      nb_copy_4_if(true, scales + lane * 4, (const float *)w.scales + rt * NB_TILE_ROWS + lane);
  }
  nb_copies_commit();
}

/* Half of a unit, which is the same words of it in every format: `half` 0 or 1. */
template <int KIND>
static __device__ __forceinline__ void read_half(const unsigned char *stage, int slab, int unit, int half,
                                                 uint32_t *words) {
  const int quads = nb_unit_size<KIND>::quads;
  const uint4 *from = (const uint4 *)stage + slab * quads * 32 + unit;
  if constexpr (quads == 1) {
    *(uint2 *)words = ((const uint2 *)from)[half];
  } else {
#pragma unroll
    for (int i = 0; i < quads / 2; i++) ((uint4 *)words)[i] = from[(half * (quads / 2) + i) * 32];
  }
}

/* A warp widens a tile that has come: the rows g and g + 8 of both slabs for four g at a time. Eight lanes share them,
 * four to each half of the units, so that together they write the whole 128 bytes of a row. */
template <int KIND, bool BF16>
static __device__ __forceinline__ void widen_tile(const panel_args &a, const tile_place &p, int lane,
                                                  const unsigned char *stage, const unsigned char *table) {
  const unsigned char *scales = stage + nb_code_stage_bytes((nb_tiled_kind)KIND);
  const int64_t eight_rows = 8 * a.w.tiles.col_tiles * QUADS;
#pragma unroll
  for (int four = 0; four < 2; four++) {
    int g = 4 * four + lane / 8, unit = 4 * g + lane % 4;
    nb_lane_scales s = nb_make_scales<KIND>(nb_staged_scales<KIND>(scales, unit), (const float *)(table + TABLE_BYTES),
                                            a.w.nested_offset, a.w.tiles.scale_is_bf16, lane);
    for (int i = 0; KIND == NB_TILED_INT8 && i < 4; i++) s.scale[i] = ((const float *)scales)[g + 8 * i];
    uint32_t row = p.row * NB_TILE_ROWS + (uint32_t)g;
    uint4 *to = (uint4 *)a.out + (row * (uint32_t)a.w.tiles.col_tiles + p.col) * QUADS + lane % 8;
#pragma unroll
    for (int slab = 0; slab < 2; slab++) {
      alignas(16) uint32_t words[nb_unit_size<KIND>::words] = {};
      uint32_t v[4][4];
      read_half<KIND>(stage, slab, unit, lane / 4 % 2, words);
      if constexpr (nb_is_lut4((nb_tiled_kind)KIND))
        widen_lut4<BF16>(table, (uint32_t)(lane % COPIES) * (uint32_t)sizeof(float2), words, s.scale + 2 * slab, v);
      else
        widen_codes<KIND, BF16>(words, slab, &s, v);
#pragma unroll
      for (int i = 0; i < 2; i++, row += 8, to += eight_rows)
        if (row < a.rows) *to = make_uint4(v[0][i], v[0][i + 2], v[1][i], v[1][i + 2]);
    }
  }
}

/* As many blocks as there is room for, whose warps go over the panel side by side. Tiles come by asynchronous copies,
 * so that every warp always has some on their way: reads are a small part of the traffic, but they wait behind the
 * writes, and a warp that waited for each would leave the memory idle. */
template <int KIND, bool BF16>
static __global__ void __launch_bounds__(WARPS * 32, BLOCKS) panel_kernel(const __grid_constant__ panel_args a) {
  const int bytes = stage_bytes((nb_tiled_kind)KIND);
  unsigned char *table = nb_shared();
  int lane = threadIdx.x % 32;
  uint32_t warp = threadIdx.x / 32, cols = (uint32_t)a.w.tiles.col_tiles, warps = gridDim.x * WARPS,
           first = blockIdx.x * WARPS + warp;
  unsigned char *own = table + table_bytes((nb_tiled_kind)KIND) + warp * (uint32_t)(stages<KIND>() * bytes);
  tile_place by = {warps / cols, warps % cols}, next = {first / cols, first % cols}, now = next;
  for (int i = 0; i < stages<KIND>(); i++, advance(&next, &by, cols)) begin_tile<KIND>(a, next, lane, own + i * bytes);
  if (nb_is_lut4((nb_tiled_kind)KIND)) fill_pairs((float2 *)table, a.w.quant_map);
  if (KIND == NB_TILED_LUT4_TWICE && threadIdx.x < 256)
    ((float *)(table + TABLE_BYTES))[threadIdx.x] = a.w.nested_map[threadIdx.x];
  if (nb_is_lut4((nb_tiled_kind)KIND)) __syncthreads();
  for (int i = 0; now.row < a.row_tiles; i = i + 1 < stages<KIND>() ? i + 1 : 0) {
    nb_copies_wait<stages<KIND>() - 1>();
    __syncwarp();
    widen_tile<KIND, BF16>(a, now, lane, own + i * bytes, table);
    __syncwarp(); /* all lanes have read the stage */
    begin_tile<KIND>(a, next, lane, own + i * bytes);
    advance(&next, &by, cols);
    advance(&now, &by, cols);
  }
}

template <int KIND, bool BF16>
static void launch_kind(const nb_workspace *ws, const panel_args &a) {
  const nb_tiled_kind kind = (nb_tiled_kind)KIND;
  int64_t shared = table_bytes(kind) + (int64_t)WARPS * stages<KIND>() * stage_bytes(kind);
  int64_t fit = nb_max_i64(1, nb_min_i64(BLOCKS, ws->shared_limit / shared));
  int64_t wanted = nb_ceil_div(a.row_tiles * a.w.tiles.col_tiles, WARPS);
  nb_launch(panel_kernel<KIND, BF16>, dim3((unsigned)nb_min_i64(ws->processors * fit, wanted)), WARPS * 32, shared,
            ws->stream, a);
}

template <bool BF16>
static void launch_panel(const nb_workspace *ws, const panel_args &a) {
  static void (*const launch[NB_TILED_COUNT])(const nb_workspace *, const panel_args &) = {
      NULL,
      launch_kind<NB_TILED_F16, BF16>,
      launch_kind<NB_TILED_LUT4, BF16>,
      launch_kind<NB_TILED_LUT4_TWICE, BF16>,
      launch_kind<NB_TILED_INT8, BF16>,
      launch_kind<NB_TILED_GPTQ4, BF16>,
      launch_kind<NB_TILED_GPTQ8, BF16>};
  launch[a.w.tiles.kind](ws, a);
}

void nb_dequantize_panel(const nb_workspace *ws, const nb_device_matrix *w, nb_x_dtype dtype, int64_t first,
                         int64_t rows, uint16_t *out) {
  panel_args a = {};
  a.w = *w, a.first_tile = (uint32_t)(first / NB_TILE_ROWS), a.rows = (uint32_t)rows, a.out = out;
  a.row_tiles = (uint32_t)nb_ceil_div(rows, NB_TILE_ROWS);
  if (dtype == NB_X_BF16)
    launch_panel<true>(ws, a);
  else
    launch_panel<false>(ws, a);
}
