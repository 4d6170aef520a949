/* nibble ppl MODEL --text FILE */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

typedef struct options {
  cli_common common;
  nibble_ppl_options ppl;
} options;

enum { OPT_TEXT = 0x100, OPT_CTX, OPT_STRIDE, OPT_CHUNKS, OPT_CONVENTION };

static nibble_convention parse_convention(const struct argp_state *state, const char *text) {
  if (strcmp(text, "hf") == 0) return NIBBLE_CONVENTION_HF;
  if (strcmp(text, "llama.cpp") != 0) argp_error(state, "--convention %s: hf or llama.cpp is wanted", text);
  return NIBBLE_CONVENTION_LLAMA_CPP;
}

static error_t parse(int key, char *arg, struct argp_state *state) {
  options *o = state->input;
  const char **slots[] = {&o->ppl.model};
  switch (key) {
    case OPT_TEXT: o->ppl.text = arg; return 0;
    case OPT_CTX: o->ppl.ctx = cli_int(state, "--ctx", arg, 2, 1 << 24); return 0;
    case OPT_STRIDE: o->ppl.stride = cli_int(state, "--stride", arg, 1, 1 << 24); return 0;
    case OPT_CHUNKS: o->ppl.chunks = cli_int(state, "--chunks", arg, 1, INT32_MAX); return 0;
    case OPT_CONVENTION: o->ppl.convention = parse_convention(state, arg); return 0;
    case ARGP_KEY_END:
      if (!o->ppl.text) argp_error(state, "--text FILE is missing");
      return cli_argument(key, arg, state, slots, 1);
    default: return cli_argument(key, arg, state, slots, 1);
  }
}

static const struct argp_option own_options[] = {
    {"text", OPT_TEXT, "FILE", 0, "Text to predict, plain or gzip; - for standard input", 0},
    {"ctx", OPT_CTX, "N", 0, "Tokens of a window (default: 512)", 0},
    {"stride", OPT_STRIDE, "N", 0, "From window to window, scoring what each adds (default: --ctx)", 0},
    {"chunks", OPT_CHUNKS, "N", 0, "Stop after N windows", 0},
    {"convention", OPT_CONVENTION, "hf|llama.cpp", 0,
     "Which predictions count: all of each window (default), or llama-perplexity's second half", 0},
    {0},
};

static const struct argp argp = {
    .options = own_options,
    .parser = parse,
    .args_doc = "MODEL",
    .doc =
        "Measures perplexity on a text, with its standard error.\v"
        "Example: nibble ppl ./SmolLM2-nf4 --text wiki.test.txt --ctx 512 --chunks 24",
};

int cli_ppl(int argc, char **argv) {
  options o = {.common = {.runs_model = true, .multiplies = true}};
  cli_parse(&argp, argc, argv, &o);
  o.ppl.size = sizeof o.ppl;
  o.ppl.context = o.common.context;
  o.ppl.int8 = o.common.int8;
  o.ppl.activations = o.common.activations;
  o.ppl.head = o.common.head;
  o.ppl.progress = o.common.progress;
  nibble_ppl_result r = {.size = sizeof r};
  nibble_error err;
  nibble_status status = nibble_ppl(&o.ppl, &r, &err);
  if (status == NIBBLE_OK && o.common.json) {
    cJSON *json = cJSON_CreateObject();
    cJSON_AddNumberToObject(json, "perplexity", r.perplexity);
    cJSON_AddNumberToObject(json, "perplexity_stderr", r.perplexity_stderr);
    cJSON_AddNumberToObject(json, "tokens", (double)r.tokens);
    cJSON_AddNumberToObject(json, "chunks", (double)r.chunks);
    cJSON_AddNumberToObject(json, "seconds", r.seconds);
    cJSON_AddNumberToObject(json, "load_seconds", r.load_seconds);
    cJSON_AddNumberToObject(json, "tokens_per_second", r.tokens_per_second);
    cJSON_AddNumberToObject(json, "weight_bytes", (double)r.weight_bytes);
    cJSON_AddNumberToObject(json, "file_bytes", (double)r.file_bytes);
    cJSON_AddNumberToObject(json, "peak_rss_bytes", (double)nibble_peak_rss());
    cli_print_json(json);
  } else if (status == NIBBLE_OK) {
    char a[32], b[32];
    printf("perplexity %.4f +/- %.4f over %" PRId64 " tokens in %" PRId64 " windows\n", r.perplexity,
           r.perplexity_stderr, r.tokens, r.chunks);
    printf("%.1f tokens/s, weights %s, peak memory %s\n", r.tokens_per_second, cli_bytes(a, r.weight_bytes),
           cli_bytes(b, nibble_peak_rss()));
  }
  return cli_finish(status, &err);
}
