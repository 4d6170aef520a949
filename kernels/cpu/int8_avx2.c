#define NB_TARGET_AVX2
#include "kernels/cpu/int8_256_x86.h"

enum { LANES = 8 };

/* Loads min(8, n) floats, zeros after them, rounded to float16 and back. */
static __m256 load_f16(const float *x, int64_t n) {
  __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  __m256 v =
      n >= LANES ? _mm256_loadu_ps(x) : _mm256_maskload_ps(x, _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), lane));
  return _mm256_cvtph_ps(_mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

static __m256 magnitude(__m256 v) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v); }

float nb_int8_absmax_row_avx2(const float *x, int64_t cols, float threshold, bool *is_outlier) {
  __m256 limit = _mm256_set1_ps(threshold), absmax = _mm256_setzero_ps();
  for (int64_t c = 0; c < cols; c += LANES) {
    __m256 v = magnitude(load_f16(x + c, cols - c));
    __m256 out = _mm256_cmp_ps(v, limit, _CMP_GE_OQ);
    for (unsigned bits = (unsigned)_mm256_movemask_ps(out); bits; bits &= bits - 1)
      __atomic_store_n(&is_outlier[c + __builtin_ctz(bits)], true, __ATOMIC_RELAXED);
    absmax = _mm256_max_ps(_mm256_andnot_ps(out, v), absmax);
  }
  float lanes[LANES], largest = 0;
  _mm256_storeu_ps(lanes, absmax);
  for (int i = 0; i < LANES; i++) largest = lanes[i] > largest ? lanes[i] : largest;
  return largest;
}

void nb_int8_quantize_row_avx2(const float *x, int64_t cols, float threshold, float scale, int16_t *codes) {
  __m256 limit = _mm256_set1_ps(threshold), factor = _mm256_set1_ps(scale);
  for (int64_t c = 0; c < cols; c += LANES) {
    __m256 v = load_f16(x + c, cols - c);
    __m256 kept = _mm256_and_ps(_mm256_mul_ps(v, factor), _mm256_cmp_ps(magnitude(v), limit, _CMP_LT_OQ));
    __m256i q = _mm256_cvtps_epi32(kept);
    __m128i packed = _mm_packs_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1));
    if (cols - c >= LANES) {
      _mm_storeu_si128((__m128i *)(void *)(codes + c), packed);
    } else {
      int16_t lanes[LANES];
      _mm_storeu_si128((__m128i *)(void *)lanes, packed);
      for (int64_t i = 0; c + i < cols; i++) codes[c + i] = lanes[i];
    }
  }
}

const nb_cpu_int8 nb_cpu_int8_avx2 = {
    .absmax_row = nb_int8_absmax_row_avx2, .quantize_row = nb_int8_quantize_row_avx2, .dots = dots};
