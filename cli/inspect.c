/* nibble inspect MODEL */
#include <inttypes.h>
#include <stdio.h>

#include "cli/cli.h"

typedef struct options {
  cli_common common;
  const char *model;
  bool tensors;
} options;

static error_t parse(int key, char *arg, struct argp_state *state) {
  options *o = state->input;
  const char **slots[] = {&o->model};
  switch (key) {
    case 't': o->tensors = true; return 0;
    default: return cli_argument(key, arg, state, slots, 1);
  }
}

static const struct argp_option own_options[] = {
    {"tensors", 't', NULL, 0, "List every tensor", 0},
    {0},
};

static const struct argp argp = {
    .options = own_options,
    .parser = parse,
    .args_doc = "MODEL",
    .doc =
        "Shows what a checkpoint holds: architecture, tensors, packed formats, totals.\v"
        "Example: nibble inspect ./SmolLM2-135M-Instruct --tensors",
};

static void format_shape(const nibble_tensor_info *t, char *out, size_t room) {
  size_t used = 0;
  out[0] = 0;
  for (int i = 0; i < t->ndim && used < room; i++)
    used += (size_t)snprintf(out + used, room - used, "%s%" PRId64, i ? "x" : "", t->shape[i]);
  if (t->ndim == 0) snprintf(out, room, "scalar");
}

static void print_text(const nibble_inspection *in, bool tensors) {
  char a[32], b[32];
  printf("%s%s%s, %s%s%s%s\n", *in->architecture ? in->architecture : "unknown architecture",
         *in->model_type ? " / " : "", in->model_type, in->kind,
         in->known_family ? "" : ", a family that nibble has no table for", *in->quant_method ? ", packed by " : "",
         in->quant_method);
  if (tensors) {
    for (size_t i = 0; i < in->tensor_count; i++) {
      const nibble_tensor_info *t = &in->tensors[i];
      char shape[128];
      format_shape(t, shape, sizeof shape);
      printf("%-60s %-8s %-8s %16s %12" PRIu64 "  %s\n", t->name, t->dtype, t->format, shape, t->bytes, t->file);
    }
  }
  printf("%-8s %8s %16s %12s %12s\n", "format", "tensors", "parameters", "bytes", "bits/weight");
  for (size_t i = 0; i < in->format_count; i++) {
    const nibble_format_total *f = &in->formats[i];
    printf("%-8s %8zu %16" PRId64 " %12s %12.3f\n", f->format, f->tensors, f->parameters, cli_bytes(a, f->bytes),
           f->parameters ? 8.0 * (double)f->bytes / (double)f->parameters : 0.0);
  }
  printf("%zu tensors, %" PRId64 " parameters, %s of weights in files of %s\n", in->tensor_count, in->parameters,
         cli_bytes(a, in->tensor_bytes), cli_bytes(b, in->file_bytes));
  if (in->known_family && (in->missing_count || in->extra_count)) {
    printf("against the config: %zu missing, %zu it does not name\n", in->missing_count, in->extra_count);
    for (size_t i = 0; i < in->missing_listed; i++) printf("  missing: %s\n", in->missing[i]);
  }
}

static cJSON *tensor_json(const nibble_tensor_info *t) {
  cJSON *json = cJSON_CreateObject(), *shape = cJSON_AddArrayToObject(json, "shape");
  cJSON_AddStringToObject(json, "name", t->name);
  cJSON_AddStringToObject(json, "dtype", t->dtype);
  cJSON_AddStringToObject(json, "format", t->format);
  for (int i = 0; i < t->ndim; i++) cJSON_AddItemToArray(shape, cJSON_CreateNumber((double)t->shape[i]));
  cJSON_AddNumberToObject(json, "bytes", (double)t->bytes);
  cJSON_AddStringToObject(json, "file", t->file);
  return json;
}

static void print_json(const nibble_inspection *in) {
  cJSON *json = cJSON_CreateObject();
  cJSON_AddStringToObject(json, "architecture", in->architecture);
  cJSON_AddStringToObject(json, "model_type", in->model_type);
  cJSON_AddStringToObject(json, "kind", in->kind);
  cJSON_AddBoolToObject(json, "known_family", in->known_family);
  cJSON_AddBoolToObject(json, "runnable", in->runnable);
  cJSON_AddStringToObject(json, "quant_method", in->quant_method);
  cJSON_AddNumberToObject(json, "parameters", (double)in->parameters);
  cJSON_AddNumberToObject(json, "weight_bytes", (double)in->tensor_bytes);
  cJSON_AddNumberToObject(json, "file_bytes", (double)in->file_bytes);
  cJSON_AddNumberToObject(json, "missing", (double)in->missing_count);
  cJSON_AddNumberToObject(json, "extra", (double)in->extra_count);
  cJSON_AddNumberToObject(json, "peak_rss_bytes", (double)nibble_peak_rss());
  cJSON *formats = cJSON_AddArrayToObject(json, "formats");
  for (size_t i = 0; i < in->format_count; i++) {
    cJSON *f = cJSON_CreateObject();
    cJSON_AddStringToObject(f, "format", in->formats[i].format);
    cJSON_AddNumberToObject(f, "tensors", (double)in->formats[i].tensors);
    cJSON_AddNumberToObject(f, "parameters", (double)in->formats[i].parameters);
    cJSON_AddNumberToObject(f, "bytes", (double)in->formats[i].bytes);
    cJSON_AddItemToArray(formats, f);
  }
  cJSON *tensors = cJSON_AddArrayToObject(json, "tensors");
  for (size_t i = 0; i < in->tensor_count; i++) cJSON_AddItemToArray(tensors, tensor_json(&in->tensors[i]));
  cli_print_json(json);
}

int cli_inspect(int argc, char **argv) {
  options o = {0};
  cli_parse(&argp, argc, argv, &o);
  nibble_inspect_options inspect = {.size = sizeof inspect, .context = o.common.context, .model = o.model};
  nibble_inspection *in;
  nibble_error err;
  nibble_status status = nibble_inspect(&inspect, &in, &err);
  if (status == NIBBLE_OK) {
    if (o.common.json) {
      print_json(in);
    } else {
      print_text(in, o.tensors);
    }
    nibble_inspection_free(in);
  }
  return cli_finish(status, &err);
}
