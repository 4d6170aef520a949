/* The instruction set that the file at hand is compiled for. Kernels that several of them share are files named
 * *_target.h, and *_x86.h or *_neon.h where the sharing goes no further. Each includes all that it needs and compiles
 * alone, for any target that its name admits; what it defines for others has the target in its name:
 *
 *   gemm_target.h     const nb_cpu_gemm NB_OF_TARGET(nb_cpu_gemm) = {...};
 *   gemm_avx2.c       #define NB_TARGET_AVX2
 *                     #include "kernels/cpu/gemm_target.h"          defines nb_cpu_gemm_avx2
 *
 * One object file is one target's, as C has no namespaces to hold two apart in it; so a plain include guard guards once
 * for each target. A .c file says which is its own: the flags of the whole build may promise more. A file that is
 * compiled alone is of the largest target that its flags allow. */
#ifndef NB_KERNELS_CPU_TARGET_H
#define NB_KERNELS_CPU_TARGET_H

#if !defined(NB_TARGET_SCALAR) && !defined(NB_TARGET_AVX2) && !defined(NB_TARGET_AVXVNNI) && \
    !defined(NB_TARGET_AVX512) && !defined(NB_TARGET_NEON) && !defined(NB_TARGET_DOTPROD)
#if defined(__AVX512VBMI__) && defined(__AVX512VNNI__)
#define NB_TARGET_AVX512
#elif defined(__AVXVNNI__) && defined(__FMA__) && defined(__F16C__)
#define NB_TARGET_AVXVNNI
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define NB_TARGET_AVX2
#elif defined(__ARM_FEATURE_DOTPROD)
#define NB_TARGET_DOTPROD
#elif defined(__aarch64__)
#define NB_TARGET_NEON
#else
#define NB_TARGET_SCALAR /* what the compiler makes of plain C */
#endif
#endif

#if defined(NB_TARGET_AVX512)
#define NB_OF_TARGET(name) name##_avx512
#elif defined(NB_TARGET_AVXVNNI)
#define NB_OF_TARGET(name) name##_avxvnni
#elif defined(NB_TARGET_AVX2)
#define NB_OF_TARGET(name) name##_avx2
#elif defined(NB_TARGET_DOTPROD)
#define NB_OF_TARGET(name) name##_dotprod
#elif defined(NB_TARGET_NEON)
#define NB_OF_TARGET(name) name##_neon
#else
#define NB_OF_TARGET(name) name##_scalar
#endif

#endif
