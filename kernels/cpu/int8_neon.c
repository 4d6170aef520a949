#include <arm_neon.h>

#include "kernels/cpu/int8_cpu.h"

enum { LANES = 4 };

/* Loads min(4, n) floats, zeros after them, rounded to float16 and back. */
static float32x4_t load_f16(const float *x, int64_t n) {
  float32x4_t v;
  if (n >= LANES) {
    v = vld1q_f32(x);
  } else {
    float lanes[LANES] = {0};
    for (int64_t i = 0; i < n; i++) lanes[i] = x[i];
    v = vld1q_f32(lanes);
  }
  return vcvt_f32_f16(vcvt_f16_f32(v));
}

float nb_int8_absmax_row_neon(const float *x, int64_t cols, float threshold, bool *is_outlier) {
  float32x4_t limit = vdupq_n_f32(threshold), absmax = vdupq_n_f32(0);
  for (int64_t c = 0; c < cols; c += LANES) {
    float32x4_t v = vabsq_f32(load_f16(x + c, cols - c));
    uint32x4_t out = vcgeq_f32(v, limit);
    if (vmaxvq_u32(out)) {
      uint32_t lanes[LANES];
      vst1q_u32(lanes, out);
      for (int i = 0; i < LANES; i++) {
        if (lanes[i]) __atomic_store_n(&is_outlier[c + i], true, __ATOMIC_RELAXED);
      }
    }
    /* vmaxnm passes NaN over, as the comparisons of plain C do. */
    absmax = vmaxnmq_f32(absmax, vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(v), out)));
  }
  return vmaxvq_f32(absmax);
}

void nb_int8_quantize_row_neon(const float *x, int64_t cols, float threshold, float scale, int16_t *codes) {
  float32x4_t limit = vdupq_n_f32(threshold);
  for (int64_t c = 0; c < cols; c += LANES) {
    float32x4_t v = load_f16(x + c, cols - c);
    uint32x4_t kept = vandq_u32(vreinterpretq_u32_f32(vmulq_n_f32(v, scale)), vcltq_f32(vabsq_f32(v), limit));
    int16x4_t q = vqmovn_s32(vcvtnq_s32_f32(vreinterpretq_f32_u32(kept)));
    if (cols - c >= LANES) {
      vst1_s16(codes + c, q);
    } else {
      int16_t lanes[LANES];
      vst1_s16(lanes, q);
      for (int64_t i = 0; c + i < cols; i++) codes[c + i] = lanes[i];
    }
  }
}

/* Sixteen columns a step: weights widened to 16 bits, multiplied with the codes of x and added to four 32-bit sums;
 * acc[i][j] holds those of w[i] . x[j]. */
static void dots(const int8_t *const w[NB_INT8_W_ROWS], const int16_t *x, int64_t ldx, int64_t n,
                 int32_t out[NB_INT8_W_ROWS][NB_INT8_X_ROWS]) {
  int32x4_t acc[NB_INT8_W_ROWS][NB_INT8_X_ROWS];
  for (int i = 0; i < NB_INT8_W_ROWS; i++) {
    for (int j = 0; j < NB_INT8_X_ROWS; j++) acc[i][j] = vdupq_n_s32(0);
  }
  int64_t c = 0;
  for (; c + 16 <= n; c += 16) {
    int16x8_t wide[NB_INT8_W_ROWS][2];
    for (int i = 0; i < NB_INT8_W_ROWS; i++) {
      int8x16_t v = vld1q_s8(w[i] + c);
      wide[i][0] = vmovl_s8(vget_low_s8(v));
      wide[i][1] = vmovl_high_s8(v);
    }
    for (int j = 0; j < NB_INT8_X_ROWS; j++) {
      for (int half = 0; half < 2; half++) {
        int16x8_t codes = vld1q_s16(x + j * ldx + c + 8 * half);
        for (int i = 0; i < NB_INT8_W_ROWS; i++) {
          acc[i][j] = vmlal_s16(acc[i][j], vget_low_s16(wide[i][half]), vget_low_s16(codes));
          acc[i][j] = vmlal_high_s16(acc[i][j], wide[i][half], codes);
        }
      }
    }
  }
  for (int i = 0; i < NB_INT8_W_ROWS; i++) {
    for (int j = 0; j < NB_INT8_X_ROWS; j++) {
      int32_t sum = vaddvq_s32(acc[i][j]);
      for (int64_t t = c; t < n; t++) sum += w[i][t] * x[j * ldx + t];
      out[i][j] += sum;
    }
  }
}

const nb_cpu_int8 nb_cpu_int8_neon = {
    .absmax_row = nb_int8_absmax_row_neon, .quantize_row = nb_int8_quantize_row_neon, .dots = dots};
