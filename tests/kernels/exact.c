#include "tests/kernels/exact.h"

#include <math.h>

nb_exact nb_exact_dot(const float *x, const float *w, int64_t n) {
  nb_exact dot = {0, 0};
  for (int64_t i = 0; i < n; i++) {
    double term = (double)x[i] * w[i];
    dot.sum += term;
    dot.size += fabs(term);
  }
  return dot;
}

nb_exact nb_exact_dot_within(const double *x, const double *w, const double *bounds, int64_t n) {
  nb_exact dot = {0, 0};
  for (int64_t i = 0; i < n; i++) {
    dot.sum += x[i] * w[i];
    dot.size += fabs(x[i]) * bounds[i];
  }
  return dot;
}
