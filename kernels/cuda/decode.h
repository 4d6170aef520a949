/* From packed weights to the registers of the tensor cores. A lane's unit of a tile (tiles.h) becomes a[4 steps][4
 * registers] of float16 pairs. Integers are exact in float16 up to 2048, so int8 and GPTQ keep their codes, less the
 * zero point, and the scale is applied to sums; nf4 and fp4 look up pairs of values rounded to float16. (bfloat16, with
 * 8 bits instead of 11, moves the logits of small nf4 models by more than a percent.) */
#ifndef NB_KERNELS_CUDA_DECODE_H
#define NB_KERNELS_CUDA_DECODE_H

#include "kernels/cuda/product.h"

/* nf4, fp4: a byte is two codes. The table of the 256 pairs of values lies in shared memory 32 times, once for each
 * bank, so that the lanes of a warp never wait for each other: pair b for lane l is word NB_PAIR_STRIDE b + l. Beside
 * it the 16 values by bytes, in registers: `low` has the lower bytes of values 0 to 7 in two words, then those of the
 * other eight; `high` the upper ones. */
typedef struct nb_lookup {
  const uint32_t *table;
  uint32_t low[4], high[4];
} nb_lookup;

/* Takes the bytes out of the table, which is there: what does not come from a place of the lane's own would be known to
 * be the same in all lanes, kept in uniform registers, and moved at every use. */
static __device__ __forceinline__ void nb_fill_planes(nb_lookup *lookup, int lane) {
#pragma unroll
  for (int i = 0; i < 4; i++) {
    uint32_t first = 0x01u + 0x44u * i, second = first + 0x22u; /* values 4 i and 4 i + 1; 4 i + 2 and 4 i + 3 */
    uint32_t a = lookup->table[first * NB_PAIR_STRIDE + lane], b = lookup->table[second * NB_PAIR_STRIDE + lane];
    lookup->low[i] = nb_pick_bytes(a, b, 0x6420u);
    lookup->high[i] = nb_pick_bytes(a, b, 0x7531u);
  }
}

/* The pairs of a word's four bytes from the table, which is two instructions for each, and a turn of shared memory, of
 * which there is one a clock. With 256 bytes from pair to pair, half of which lie idle, the byte of codes put over the
 * second byte of 4 l is the place: one instruction. */
static __device__ __forceinline__ void nb_pairs_by_table(const uint32_t *table, int lane, uint32_t word,
                                                         uint32_t out[4]) {
  const char *bytes = (const char *)table;
  uint32_t mine = (uint32_t)lane * 4;
  out[0] = *(const uint32_t *)(bytes + nb_pick_bytes(word, mine, 0x5504u));
  out[1] = *(const uint32_t *)(bytes + nb_pick_bytes(word, mine, 0x5514u));
  out[2] = *(const uint32_t *)(bytes + nb_pick_bytes(word, mine, 0x5524u));
  out[3] = *(const uint32_t *)(bytes + nb_pick_bytes(word, mine, 0x5534u));
}

/* The same by picking bytes, which is five instructions for each pair and no shared memory: four codes at a time, from
 * the lower eight values and from the upper eight, of which the codes' highest bits choose. */
static __device__ __forceinline__ void nb_pairs_by_planes(const nb_lookup *p, uint32_t word, uint32_t out[4]) {
  uint32_t select = word & 0x77777777u, shifted = word << 4;
#pragma unroll
  for (int half = 0; half < 2; half++) {
    uint32_t of_four = select >> (16 * half);
    uint32_t is_upper = nb_pick_bytes(word, shifted, half == 0 ? 0x9d8cu : 0xbfaeu);
    uint32_t low = (nb_pick_bytes(p->low[0], p->low[1], of_four) & ~is_upper) |
                   (nb_pick_bytes(p->low[2], p->low[3], of_four) & is_upper);
    uint32_t high = (nb_pick_bytes(p->high[0], p->high[1], of_four) & ~is_upper) |
                    (nb_pick_bytes(p->high[2], p->high[3], of_four) & is_upper);
    out[2 * half] = nb_pick_bytes(low, high, 0x4051u); /* the higher four bits of a byte are the first code */
    out[2 * half + 1] = nb_pick_bytes(low, high, 0x6273u);
  }
}

/* By the table alone, shared memory would be busy for as long as the codes take to come (scripts/sass-bounds), so one
 * step of the four goes by planes. */
enum { NB_PLANE_STEPS = 1 };

static __device__ __forceinline__ void nb_decode_lut4(const nb_lookup *lookup, int lane, const uint32_t *words,
                                                      uint32_t a[4][4]) {
#pragma unroll
  for (int s = 0; s < 4; s++) {
    if (s < NB_PLANE_STEPS)
      nb_pairs_by_planes(lookup, words[s], a[s]);
    else
      nb_pairs_by_table(lookup->table, lane, words[s], a[s]);
  }
}

/* Integers: 0x6400 | code is 1024 + code in float16, for codes of up to 10 bits; zero0 and zero1 belong to rows g and
 * g + 8. */
static __device__ __forceinline__ uint32_t nb_biased(uint32_t zero) { return (0x6400u + zero) * 0x10001u; }

/* Row g's codes lie in the low nibble of each byte: 1024 + code, less 1024 + zero0. Row g + 8's lie in the high one and
 * are not shifted down: (1024 + 16 code) / 16 - (64 + zero1), which is exact too. */
static __device__ __forceinline__ void nb_decode_gptq4(uint32_t zero0, uint32_t zero1, const uint32_t *words,
                                                       uint32_t a[4][4]) {
  const uint32_t magic = 0x64006400u, sixteenth = 0x2c002c00u, number960 = 0x63806380u;
  uint32_t less0 = nb_biased(zero0), less1 = nb_subtract_f16(number960, nb_biased(zero1)); /* -64 - zero1 */
#pragma unroll
  for (int s = 0; s < 4; s++) {
#pragma unroll
    for (int j = 0; j < 2; j++) {
      uint32_t word = words[s] >> (8 * j);
      a[s][2 * j] = nb_subtract_f16(nb_mask_or(word, 0x000f000fu, magic), less0);
      a[s][2 * j + 1] = nb_fma_f16(nb_mask_or(word, 0x00f000f0u, magic), sixteenth, less1);
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

/* x / divisor for both below 65536: a multiplication by the reciprocal, which nb_reciprocal makes. */
static __device__ __forceinline__ uint32_t nb_reciprocal(uint32_t divisor) {
  return divisor > 1 ? 0xffffffffu / divisor + 1 : 0;
}
static __device__ __forceinline__ uint32_t nb_divide(uint32_t x, uint32_t reciprocal) {
  return reciprocal ? __umulhi(x, reciprocal) : x;
}

/* Where the scales of a row tile lie for a lane, and what a column tile's are found by. */
typedef struct nb_scale_place {
  const char *at;
  uint32_t reciprocal;  /* of column tiles that share a scale */
  uint32_t first_block; /* of the row whose scale this lane makes, with double quantization */
  const float *nested_absmax;
} nb_scale_place;

/* With double quantization, lane 4 g + t makes the scale of row g + 8 t, and the four lanes of g exchange them. */
template <int KIND>
static __device__ __forceinline__ nb_scale_place nb_place_scales(const nb_device_matrix *w, int64_t rt, int lane) {
  nb_scale_place p = {};
  if constexpr (KIND == NB_TILED_LUT4) {
    p.at = (const char *)w->scales + (rt * w->tiles.col_tiles * 8 + lane / 4) * 16;
  } else if constexpr (KIND == NB_TILED_LUT4_TWICE) {
    p.at = (const char *)w->scales + rt * w->tiles.col_tiles * NB_TILE_ROWS + lane;
    uint32_t block_tiles = (uint32_t)w->tiles.block_tiles, blocks = (uint32_t)w->tiles.col_tiles / block_tiles;
    uint32_t row = (uint32_t)rt * NB_TILE_ROWS + (uint32_t)(lane / 4 + lane % 4 * 8);
    /* Rows of padding have no scale of their own; those of the last row will do. */
    p.first_block = min(row, (uint32_t)w->tiles.rows - 1) * blocks;
    p.reciprocal = nb_reciprocal(block_tiles);
    p.nested_absmax = w->nested_absmax;
  } else if constexpr (KIND == NB_TILED_GPTQ4 || KIND == NB_TILED_GPTQ8) {
    p.at = (const char *)w->scales + (rt * w->tiles.groups * 8 + lane / 4) * 16;
    p.reciprocal = nb_reciprocal((uint32_t)w->tiles.group_tiles);
  }
  return p;
}

/* Begins to copy a tile's codes to shared memory, as they lie, if it is there; `from` is the lane's first 16 bytes, and
 * those that it copies are those that it decodes. */
template <int KIND>
static __device__ __forceinline__ void nb_stage_codes(const unsigned char *from, bool is_there, int lane,
                                                      unsigned char *to) {
#pragma unroll
  for (int i = 0; i < nb_code_stage_bytes((nb_tiled_kind)KIND); i += 512)
    nb_copy_16_if(is_there, to + lane * 16 + i, from + i);
}

/* The stored scales of column tile kt: nb_stage_scales begins to copy them to shared memory if the tile is there,
 * nb_staged_scales gives them: four words, or with double quantization this lane's code and what it is multiplied with.
 * All lanes of the warp come by both, with a barrier between. */
template <int KIND>
static __device__ __forceinline__ void nb_stage_scales(const nb_scale_place *p, bool is_there, uint32_t kt, int lane,
                                                       unsigned char *to) {
  if constexpr (KIND == NB_TILED_LUT4) {
    nb_copy_16_if(is_there && lane % 4 == 0, to + lane * 4, p->at + (int64_t)(kt * 128));
  } else if constexpr (KIND == NB_TILED_LUT4_TWICE) {
    nb_copy_16_if(is_there && lane < 2, to + lane * 16, p->at - lane + kt * NB_TILE_ROWS + lane * 16);
    nb_copy_4_if(is_there, to + 32 + lane * 4, &p->nested_absmax[(p->first_block + nb_divide(kt, p->reciprocal)) >> 8]);
  } else if constexpr (KIND == NB_TILED_GPTQ4 || KIND == NB_TILED_GPTQ8) {
    nb_copy_16_if(is_there && lane % 4 == 0, to + lane * 4, p->at + (int64_t)(nb_divide(kt, p->reciprocal) * 128));
  }
}

template <int KIND>
static __device__ __forceinline__ uint4 nb_staged_scales(const unsigned char *from, int lane) {
  if constexpr (KIND == NB_TILED_LUT4 || KIND == NB_TILED_GPTQ4 || KIND == NB_TILED_GPTQ8) {
    return *(const uint4 *)(from + lane / 4 * 16);
  } else if constexpr (KIND == NB_TILED_LUT4_TWICE) {
    return make_uint4(from[lane], ((const uint32_t *)(from + 32))[lane], 0, 0);
  } else {
    return make_uint4(0, 0, 0, 0);
  }
}

/* Makes scales of what was fetched. All lanes of the warp come by. */
template <int KIND>
static __device__ __forceinline__ nb_lane_scales nb_make_scales(uint4 fetched, const float *nested_map, float offset,
                                                                bool is_bf16, int lane) {
  nb_lane_scales out = {};
  const uint32_t words[4] = {fetched.x, fetched.y, fetched.z, fetched.w};
  if constexpr (KIND == NB_TILED_LUT4) {
#pragma unroll
    for (int i = 0; i < 4; i++) out.scale[i] = nb_bits_float(words[i]);
  } else if constexpr (KIND == NB_TILED_LUT4_TWICE) {
    float mine = fmaf(nested_map[words[0]], nb_bits_float(words[1]), offset);
#pragma unroll
    for (int i = 0; i < 4; i++) out.scale[i] = __shfl_sync(NB_WARP, mine, lane / 4 * 4 + i);
  } else if constexpr (KIND == NB_TILED_GPTQ4 || KIND == NB_TILED_GPTQ8) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      out.scale[i] = nb_scale_bits(words[i] & 0xffffu, is_bf16);
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
  static const bool scaled = nb_is_4bit((nb_tiled_kind)KIND) || KIND == NB_TILED_GPTQ8; /* parts of a row have scales */
};

/* Slab `slab` of a tile. `lookup` is for nf4 and fp4. */
template <int KIND>
static __device__ __forceinline__ void nb_decode(const nb_lookup *lookup, int lane, const uint32_t *words, int slab,
                                                 const nb_lane_scales *s, uint32_t a[4][4]) {
  if constexpr (nb_is_lut4((nb_tiled_kind)KIND)) nb_decode_lut4(lookup, lane, words, a);
  if constexpr (KIND == NB_TILED_GPTQ4) nb_decode_gptq4(s->zero[2 * slab], s->zero[2 * slab + 1], words, a);
  if constexpr (KIND == NB_TILED_GPTQ8) nb_decode_8bit(s->zero[2 * slab], s->zero[2 * slab + 1], words, a);
  if constexpr (KIND == NB_TILED_INT8) nb_decode_8bit(128, 128, words, a);
  if constexpr (KIND == NB_TILED_F16) nb_decode_16bit(words, a);
}

#endif
