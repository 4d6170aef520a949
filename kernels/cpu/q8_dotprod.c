#include "kernels/cpu/vec_neon.h"

#include "kernels/cpu/q8_cpu.h"

static inline int32x4_t dot16(int32x4_t sum, int8x16_t w, int8x16_t x) { return vdotq_s32(sum, w, x); }

#include "kernels/cpu/q8_neon_body.h"

const nb_cpu_q8 nb_cpu_q8_dotprod = {
    .formats =
        {
            [NB_FORMAT_NF4] = {nb_q8_evens_odds, dot_4bit},
            [NB_FORMAT_FP4] = {nb_q8_evens_odds, dot_4bit},
            [NB_FORMAT_INT8] = {NULL, dot_int8},
            [NB_FORMAT_Q4_0] = {NULL, dot_q4_0},
            [NB_FORMAT_Q8_0] = {NULL, dot_q8_0},
            [NB_FORMAT_Q4_K] = {NULL, dot_q4_k},
            [NB_FORMAT_Q6_K] = {NULL, dot_q6_k},
            [NB_FORMAT_GPTQ2] = {nb_q8_words2, gptq2_q8},
            [NB_FORMAT_GPTQ4] = {nb_q8_words4, gptq4_q8},
            [NB_FORMAT_GPTQ8] = {NULL, gptq8_q8},
        },
};
