/* nibble quantize SRC DST --method nf4|fp4|int8|gptq|rtn */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

typedef struct options {
  cli_common common;
  nibble_quantize_options quantize;
  bool has_seed; /* 0 is one, too */
} options;

enum {
  OPT_METHOD = 0x100,
  OPT_DOUBLE,
  OPT_BLOCK,
  OPT_BITS,
  OPT_GROUP,
  OPT_SYM,
  OPT_ASYM,
  OPT_MSE,
  OPT_NO_MSE,
  OPT_SCALE_DTYPE,
  OPT_LAYOUT,
  OPT_DESC_ACT,
  OPT_DAMP,
  OPT_CALIB,
  OPT_NSAMPLES,
  OPT_SEQLEN,
  OPT_SAMPLING,
  OPT_SEED,
  OPT_MAX_MEMORY,
  OPT_WORK_DIR,
  OPT_RESUME,
  OPT_INCLUDE,
  OPT_EXCLUDE,
  OPT_REQUANTIZE,
  OPT_UNKNOWN_FAMILY,
  OPT_SHARD,
  OPT_FORCE,
  OPT_NO_SYNC
};

static error_t parse(int key, char *arg, struct argp_state *state) {
  options *o = state->input;
  nibble_quantize_options *q = &o->quantize;
  const char **slots[] = {&q->src, &q->dst};
  switch (key) {
    case OPT_METHOD: q->method = arg; return 0;
    case OPT_DOUBLE: q->double_quant = true; return 0;
    case OPT_BLOCK: q->block_size = cli_int(state, "--block-size", arg, 32, 4096); return 0;
    case OPT_BITS: q->bits = (int)cli_int(state, "--bits", arg, 2, 8); return 0;
    case OPT_GROUP:
      q->group_size = cli_int(state, "--group-size", arg, -1, 1 << 20);
      if (q->group_size == 0) argp_error(state, "--group-size 0: -1, 32, 64 or 128 is wanted");
      return 0;
    case OPT_SYM: q->zeros = NIBBLE_ZEROS_MIDDLE; return 0;
    case OPT_ASYM: q->zeros = NIBBLE_ZEROS_FITTED; return 0;
    case OPT_MSE: q->scales = NIBBLE_SCALES_SEARCHED; return 0;
    case OPT_NO_MSE: q->scales = NIBBLE_SCALES_MIN_MAX; return 0;
    case OPT_SCALE_DTYPE: q->scale_dtype = arg; return 0;
    case OPT_LAYOUT: q->layout = arg; return 0;
    case OPT_DESC_ACT: q->desc_act = true; return 0;
    case OPT_DAMP: q->damp = cli_double(state, "--damp", arg, 1e-6, 0.999); return 0;
    case OPT_CALIB: q->calib = arg; return 0;
    case OPT_NSAMPLES: q->nsamples = cli_int(state, "--nsamples", arg, 1, 1 << 20); return 0;
    case OPT_SEQLEN: q->seqlen = cli_int(state, "--seqlen", arg, 1, 1 << 20); return 0;
    case OPT_SAMPLING:
      if (strcmp(arg, "first") != 0 && strcmp(arg, "random") != 0)
        argp_error(state, "--sampling %s: first or random is wanted", arg);
      q->sampling = strcmp(arg, "random") == 0 ? NIBBLE_SAMPLING_RANDOM : NIBBLE_SAMPLING_FIRST;
      return 0;
    case OPT_SEED:
      q->seed = (uint64_t)cli_int(state, "--seed", arg, 0, INT64_MAX);
      o->has_seed = true;
      return 0;
    case OPT_MAX_MEMORY: q->max_memory = cli_size(state, "--max-memory", arg); return 0;
    case OPT_WORK_DIR: q->work_dir = arg; return 0;
    case OPT_RESUME: q->resume = true; return 0;
    case OPT_INCLUDE: q->include = arg; return 0;
    case OPT_EXCLUDE: q->exclude = arg; return 0;
    case OPT_REQUANTIZE: q->requantize = true; return 0;
    case OPT_UNKNOWN_FAMILY: q->unknown_family = true; return 0;
    case OPT_SHARD: q->max_shard_size = cli_size(state, "--max-shard-size", arg); return 0;
    case OPT_FORCE: q->force = true; return 0;
    case OPT_NO_SYNC: q->no_sync = true; return 0;
    case ARGP_KEY_END:
      if (!q->method) argp_error(state, "--method is missing");
      if (o->has_seed && q->sampling != NIBBLE_SAMPLING_RANDOM)
        argp_error(state, "--seed draws windows for --sampling random; without that nothing is drawn");
      return cli_argument(key, arg, state, slots, 2);
    default: return cli_argument(key, arg, state, slots, 2);
  }
}

static const struct argp_option own_options[] = {
    {"method", OPT_METHOD, "METHOD", 0,
     "nf4, fp4 (4 bits, a scale a block), int8 (a scale a row), gptq (2 to 8 bits, calibrated) or rtn (the same, not "
     "calibrated)",
     0},
    {"double-quant", OPT_DOUBLE, NULL, 0, "nf4, fp4: quantize the scales too, to 8 bits", 0},
    {"block-size", OPT_BLOCK, "N", 0, "nf4, fp4: weights a block, a power of two (default: 64)", 0},
    {"bits", OPT_BITS, "N", 0, "gptq, rtn: 2, 3, 4 or 8 (default: 4)", 0},
    {"group-size", OPT_GROUP, "N", 0, "gptq, rtn: weights of a row that share a scale; -1: all (default: 128)", 0},
    {"sym", OPT_SYM, NULL, 0, "gptq, rtn: the zero point stands in the middle (default)", 0},
    {"asym", OPT_ASYM, NULL, 0, "gptq, rtn: the zero point stands where it fits best", 0},
    {"mse", OPT_MSE, NULL, 0, "gptq, rtn: search for the scales that make the least error (gptq: the default)", 0},
    {"no-mse", OPT_NO_MSE, NULL, 0, "gptq, rtn: scales that span the least and largest weight (rtn: the default)", 0},
    {"scale-dtype", OPT_SCALE_DTYPE, "DTYPE", 0, "gptq, rtn: float16 (default) or bfloat16", 0},
    {"layout", OPT_LAYOUT, "NAME", 0, "gptq, rtn: gptq (default) or gptq_v2", 0},
    {"calib", OPT_CALIB, "FILE", 0, "gptq: calibration text, plain or gzip, or JSON lines with \"text\"", 0},
    {"nsamples", OPT_NSAMPLES, "N", 0, "gptq: windows of calibration text (default: 128)", 0},
    {"seqlen", OPT_SEQLEN, "N", 0, "gptq: tokens a window (default: 2048, or what the model can)", 0},
    {"sampling", OPT_SAMPLING, "HOW", 0, "gptq: windows from the text's start: first (default), or random ones", 0},
    {"seed", OPT_SEED, "N", 0, "gptq: draws the random windows", 0},
    {"desc-act", OPT_DESC_ACT, NULL, 0, "gptq: cut groups in the order of activations (act-order)", 0},
    {"damp", OPT_DAMP, "P", 0, "gptq: damping, a part of the mean diagonal (default: 0.05)", 0},
    {"max-memory", OPT_MAX_MEMORY, "SIZE", 0, "gptq: activations to hold in memory; more go to a file (default: 1GiB)",
     0},
    {"work-dir", OPT_WORK_DIR, "DIR", 0, "gptq: keeps finished layers until the end (default: DST.work)", 0},
    {"resume", OPT_RESUME, NULL, 0, "gptq: go on where a killed run stopped", 0},
    {"include", OPT_INCLUDE, "REGEX", 0, "Quantize untied output embeddings whose names match, too", 0},
    {"exclude", OPT_EXCLUDE, "REGEX", 0, "Keep weights whose names match as they are", 0},
    {"unknown-family", OPT_UNKNOWN_FAMILY, NULL, 0,
     "Quantize a model whose family is not known: which weights are linear layers' is guessed by their names", 0},
    {"requantize", OPT_REQUANTIZE, NULL, 0, "Dequantize a packed source first, instead of refusing it", 0},
    {"max-shard-size", OPT_SHARD, "SIZE", 0, "Largest file (default: 50GB)", 0},
    {"force", OPT_FORCE, NULL, 0, "Replace DST if it exists", 0},
    {"no-sync", OPT_NO_SYNC, NULL, 0, "Do not wait for the disk", 0},
    {0},
};

static const struct argp argp = {
    .options = own_options,
    .parser = parse,
    .args_doc = "SRC DST",
    .doc =
        "Quantizes the linear layers of a model to what transformers loads with bitsandbytes or GPTQModel.\v"
        "Example: nibble quantize ./SmolLM2-135M ./SmolLM2-135M-nf4 --method nf4 --double-quant\n"
        "Example: nibble quantize ./SmolLM2-135M ./SmolLM2-135M-gptq --method gptq --calib text.txt.gz",
};

static void print_json(const nibble_quantize_options *o, const nibble_quantize_result *r) {
  cJSON *json = cJSON_CreateObject();
  cJSON_AddStringToObject(json, "method", o->method);
  cJSON_AddNumberToObject(json, "parameters", (double)r->parameters);
  cJSON_AddNumberToObject(json, "quantized_parameters", (double)r->quantized_parameters);
  cJSON_AddNumberToObject(json, "quantized_tensors", (double)r->quantized_tensors);
  cJSON_AddNumberToObject(json, "source_bytes", (double)r->source_bytes);
  cJSON_AddNumberToObject(json, "file_bytes", (double)r->file_bytes);
  cJSON_AddNumberToObject(json, "relative_error", r->relative_error);
  cJSON_AddNumberToObject(json, "worst_relative_error", r->worst_relative_error);
  cJSON_AddStringToObject(json, "worst_tensor", r->worst_tensor);
  cJSON *worst = r->worst_layer_count > 0 ? cJSON_AddArrayToObject(json, "worst_layers") : NULL;
  for (int i = 0; worst && i < r->worst_layer_count; i++) {
    cJSON *layer = cJSON_CreateObject();
    cJSON_AddStringToObject(layer, "tensor", r->worst_layers[i].tensor);
    cJSON_AddNumberToObject(layer, "output_error", r->worst_layers[i].error);
    cJSON_AddNumberToObject(layer, "output_error_rtn", r->worst_layers[i].rtn_error);
    cJSON_AddItemToArray(worst, layer);
  }
  cJSON_AddNumberToObject(json, "seconds", r->seconds);
  cJSON_AddNumberToObject(json, "parameters_per_second", (double)r->parameters / r->seconds);
  cJSON_AddNumberToObject(json, "peak_rss_bytes", (double)nibble_peak_rss());
  cli_print_json(json);
}

static void print_table(const nibble_quantize_options *o, const nibble_quantize_result *r) {
  char bytes[32], name[64];
  snprintf(name, sizeof name, "%s%s", o->method, o->double_quant ? " with double quantization" : "");
  printf("%-16s %s\n", "method", name);
  printf("%-16s %" PRId64 " of %" PRId64 " parameters, in %" PRId64 " tensors\n", "quantized", r->quantized_parameters,
         r->parameters, r->quantized_tensors);
  printf("%-16s %s\n", "bytes before", cli_bytes(bytes, r->source_bytes));
  printf("%-16s %s\n", "bytes after", cli_bytes(bytes, r->file_bytes));
  printf("%-16s %.4f, at worst %.4f (%s)\n", "relative error", r->relative_error, r->worst_relative_error,
         r->worst_tensor);
  printf("%-16s %.2f s, %.0f million parameters/s\n", "time", r->seconds, (double)r->parameters / r->seconds * 1e-6);
  printf("%-16s %s\n", "peak memory", cli_bytes(bytes, nibble_peak_rss()));
  if (r->worst_layer_count == 0) return;
  printf("\n%-12s %-12s %s\n", "output error", "if rounded", "layers with the largest");
  for (int i = 0; i < r->worst_layer_count; i++) {
    const nibble_layer_error *layer = &r->worst_layers[i];
    printf("%-12.4f %-12.4f %s\n", layer->error, layer->rtn_error, layer->tensor);
  }
}

int cli_quantize(int argc, char **argv) {
  options o = {.common = {.runs_model = true, .makes_files = true}};
  cli_parse(&argp, argc, argv, &o);
  o.quantize.size = sizeof o.quantize;
  o.quantize.context = o.common.context;
  o.quantize.progress = o.common.progress;
  nibble_quantize_result result = {.size = sizeof result};
  nibble_error err;
  nibble_status status = nibble_quantize(&o.quantize, &result, &err);
  if (status == NIBBLE_OK && o.common.json) {
    print_json(&o.quantize, &result);
  } else if (status == NIBBLE_OK) {
    print_table(&o.quantize, &result);
  }
  return cli_finish(status, &err);
}
