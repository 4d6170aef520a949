/* From packed weights to the registers of the tensor cores. A lane's unit of a tile (tiles.h) becomes a[4 steps][4
 * registers] of float16 pairs. Integers are exact in float16 up to 2048, so int8 and GPTQ keep their codes, less the
 * zero point, and the scale is applied to sums; nf4 and fp4 look up pairs of values rounded to float16. (bfloat16, with
 * 8 bits instead of 11, moves the logits of small nf4 models by more than a percent.) */
#ifndef NB_KERNELS_CUDA_DECODE_H
#define NB_KERNELS_CUDA_DECODE_H

#include "kernels/cuda/product.h"

/* nf4, fp4: a byte is two codes. The table of the 256 pairs lies in shared memory 32 times, once for each bank, so that
 * the lanes of a warp never wait for each other: pair b for lane l is word 32 b + l. */
static __device__ __forceinline__ void nb_decode_lut4(const uint32_t *table, int lane, const uint32_t *words,
                                                      uint32_t a[4][4]) {
  const uint32_t *mine = table + lane;
#pragma unroll
  for (int s = 0; s < 4; s++) {
    uint32_t w = words[s];
    a[s][0] = mine[(w & 0xffu) * 32];
    a[s][1] = mine[(w >> 8 & 0xffu) * 32];
    a[s][2] = mine[(w >> 16 & 0xffu) * 32];
    a[s][3] = mine[(w >> 24) * 32];
  }
}

/* Integers: 0x6400 | code is 1024 + code in float16, for codes of up to 10 bits; zero0 and zero1 belong to rows g and
 * g + 8. */
static __device__ __forceinline__ uint32_t nb_biased(uint32_t zero) { return (0x6400u + zero) * 0x10001u; }

static __device__ __forceinline__ void nb_decode_gptq4(uint32_t zero0, uint32_t zero1, const uint32_t *words,
                                                       uint32_t a[4][4]) {
  uint32_t less0 = nb_biased(zero0), less1 = nb_biased(zero1);
#pragma unroll
  for (int s = 0; s < 4; s++) {
#pragma unroll
    for (int j = 0; j < 4; j++) {
      uint32_t pair = (words[s] >> (4 * j) & 0x000f000fu) | 0x64006400u;
      a[s][j] = nb_subtract_f16(pair, j & 1 ? less1 : less0);
    }
  }
}

static __device__ __forceinline__ void nb_decode_8bit(uint32_t zero0, uint32_t zero1, const uint32_t *words,
                                                      uint32_t a[4][4]) {
  uint32_t less0 = nb_biased(zero0), less1 = nb_biased(zero1);
#pragma unroll
  for (int i = 0; i < 8; i++) {
    uint32_t *out = &a[i / 2][i % 2 * 2];
    out[0] = nb_subtract_f16(nb_pick_bytes(words[i], 0x64646464u, 0x4140u), less0);
    out[1] = nb_subtract_f16(nb_pick_bytes(words[i], 0x64646464u, 0x4342u), less1);
  }
}

static __device__ __forceinline__ void nb_decode_16bit(const uint32_t *words, uint32_t a[4][4]) {
#pragma unroll
  for (int s = 0; s < 4; s++) {
#pragma unroll
    for (int j = 0; j < 4; j++) a[s][j] = words[4 * s + j];
  }
}

/* What the scales of a tile are for a lane: rows g, g + 8, g + 16 and g + 24. Zero points where there are some. */
typedef struct nb_lane_scales {
  float scale[4];
  uint32_t zero[4];
} nb_lane_scales;

static __device__ __forceinline__ float nb_scale_bits(uint32_t word, bool is_bf16) {
  return is_bf16 ? nb_bits_float(word << 16) : nb_half_to_float(word);
}

/* The stored scales of a lane's rows, fetched as early as the codes: four words, or with double quantization one. */
template <int KIND>
static __device__ __forceinline__ uint4 nb_fetch_scales(const nb_device_matrix *w, int64_t rt, int kt, int lane) {
  int g = lane / 4;
  if constexpr (KIND == NB_TILED_LUT4) {
    return ((const uint4 *)w->scales)[(rt * w->tiles.col_tiles + kt) * 8 + g];
  } else if constexpr (KIND == NB_TILED_LUT4_TWICE) {
    return make_uint4(((const uint32_t *)w->scales)[(rt * w->tiles.col_tiles + kt) * 8 + g], 0, 0, 0);
  } else if constexpr (KIND == NB_TILED_GPTQ4 || KIND == NB_TILED_GPTQ8) {
    unsigned group = (unsigned)kt / (unsigned)w->tiles.group_tiles;
    return ((const uint4 *)w->scales)[(rt * w->tiles.groups + group) * 8 + g];
  } else {
    return make_uint4(0, 0, 0, 0);
  }
}

/* Makes scales of what was fetched for column tile kt of row tile rt. */
template <int KIND>
static __device__ __forceinline__ nb_lane_scales nb_make_scales(const nb_device_matrix *w, uint4 fetched,
                                                                const float *nested_map, int64_t rt, int kt, int lane) {
  nb_lane_scales out = {};
  const uint32_t words[4] = {fetched.x, fetched.y, fetched.z, fetched.w};
  if constexpr (KIND == NB_TILED_LUT4) {
#pragma unroll
    for (int i = 0; i < 4; i++) out.scale[i] = nb_bits_float(words[i]);
  } else if constexpr (KIND == NB_TILED_LUT4_TWICE) {
    unsigned block_tiles = (unsigned)w->tiles.block_tiles, blocks = (unsigned)w->tiles.col_tiles / block_tiles;
    unsigned block_in_row = (unsigned)kt / block_tiles;
#pragma unroll
    for (int i = 0; i < 4; i++) {
      int64_t row = rt * NB_TILE_ROWS + lane / 4 + 8 * i;
      /* Rows of padding have no scale of their own; those of the last row will do. */
      if (row >= w->tiles.rows) row = w->tiles.rows - 1;
      int64_t block = row * blocks + block_in_row;
      out.scale[i] = fmaf(nested_map[words[0] >> (8 * i) & 255u], w->nested_absmax[block >> 8], w->nested_offset);
    }
  } else if constexpr (KIND == NB_TILED_GPTQ4 || KIND == NB_TILED_GPTQ8) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      out.scale[i] = nb_scale_bits(words[i] & 0xffffu, w->tiles.scale_is_bf16);
      out.zero[i] = words[i] >> 16;
    }
  }
  return out;
}

/* Words of a unit, by kind. */
template <int KIND>
struct nb_unit_size {
  static const int words = KIND == NB_TILED_F16 ? 16 : KIND == NB_TILED_INT8 || KIND == NB_TILED_GPTQ8 ? 8 : 4;
  static const int quads = words / 4;
  static const bool scaled = KIND == NB_TILED_LUT4 || KIND == NB_TILED_LUT4_TWICE || KIND == NB_TILED_GPTQ4 ||
                             KIND == NB_TILED_GPTQ8; /* parts of a row have scales of their own */
};

/* Slab `slab` of a tile. */
template <int KIND>
static __device__ __forceinline__ void nb_decode(const uint32_t *table, int lane, const uint32_t *words, int slab,
                                                 const nb_lane_scales *s, uint32_t a[4][4]) {
  if constexpr (KIND == NB_TILED_LUT4 || KIND == NB_TILED_LUT4_TWICE) nb_decode_lut4(table, lane, words, a);
  if constexpr (KIND == NB_TILED_GPTQ4) nb_decode_gptq4(s->zero[2 * slab], s->zero[2 * slab + 1], words, a);
  if constexpr (KIND == NB_TILED_GPTQ8) nb_decode_8bit(s->zero[2 * slab], s->zero[2 * slab + 1], words, a);
  if constexpr (KIND == NB_TILED_INT8) nb_decode_8bit(128, 128, words, a);
  if constexpr (KIND == NB_TILED_F16) nb_decode_16bit(words, a);
}

/* Reads a lane's units of a tile. */
template <int KIND>
static __device__ __forceinline__ void nb_load_units(const nb_device_matrix *w, int64_t tile, int lane,
                                                     uint4 out[2 * nb_unit_size<KIND>::quads]) {
  const int quads = nb_unit_size<KIND>::quads;
  const uint4 *at = (const uint4 *)w->codes + tile * (2 * quads * 32) + lane;
#pragma unroll
  for (int i = 0; i < 2 * quads; i++) out[i] = nb_load_once(at + i * 32);
}

#endif
