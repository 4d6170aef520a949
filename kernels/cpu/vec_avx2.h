/* Vectors of floats, AVX2: the names of vec_scalar.h. */
#ifndef NB_KERNELS_CPU_VEC_AVX2_H
#define NB_KERNELS_CPU_VEC_AVX2_H

#include <immintrin.h>
#include <stdint.h>

typedef __m256 vf;

enum {
  VF = 8,           /* floats in a vector */
  GEMM_VECTORS = 2, /* 2 x 6 sums, 2 vectors of x and a broadcast weight are 15 of the 16 registers, */
  DOT_ROWS = 1,     /* rows of weights that a dot kernel works on at a time */
  GEMM_ROWS = 6,    /* and 8 loads for 12 multiply-adds keep the two load ports behind the two multipliers */
};

static inline vf vf_zero(void) { return _mm256_setzero_ps(); }
static inline vf vf_set1(float x) { return _mm256_set1_ps(x); }
static inline vf vf_load(const float *p) { return _mm256_loadu_ps(p); }
static inline void vf_store(float *p, vf v) { _mm256_storeu_ps(p, v); }
static inline vf vf_add(vf a, vf b) { return _mm256_add_ps(a, b); }
static inline vf vf_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
static inline vf vf_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
static inline vf vf_div(vf a, vf b) { return _mm256_div_ps(a, b); }
static inline vf vf_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
static inline vf vf_max(vf a, vf b) { return _mm256_max_ps(a, b); }

static inline __m256i vf_part_mask(int64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline vf vf_load_part(const float *p, int64_t n) { return _mm256_maskload_ps(p, vf_part_mask(n)); }
static inline void vf_store_part(float *p, vf v, int64_t n) { _mm256_maskstore_ps(p, vf_part_mask(n), v); }

static inline vf vf_load_f16(const void *p) { return _mm256_cvtph_ps(_mm_loadu_si128(p)); }
static inline vf vf_load_bf16(const void *p) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(p)), 16));
}
static inline vf vf_load_i8(const void *p) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p))); }

static inline float vf_first(vf v) { return _mm256_cvtss_f32(v); }
static inline float vf_sum(vf v) {
  __m128 x = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  x = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
static inline float vf_largest(vf v) {
  __m128 x = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  x = _mm_max_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}

static inline vf vf_round(vf x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline vf vf_scale(vf p, vf n) {
  /* In two steps: 2^128 has no exponent of its own. */
  __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1), bias = _mm256_set1_epi32(127);
  __m256i rest = _mm256_sub_epi32(whole, half);
  vf a = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
  vf b = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23));
  return _mm256_mul_ps(_mm256_mul_ps(p, a), b);
}
static inline vf vf_zero_below(vf v, vf x, float bound) {
  return _mm256_andnot_ps(_mm256_cmp_ps(x, _mm256_set1_ps(bound), _CMP_LT_OQ), v);
}
static inline vf vf_clamp(vf x, float low, float high) {
  return _mm256_min_ps(_mm256_set1_ps(high), _mm256_max_ps(_mm256_set1_ps(low), x));
}

static inline void vf_transpose(const float *in, int64_t ldin, float *out, int64_t ldout) {
  /* Halves of rows i and i+4 share a register, so that only 16 shuffles are left:
   * a[i] = in[i][0..3] | in[i+4][0..3], b[i] = in[i][4..7] | in[i+4][4..7]. */
  for (int half = 0; half < 2; half++, in += 4, out += 4 * ldout) {
    __m256 a[4];
    for (int i = 0; i < 4; i++) {
      a[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(in + i * ldin)),
                                  _mm_loadu_ps(in + (i + 4) * ldin), 1);
    }
    __m256 ab = _mm256_unpacklo_ps(a[0], a[1]), cd = _mm256_unpacklo_ps(a[2], a[3]);
    __m256 ef = _mm256_unpackhi_ps(a[0], a[1]), gh = _mm256_unpackhi_ps(a[2], a[3]);
    _mm256_storeu_ps(out, _mm256_shuffle_ps(ab, cd, 0x44));
    _mm256_storeu_ps(out + ldout, _mm256_shuffle_ps(ab, cd, 0xee));
    _mm256_storeu_ps(out + 2 * ldout, _mm256_shuffle_ps(ef, gh, 0x44));
    _mm256_storeu_ps(out + 3 * ldout, _mm256_shuffle_ps(ef, gh, 0xee));
  }
}

/* VF words of 32 bits. */
typedef __m256i vu;
static inline vu vu_load(const uint32_t *p) { return _mm256_loadu_si256((const __m256i *)p); }
static inline vu vu_load_u8(const uint8_t *p) { return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)); }
static inline vu vu_shift_right(vu v, int n) { return _mm256_srli_epi32(v, n); }
static inline vu vu_shift_left(vu v, int n) { return _mm256_slli_epi32(v, n); }
static inline vu vu_or(vu a, vu b) { return _mm256_or_si256(a, b); }
static inline vu vu_and(vu v, uint32_t mask) { return _mm256_and_si256(v, _mm256_set1_epi32((int)mask)); }
static inline vf vu_to_f32(vu v) { return _mm256_cvtepi32_ps(v); }
static inline vu vu_set1(uint32_t word) { return _mm256_set1_epi32((int)word); }
static inline vf vu_as_f32(vu v) { return _mm256_castsi256_ps(v); }
/* They become a float as the lowest bits of 2^23. */
static inline vf vu_centred(vu v, int bits) {
  const uint32_t two_to_23 = 0x4b000000;
  vu whole = vu_or(vu_and(v, (1u << bits) - 1), vu_set1(two_to_23));
  return vf_sub(vu_as_f32(whole), vf_set1(0x1p23f + (float)(1 << (bits - 1))));
}

#endif
