/* nibble memory MODEL|config.json */
#include <inttypes.h>
#include <stdio.h>

#include "cli/cli.h"

typedef struct options {
  cli_common common;
  nibble_memory_options memory;
  uint64_t budget; /* bytes; 0: none */
} options;

enum { OPT_CTX = 0x100, OPT_BATCH, OPT_BUDGET };

static error_t parse(int key, char *arg, struct argp_state *state) {
  options *o = state->input;
  const char **slots[] = {&o->memory.model};
  switch (key) {
    case OPT_CTX: o->memory.ctx = cli_int(state, "--ctx", arg, 1, 1 << 30); return 0;
    case OPT_BATCH: o->memory.batch = cli_int(state, "--batch", arg, 1, 1 << 20); return 0;
    case OPT_BUDGET: o->budget = cli_size(state, "--budget", arg); return 0;
    default: return cli_argument(key, arg, state, slots, 1);
  }
}

static const struct argp_option own_options[] = {
    {"ctx", OPT_CTX, "N", 0, "Tokens of context (default: 2048, or the model's limit)", 0},
    {"batch", OPT_BATCH, "N", 0, "Sequences at a time (default: 1)", 0},
    {"budget", OPT_BUDGET, "SIZE", 0, "Say which formats fit, for example 24GiB", 0},
    {0},
};

static const struct argp argp = {
    .options = own_options,
    .parser = parse,
    .args_doc = "MODEL|config.json",
    .doc =
        "Predicts the memory that a model needs in each format. No weights are needed.\v"
        "Example: nibble memory config.json --ctx 8192 --budget 24GiB",
};

static void print_text(const nibble_memory_result *r, uint64_t budget) {
  char a[32], b[32], c[32], d[32];
  printf("%s: %" PRId64 " parameters, %" PRId64 " of them in linear layers; ctx %" PRId64 ", batch %" PRId64 "\n",
         r->model_type, r->parameters, r->quantizable_parameters, r->ctx, r->batch);
  printf("%-18s %10s %10s %12s %10s%s\n", "format", "weights", "KV cache", "activations", "total",
         budget ? "  fits" : "");
  for (size_t i = 0; i < r->row_count; i++) {
    const nibble_memory_row *row = &r->rows[i];
    printf("%-18s %10s %10s %12s %10s%s\n", row->format, cli_bytes(a, row->weight_bytes),
           cli_bytes(b, row->kv_cache_bytes), cli_bytes(c, row->activation_bytes), cli_bytes(d, row->total_bytes),
           !budget                      ? ""
           : row->total_bytes <= budget ? "  yes"
                                        : "  no");
  }
}

static void print_json(const nibble_memory_result *r, uint64_t budget) {
  cJSON *json = cJSON_CreateObject();
  cJSON_AddStringToObject(json, "model_type", r->model_type);
  cJSON_AddNumberToObject(json, "parameters", (double)r->parameters);
  cJSON_AddNumberToObject(json, "quantizable_parameters", (double)r->quantizable_parameters);
  cJSON_AddNumberToObject(json, "ctx", (double)r->ctx);
  cJSON_AddNumberToObject(json, "batch", (double)r->batch);
  cJSON *rows = cJSON_AddArrayToObject(json, "formats");
  for (size_t i = 0; i < r->row_count; i++) {
    cJSON *row = cJSON_CreateObject();
    cJSON_AddStringToObject(row, "format", r->rows[i].format);
    cJSON_AddNumberToObject(row, "weight_bytes", (double)r->rows[i].weight_bytes);
    cJSON_AddNumberToObject(row, "kv_cache_bytes", (double)r->rows[i].kv_cache_bytes);
    cJSON_AddNumberToObject(row, "activation_bytes", (double)r->rows[i].activation_bytes);
    cJSON_AddNumberToObject(row, "total_bytes", (double)r->rows[i].total_bytes);
    if (budget) cJSON_AddBoolToObject(row, "fits", r->rows[i].total_bytes <= budget);
    cJSON_AddItemToArray(rows, row);
  }
  cli_print_json(json);
}

int cli_memory(int argc, char **argv) {
  options o = {0};
  cli_parse(&argp, argc, argv, &o);
  o.memory.size = sizeof o.memory;
  o.memory.context = o.common.context;
  nibble_memory_result result = {.size = sizeof result};
  nibble_error err;
  nibble_status status = nibble_memory(&o.memory, &result, &err);
  if (status == NIBBLE_OK) {
    if (o.common.json) {
      print_json(&result, o.budget);
    } else {
      print_text(&result, o.budget);
    }
  }
  return cli_finish(status, &err);
}
