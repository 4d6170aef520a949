#include <math.h>

#include "base/dtype.h"
#include "kernels/cpu/int8_cpu.h"

static float through_f16(float x) { return nb_f16_to_f32(nb_f32_to_f16(x)); }

static float absmax_row(const float *x, int64_t cols, float threshold, bool *is_outlier) {
  float absmax = 0;
  for (int64_t c = 0; c < cols; c++) {
    float v = fabsf(through_f16(x[c]));
    if (v >= threshold) {
      __atomic_store_n(&is_outlier[c], true, __ATOMIC_RELAXED);
    } else if (v > absmax) {
      absmax = v;
    }
  }
  return absmax;
}

static void quantize_row(const float *x, int64_t cols, float threshold, float scale, int16_t *codes) {
  for (int64_t c = 0; c < cols; c++) {
    float v = through_f16(x[c]);
    codes[c] = fabsf(v) < threshold ? (int16_t)lrintf(v * scale) : 0;
  }
}

static void dots(const int8_t *const w[NB_INT8_W_ROWS], const int16_t *x, int64_t ldx, int64_t n,
                 int32_t out[NB_INT8_W_ROWS][NB_INT8_X_ROWS]) {
  for (int i = 0; i < NB_INT8_W_ROWS; i++) {
    for (int j = 0; j < NB_INT8_X_ROWS; j++) {
      const int16_t *row = x + j * ldx;
      int32_t sum = 0;
      for (int64_t c = 0; c < n; c++) sum += w[i][c] * row[c];
      out[i][j] += sum;
    }
  }
}

const nb_cpu_int8 nb_cpu_int8_scalar = {.absmax_row = absmax_row, .quantize_row = quantize_row, .dots = dots};

static const nb_cpu_int8 *const tables[NB_ISA_COUNT] = {
    [NB_ISA_SCALAR] = &nb_cpu_int8_scalar,
#if defined(__x86_64__)
    [NB_ISA_AVX2] = &nb_cpu_int8_avx2,
    [NB_ISA_AVXVNNI] = &nb_cpu_int8_avxvnni,
    [NB_ISA_AVX512] = &nb_cpu_int8_avx512,
#elif defined(__aarch64__)
    [NB_ISA_NEON] = &nb_cpu_int8_neon,
    [NB_ISA_DOTPROD] = &nb_cpu_int8_dotprod,
    [NB_ISA_I8MM] = &nb_cpu_int8_i8mm,
#endif
};

const nb_cpu_int8 *nb_cpu_int8_for(nb_isa isa) {
  while (!tables[isa]) isa = nb_isa_fallback(isa);
  return tables[isa];
}
