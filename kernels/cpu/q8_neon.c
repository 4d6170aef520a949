#include "kernels/cpu/vec_neon.h"

#include "kernels/cpu/q8_cpu.h"

/* Products in 16 bits, then added to their neighbours twice. */
static inline int32x4_t dot16(int32x4_t sum, int8x16_t w, int8x16_t x) {
  int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(w), vget_low_s8(x))), high = vpaddlq_s16(vmull_high_s8(w, x));
  return vaddq_s32(sum, vpaddq_s32(low, high));
}

#include "kernels/cpu/q8_neon_body.h"

const nb_cpu_q8 nb_cpu_q8_neon = {
    .formats = formats,
};
