/* Functions of vectors, for any target. */
#ifndef NB_KERNELS_CPU_VEC_MATH_H
#define NB_KERNELS_CPU_VEC_MATH_H

#include "kernels/cpu/vec.h"

/* exp(x) to 2 units in the last place; 0 below -87.3, where float32 is no longer normal, infinity above 88.7.
 * x = n ln 2 + r with |r| <= ln(2)/2, ln 2 in two parts so that r is exact enough, and the polynomial of Cephes'
 * expf (Moshier 1992) for exp(r). */
static inline vf vf_exp(vf x) {
  const float lowest = -87.33654f, highest = 88.8f;
  vf limited = vf_clamp(x, lowest, highest);
  vf n = vf_round(vf_mul(limited, vf_set1(1.44269504088896341f)));
  vf r = vf_fma(n, vf_set1(-0.693359375f), limited);
  r = vf_fma(n, vf_set1(2.12194440e-4f), r);
  vf p = vf_set1(1.9875691500e-4f);
  p = vf_fma(p, r, vf_set1(1.3981999507e-3f));
  p = vf_fma(p, r, vf_set1(8.3334519073e-3f));
  p = vf_fma(p, r, vf_set1(4.1665795894e-2f));
  p = vf_fma(p, r, vf_set1(1.6666665459e-1f));
  p = vf_fma(p, r, vf_set1(5.0000001201e-1f));
  p = vf_fma(p, vf_mul(r, r), vf_add(r, vf_set1(1)));
  return vf_zero_below(vf_scale(p, n), x, lowest);
}

#endif
