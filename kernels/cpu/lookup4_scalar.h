/* Codes of 4 bits to the floats that a table of 16 has for them, in plain C: what every name of the vocabulary means.
 * lookup4_avx2.h, lookup4_avx512.h and lookup4_neon.h say the same in their instructions. Two codes lie in a byte, the
 * first in its high half. */
#ifndef NB_KERNELS_CPU_LOOKUP4_SCALAR_H
#define NB_KERNELS_CPU_LOOKUP4_SCALAR_H

#include <string.h>

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/vec_scalar.h"

/* The 16 values, in the form that a target looks them up in. */
typedef struct tables4 {
  float map[16];
} tables4;

static tables4 make_tables4(const float *map) {
  tables4 t;
  memcpy(t.map, map, sizeof t.map);
  return t;
}

/* The weights of 32 bytes of codes, not yet scaled, in NB_GROUP4 / VF vectors. Their order is the target's, */
static inline void unpack_group(const uint8_t *codes, const tables4 *t, vf *out) {
  for (int i = 0; i < NB_GROUP4; i++) out[i / VF][i % VF] = t->map[i % 2 ? codes[i / 2] & 15 : codes[i / 2] >> 4];
}

/* in which this puts a row of x, whose length is a multiple of NB_GROUP4. */
static void prepare_4bit(const float *x, int64_t cols, float *out) { memcpy(out, x, (size_t)cols * sizeof *out); }

/* The weights of 16 bytes of codes in natural order, scaled: NB_STEP4 floats. */
static inline void unpack_32(const uint8_t *codes, const tables4 *t, float scale, float *out) {
  for (int i = 0; i < NB_STEP4; i++) out[i] = t->map[i % 2 ? codes[i / 2] & 15 : codes[i / 2] >> 4] * scale;
}

#endif
