#include <immintrin.h>
#include <math.h>

#include "kernels/cpu/int8_cpu.h"

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

static int32_t sum_lanes(__m256i v) {
  __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1));
  return _mm_cvtsi128_si32(s);
}

/* Sixteen columns a step: a register of 16-bit weights a row of w, multiplied pairwise with 16-bit codes of x into
 * eight 32-bit sums; acc[i][j] holds those of w[i] . x[j]. */
static void dots(const int8_t *const w[NB_INT8_W_ROWS], const int16_t *x, int64_t ldx, int64_t n,
                 int32_t out[NB_INT8_W_ROWS][NB_INT8_X_ROWS]) {
  __m256i acc[NB_INT8_W_ROWS][NB_INT8_X_ROWS];
  for (int i = 0; i < NB_INT8_W_ROWS; i++) {
    for (int j = 0; j < NB_INT8_X_ROWS; j++) acc[i][j] = _mm256_setzero_si256();
  }
  int64_t c = 0;
  for (; c + 16 <= n; c += 16) {
    __m256i wide[NB_INT8_W_ROWS];
    for (int i = 0; i < NB_INT8_W_ROWS; i++)
      wide[i] = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(w[i] + c)));
    for (int j = 0; j < NB_INT8_X_ROWS; j++) {
      __m256i codes = _mm256_loadu_si256((const __m256i *)(const void *)(x + j * ldx + c));
      for (int i = 0; i < NB_INT8_W_ROWS; i++)
        acc[i][j] = _mm256_add_epi32(acc[i][j], _mm256_madd_epi16(wide[i], codes));
    }
  }
  for (int i = 0; i < NB_INT8_W_ROWS; i++) {
    for (int j = 0; j < NB_INT8_X_ROWS; j++) {
      int32_t sum = sum_lanes(acc[i][j]);
      for (int64_t t = c; t < n; t++) sum += w[i][t] * x[j * ldx + t];
      out[i][j] += sum;
    }
  }
}

const nb_cpu_int8 nb_cpu_int8_avx2 = {
    .absmax_row = nb_int8_absmax_row_avx2, .quantize_row = nb_int8_quantize_row_avx2, .dots = dots};
