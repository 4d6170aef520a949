/* Which instruction set the kernels use. It is looked up once: the best that both this build and this processor have.
 * The environment variable NIBBLE_ISA (scalar, avx2, avxvnni, avx512, neon, dotprod, i8mm) asks for a lesser one; a
 * test can switch between calls with nb_isa_use. What one instruction set lacks is done by the one before it in
 * nb_isa_fallback, so a table of kernels may have holes everywhere but in its scalar column. */
#ifndef NB_KERNELS_CPU_ISA_H
#define NB_KERNELS_CPU_ISA_H

#include <stdbool.h>

typedef enum nb_isa {
  NB_ISA_SCALAR,
  NB_ISA_AVX2,    /* with FMA and F16C: Haswell (2013), Zen and later */
  NB_ISA_AVXVNNI, /* AVX2 and the sums of products of bytes (vpdpbusd) in 256 bits: Alder Lake (2021) and later */
  NB_ISA_AVX512,  /* F, BW, VL, DQ, VBMI and VNNI: Ice Lake (2019), Zen 4 and later */
  NB_ISA_NEON,    /* every aarch64 processor: ARMv8.0 */
  NB_ISA_DOTPROD, /* sdot: Cortex-A75 (2017) and later */
  NB_ISA_I8MM,    /* smmla: Neoverse V1 (2020), Cortex-A510 and later */
  NB_ISA_COUNT
} nb_isa;

/* The instruction set in use. */
nb_isa nb_isa_current(void);

bool nb_isa_available(nb_isa isa);

/* Makes nb_isa_current return `isa` from now on; false, and nothing happens, if it is not available. Not to be called
 * while kernels run. */
bool nb_isa_use(nb_isa isa);

/* The next lesser one: avx512 and avxvnni to avx2, i8mm to dotprod to neon, all others to scalar. */
nb_isa nb_isa_fallback(nb_isa isa);

const char *nb_isa_name(nb_isa isa); /* "avx2" */
int nb_isa_floats(nb_isa isa);       /* in one of its vectors */

#endif
