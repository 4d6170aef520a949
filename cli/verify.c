/* nibble verify ARTIFACT */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

typedef struct options {
  cli_common common;
  nibble_verify_options verify;
} options;

static error_t parse(int key, char *arg, struct argp_state *state) {
  options *o = state->input;
  const char **slots[] = {&o->verify.artifact};
  switch (key) {
    case ARGP_KEY_ARG:
      if (!cli_take_argument(slots, 1, arg)) argp_error(state, "one ARTIFACT at a time");
      return 0;
    case ARGP_KEY_END:
      if (!o->verify.artifact) argp_error(state, "an ARTIFACT is missing");
      return 0;
    default: return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp_option own_options[] = {{0}};

static const struct argp argp = {
    .options = own_options,
    .parser = parse,
    .args_doc = "ARTIFACT",
    .doc =
        "Checks that an artifact can be sound: every tensor there, every scale and code what a quantizer writes. Exits "
        "with 1 if it is not.\v"
        "Example: nibble verify ./SmolLM2-135M-Instruct-nf4",
};

static const char *const severities[] = {
    [NIBBLE_NOTE] = "note", [NIBBLE_WARNING] = "warning", [NIBBLE_FAULT] = "fault"};

static void print_text(const nibble_verification *v) {
  char a[32];
  printf("structure: %zu tensors, %zu packed weights, %s in %.2f s\n", v->tensors, v->packed_weights,
         cli_bytes(a, v->tensor_bytes), v->structure_seconds);
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
    print_text(result);
  }
  nibble_verification_free(result);
  return cli_finish(status, &err);
}
