/* nibble bench MODEL, nibble bench --kernels */
#include <stdio.h>

#include "cli/cli.h"

typedef struct options {
  cli_common common;
  nibble_bench_options bench;
  bool kernels;
  nibble_kernel_bench_options kernel;
} options;

enum { OPT_PROMPT = 0x100, OPT_GEN, OPT_REPETITIONS, OPT_KERNELS, OPT_FORMAT, OPT_ROWS, OPT_COLS, OPT_BATCH };

static error_t parse(int key, char *arg, struct argp_state *state) {
  options *o = state->input;
  const char **slots[] = {&o->bench.model};
  switch (key) {
    case OPT_PROMPT: o->bench.prompt = cli_int(state, "--prompt", arg, 1, 1 << 24); return 0;
    case OPT_GEN: o->bench.gen = cli_int(state, "--gen", arg, 1, 1 << 24); return 0;
    case OPT_REPETITIONS: o->bench.repetitions = cli_int(state, "--repetitions", arg, 1, 1000); return 0;
    case OPT_KERNELS: o->kernels = true; return 0;
    case OPT_FORMAT: o->kernel.format = arg; return 0;
    case OPT_ROWS: o->kernel.rows = cli_int(state, "--rows", arg, 1, 1 << 30); return 0;
    case OPT_COLS: o->kernel.cols = cli_int(state, "--cols", arg, 1, 1 << 30); return 0;
    case OPT_BATCH: o->kernel.n = cli_int(state, "--batch", arg, 1, 1 << 30); return 0;
    case ARGP_KEY_END:
      if (o->kernels && o->common.device == NIBBLE_DEVICE_CUDA)
        argp_error(state, "--kernels measures the cpu; for a GPU there is scripts/bench-gpu");
      if (!o->bench.model == !o->kernels) argp_error(state, "give a MODEL, or else --kernels");
      return 0;
    default: return cli_argument(key, arg, state, slots, 1);
  }
}

static const struct argp_option own_options[] = {
    {"prompt", OPT_PROMPT, "N", 0, "Tokens of the prompt (default: 512)", 0},
    {"gen", OPT_GEN, "N", 0, "Tokens to generate (default: 128)", 0},
    {"repetitions", OPT_REPETITIONS, "N", 0, "Runs to average, after one that does not count (default: 3)", 0},
    {"kernels", OPT_KERNELS, NULL, 0, "Measure this machine's limits and every matrix kernel instead of a model", 0},
    {"format", OPT_FORMAT, "NAME", 0, "With --kernels: only this format, for example nf4", 0},
    {"rows", OPT_ROWS, "N", 0, "With --kernels: only shapes of that many output features", 0},
    {"cols", OPT_COLS, "N", 0, "With --kernels: only shapes of that many input features", 0},
    {"batch", OPT_BATCH, "N", 0, "With --kernels: only this number of rows of activations", 0},
    {0},
};

static const struct argp argp = {
    .options = own_options,
    .parser = parse,
    .args_doc = "MODEL\n--kernels",
    .doc =
        "Measures prefill and decode in tokens a second, the last token's logits only; or, with --kernels, the matrix "
        "kernels on shapes of real models, as a share of what this machine can read or multiply.\v"
        "Example: nibble bench ./SmolLM2-nf4 --prompt 512 --gen 128\n"
        "         nibble bench --kernels --format nf4 --batch 1",
};

int cli_bench(int argc, char **argv) {
  options o = {.common = {.runs_model = true, .multiplies = true, .activations = NIBBLE_ACTIVATIONS_FAST}};
  cli_parse(&argp, argc, argv, &o);
  o.kernel.size = sizeof o.kernel;
  o.kernel.context = o.common.context;
  /* A table of kernels has no perplexity: rounding is asked for. */
  bool rounds = o.common.activations == NIBBLE_ACTIVATIONS_INT8;
  o.kernel.activations = rounds ? NIBBLE_ACTIVATIONS_INT8 : NIBBLE_ACTIVATIONS_EXACT;
  if (o.kernels) return cli_bench_kernels(&o.kernel, o.common.json);
  o.bench.size = sizeof o.bench;
  o.bench.context = o.common.context;
  o.bench.int8 = o.common.int8;
  o.bench.activations = o.common.activations;
  o.bench.head = o.common.head;
  o.bench.progress = o.common.progress;
  nibble_bench_result r = {.size = sizeof r};
  nibble_error err;
  nibble_status status = nibble_bench(&o.bench, &r, &err);
  if (status == NIBBLE_OK && o.common.json) {
    cJSON *json = cJSON_CreateObject();
    cJSON_AddNumberToObject(json, "prefill_tokens_per_second", r.prompt_tokens_per_second);
    cJSON_AddNumberToObject(json, "prefill_stddev", r.prompt_stddev);
    cJSON_AddNumberToObject(json, "decode_tokens_per_second", r.gen_tokens_per_second);
    cJSON_AddNumberToObject(json, "decode_stddev", r.gen_stddev);
    cJSON_AddStringToObject(json, "activations", cli_activations_name(r.activations));
    cJSON_AddNumberToObject(json, "load_seconds", r.load_seconds);
    cJSON_AddNumberToObject(json, "weight_bytes", (double)r.weight_bytes);
    cJSON_AddNumberToObject(json, "peak_rss_bytes", (double)nibble_peak_rss());
    cli_print_json(json);
  } else if (status == NIBBLE_OK) {
    char a[32], b[32];
    printf("prefill  %8.1f +/- %.1f tokens/s\n", r.prompt_tokens_per_second, r.prompt_stddev);
    printf("decode   %8.1f +/- %.1f tokens/s\n", r.gen_tokens_per_second, r.gen_stddev);
    printf("weights %s, loaded in %.3f s, activations %s, peak memory %s\n", cli_bytes(a, r.weight_bytes),
           r.load_seconds, cli_activations_name(r.activations), cli_bytes(b, nibble_peak_rss()));
  }
  return cli_finish(status, &err);
}
