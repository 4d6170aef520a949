#include "base/dtype.h"

#include <math.h>
#include <string.h>

static const struct {
  size_t size;
  const char *name, *torch_name;
  bool is_float;
} dtypes[NB_DTYPE_COUNT] = {
    [NB_F64] = {8, "F64", "float64", true},
    [NB_F32] = {4, "F32", "float32", true},
    [NB_F16] = {2, "F16", "float16", true},
    [NB_BF16] = {2, "BF16", "bfloat16", true},
    [NB_F8_E4M3] = {1, "F8_E4M3", "float8_e4m3fn", true},
    [NB_F8_E5M2] = {1, "F8_E5M2", "float8_e5m2", true},
    [NB_I64] = {8, "I64", "int64", false},
    [NB_I32] = {4, "I32", "int32", false},
    [NB_I16] = {2, "I16", "int16", false},
    [NB_I8] = {1, "I8", "int8", false},
    [NB_U64] = {8, "U64", "uint64", false},
    [NB_U32] = {4, "U32", "uint32", false},
    [NB_U16] = {2, "U16", "uint16", false},
    [NB_U8] = {1, "U8", "uint8", false},
    [NB_BOOL] = {1, "BOOL", "bool", false},
};

size_t nb_dtype_size(nb_dtype dtype) { return dtypes[dtype].size; }
const char *nb_dtype_name(nb_dtype dtype) { return dtypes[dtype].name; }
const char *nb_dtype_torch_name(nb_dtype dtype) { return dtypes[dtype].torch_name; }
bool nb_dtype_is_float(nb_dtype dtype) { return dtypes[dtype].is_float; }

bool nb_dtype_parse(const char *name, nb_dtype *out) {
  for (int i = 0; i < NB_DTYPE_COUNT; i++) {
    if (strcmp(name, dtypes[i].name) == 0 || strcmp(name, dtypes[i].torch_name) == 0) {
      *out = (nb_dtype)i;
      return true;
    }
  }
  return false;
}

/* Selections instead of branches in these two, so that the compiler turns the loops over them into vector code. */
static inline float f16_to_f32(uint16_t h) {
  uint32_t sign = (uint32_t)(h & 0x8000u) << 16, magnitude = h & 0x7fffu;
  uint32_t special = magnitude >= 0x7c00u ? 0x38000000u : 0; /* infinity, NaN: the exponent becomes 255 */
  uint32_t normal = (magnitude << 13) + 0x38000000u + special;
  uint32_t subnormal = nb_f32_to_bits((float)(int32_t)magnitude * 0x1p-24f);
  return nb_bits_to_f32(sign | (magnitude < 0x400u ? subnormal : normal));
}

static inline uint16_t f32_to_f16(float f) {
  uint32_t u = nb_f32_to_bits(f), sign = u >> 16 & 0x8000u, magnitude = u & 0x7fffffffu;
  /* Below 2^-14, adding 0.5 leaves the subnormal's bits, rounded, in the mantissa. */
  uint32_t subnormal = nb_f32_to_bits(nb_bits_to_f32(magnitude) + 0.5f) - 0x3f000000u;
  uint32_t rebased = magnitude - 0x38000000u;
  uint32_t normal = (rebased + 0xfffu + (rebased >> 13 & 1u)) >> 13;
  uint32_t finite = magnitude < 0x38800000u ? subnormal : normal;
  uint32_t nan = 0x7e00u | (magnitude >> 13 & 0x3ffu);
  uint32_t bits = magnitude < 0x477ff000u ? finite : 0x7c00u; /* from there on it rounds past 65504 */
  return (uint16_t)(sign | (magnitude > 0x7f800000u ? nan : bits));
}

float nb_f16_to_f32(uint16_t h) { return f16_to_f32(h); }
uint16_t nb_f32_to_f16(float f) { return f32_to_f16(f); }

static float f8_to_f32(uint8_t b, int mantissa_bits, int bias, bool e4m3) {
  int exponent_bits = 7 - mantissa_bits, mantissa_mask = (1 << mantissa_bits) - 1;
  int exponent = b >> mantissa_bits & ((1 << exponent_bits) - 1), mantissa = b & mantissa_mask;
  float value;
  if (e4m3 && (b & 0x7f) == 0x7f) {
    value = NAN; /* e4m3fn has no infinity */
  } else if (!e4m3 && exponent == (1 << exponent_bits) - 1) {
    value = mantissa ? NAN : INFINITY;
  } else if (exponent == 0) {
    value = ldexpf((float)mantissa, 1 - bias - mantissa_bits);
  } else {
    value = ldexpf((float)(mantissa | 1 << mantissa_bits), exponent - bias - mantissa_bits);
  }
  return b & 0x80 ? -value : value;
}

static void f64_to_f32_n(const uint8_t *src, size_t n, float *dst) {
  for (size_t i = 0; i < n; i++) {
    double wide;
    memcpy(&wide, src + i * 8, 8);
    dst[i] = (float)wide;
  }
}

static void f16_to_f32_n(const uint8_t *src, size_t n, float *dst) {
  for (size_t i = 0; i < n; i++) {
    uint16_t half;
    memcpy(&half, src + i * 2, 2);
    dst[i] = f16_to_f32(half);
  }
}

static void bf16_to_f32_n(const uint8_t *src, size_t n, float *dst) {
  for (size_t i = 0; i < n; i++) {
    uint16_t half;
    memcpy(&half, src + i * 2, 2);
    dst[i] = nb_bf16_to_f32(half);
  }
}

bool nb_to_f32(nb_dtype dtype, const void *src, size_t n, float *dst) {
  const uint8_t *bytes = src;
  switch (dtype) {
    case NB_F32: memcpy(dst, src, n * sizeof *dst); return true;
    case NB_F64: f64_to_f32_n(bytes, n, dst); return true;
    case NB_F16: f16_to_f32_n(bytes, n, dst); return true;
    case NB_BF16: bf16_to_f32_n(bytes, n, dst); return true;
    case NB_F8_E4M3:
      for (size_t i = 0; i < n; i++) dst[i] = f8_to_f32(bytes[i], 3, 7, true);
      return true;
    case NB_F8_E5M2:
      for (size_t i = 0; i < n; i++) dst[i] = f8_to_f32(bytes[i], 2, 15, false);
      return true;
    default: return false;
  }
}

static void f32_to_f64_n(const float *src, size_t n, uint8_t *dst) {
  for (size_t i = 0; i < n; i++) {
    double wide = (double)src[i];
    memcpy(dst + i * 8, &wide, 8);
  }
}

static void f32_to_f16_n(const float *src, size_t n, uint8_t *dst) {
  for (size_t i = 0; i < n; i++) {
    uint16_t half = f32_to_f16(src[i]);
    memcpy(dst + i * 2, &half, 2);
  }
}

static void f32_to_bf16_n(const float *src, size_t n, uint8_t *dst) {
  for (size_t i = 0; i < n; i++) {
    uint16_t half = nb_f32_to_bf16(src[i]);
    memcpy(dst + i * 2, &half, 2);
  }
}

bool nb_from_f32(nb_dtype dtype, const float *src, size_t n, void *dst) {
  switch (dtype) {
    case NB_F32: memcpy(dst, src, n * sizeof *src); return true;
    case NB_F64: f32_to_f64_n(src, n, dst); return true;
    case NB_F16: f32_to_f16_n(src, n, dst); return true;
    case NB_BF16: f32_to_bf16_n(src, n, dst); return true;
    default: return false;
  }
}
