/* nibble verify ARTIFACT [--against MODEL] [--text FILE] */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

typedef struct options {
  cli_common common;
  nibble_verify_options verify;
  bool layers, model_card;
} options;

enum {
  OPT_AGAINST = 0x100,
  OPT_TEXT,
  OPT_CTX,
  OPT_CHUNKS,
  OPT_INT8,
  OPT_PROFILE,
  OPT_MAX_KL,
  OPT_MAX_PPL,
  OPT_MIN_TOP1,
  OPT_CERTIFICATE,
  OPT_NO_CERTIFICATE,
  OPT_CHECK_ONLY,
  OPT_REPORT,
  OPT_MODEL_CARD,
  OPT_LAYERS,
  OPT_FORCE,
  OPT_SIGN,
  OPT_KEY
};

static error_t parse(int key, char *arg, struct argp_state *state) {
  options *o = state->input;
  nibble_verify_options *v = &o->verify;
  const char **slots[] = {&v->artifact};
  switch (key) {
    case OPT_AGAINST: v->against = arg; return 0;
    case OPT_TEXT: v->text = arg; return 0;
    case OPT_CTX: v->ctx = cli_int(state, "--ctx", arg, 2, 1 << 24); return 0;
    case OPT_CHUNKS: v->chunks = cli_int(state, "--chunks", arg, 1, INT32_MAX); return 0;
    case OPT_INT8: v->int8 = cli_int8(state, arg); return 0;
    case OPT_PROFILE: v->profile = arg; return 0;
    case OPT_MAX_KL: v->max_kl = cli_double(state, "--max-kl", arg, 1e-9, 1e3); return 0;
    case OPT_MAX_PPL: v->max_ppl_increase = cli_share(state, "--max-ppl-increase", arg, 1e4); return 0;
    case OPT_MIN_TOP1: v->min_top1 = cli_share(state, "--min-top1", arg, 1); return 0;
    case OPT_CERTIFICATE: v->certificate = arg; return 0;
    case OPT_NO_CERTIFICATE: v->no_certificate = true; return 0;
    case OPT_CHECK_ONLY: v->check_only = true; return 0;
    case OPT_REPORT: v->report = arg; return 0;
    case OPT_MODEL_CARD: o->model_card = true; return 0;
    case OPT_LAYERS: o->layers = true; return 0;
    case OPT_FORCE: v->force = true; return 0;
    case OPT_SIGN: v->sign = arg; return 0;
    case OPT_KEY: v->key = arg; return 0;
    default: return cli_argument(key, arg, state, slots, 1);
  }
}

static const struct argp_option own_options[] = {
    {"against", OPT_AGAINST, "MODEL", 0, "Compare every weight with the original's", 0},
    {"text", OPT_TEXT, "FILE", 0, "Compare both models' behaviour on a text, plain or gzip", 0},
    {"ctx", OPT_CTX, "N", 0, "Tokens of a window (default: 512)", 0},
    {"chunks", OPT_CHUNKS, "N", 0, "Stop after N windows", 0},
    {"int8", OPT_INT8, "weight-only|llm.int8", 0, "How int8 weights are multiplied (default: weight-only)", 0},
    {"profile", OPT_PROFILE, "strict|normal|loose", 0, "Thresholds for the behaviour (default: normal)", 1},
    {"max-kl", OPT_MAX_KL, "NATS", 0, "Largest mean KL divergence", 1},
    {"max-ppl-increase", OPT_MAX_PPL, "SHARE", 0, "Largest increase of perplexity: 0.05 or 5%", 1},
    {"min-top1", OPT_MIN_TOP1, "SHARE", 0,
     "Least share of tokens at which both find the same one likeliest: 0.95 or 95%", 1},
    {"certificate", OPT_CERTIFICATE, "FILE", 0,
     "Where the certificate stands (default: nibble.json in ARTIFACT, written with --against)", 2},
    {"no-certificate", OPT_NO_CERTIFICATE, NULL, 0, "Write none", 2},
    {"check-only", OPT_CHECK_ONLY, NULL, 0,
     "Measure nothing: are the files still the certified ones, and do the certificate's figures keep to its thresholds "
     "and to those given?",
     2},
    {"sign", OPT_SIGN, "KEY", 0, "Sign the certificate's file, in FILE.sig beside it; KEY: Ed25519 private key, PEM",
     2},
    {"key", OPT_KEY, "PUB", 0, "With --check-only: it must be signed by the owner of this public key, PEM", 2},
    {"report", OPT_REPORT, "FILE", 0, "Write an HTML page", 3},
    {"force", OPT_FORCE, NULL, 0, "Replace files of --certificate and --report that nibble did not write", 3},
    {"model-card", OPT_MODEL_CARD, NULL, 0, "Print a Markdown table for a model card", 3},
    {"layers", OPT_LAYERS, NULL, 0, "List the error of every weight, and with --text of every block", 3},
    {0},
};

static const struct argp argp = {
    .options = own_options,
    .parser = parse,
    .args_doc = "ARTIFACT",
    .doc =
        "Proves that an artifact is sound: every tensor there, every scale and code what a quantizer writes; with the "
        "original, that no weight is further from it than its format makes it; with a text, that it still speaks as "
        "the original does. Exits with 1 if it is not.\v"
        "Example: nibble verify ./SmolLM2-nf4 --against ./SmolLM2 --text wiki.test.txt --chunks 24 --report out.html",
};

static const char *const severities[] = {
    [NIBBLE_NOTE] = "note", [NIBBLE_WARNING] = "warning", [NIBBLE_FAULT] = "fault"};

static void print_findings(const nibble_verification *v) {
  for (size_t i = 0; i < v->finding_count; i++) {
    const nibble_finding *f = &v->findings[i];
    printf("%s: %s%s%s", severities[f->severity], f->tensor, *f->tensor ? ": " : "", f->text);
    if (f->block >= 0) printf(" (block %" PRId64 ")", f->block);
    if (f->index >= 0) printf(" (index %" PRId64 ")", f->index);
    if (*f->cause) printf(" [%s]", f->cause);
    printf("\n");
  }
  printf("%s: %zu fault%s, %zu warning%s\n", v->fault_count ? "FAILED" : "sound", v->fault_count,
         v->fault_count == 1 ? "" : "s", v->warning_count, v->warning_count == 1 ? "" : "s");
}

static void print_weights(const nibble_verification *v, bool all) {
  double worst = 0;
  const nibble_weight_error *w = v->weights;
  if (!v->weight_count) return;
  size_t at = 0;
  for (size_t i = 0; i < v->weight_count; i++) {
    if (w[i].relative_error > worst) worst = w[at = i].relative_error;
  }
  printf("weights: %zu compared in %.2f s, %zu flagged; the largest relative error is %.4g (%.1f dB), of %s\n",
         v->weight_count, v->weights_seconds, v->flagged_count, w[at].relative_error, w[at].snr_db, w[at].tensor);
  if (!all) return;
  printf("%-56s %-8s %10s %10s %8s %10s  %s\n", "weight", "format", "error", "expected", "SNR dB", "cosine", "largest");
  for (size_t i = 0; i < v->weight_count; i++)
    printf("%-56s %-8s %10.4g %10.4g %8.2f %10.7f  %.3g at [%" PRId64 ", %" PRId64 "]%s%s\n", w[i].tensor, w[i].format,
           w[i].relative_error, w[i].expected_error, w[i].snr_db, w[i].cosine, w[i].max_error, w[i].max_row,
           w[i].max_col, w[i].flagged ? "  FLAGGED " : "", w[i].cause);
}

static void print_behaviour(const nibble_behaviour *b, bool all) {
  char a[32], d[32], e[32];
  if (!b) return;
  printf("behaviour: %" PRId64 " tokens in %" PRId64 " window%s of %" PRId64 ", %.1f s\n", b->tokens, b->chunks,
         b->chunks == 1 ? "" : "s", b->ctx, b->seconds);
  printf("  perplexity      %.4f +- %.4f, original %.4f +- %.4f: %+.3f%% (95%%: %+.3f%% to %+.3f%%)\n", b->perplexity,
         b->perplexity_stderr, b->reference_perplexity, b->reference_perplexity_stderr, 100 * b->ppl_increase,
         100 * expm1(b->nll_difference_low), 100 * expm1(b->nll_difference_high));
  printf("  KL divergence   mean %.5g +- %.2g, 99%% %.5g, largest %.5g\n", b->kl_mean, b->kl_stderr, b->kl_p99,
         b->kl_max);
  printf("  agreement       likeliest token %.2f%%, of the five likeliest %.2f%%\n", 100 * b->top1_agreement,
         100 * b->top5_agreement);
  if (b->parting_block >= 0) {
    printf("  hidden states   part at block %" PRId64 " of %" PRId64 " (relative error %.3g)\n", b->parting_block,
           b->block_count - 1, b->block_errors[b->parting_block + 1]);
  } else {
    printf("  hidden states   stay together: relative error %.3g after the last block\n",
           b->block_errors[b->block_count - 1]);
  }
  printf("  memory          predicted %s, on disk %s, resident %s\n", cli_bytes(a, b->predicted_bytes),
         cli_bytes(d, b->file_bytes), cli_bytes(e, b->resident_bytes));
  if (!all) return;
  printf("%5s %32s %36s\n", "block", "relative error of its output", "mean KL if only it is replaced");
  for (int64_t i = 0; i < b->block_count - 1; i++) {
    printf("%5" PRId64 " %32.4g", i, b->block_errors[i + 1]);
    if (i < b->sensitivity_count) printf(" %36.4g", b->block_sensitivity[i]);
    printf("\n");
  }
}

/* "20.97%" of a share, "0.2468" of another figure. */
static const char *limit_value(char buffer[32], const nibble_limit *l, double value) {
  snprintf(buffer, 32, l->is_share ? "%.4g%%" : "%.4g", l->is_share ? 100 * value : value);
  return buffer;
}

/* The same of what was measured, where an increase has its sign: a perplexity may fall. */
static const char *limit_measured(char buffer[32], const nibble_limit *l) {
  if (!l->is_share || l->is_least) return limit_value(buffer, l, l->measured);
  snprintf(buffer, 32, "%+.4g%%", 100 * l->measured);
  return buffer;
}

/* "normal, nf4": a profile, and whose limits it took. */
static const char *limits_name(char buffer[64], const nibble_verification *v) {
  snprintf(buffer, 64, "%.30s%s%.30s", v->thresholds.profile, *v->limits_of ? ", " : "", v->limits_of);
  nibble_printable(buffer, "");
  return buffer;
}

static void print_limits(const nibble_verification *v) {
  char name[64], measured[32], limit[32];
  limits_name(name, v);
  printf("  limits (%s)%*s measured          limit   used\n", name, (int)(21 - strnlen(name, 20)), "");
  for (int i = 0; i < NIBBLE_LIMITS; i++) {
    const nibble_limit *l = &v->limits[i];
    printf("    %-27s %10s %5s %8s %5.0f%%%s\n", l->title, limit_measured(measured, l), l->is_least ? "least" : "most",
           limit_value(limit, l, l->limit), 100 * l->used, l->used <= 1 ? "" : "  MISSED");
  }
}

/* What is known of the certificate's signature: its name in JSON, and a sentence that a key's fingerprint may end. */
static const struct {
  const char *name, *sentence;
  bool names_key;
} signatures[] = {
    [NIBBLE_SIGNATURE_NONE] = {"none", "not signed", false},
    [NIBBLE_SIGNATURE_UNCHECKED] = {"unchecked", "signed, not checked: --key PUB does that", false},
    [NIBBLE_SIGNATURE_GOOD] = {"good", "signed by key SHA256:", true},
    [NIBBLE_SIGNATURE_BAD] = {"bad", "not signed by key SHA256:", true},
};

static void print_signature(const nibble_verification *v) {
  printf("%s%s", signatures[v->signature].sentence, signatures[v->signature].names_key ? v->key_sha256 : "");
}

static void print_certified(const nibble_verification *v) {
  const nibble_behaviour *b = v->behaviour;
  char name[CLI_NAME_ROOM];
  if (*v->depth)
    printf("certified: %s of %zu tensors, %zu packed weights\n", v->depth, v->tensors, v->packed_weights);
  else
    printf("the certificate is not looked into without the signature asked for\n");
  if (b) {
    printf("  on %s, %" PRId64 " tokens: mean KL %.5g, perplexity %.4f (%+.3f%%), likeliest token %.2f%%\n",
           cli_name(name, v->text), b->tokens, b->kl_mean, b->perplexity, 100 * b->ppl_increase,
           100 * b->top1_agreement);
    print_limits(v);
  }
  print_findings(v);
  if (v->fault_count) return;
  printf("the files are those of the certificate; it is ");
  print_signature(v);
  printf("\n");
}

static void print_text(const nibble_verification *v, bool layers) {
  char a[32];
  printf("structure: %zu tensors, %zu packed weights, %s in %.2f s\n", v->tensors, v->packed_weights,
         cli_bytes(a, v->tensor_bytes), v->structure_seconds);
  print_weights(v, layers);
  print_behaviour(v->behaviour, layers);
  if (v->behaviour) print_limits(v);
  print_findings(v);
  if (v->signature == NIBBLE_SIGNATURE_NONE) return;
  printf("the certificate is ");
  print_signature(v);
  printf("\n");
}

/* JSON has no infinity and no NaN: such a figure is null. */
static void add_figure(cJSON *json, const char *key, double value) {
  if (isfinite(value)) {
    cJSON_AddNumberToObject(json, key, value);
  } else {
    cJSON_AddNullToObject(json, key);
  }
}

static void add_weights(cJSON *json, const nibble_verification *v) {
  cJSON_AddNumberToObject(json, "weights_flagged", (double)v->flagged_count);
  cJSON_AddNumberToObject(json, "weights_seconds", v->weights_seconds);
  cJSON *list = cJSON_AddArrayToObject(json, "weights");
  for (size_t i = 0; i < v->weight_count; i++) {
    const nibble_weight_error *w = &v->weights[i];
    cJSON *item = cJSON_CreateObject();
    cJSON_AddStringToObject(item, "tensor", w->tensor);
    cJSON_AddStringToObject(item, "format", w->format);
    add_figure(item, "relative_error", w->relative_error);
    add_figure(item, "expected_error", w->expected_error);
    add_figure(item, "snr_db", w->snr_db);
    add_figure(item, "cosine", w->cosine);
    add_figure(item, "max_error", w->max_error);
    cJSON_AddNumberToObject(item, "max_row", (double)w->max_row);
    cJSON_AddNumberToObject(item, "max_col", (double)w->max_col);
    cJSON_AddNumberToObject(item, "damaged_blocks", (double)w->damaged_blocks);
    cJSON_AddBoolToObject(item, "flagged", w->flagged);
    cJSON_AddStringToObject(item, "cause", w->cause);
    if (*w->cause) add_figure(item, "cause_error", w->cause_error);
    cJSON_AddItemToArray(list, item);
  }
}

static void add_behaviour(cJSON *json, const nibble_verification *v) {
  const nibble_behaviour *b = v->behaviour;
  cJSON *to = cJSON_AddObjectToObject(json, "behaviour");
  cJSON_AddNumberToObject(to, "tokens", (double)b->tokens);
  cJSON_AddNumberToObject(to, "chunks", (double)b->chunks);
  cJSON_AddNumberToObject(to, "ctx", (double)b->ctx);
  add_figure(to, "perplexity", b->perplexity);
  add_figure(to, "perplexity_stderr", b->perplexity_stderr);
  add_figure(to, "reference_perplexity", b->reference_perplexity);
  add_figure(to, "reference_perplexity_stderr", b->reference_perplexity_stderr);
  add_figure(to, "nll_difference", b->nll_difference);
  add_figure(to, "nll_difference_low", b->nll_difference_low);
  add_figure(to, "nll_difference_high", b->nll_difference_high);
  add_figure(to, "ppl_increase", b->ppl_increase);
  add_figure(to, "kl_mean", b->kl_mean);
  add_figure(to, "kl_stderr", b->kl_stderr);
  add_figure(to, "kl_p99", b->kl_p99);
  add_figure(to, "kl_max", b->kl_max);
  add_figure(to, "top1_agreement", b->top1_agreement);
  add_figure(to, "top5_agreement", b->top5_agreement);
  cJSON *blocks = cJSON_AddArrayToObject(to, "block_errors");
  for (int64_t i = 0; i < b->block_count; i++) cJSON_AddItemToArray(blocks, cJSON_CreateNumber(b->block_errors[i]));
  cJSON *sensitivity = cJSON_AddArrayToObject(to, "block_sensitivity");
  for (int64_t i = 0; i < b->sensitivity_count; i++)
    cJSON_AddItemToArray(sensitivity, cJSON_CreateNumber(b->block_sensitivity[i]));
  cJSON_AddNumberToObject(to, "parting_block", (double)b->parting_block);
  cJSON_AddNumberToObject(to, "predicted_bytes", (double)b->predicted_bytes);
  cJSON_AddNumberToObject(to, "file_bytes", (double)b->file_bytes);
  cJSON_AddNumberToObject(to, "resident_bytes", (double)b->resident_bytes);
  cJSON_AddNumberToObject(to, "seconds", b->seconds);
  cJSON *limits = cJSON_AddObjectToObject(json, "thresholds");
  cJSON_AddStringToObject(limits, "profile", v->thresholds.profile);
  cJSON_AddStringToObject(limits, "limits_of", v->limits_of);
  cJSON_AddNumberToObject(limits, "max_kl", v->thresholds.max_kl);
  cJSON_AddNumberToObject(limits, "max_ppl_increase", v->thresholds.max_ppl_increase);
  cJSON_AddNumberToObject(limits, "min_top1", v->thresholds.min_top1);
  cJSON *shares = cJSON_AddObjectToObject(limits, "used");
  for (int i = 0; i < NIBBLE_LIMITS; i++) add_figure(shares, v->limits[i].figure, v->limits[i].used);
}

/* A name for a code span in a table: without what would end the span, the cell or, where HTML is taken, either. */
static const char *card_name(char buffer[CLI_NAME_ROOM], const char *name) {
  cli_name(buffer, name);
  for (char *c = buffer; (c = strpbrk(c, "`|<>"));) *c = '?';
  return buffer;
}

static void print_card_limits(const nibble_verification *v) {
  char name[CLI_NAME_ROOM], profile[64], measured[32], limit[32];
  printf("| limits (%s) | ", card_name(name, limits_name(profile, v)));
  for (int i = 0; i < NIBBLE_LIMITS; i++) {
    const nibble_limit *l = &v->limits[i];
    printf("%s%s %s, at %s %s: %.0f%% used", i ? "; " : "", l->title, limit_measured(measured, l),
           l->is_least ? "least" : "most", limit_value(limit, l, l->limit), 100 * l->used);
  }
  printf(" |\n");
}

static void print_card_behaviour(const nibble_verification *v) {
  const nibble_behaviour *b = v->behaviour;
  char name[CLI_NAME_ROOM];
  printf("| perplexity | %.4f +- %.4f (original %.4f +- %.4f; %+.2f%%) |\n", b->perplexity, b->perplexity_stderr,
         b->reference_perplexity, b->reference_perplexity_stderr, 100 * b->ppl_increase);
  printf("| KL divergence | mean %.5f, 99%% %.4f, largest %.3f |\n", b->kl_mean, b->kl_p99, b->kl_max);
  printf("| same likeliest token | %.2f%% (top five: %.2f%%) |\n", 100 * b->top1_agreement, 100 * b->top5_agreement);
  print_card_limits(v);
  printf("| text | `%s`, %" PRId64 " tokens, SHA-256 `%s` |\n", card_name(name, v->text), b->tokens, v->text_sha256);
}

/* Markdown, as a model card has it. */
static void print_card(const nibble_verification *v) {
  const nibble_behaviour *b = v->behaviour;
  char name[CLI_NAME_ROOM];
  printf("| check (nibble " NIBBLE_VERSION ") | result |\n| --- | --- |\n");
  printf("| verdict | %s (%s) |\n", v->fault_count ? "failed" : "sound", *v->depth ? v->depth : "signature");
  printf("| tensors | %zu, %zu packed weights |\n", v->tensors, v->packed_weights);
  double worst = 0, sum = 0;
  size_t inexact = 0;
  for (size_t i = 0; i < v->weight_count; i++) {
    worst = fmax(worst, v->weights[i].relative_error);
    sum += v->weights[i].relative_error;
    inexact += v->weights[i].relative_error > 0;
  }
  if (v->weight_count)
    printf("| weights against `%s` | %zu compared, %zu flagged; relative error %.4f on average, at most %.4f |\n",
           card_name(name, v->original), v->weight_count, v->flagged_count, inexact ? sum / (double)inexact : 0, worst);
  if (b) print_card_behaviour(v);
  if (v->signature == NIBBLE_SIGNATURE_GOOD) printf("| signed | Ed25519, key `SHA256:%s` |\n", v->key_sha256);
}

static void print_json(const nibble_verification *v) {
  cJSON *json = cJSON_CreateObject();
  cJSON_AddBoolToObject(json, "sound", v->fault_count == 0);
  cJSON_AddStringToObject(json, "depth", v->depth);
  cJSON_AddBoolToObject(json, "signed", v->signature == NIBBLE_SIGNATURE_GOOD);
  cJSON_AddStringToObject(json, "signature", signatures[v->signature].name);
  if (*v->key_sha256) cJSON_AddStringToObject(json, "key_sha256", v->key_sha256);
  cJSON_AddNumberToObject(json, "faults", (double)v->fault_count);
  cJSON_AddNumberToObject(json, "warnings", (double)v->warning_count);
  cJSON_AddNumberToObject(json, "tensors", (double)v->tensors);
  cJSON_AddNumberToObject(json, "packed_weights", (double)v->packed_weights);
  cJSON_AddNumberToObject(json, "tensor_bytes", (double)v->tensor_bytes);
  cJSON_AddNumberToObject(json, "structure_seconds", v->structure_seconds);
  cJSON_AddNumberToObject(json, "peak_rss_bytes", (double)nibble_peak_rss());
  cJSON *findings = cJSON_AddArrayToObject(json, "findings");
  for (size_t i = 0; i < v->finding_count; i++) {
    const nibble_finding *f = &v->findings[i];
    cJSON *item = cJSON_CreateObject();
    cJSON_AddStringToObject(item, "severity", severities[f->severity]);
    cJSON_AddStringToObject(item, "check", f->check);
    cJSON_AddStringToObject(item, "cause", f->cause);
    cJSON_AddStringToObject(item, "tensor", f->tensor);
    if (f->block >= 0) cJSON_AddNumberToObject(item, "block", (double)f->block);
    if (f->index >= 0) cJSON_AddNumberToObject(item, "index", (double)f->index);
    cJSON_AddNumberToObject(item, "count", (double)f->count);
    cJSON_AddStringToObject(item, "text", f->text);
    cJSON_AddItemToArray(findings, item);
  }
  if (v->weight_count) add_weights(json, v);
  if (v->behaviour) add_behaviour(json, v);
  cli_print_json(json);
}

int cli_verify(int argc, char **argv) {
  options o = {.common = {.runs_model = true, .makes_files = true}};
  cli_parse(&argp, argc, argv, &o);
  o.verify.size = sizeof o.verify;
  o.verify.context = o.common.context;
  o.verify.progress = o.common.progress;
  o.verify.sensitivity = o.layers || o.common.json;
  nibble_verification *result;
  nibble_error err;
  nibble_status status = nibble_verify(&o.verify, &result, &err);
  if (result && o.common.json) {
    print_json(result);
  } else if (result && o.model_card) {
    print_card(result);
  } else if (result && o.verify.check_only) {
    print_certified(result);
  } else if (result) {
    print_text(result, o.layers);
  }
  nibble_verification_free(result);
  return cli_finish(status, &err);
}
