/* nibble init CONFIG DST */
#include <inttypes.h>
#include <stdio.h>

#include "cli/cli.h"

typedef struct options {
  cli_common common;
  nibble_init_options init;
} options;

enum { OPT_SEED = 0x100, OPT_DTYPE, OPT_SHARD, OPT_FORCE, OPT_NO_SYNC };

static error_t parse(int key, char *arg, struct argp_state *state) {
  options *o = state->input;
  const char **slots[] = {&o->init.config, &o->init.dst};
  switch (key) {
    case OPT_SEED: o->init.seed = (uint64_t)cli_int(state, "--seed", arg, 0, INT64_MAX); return 0;
    case OPT_DTYPE: o->init.dtype = arg; return 0;
    case OPT_SHARD: o->init.max_shard_size = cli_size(state, "--max-shard-size", arg); return 0;
    case OPT_FORCE: o->init.force = true; return 0;
    case OPT_NO_SYNC: o->init.no_sync = true; return 0;
    default: return cli_argument(key, arg, state, slots, 2);
  }
}

static const struct argp_option own_options[] = {
    {"seed", OPT_SEED, "N", 0, "Other weights for another N (default: 0)", 0},
    {"dtype", OPT_DTYPE, "DTYPE", 0, "float32, float16 or bfloat16 (default: the config's)", 0},
    {"max-shard-size", OPT_SHARD, "SIZE", 0, "Largest file (default: 5GB)", 0},
    {"force", OPT_FORCE, NULL, 0, "Replace DST if it exists", 0},
    {"no-sync", OPT_NO_SYNC, NULL, 0, "Do not wait for the disk", 0},
    {0},
};

static const struct argp argp = {
    .options = own_options,
    .parser = parse,
    .args_doc = "CONFIG DST",
    .doc =
        "Writes a model of the given config.json with random weights, as a stream.\v"
        "Example: nibble init config.json ./made-up --dtype bfloat16 --seed 1",
};

int cli_init(int argc, char **argv) {
  options o = {.common.makes_files = true};
  cli_parse(&argp, argc, argv, &o);
  o.init.size = sizeof o.init;
  o.init.context = o.common.context;
  o.init.progress = o.common.progress;
  nibble_init_result result = {.size = sizeof result};
  nibble_error err;
  nibble_status status = nibble_init(&o.init, &result, &err);
  if (status == NIBBLE_OK && o.common.json) {
    cJSON *json = cJSON_CreateObject();
    cJSON_AddNumberToObject(json, "parameters", (double)result.parameters);
    cJSON_AddNumberToObject(json, "file_bytes", (double)result.file_bytes);
    cJSON_AddNumberToObject(json, "seconds", result.seconds);
    cJSON_AddNumberToObject(json, "peak_rss_bytes", (double)nibble_peak_rss());
    cli_print_json(json);
  } else if (status == NIBBLE_OK) {
    char a[32], b[32], dst[CLI_NAME_ROOM];
    printf("%s: %" PRId64 " parameters, %s in %.1f s, peak memory %s\n", cli_name(dst, o.init.dst), result.parameters,
           cli_bytes(a, result.file_bytes), result.seconds, cli_bytes(b, nibble_peak_rss()));
  }
  return cli_finish(status, &err);
}
