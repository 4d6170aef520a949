/* Codes of 4 bits to floats, of the target at hand. lookup4_scalar.h says what each name means. */
#ifndef NB_KERNELS_CPU_LOOKUP4_H
#define NB_KERNELS_CPU_LOOKUP4_H

#include "kernels/cpu/target.h"

#if defined(NB_TARGET_AVX512)
#include "kernels/cpu/lookup4_avx512.h"
#elif defined(NB_TARGET_AVX2) || defined(NB_TARGET_AVXVNNI)
#include "kernels/cpu/lookup4_avx2.h"
#elif defined(NB_TARGET_NEON) || defined(NB_TARGET_DOTPROD)
#include "kernels/cpu/lookup4_neon.h"
#else
#include "kernels/cpu/lookup4_scalar.h"
#endif

#endif
