/* Element types of plain tensors, named as safetensors names them, and conversion between the float ones.
 * Values pass through float32: to_f32 widens exactly (F64 rounds), from_f32 rounds to nearest, ties to even, as torch
 * does; what overflows becomes infinity and every NaN stays a NaN. */
#ifndef NB_BASE_DTYPE_H
#define NB_BASE_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum nb_dtype {
  NB_F64,
  NB_F32,
  NB_F16,
  NB_BF16,
  NB_F8_E4M3,
  NB_F8_E5M2,
  NB_I64,
  NB_I32,
  NB_I16,
  NB_I8,
  NB_U64,
  NB_U32,
  NB_U16,
  NB_U8,
  NB_BOOL,
  NB_DTYPE_COUNT
} nb_dtype;

size_t nb_dtype_size(nb_dtype dtype);            /* bytes of one element */
const char *nb_dtype_name(nb_dtype dtype);       /* "F32", as in a safetensors header */
const char *nb_dtype_torch_name(nb_dtype dtype); /* "float32", as in config.json and torch's repr */
bool nb_dtype_is_float(nb_dtype dtype);

/* Finds a dtype by either kind of name; false if there is none. */
bool nb_dtype_parse(const char *name, nb_dtype *out);

/* n elements; `src` needs no alignment. Float dtypes only (integers are refused by returning false). */
bool nb_to_f32(nb_dtype dtype, const void *src, size_t n, float *dst);
bool nb_from_f32(nb_dtype dtype, const float *src, size_t n, void *dst);

static inline float nb_bits_to_f32(uint32_t bits) {
  union {
    uint32_t u;
    float f;
  } v = {.u = bits};
  return v.f;
}
static inline uint32_t nb_f32_to_bits(float f) {
  union {
    float f;
    uint32_t u;
  } v = {.f = f};
  return v.u;
}
static inline float nb_bf16_to_f32(uint16_t h) { return nb_bits_to_f32((uint32_t)h << 16); }
static inline uint16_t nb_f32_to_bf16(float f) {
  uint32_t u = nb_f32_to_bits(f);
  if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(u >> 16 | 0x40u); /* NaN: keep it one */
  return (uint16_t)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}
float nb_f16_to_f32(uint16_t h);
uint16_t nb_f32_to_f16(float f);

#endif
