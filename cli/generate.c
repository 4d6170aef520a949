/* nibble generate MODEL --prompt TEXT */
#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

typedef struct options {
  cli_common common;
  nibble_generate_options generate;
  bool printed_prompt;
} options;

enum {
  OPT_PROMPT = 0x100,
  OPT_NEW,
  OPT_TEMPERATURE,
  OPT_TOP_K,
  OPT_TOP_P,
  OPT_SEED,
  OPT_IGNORE_EOS,
  OPT_CHAT,
  OPT_SYSTEM,
  OPT_MESSAGES,
  OPT_TOOLS
};

static error_t parse(int key, char *arg, struct argp_state *state) {
  options *o = state->input;
  nibble_generate_options *g = &o->generate;
  const char **slots[] = {&g->model};
  switch (key) {
    case OPT_PROMPT: g->prompt = arg; return 0;
    case OPT_NEW: g->max_new_tokens = cli_int(state, "--max-new-tokens", arg, 1, 1 << 24); return 0;
    case OPT_TEMPERATURE: g->temperature = cli_double(state, "--temperature", arg, 0, 100); return 0;
    case OPT_TOP_K: g->top_k = cli_int(state, "--top-k", arg, 0, 1 << 24); return 0;
    case OPT_TOP_P: /* of the options 0 is none; here it leaves the likeliest token */
      g->top_p = fmax(DBL_MIN, cli_double(state, "--top-p", arg, 0, 1));
      return 0;
    case OPT_SEED: g->seed = (uint64_t)cli_int(state, "--seed", arg, 0, INT64_MAX); return 0;
    case OPT_IGNORE_EOS: g->ignore_eos = true; return 0;
    case OPT_CHAT: g->chat = true; return 0;
    case OPT_SYSTEM: g->system = arg; return 0;
    case OPT_MESSAGES: g->messages = arg; return 0;
    case OPT_TOOLS: g->tools = arg; return 0;
    case ARGP_KEY_END:
      if (!g->prompt && !g->messages) argp_error(state, "--prompt TEXT is missing");
      if (!g->chat && (g->system || g->messages || g->tools))
        argp_error(state, "--system, --messages and --tools go with --chat");
      return cli_argument(key, arg, state, slots, 1);
    default: return cli_argument(key, arg, state, slots, 1);
  }
}

static const struct argp_option own_options[] = {
    {"prompt", OPT_PROMPT, "TEXT", 0, "Text to go on from", 0},
    {"chat", OPT_CHAT, NULL, 0, "The text is what a user says: put the model's chat template around it", 0},
    {"system", OPT_SYSTEM, "TEXT", 0, "With --chat: what a system says before", 0},
    {"messages", OPT_MESSAGES, "FILE", 0,
     "With --chat: JSON with the messages before, or with an object that has them as messages, tools, documents", 0},
    {"tools", OPT_TOOLS, "FILE", 0, "With --chat: JSON with a list of tools", 0},
    {"max-new-tokens", OPT_NEW, "N", 0, "Stop after N tokens (default: 128)", 0},
    {"temperature", OPT_TEMPERATURE, "T", 0, "Sample at this temperature (default: 0, the likeliest token)", 0},
    {"top-k", OPT_TOP_K, "K", 0, "Sample among the K likeliest (default: all)", 0},
    {"top-p", OPT_TOP_P, "P", 0, "Sample among the likeliest that together have probability P (default: all)", 0},
    {"seed", OPT_SEED, "N", 0, "Another text for another N (default: 0)", 0},
    {"ignore-eos", OPT_IGNORE_EOS, NULL, 0, "Go on after an end-of-sequence token", 0},
    {0},
};

static const struct argp argp = {
    .options = own_options,
    .parser = parse,
    .args_doc = "MODEL",
    .doc =
        "Continues a text, greedily unless --temperature is given.\v"
        "Example: nibble generate ./SmolLM2-nf4 --prompt \"The capital of France is\" --temperature 0.7 --top-p 0.9\n"
        "         nibble generate ./SmolLM2-nf4 --chat --prompt \"What is the capital of France?\"",
};

/* The prompt waits for the first token: of a run that fails before that nothing is on stdout. */
static void print_prompt(options *o) {
  if (!o->printed_prompt && !o->generate.chat) cli_print_text(o->generate.prompt, strlen(o->generate.prompt));
  o->printed_prompt = true;
}

static void print_piece(void *ctx, const char *bytes, size_t n) {
  print_prompt(ctx);
  cli_print_text(bytes, n);
  cli_flush(); /* a reader sees each token as it comes */
}

int cli_generate(int argc, char **argv) {
  options o = {.common = {.runs_model = true, .multiplies = true, .activations = NIBBLE_ACTIVATIONS_FAST}};
  cli_parse(&argp, argc, argv, &o);
  o.generate.size = sizeof o.generate;
  o.generate.context = o.common.context;
  o.generate.int8 = o.common.int8;
  o.generate.activations = o.common.activations;
  o.generate.head = o.common.head;
  o.generate.progress = o.common.progress;
  if (!o.common.json) {
    o.generate.text = print_piece;
    o.generate.ctx = &o;
  }
  nibble_generate_result r = {.size = sizeof r};
  nibble_error err;
  nibble_status status = nibble_generate(&o.generate, &r, &err);
  double speed = r.generate_seconds > 0 ? (double)r.new_tokens / r.generate_seconds : 0;
  if (status == NIBBLE_OK && o.common.json) {
    cJSON *json = cJSON_CreateObject();
    cJSON_AddItemToObject(json, "text", cli_json_text(r.text, r.text_length));
    cJSON_AddNumberToObject(json, "prompt_tokens", (double)r.prompt_tokens);
    cJSON_AddNumberToObject(json, "new_tokens", (double)r.new_tokens);
    cJSON_AddBoolToObject(json, "stopped_at_eos", r.stopped_at_eos);
    cJSON_AddStringToObject(json, "activations", cli_activations_name(r.activations));
    cJSON_AddNumberToObject(json, "load_seconds", r.load_seconds);
    cJSON_AddNumberToObject(json, "prompt_seconds", r.prompt_seconds);
    cJSON_AddNumberToObject(json, "generate_seconds", r.generate_seconds);
    cJSON_AddNumberToObject(json, "tokens_per_second", speed);
    cJSON_AddNumberToObject(json, "peak_rss_bytes", (double)nibble_peak_rss());
    cli_print_json(json);
  } else if (!o.common.json) {
    if (status == NIBBLE_OK) print_prompt(&o);
    if (o.printed_prompt) putchar('\n');
    if (status == NIBBLE_OK && !o.common.quiet)
      fprintf(stderr, "%" PRId64 " tokens in, %" PRId64 " out, %.1f tokens/s, activations %s\n", r.prompt_tokens,
              r.new_tokens, speed, cli_activations_name(r.activations));
  }
  free(r.text);
  return cli_finish(status, &err);
}
