/* nibble convert SRC DST */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

typedef struct options {
  cli_common common;
  nibble_convert_options convert;
} options;

enum { OPT_TO = 0x100, OPT_DTYPE, OPT_SHARD, OPT_DEQUANTIZE, OPT_LAYOUT, OPT_FORCE, OPT_NO_SYNC };

static error_t parse(int key, char *arg, struct argp_state *state) {
  options *o = state->input;
  const char **slots[] = {&o->convert.src, &o->convert.dst};
  switch (key) {
    case OPT_TO:
      if (strcmp(arg, "hf") != 0) argp_error(state, "--to %s: only hf can be written", arg);
      return 0;
    case OPT_DTYPE: o->convert.dtype = arg; return 0;
    case OPT_SHARD: o->convert.max_shard_size = cli_size(state, "--max-shard-size", arg); return 0;
    case OPT_DEQUANTIZE: o->convert.dequantize = true; return 0;
    case OPT_LAYOUT: o->convert.layout = arg; return 0;
    case OPT_FORCE: o->convert.force = true; return 0;
    case OPT_NO_SYNC: o->convert.no_sync = true; return 0;
    default: return cli_argument(key, arg, state, slots, 2);
  }
}

static const struct argp_option own_options[] = {
    {"to", OPT_TO, "hf", 0, "A Hugging Face folder with safetensors (the default, and so far the only one)", 0},
    {"dtype", OPT_DTYPE, "DTYPE", 0,
     "float32, float16, bfloat16 or keep (default: keep; bfloat16 from a .gguf with block formats)", 0},
    {"max-shard-size", OPT_SHARD, "SIZE", 0, "Largest file (default: 5GB)", 0},
    {"dequantize", OPT_DEQUANTIZE, NULL, 0, "Make packed weights float again", 0},
    {"layout", OPT_LAYOUT, "NAME", 0, "Rewrite GPTQ's zero points as gptq or gptq_v2 has them", 0},
    {"force", OPT_FORCE, NULL, 0, "Replace DST if it exists", 0},
    {"no-sync", OPT_NO_SYNC, NULL, 0, "Do not wait for the disk", 0},
    {0},
};

static const struct argp argp = {
    .options = own_options,
    .parser = parse,
    .args_doc = "SRC DST",
    .doc =
        "Rewrites a checkpoint as a Hugging Face folder: tensors as safetensors, config, tokenizer and all else that "
        "belongs to it, and a nibble.json with the hash of every source tensor. SRC is a folder with safetensors or "
        "pytorch_model.bin, a .gguf, or one file of these.\v"
        "Example: nibble convert SmolLM2-135M-Instruct.Q4_1.gguf ./smollm2\n"
        "Example: nibble convert ./smollm2-gptq ./smollm2-gptq-v2 --layout gptq_v2",
};

int cli_convert(int argc, char **argv) {
  options o = {.common.makes_files = true};
  cli_parse(&argp, argc, argv, &o);
  o.convert.size = sizeof o.convert;
  o.convert.context = o.common.context;
  o.convert.progress = o.common.progress;
  nibble_convert_result result = {.size = sizeof result};
  nibble_error err;
  nibble_status status = nibble_convert(&o.convert, &result, &err);
  if (status == NIBBLE_OK && o.common.json) {
    cJSON *json = cJSON_CreateObject();
    cJSON_AddNumberToObject(json, "tensors", (double)result.tensors);
    cJSON_AddStringToObject(json, "dtype", result.dtype);
    cJSON_AddNumberToObject(json, "overflowed_tensors", (double)result.overflowed);
    cJSON_AddNumberToObject(json, "source_bytes", (double)result.source_bytes);
    cJSON_AddNumberToObject(json, "file_bytes", (double)result.tensor_bytes);
    cJSON_AddNumberToObject(json, "seconds", result.seconds);
    cJSON_AddNumberToObject(json, "peak_rss_bytes", (double)nibble_peak_rss());
    cli_print_json(json);
  } else if (status == NIBBLE_OK) {
    char a[32], b[32], c[32], dst[CLI_NAME_ROOM];
    printf("%s: %zu tensors (dtype: %s), %s from %s in %.1f s, peak memory %s\n", cli_name(dst, o.convert.dst),
           result.tensors, result.dtype, cli_bytes(a, result.tensor_bytes), cli_bytes(b, result.source_bytes),
           result.seconds, cli_bytes(c, nibble_peak_rss()));
  }
  return cli_finish(status, &err);
}
