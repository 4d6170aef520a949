/* Vectors of floats, AVX-512: the names of vec_scalar.h. */
#ifndef NB_KERNELS_CPU_VEC_AVX512_H
#define NB_KERNELS_CPU_VEC_AVX512_H

#include <immintrin.h>
#include <stdint.h>

typedef __m512 vf;

enum {
  VF = 16,
  GEMM_VECTORS = 2, /* 2 x 12 sums, 2 vectors of x and a broadcast weight are 27 of the 32 registers; */
  DOT_ROWS = 4,
  GEMM_ROWS = 12, /* 12 also divides the driver's band, as AVX2's 6 does */
};

static inline vf vf_zero(void) { return _mm512_setzero_ps(); }
static inline vf vf_set1(float x) { return _mm512_set1_ps(x); }
static inline vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void vf_store(float *p, vf v) { _mm512_storeu_ps(p, v); }
static inline vf vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
static inline vf vf_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
static inline vf vf_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
static inline vf vf_div(vf a, vf b) { return _mm512_div_ps(a, b); }
static inline vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
static inline vf vf_max(vf a, vf b) { return _mm512_max_ps(a, b); }

static inline __mmask16 vf_part_mask(int64_t n) { return (__mmask16)((1u << n) - 1); }
static inline vf vf_load_part(const float *p, int64_t n) { return _mm512_maskz_loadu_ps(vf_part_mask(n), p); }
static inline void vf_store_part(float *p, vf v, int64_t n) { _mm512_mask_storeu_ps(p, vf_part_mask(n), v); }

static inline vf vf_load_f16(const void *p) { return _mm512_cvtph_ps(_mm256_loadu_si256(p)); }
static inline vf vf_load_bf16(const void *p) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p)), 16));
}
static inline vf vf_load_i8(const void *p) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p))); }

static inline float vf_first(vf v) { return _mm512_cvtss_f32(v); }
static inline float vf_sum(vf v) { return _mm512_reduce_add_ps(v); }
static inline float vf_largest(vf v) { return _mm512_reduce_max_ps(v); }

static inline vf vf_round(vf x) { return _mm512_cvtepi32_ps(_mm512_cvtps_epi32(x)); }
static inline vf vf_scale(vf p, vf n) { return _mm512_scalef_ps(p, n); }
static inline vf vf_zero_below(vf v, vf x, float bound) {
  return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, _mm512_set1_ps(bound), _CMP_NLT_UQ), v);
}
static inline vf vf_clamp(vf x, float low, float high) {
  return _mm512_min_ps(_mm512_set1_ps(high), _mm512_max_ps(_mm512_set1_ps(low), x));
}

static inline void vf_transpose(const float *in, int64_t ldin, float *out, int64_t ldout) {
  /* Quarter q of rows i, i+4, i+8 and i+12 share a register; what is left is a 4x4 transposition in each 128 bits. */
  for (int quarter = 0; quarter < 4; quarter++, in += 4, out += 4 * ldout) {
    __m512 a[4];
    for (int i = 0; i < 4; i++) {
      __m512 v = _mm512_castps128_ps512(_mm_loadu_ps(in + i * ldin));
      v = _mm512_insertf32x4(v, _mm_loadu_ps(in + (i + 4) * ldin), 1);
      v = _mm512_insertf32x4(v, _mm_loadu_ps(in + (i + 8) * ldin), 2);
      a[i] = _mm512_insertf32x4(v, _mm_loadu_ps(in + (i + 12) * ldin), 3);
    }
    __m512 ab = _mm512_unpacklo_ps(a[0], a[1]), cd = _mm512_unpacklo_ps(a[2], a[3]);
    __m512 ef = _mm512_unpackhi_ps(a[0], a[1]), gh = _mm512_unpackhi_ps(a[2], a[3]);
    _mm512_storeu_ps(out, _mm512_shuffle_ps(ab, cd, 0x44));
    _mm512_storeu_ps(out + ldout, _mm512_shuffle_ps(ab, cd, 0xee));
    _mm512_storeu_ps(out + 2 * ldout, _mm512_shuffle_ps(ef, gh, 0x44));
    _mm512_storeu_ps(out + 3 * ldout, _mm512_shuffle_ps(ef, gh, 0xee));
  }
}

/* VF words of 32 bits. */
typedef __m512i vu;
static inline vu vu_load(const uint32_t *p) { return _mm512_loadu_si512(p); }
static inline vu vu_load_u8(const uint8_t *p) { return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)); }
static inline vu vu_shift_right(vu v, int n) { return _mm512_srli_epi32(v, (unsigned)n); }
static inline vu vu_shift_left(vu v, int n) { return _mm512_slli_epi32(v, (unsigned)n); }
static inline vu vu_or(vu a, vu b) { return _mm512_or_si512(a, b); }
static inline vu vu_and(vu v, uint32_t mask) { return _mm512_and_si512(v, _mm512_set1_epi32((int)mask)); }
static inline vf vu_to_f32(vu v) { return _mm512_cvtepi32_ps(v); }
static inline vu vu_set1(uint32_t word) { return _mm512_set1_epi32((int)word); }
static inline vf vu_as_f32(vu v) { return _mm512_castsi512_ps(v); }
/* Looked up where a table of 16 holds them, which reads no more than 4 bits, else as the lowest bits of 2^23. */
static inline vf vu_centred(vu v, int bits) {
  const uint32_t two_to_23 = 0x4b000000;
  const int low = (1 << bits) - 1, middle = 1 << (bits - 1);
  if (bits <= 4) {
    const vu lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    vf table = _mm512_cvtepi32_ps(_mm512_sub_epi32(vu_and(lane, (uint32_t)low), _mm512_set1_epi32(middle)));
    return _mm512_permutexvar_ps(v, table);
  }
  vu whole = vu_or(vu_and(v, (uint32_t)low), vu_set1(two_to_23));
  return vf_sub(vu_as_f32(whole), vf_set1(0x1p23f + (float)middle));
}

#endif
