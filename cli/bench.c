/* nibble bench MODEL */
#include <stdio.h>

#include "cli/cli.h"

typedef struct options {
  cli_common common;
  nibble_bench_options bench;
} options;

enum { OPT_PROMPT = 0x100, OPT_GEN, OPT_REPETITIONS, OPT_INT8 };

static error_t parse(int key, char *arg, struct argp_state *state) {
  options *o = state->input;
  const char **slots[] = {&o->bench.model};
  switch (key) {
    case OPT_PROMPT: o->bench.prompt = cli_int(state, "--prompt", arg, 1, 1 << 24); return 0;
    case OPT_GEN: o->bench.gen = cli_int(state, "--gen", arg, 1, 1 << 24); return 0;
    case OPT_REPETITIONS: o->bench.repetitions = cli_int(state, "--repetitions", arg, 1, 1000); return 0;
    case OPT_INT8: o->bench.int8 = cli_int8(state, arg); return 0;
    case ARGP_KEY_ARG:
      if (!cli_take_argument(slots, 1, arg)) argp_error(state, "one MODEL at a time");
      return 0;
    case ARGP_KEY_END:
      if (!o->bench.model) argp_error(state, "a MODEL is missing");
      return 0;
    default: return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp_option own_options[] = {
    {"prompt", OPT_PROMPT, "N", 0, "Tokens of the prompt (default: 512)", 0},
    {"gen", OPT_GEN, "N", 0, "Tokens to generate (default: 128)", 0},
    {"repetitions", OPT_REPETITIONS, "N", 0, "Runs to average, after one that does not count (default: 3)", 0},
    {"int8", OPT_INT8, "MODE", 0, "weight-only (default) or llm.int8", 0},
    {0},
};

static const struct argp argp = {
    .options = own_options,
    .parser = parse,
    .args_doc = "MODEL",
    .doc =
        "Measures prefill and decode in tokens a second, the last token's logits only.\v"
        "Example: nibble bench ./SmolLM2-nf4 --prompt 512 --gen 128",
};

int cli_bench(int argc, char **argv) {
  options o = {0};
  cli_parse(&argp, argc, argv, &o);
  o.bench.progress = o.common.progress;
  nibble_bench_result r;
  nibble_error err;
  nibble_status status = nibble_bench(&o.bench, &r, &err);
  if (status == NIBBLE_OK && o.common.json) {
    cJSON *json = cJSON_CreateObject();
    cJSON_AddNumberToObject(json, "prefill_tokens_per_second", r.prompt_tokens_per_second);
    cJSON_AddNumberToObject(json, "prefill_stddev", r.prompt_stddev);
    cJSON_AddNumberToObject(json, "decode_tokens_per_second", r.gen_tokens_per_second);
    cJSON_AddNumberToObject(json, "decode_stddev", r.gen_stddev);
    cJSON_AddNumberToObject(json, "load_seconds", r.load_seconds);
    cJSON_AddNumberToObject(json, "weight_bytes", (double)r.weight_bytes);
    cJSON_AddNumberToObject(json, "peak_rss_bytes", (double)nibble_peak_rss());
    cli_print_json(json);
  } else if (status == NIBBLE_OK) {
    char a[32], b[32];
    printf("prefill  %8.1f +/- %.1f tokens/s\n", r.prompt_tokens_per_second, r.prompt_stddev);
    printf("decode   %8.1f +/- %.1f tokens/s\n", r.gen_tokens_per_second, r.gen_stddev);
    printf("weights %s, loaded in %.3f s, peak memory %s\n", cli_bytes(a, r.weight_bytes), r.load_seconds,
           cli_bytes(b, nibble_peak_rss()));
  }
  return cli_finish(status, &err);
}
