/* Vectors of floats and of words: the few operations that the shared kernels are written in, of the target at hand.
 * vec_scalar.h says what each of them means. */
#ifndef NB_KERNELS_CPU_VEC_H
#define NB_KERNELS_CPU_VEC_H

#include "kernels/cpu/target.h"

#if defined(NB_TARGET_AVX512)
#include "kernels/cpu/vec_avx512.h"
#elif defined(NB_TARGET_AVX2) || defined(NB_TARGET_AVXVNNI)
#include "kernels/cpu/vec_avx2.h"
#elif defined(NB_TARGET_NEON) || defined(NB_TARGET_DOTPROD)
#include "kernels/cpu/vec_neon.h"
#else
#include "kernels/cpu/vec_scalar.h"
#endif

#endif
