/* nibble verify ARTIFACT [--against MODEL] */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

typedef struct options {
  cli_common common;
  nibble_verify_options verify;
  bool layers;
} options;

enum { OPT_AGAINST = 0x100, OPT_LAYERS };

static error_t parse(int key, char *arg, struct argp_state *state) {
  options *o = state->input;
  const char **slots[] = {&o->verify.artifact};
  switch (key) {
    case OPT_AGAINST: o->verify.against = arg; return 0;
    case OPT_LAYERS: o->layers = true; return 0;
    default: return cli_argument(key, arg, state, slots, 1);
  }
}

static const struct argp_option own_options[] = {
    {"against", OPT_AGAINST, "MODEL", 0, "Compare every weight with the original's", 0},
    {"layers", OPT_LAYERS, NULL, 0, "List the error of every weight", 0},
    {0},
};

static const struct argp argp = {
    .options = own_options,
    .parser = parse,
    .args_doc = "ARTIFACT",
    .doc =
        "Checks that an artifact is sound: every tensor there, every scale and code what a quantizer writes; with the "
        "original, that no weight is further from it than its format makes it. Exits with 1 if it is not.\v"
        "Example: nibble verify ./SmolLM2-135M-Instruct-nf4 --against ./SmolLM2-135M-Instruct",
};

static const char *const severities[] = {
    [NIBBLE_NOTE] = "note", [NIBBLE_WARNING] = "warning", [NIBBLE_FAULT] = "fault"};

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

static void print_text(const nibble_verification *v, bool layers) {
  char a[32];
  printf("structure: %zu tensors, %zu packed weights, %s in %.2f s\n", v->tensors, v->packed_weights,
         cli_bytes(a, v->tensor_bytes), v->structure_seconds);
  print_weights(v, layers);
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

static void print_json(const nibble_verification *v) {
  cJSON *json = cJSON_CreateObject();
  cJSON_AddBoolToObject(json, "sound", v->fault_count == 0);
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
  cli_print_json(json);
}

int cli_verify(int argc, char **argv) {
  options o = {0};
  cli_parse(&argp, argc, argv, &o);
  o.verify.progress = o.common.progress;
  nibble_verification *result;
  nibble_error err;
  nibble_status status = nibble_verify(&o.verify, &result, &err);
  if (result && o.common.json) {
    print_json(result);
  } else if (result) {
    print_text(result, o.layers);
  }
  nibble_verification_free(result);
  return cli_finish(status, &err);
}
