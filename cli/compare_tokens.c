/* nibble tokenize --compare */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

enum { MOST = 32 /* tokenizers */, OPT_COMPARE = 0x100, OPT_TEXT, OPT_SVG };

typedef struct options {
  cli_common common;
  const char *models[MOST], *text, *svg;
  size_t count;
} options;

static error_t parse(int key, char *arg, struct argp_state *state) {
  options *o = state->input;
  switch (key) {
    case OPT_COMPARE: return 0;
    case OPT_TEXT: o->text = arg; return 0;
    case OPT_SVG: o->svg = arg; return 0;
    case ARGP_KEY_ARG:
      if (o->count == MOST) argp_error(state, "at most %d tokenizers are compared", MOST);
      o->models[o->count++] = arg;
      return 0;
    case ARGP_KEY_END:
      if (o->count < 1) argp_error(state, "MODEL is required");
      return 0;
    default: return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp_option own_options[] = {
    {"compare", OPT_COMPARE, NULL, 0, "What this text is", 0},
    {"text", OPT_TEXT, "FILE", 0, "The input, plain or gzip (default: -, standard input)", 0},
    {"svg", OPT_SVG, "FILE", 0, "Draw tokens a character, too; the file is replaced", 0},
    {0},
};

static const struct argp argp = {
    .options = own_options,
    .parser = parse,
    .args_doc = "--compare MODEL ...",
    .doc =
        "Prints how many tokens a word, a character and a byte of a text is under several tokenizers, by script. A "
        "line counts for the script that most of its letters are in, without special tokens around it.\v"
        "Example: nibble tokenize --compare ./SmolLM2-135M ./bert-base-cased --text page.txt --svg tokens.svg",
};

static double rate(size_t tokens, size_t of) { return of > 0 ? (double)tokens / (double)of : 0; }

/* ---- JSON ---- */

static cJSON *script_json(const options *o, const nibble_script_tokens *row) {
  cJSON *json = cJSON_CreateObject(), *list = cJSON_AddArrayToObject(json, "tokenizers");
  cJSON_AddStringToObject(json, "script", row->script);
  cJSON_AddNumberToObject(json, "lines", (double)row->lines);
  cJSON_AddNumberToObject(json, "words", (double)row->words);
  cJSON_AddNumberToObject(json, "characters", (double)row->characters);
  cJSON_AddNumberToObject(json, "bytes", (double)row->bytes);
  for (size_t i = 0; i < o->count; i++) {
    cJSON *one = cJSON_CreateObject();
    cJSON_AddStringToObject(one, "model", o->models[i]);
    cJSON_AddNumberToObject(one, "tokens", (double)row->tokens[i]);
    cJSON_AddNumberToObject(one, "tokens_per_word", rate(row->tokens[i], row->words));
    cJSON_AddNumberToObject(one, "tokens_per_character", rate(row->tokens[i], row->characters));
    cJSON_AddNumberToObject(one, "tokens_per_byte", rate(row->tokens[i], row->bytes));
    cJSON_AddItemToArray(list, one);
  }
  return json;
}

static void print_json(const options *o, const nibble_token_comparison *c) {
  cJSON *json = cJSON_CreateObject(), *scripts = cJSON_AddArrayToObject(json, "scripts");
  for (size_t i = 0; i < c->count; i++) cJSON_AddItemToArray(scripts, script_json(o, &c->scripts[i]));
  cJSON_AddItemToObject(json, "total", script_json(o, &c->total));
  cli_print_json(json);
}

/* ---- a table ---- */

static void print_rows(const options *o, const nibble_script_tokens *row, int width) {
  for (size_t i = 0; i < o->count; i++) {
    char name[CLI_NAME_ROOM];
    printf("%-22s %-*s %10zu %8.3f %12.3f %8.3f\n", i == 0 ? row->script : "", width, cli_name(name, o->models[i]),
           row->tokens[i], rate(row->tokens[i], row->words), rate(row->tokens[i], row->characters),
           rate(row->tokens[i], row->bytes));
  }
}

static void print_table(const options *o, const nibble_token_comparison *c) {
  int width = 9;
  for (size_t i = 0; i < o->count; i++) {
    char name[CLI_NAME_ROOM];
    int length = (int)strlen(cli_name(name, o->models[i]));
    width = length > width ? length : width;
  }
  printf("%-22s %-*s %10s %8s %12s %8s\n", "script", width, "tokenizer", "tokens", "a word", "a character", "a byte");
  for (size_t i = 0; i < c->count; i++) print_rows(o, &c->scripts[i], width);
  print_rows(o, &c->total, width);
}

int cli_compare_tokens(int argc, char **argv) {
  options o = {.text = "-"};
  cli_parse(&argp, argc, argv, &o);
  nibble_tokenizer *tokenizers[MOST] = {0};
  nibble_text text = {0};
  nibble_token_comparison comparison = {0};
  nibble_error err;
  nibble_status status = NIBBLE_OK;
  for (size_t i = 0; i < o.count && status == NIBBLE_OK; i++)
    status = nibble_tokenizer_open(o.models[i], &tokenizers[i], &err);
  if (status == NIBBLE_OK) status = nibble_text_read(o.text, &text, &err);
  if (status == NIBBLE_OK)
    status = nibble_tokenizers_compare(tokenizers, o.count, text.data, text.length, &comparison, &err);
  if (status == NIBBLE_OK && o.svg) status = nibble_token_comparison_draw(&comparison, o.models, o.svg, &err);
  if (status == NIBBLE_OK && o.common.json)
    print_json(&o, &comparison);
  else if (status == NIBBLE_OK)
    print_table(&o, &comparison);
  nibble_token_comparison_free(&comparison);
  free(text.data);
  for (size_t i = 0; i < o.count; i++) nibble_tokenizer_close(tokenizers[i]);
  return cli_finish(status, &err);
}
