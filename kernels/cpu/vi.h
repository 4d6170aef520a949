/* Vectors of integers, of the target at hand. vi_scalar.h says what each name means. */
#ifndef NB_KERNELS_CPU_VI_H
#define NB_KERNELS_CPU_VI_H

#include "kernels/cpu/target.h"

#if defined(NB_TARGET_AVX512)
#include "kernels/cpu/vi_avx512.h"
#elif defined(NB_TARGET_AVXVNNI)
#include "kernels/cpu/vi_avxvnni.h"
#elif defined(NB_TARGET_AVX2)
#include "kernels/cpu/vi_avx2.h"
#elif defined(NB_TARGET_NEON) || defined(NB_TARGET_DOTPROD)
#include "kernels/cpu/vi_neon.h"
#else
#include "kernels/cpu/vi_scalar.h"
#endif

#endif
