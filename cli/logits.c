/* nibble logits MODEL --ids 1,2,3 --out FILE and nibble hidden MODEL --ids 1,2,3 --hook NAME --out FILE */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/cli.h"

typedef struct options {
  cli_common common;
  nibble_logits_options logits;
} options;

enum { OPT_IDS = 0x100, OPT_DECODER_IDS, OPT_OUT, OPT_HOOK, OPT_FORCE };

static error_t parse(int key, char *arg, struct argp_state *state) {
  options *o = state->input;
  const char **slots[] = {&o->logits.model};
  switch (key) {
    case OPT_IDS: o->logits.ids = cli_ids(state, "--ids", arg, &o->logits.id_count); return 0;
    case OPT_DECODER_IDS:
      o->logits.decoder_ids = cli_ids(state, "--decoder-ids", arg, &o->logits.decoder_id_count);
      return 0;
    case OPT_OUT: o->logits.out = arg; return 0;
    case OPT_HOOK: o->logits.hook = arg; return 0;
    case OPT_FORCE: o->logits.force = true; return 0;
    case ARGP_KEY_END:
      if (!o->logits.ids || !o->logits.out) argp_error(state, "--ids and --out are wanted");
      return cli_argument(key, arg, state, slots, 1);
    default: return cli_argument(key, arg, state, slots, 1);
  }
}

static error_t parse_hidden(int key, char *arg, struct argp_state *state) {
  const options *o = state->input;
  if (key == ARGP_KEY_END && !o->logits.hook) argp_error(state, "--hook NAME is wanted");
  return parse(key, arg, state);
}

static const struct argp_option logits_options[] = {
    {"ids", OPT_IDS, "1,2,3", 0, "Token ids; of a model with an encoder and a decoder, the encoder's", 0},
    {"decoder-ids", OPT_DECODER_IDS, "1,2,3", 0, "Token ids of the decoder beside an encoder", 0},
    {"out", OPT_OUT, "FILE", 0, "safetensors file to write", 0},
    {"force", OPT_FORCE, NULL, 0, "Replace FILE if it exists", 0},
    {0},
};

static const struct argp_option hidden_options[] = {
    {"ids", OPT_IDS, "1,2,3", 0, "Token ids; of a model with an encoder and a decoder, the encoder's", 0},
    {"decoder-ids", OPT_DECODER_IDS, "1,2,3", 0, "Token ids of the decoder beside an encoder", 0},
    {"hook", OPT_HOOK, "NAME", 0, "Which: layers.N.MODULE.input, layers.N.input or norm.input", 0},
    {"out", OPT_OUT, "FILE", 0, "safetensors file to write", 0},
    {"force", OPT_FORCE, NULL, 0, "Replace FILE if it exists", 0},
    {0},
};

static const struct argp logits_argp = {
    .options = logits_options,
    .parser = parse,
    .args_doc = "MODEL",
    .doc =
        "Writes the raw output of one forward pass, float32: logits [1, tokens, vocab], or [1, labels] of a "
        "classifier, or "
        "last_hidden_state [1, tokens, width] of a base class. Needs no tokenizer.\v"
        "Example: nibble logits ./model --ids 1,2,3 --out logits.safetensors",
};

static const struct argp hidden_argp = {
    .options = hidden_options,
    .parser = parse_hidden,
    .args_doc = "MODEL",
    .doc =
        "Writes an activation of one forward pass, [1, tokens, width], float32, under its own name.\v"
        "Example: nibble hidden ./model --ids 1,2,3 --hook layers.3.mlp.down_proj.input --out x.safetensors",
};

static int run(const struct argp *argp, int argc, char **argv,
               nibble_status (*call)(const nibble_logits_options *, nibble_logits_result *, nibble_error *)) {
  options o = {.common = {.runs_model = true, .makes_files = true, .multiplies = true}};
  cli_parse(argp, argc, argv, &o);
  o.logits.size = sizeof o.logits;
  o.logits.context = o.common.context;
  o.logits.int8 = o.common.int8;
  o.logits.activations = o.common.activations;
  o.logits.head = o.common.head;
  o.logits.progress = o.common.progress;
  nibble_logits_result r = {.size = sizeof r};
  nibble_error err;
  nibble_status status = call(&o.logits, &r, &err);
  if (status == NIBBLE_OK && o.common.json) {
    cJSON *json = cJSON_CreateObject(), *shape = cJSON_AddArrayToObject(json, "shape");
    for (int i = 0; i < r.ndim; i++) cJSON_AddItemToArray(shape, cJSON_CreateNumber((double)r.shape[i]));
    cJSON_AddNumberToObject(json, "seconds", r.seconds);
    cJSON_AddNumberToObject(json, "peak_rss_bytes", (double)nibble_peak_rss());
    cli_print_json(json);
  } else if (status == NIBBLE_OK) {
    char out[CLI_NAME_ROOM];
    printf("%s: [", cli_name(out, o.logits.out));
    for (int i = 0; i < r.ndim; i++) printf("%s%" PRId64, i ? ", " : "", r.shape[i]);
    printf("] in %.2f s\n", r.seconds);
  }
  free((void *)o.logits.ids);
  free((void *)o.logits.decoder_ids);
  return cli_finish(status, &err);
}

int cli_logits(int argc, char **argv) { return run(&logits_argp, argc, argv, nibble_logits); }
int cli_hidden(int argc, char **argv) { return run(&hidden_argp, argc, argv, nibble_hidden); }
