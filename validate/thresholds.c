#include "validate/thresholds.h"

#include <math.h>
#include <string.h>

/* strict: what 8 bits keep to on any model. normal: what 4 bits keep to on small models, which lose most (nf4 of a
 * model of 135 M weights: KL 0.25, +21%, 70%), and 3 bits do not. loose: an artifact that still speaks the original's
 * language. docs/results.md has measured figures. */
static const nibble_thresholds profiles[] = {
    {.profile = "normal", .max_kl = 0.3, .max_ppl_increase = 0.25, .min_top1 = 0.66},
    {.profile = "strict", .max_kl = 0.02, .max_ppl_increase = 0.02, .min_top1 = 0.95},
    {.profile = "loose", .max_kl = 1.5, .max_ppl_increase = 2.0, .min_top1 = 0.4},
};

/* Whatever is met by any figure, but not by one that was not measured. */
static const nibble_thresholds nothing = {.profile = "", .max_kl = INFINITY, .max_ppl_increase = INFINITY};

bool nb_thresholds_asked(const nibble_verify_options *o) {
  return o->profile || o->max_kl > 0 || o->max_ppl_increase > 0 || o->min_top1 > 0;
}

nibble_status nb_thresholds_choose(const nibble_verify_options *o, nibble_thresholds *out, nibble_error *err) {
  const char *name = o->profile ? o->profile : profiles[0].profile;
  size_t i = 0, count = sizeof profiles / sizeof *profiles;
  while (i < count && strcmp(profiles[i].profile, name) != 0) i++;
  if (i == count) return nb_fail(err, NIBBLE_USAGE, "--profile %s: strict, normal or loose is wanted", name);
  *out = profiles[i];
  if (o->check_only && !o->profile) *out = nothing; /* the certificate has thresholds of its own */
  if (o->max_kl > 0) out->max_kl = o->max_kl;
  if (o->max_ppl_increase > 0) out->max_ppl_increase = o->max_ppl_increase;
  if (o->min_top1 > 0) out->min_top1 = o->min_top1;
  return NIBBLE_OK;
}

void nb_thresholds_check(const nibble_thresholds *t, const nibble_behaviour *b, nb_findings *findings) {
  static const char check[] = "threshold";
  nb_place whole = nb_place_tensor("");
  if (!(b->kl_mean <= t->max_kl))
    nb_find(findings, NIBBLE_FAULT, check, "kl-too-large", whole, "mean KL divergence is %.4g; at most %.4g is wanted",
            b->kl_mean, t->max_kl);
  if (!(b->ppl_increase <= t->max_ppl_increase))
    nb_find(findings, NIBBLE_FAULT, check, "perplexity-too-large", whole,
            "perplexity rose by %.2f%%; at most %.2f%% is wanted", 100 * b->ppl_increase, 100 * t->max_ppl_increase);
  if (!(b->top1_agreement >= t->min_top1))
    nb_find(findings, NIBBLE_FAULT, check, "top1-too-small", whole,
            "the likeliest token agrees in %.2f%%; at least %.2f%% is wanted", 100 * b->top1_agreement,
            100 * t->min_top1);
}
