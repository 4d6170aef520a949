#include "validate/divergence.h"

#include <math.h>

#include "base/dtype.h"
#include "kernels/cpu/errors.h"

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
  uint32_t bad = 0;
  for (int64_t i = 0; i < n; i++) bad |= (nb_f32_to_bits(x[i]) & 0x7f800000u) == 0x7f800000u;
  return !bad;
}

void nb_divergence_of(const float *reference, const float *logits, int64_t vocab, int32_t target, nb_divergence *out) {
  *out = (nb_divergence){.finite = all_finite(reference, vocab) && all_finite(logits, vocab)};
  if (!out->finite) return;
  int64_t top[TOP], other[TOP];
  find_top(reference, vocab, top);
  find_top(logits, vocab, other);
  for (int i = 0; i < TOP; i++) {
    for (int j = 0; j < TOP; j++) out->common_top5 += top[i] == other[j] && top[i] >= 0;
  }
  /* With e = exp(x - max): KL = sum e (x - y) / sum e - (lse x - lse y). */
  float max_x = reference[top[0]], max_y = logits[other[0]];
  double sums[3];
  nb_cpu_errors_now()->exp_sums(reference, logits, vocab, max_x, max_y, sums);
  double lse_x = log(sums[0]), lse_y = log(sums[1]);
  out->top1 = (int32_t)other[0];
  out->reference_top1 = (int32_t)top[0];
  out->kl = fmax(0, sums[2] / sums[0] - (lse_x - lse_y));
  out->reference_nll = lse_x - ((double)reference[target] - (double)max_x);
  out->nll = lse_y - ((double)logits[target] - (double)max_y);
}
