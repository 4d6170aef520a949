/* What kernels' products are held against: sums in double arithmetic. In C and by themselves, since the tests' C++ is
 * not optimized, and such sums were most of what the tests of products took. */
#ifndef NB_TESTS_KERNELS_EXACT_H
#define NB_TESTS_KERNELS_EXACT_H

#include <stdint.h>

typedef struct nb_exact {
  double sum, size; /* of x[i] * w[i], and of its absolute value, which errors are measured against */
} nb_exact;

nb_exact nb_exact_dot(const float *x, const float *w, int64_t n);

/* The same of doubles, where w[i] itself is only known to within its share of `bounds`: size is of x[i] * bounds[i]. */
nb_exact nb_exact_dot_within(const double *x, const double *w, const double *bounds, int64_t n);

#endif
