#include "validate/divergence.h"

#include <math.h>
#include <string.h>

enum { TOP = 5 };

/* The largest first; of equals the first in the vocabulary. */
static void find_top(const float *x, int64_t n, int64_t top[TOP]) {
  int64_t found = 0;
  for (int64_t i = 0; i < n; i++) {
    if (found == TOP && !(x[i] > x[top[TOP - 1]])) continue;
    int64_t k = found < TOP ? found++ : TOP - 1;
    for (; k > 0 && x[i] > x[top[k - 1]]; k--) top[k] = top[k - 1];
    top[k] = i;
  }
  for (; found < TOP; found++) top[found] = -1 - found; /* a vocabulary of less than five */
}

static bool all_finite(const float *x, int64_t n) {
  float probe = 0; /* 0 * x is not 0 for those that are not finite */
  for (int64_t i = 0; i < n; i++) probe += 0 * x[i];
  return probe == 0;
}

void nb_divergence_of(const float *reference, const float *logits, int64_t vocab, int32_t target, nb_divergence *out) {
  *out = (nb_divergence){.finite = all_finite(reference, vocab) && all_finite(logits, vocab)};
  if (!out->finite) return;
  int64_t top[TOP], other[TOP];
  find_top(reference, vocab, top);
  find_top(logits, vocab, other);
  out->same_top1 = top[0] == other[0];
  for (int i = 0; i < TOP; i++) {
    for (int j = 0; j < TOP; j++) out->common_top5 += top[i] == other[j] && top[i] >= 0;
  }
  /* With e = exp(x - max): KL = sum e (x - y) / sum e - (lse x - lse y). */
  double max_x = (double)reference[top[0]], max_y = (double)logits[other[0]];
  double sum_x = 0, sum_y = 0, weighted = 0;
  for (int64_t i = 0; i < vocab; i++) {
    double x = (double)reference[i] - max_x, y = (double)logits[i] - max_y, e = exp(x);
    sum_x += e;
    sum_y += exp(y);
    weighted += e * (x - y);
  }
  out->kl = fmax(0, weighted / sum_x - (log(sum_x) - log(sum_y)));
  out->reference_nll = log(sum_x) - ((double)reference[target] - max_x);
  out->nll = log(sum_y) - ((double)logits[target] - max_y);
}
