#include "validate/thresholds.h"

#include <math.h>
#include <string.h>

/* strict: what 8 bits keep to on any model. loose: an artifact that still speaks the original's language. */
static const nibble_thresholds profiles[] = {
    {.profile = "normal"}, /* the formats' own */
    {.profile = "strict", .max_kl = 0.02, .max_ppl_increase = 0.02, .min_top1 = 0.95},
    {.profile = "loose", .max_kl = 1.5, .max_ppl_increase = 2.0, .min_top1 = 0.4},
};
enum { PROFILES = sizeof profiles / sizeof *profiles };

/* Whatever is met by any figure, but not by one that was not measured. */
static const nibble_thresholds nothing = {.profile = "", .max_kl = INFINITY, .max_ppl_increase = INFINITY};

bool nb_thresholds_asked(const nibble_verify_options *o) {
  return o->profile || o->max_kl > 0 || o->max_ppl_increase > 0 || o->min_top1 > 0;
}

static const nibble_thresholds *find_profile(const nibble_verify_options *o) {
  const char *name = o->profile ? o->profile : profiles[0].profile;
  for (int i = 0; i < PROFILES; i++) {
    if (strcmp(profiles[i].profile, name) == 0) return &profiles[i];
  }
  return NULL;
}

nibble_status nb_thresholds_check_profile(const nibble_verify_options *o, nibble_error *err) {
  if (find_profile(o)) return NIBBLE_OK;
  return nb_fail(err, NIBBLE_USAGE, "--profile %s: strict, normal or loose is required", o->profile);
}

/* ---- the formats' own ---- */

/* Rounding each weight by itself makes exactly the error that is expected of it, with scales that were searched for
 * less. GPTQ makes larger errors, of which those of one weight undo another's: 1.17 to 1.3 times the expected in 3 to 8
 * bits. It says so itself, then, and no label has to be believed. */
static bool is_traded(const nb_weights *weights) {
  double sum = 0;
  size_t count = 0;
  for (size_t i = 0; i < weights->count; i++) {
    const nibble_weight_error *w = &weights->rows[i];
    if (!(w->expected_error > 0)) continue; /* exact, or of no such format */
    sum += w->relative_error / w->expected_error;
    count++;
  }
  return sum > 1.03 * (double)count;
}

/* The format of a weight; false for a tensor that is none. */
static bool format_of(const nb_tensor *t, nb_format *out) {
  if (t->is_part || t->ndim != 2 || t->view_count) return false;
  if (t->layout && !t->packed) return false;
  if (t->packed) {
    *out = t->packed->format;
  } else if (t->is_blocks) {
    *out = t->format;
  } else {
    return nb_format_of_dtype(t->dtype, out);
  }
  return true;
}

static const nb_limits *limits_of_format(const nb_format_row *row, const nibble_verify_options *o, bool traded) {
  if (o->int8 == NIBBLE_INT8_LLM && row->llm_int8) return &row->llm_int8_limits;
  return traded && row->traded_limits.max_kl > 0 ? &row->traded_limits : &row->limits;
}

/* Packed weights decide, if there are any: what was left plain beside them is the original's. */
static const nb_limits *widest_limits(const nibble_verify_options *o, const nb_checkpoint *c, bool traded,
                                      const char **name) {
  static const nb_limits exact = {.min_top1 = 1}; /* of no matrix at all */
  const nb_limits *widest = &exact;
  bool widest_packed = false;
  for (size_t i = 0; i < nb_checkpoint_count(c); i++) {
    nb_format format;
    if (!format_of(nb_checkpoint_at(c, i), &format)) continue;
    const nb_format_row *row = nb_format_info(format);
    const nb_limits *limits = limits_of_format(row, o, traded);
    bool packed = row->scheme != NB_SCHEME_PLAIN;
    if (packed < widest_packed || (packed == widest_packed && limits->max_kl <= widest->max_kl)) continue;
    widest = limits;
    widest_packed = packed;
    *name = row->name;
  }
  return widest;
}

void nb_thresholds_choose(const nibble_verify_options *o, const nb_checkpoint *artifact, const nb_weights *weights,
                          nibble_thresholds *out, const char **limits_of) {
  *limits_of = "";
  *out = *find_profile(o);
  if (o->check_only && !o->profile) {
    *out = nothing; /* the certificate has thresholds of its own */
  } else if (!(out->max_kl > 0)) {
    const nb_limits *limits = widest_limits(o, artifact, is_traded(weights), limits_of);
    *out = (nibble_thresholds){out->profile, limits->max_kl, limits->max_ppl_increase, limits->min_top1};
  }
  if (o->max_kl > 0) out->max_kl = o->max_kl;
  if (o->max_ppl_increase > 0) out->max_ppl_increase = o->max_ppl_increase;
  if (o->min_top1 > 0) out->min_top1 = o->min_top1;
}

/* ---- figures and limits ---- */

static const struct {
  const char *cause; /* of a finding */
  nibble_limit shown;
} figures[NIBBLE_LIMITS] = {
    {"kl-too-large", {.figure = "kl_mean", .title = "mean KL divergence"}},
    {"perplexity-too-large", {.figure = "ppl_increase", .title = "increase of perplexity", .is_share = true}},
    {"top1-too-small",
     {.figure = "top1_agreement", .title = "same likeliest token", .is_share = true, .is_least = true}},
};

/* How much of what is allowed. What is below nothing (a perplexity that fell) uses none of it. */
static double used(const nibble_limit *l) {
  double have = l->is_least ? 1 - l->measured : l->measured, most = l->is_least ? 1 - l->limit : l->limit;
  if (have <= 0) return 0;
  return most > 0 ? have / most : INFINITY;
}

void nb_thresholds_compare(const nibble_thresholds *t, const nibble_behaviour *b, nibble_limit out[NIBBLE_LIMITS]) {
  const double measured[NIBBLE_LIMITS] = {b->kl_mean, b->ppl_increase, b->top1_agreement};
  const double limits[NIBBLE_LIMITS] = {t->max_kl, t->max_ppl_increase, t->min_top1};
  for (int i = 0; i < NIBBLE_LIMITS; i++) {
    out[i] = figures[i].shown;
    out[i].measured = measured[i];
    out[i].limit = limits[i];
    out[i].used = used(&out[i]);
  }
}

void nb_thresholds_check(const nibble_thresholds *t, const nibble_behaviour *b, nb_findings *findings) {
  nibble_limit limits[NIBBLE_LIMITS];
  nb_thresholds_compare(t, b, limits);
  for (int i = 0; i < NIBBLE_LIMITS; i++) {
    const nibble_limit *l = &limits[i];
    if (l->is_least ? l->measured >= l->limit : l->measured <= l->limit) continue; /* NaN meets nothing */
    double scale = l->is_share ? 100 : 1;
    const char *unit = l->is_share ? "%" : "";
    nb_find(findings, NIBBLE_FAULT, "threshold", figures[i].cause, nb_place_tensor(""),
            l->is_least ? "%s is %.4g%s; at least %.4g%s is required" : "%s is %.4g%s; at most %.4g%s is allowed",
            l->title, scale * l->measured, unit, scale * l->limit, unit);
  }
}
