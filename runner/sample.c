#include "runner/sample.h"

#include <math.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/random.h"

typedef struct nb_candidate {
  float logit;
  int32_t id;
} nb_candidate;

static uint64_t rotate(uint64_t x, int k) { return x << k | x >> (64 - k); }

/* xoshiro256**: Blackman & Vigna, Scrambled Linear Pseudorandom Number Generators, 2021. */
static uint64_t next_random(uint64_t s[4]) {
  uint64_t result = rotate(s[1] * 5, 7) * 9, shifted = s[1] << 17;
  s[2] ^= s[0];
  s[3] ^= s[1];
  s[1] ^= s[2];
  s[0] ^= s[3];
  s[2] ^= shifted;
  s[3] = rotate(s[3], 45);
  return result;
}

nibble_status nb_sampler_init(nb_sampler *s, const nb_sampling *how, int64_t vocab, nibble_error *err) {
  uint64_t seed = how->seed;
  *s = (nb_sampler){.how = *how, .vocab = vocab};
  for (int i = 0; i < 4; i++) s->state[i] = nb_splitmix64(&seed); /* as the generator's authors advise */
  s->candidates = nb_alloc((uint64_t)vocab, sizeof *s->candidates);
  return s->candidates ? NIBBLE_OK : nb_fail_memory(err, (uint64_t)vocab * sizeof *s->candidates);
}

void nb_sampler_free(nb_sampler *s) {
  free(s->candidates);
  *s = (nb_sampler){0};
}

static int32_t likeliest(const float *logits, int64_t vocab) {
  int32_t best = 0;
  for (int64_t i = 1; i < vocab; i++) {
    if (logits[i] > logits[best]) best = (int32_t)i;
  }
  return best;
}

static int by_logit(const void *a, const void *b) {
  const nb_candidate *x = a, *y = b;
  if (x->logit != y->logit) return x->logit > y->logit ? -1 : 1;
  return x->id < y->id ? -1 : x->id > y->id;
}

/* How many of the sorted candidates the settings leave; *sum is the sum of their weights exp((logit - max) / T). */
static int64_t count_kept(const nb_sampler *s, double *sum) {
  int64_t most = s->how.top_k > 0 ? nb_min_i64(s->how.top_k, s->vocab) : s->vocab;
  double all = 0, max = (double)s->candidates[0].logit;
  for (int64_t i = 0; i < most; i++) all += exp(((double)s->candidates[i].logit - max) / s->how.temperature);
  *sum = all;
  if (!(s->how.top_p > 0 && s->how.top_p < 1)) return most;
  double reached = 0;
  for (int64_t i = 0; i < most; i++) {
    reached += exp(((double)s->candidates[i].logit - max) / s->how.temperature);
    if (reached < s->how.top_p * all) continue;
    *sum = reached;
    return i + 1;
  }
  return most;
}

int32_t nb_sampler_next(nb_sampler *s, const float *logits) {
  if (s->how.temperature <= 0) return likeliest(logits, s->vocab);
  for (int64_t i = 0; i < s->vocab; i++) s->candidates[i] = (nb_candidate){.logit = logits[i], .id = (int32_t)i};
  qsort(s->candidates, (size_t)s->vocab, sizeof *s->candidates, by_logit);
  double sum, max = (double)s->candidates[0].logit;
  int64_t kept = count_kept(s, &sum);
  double at = (double)(next_random(s->state) >> 11) * 0x1p-53 * sum;
  for (int64_t i = 0; i < kept; i++) {
    at -= exp(((double)s->candidates[i].logit - max) / s->how.temperature);
    if (at < 0) return s->candidates[i].id;
  }
  return s->candidates[kept - 1].id;
}
