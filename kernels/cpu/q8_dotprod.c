#include "kernels/cpu/vec_neon.h"

#include "kernels/cpu/q8_cpu.h"

static inline int32x4_t dot16(int32x4_t sum, int8x16_t w, int8x16_t x) { return vdotq_s32(sum, w, x); }

#include "kernels/cpu/q8_neon_body.h"

const nb_cpu_q8 nb_cpu_q8_dotprod = {
    .formats = formats,
};
