/* nibble tokenize MODEL */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

typedef struct options {
  cli_common common;
  const char *model, *text;
  bool decode, no_special, lines;
} options;

enum { OPT_TEXT = 0x100, OPT_DECODE, OPT_NO_SPECIAL, OPT_LINES };

static error_t parse(int key, char *arg, struct argp_state *state) {
  options *o = state->input;
  const char **slots[] = {&o->model};
  switch (key) {
    case OPT_TEXT: o->text = arg; return 0;
    case OPT_DECODE: o->decode = true; return 0;
    case OPT_NO_SPECIAL: o->no_special = true; return 0;
    case OPT_LINES: o->lines = true; return 0;
    default: return cli_argument(key, arg, state, slots, 1);
  }
}

static const struct argp_option own_options[] = {
    {"text", OPT_TEXT, "FILE", 0, "The input, plain or gzip (default: -, standard input)", 0},
    {"decode", OPT_DECODE, NULL, 0, "The input is ids, the output their text", 0},
    {"no-special", OPT_NO_SPECIAL, NULL, 0,
     "Leave out the special tokens that the tokenizer puts around a text; with --decode all of them", 0},
    {"lines", OPT_LINES, NULL, 0, "Each line of the input by itself", 0},
    {0},
};

static const struct argp argp = {
    .options = own_options,
    .parser = parse,
    .args_doc = "MODEL",
    .doc =
        "Prints the token ids of a text, the same as Hugging Face's tokenizers gives, or the text of token ids. MODEL "
        "may be a tokenizer's file alone: tokenizer.json, tekken.json, a .tiktoken. With --compare, what a text takes "
        "under several tokenizers (nibble tokenize --compare --help).\v"
        "Example: echo 'Hello, world' | nibble tokenize ./SmolLM2-135M-Instruct",
};

/* What goes on while the input is read line by line, or as one. */
typedef struct job {
  const options *o;
  nibble_tokenizer *tokenizer;
  cJSON *items; /* for --json: of one item, or of one a line */
  size_t tokens;
  nibble_error err;
} job;

static nibble_status encode(job *j, const char *text, size_t n) {
  nibble_ids ids;
  nibble_status status = nibble_tokenizer_encode(j->tokenizer, text, n, !j->o->no_special, &ids, &j->err);
  if (status != NIBBLE_OK) return status;
  j->tokens += ids.count;
  if (j->items) {
    /* cJSON makes nothing of no numbers, and a line without ids is one all the same. */
    cJSON *list = ids.count > 0 ? cJSON_CreateIntArray(ids.data, (int)ids.count) : cJSON_CreateArray();
    cJSON_AddItemToArray(j->items, list);
  } else {
    for (size_t i = 0; i < ids.count && !ferror(stdout); i++) printf(i ? " %d" : "%d", ids.data[i]);
    putchar('\n');
  }
  free(ids.data);
  return NIBBLE_OK;
}

static nibble_status bad_ids(job *j, const char *at) {
  j->err.status = NIBBLE_BAD_INPUT;
  int shown = (int)strcspn(at, " \t\r\n,[]");
  snprintf(j->err.message, sizeof j->err.message, "%s: '%.*s' is not a token id", j->o->text, shown < 40 ? shown : 40,
           at);
  return NIBBLE_BAD_INPUT;
}

/* Ids stand apart by white space or commas; a list's brackets do no harm. */
static nibble_status read_ids(job *j, const char *text, size_t n, nibble_ids *out) {
  *out = (nibble_ids){.data = malloc((n / 2 + 1) * sizeof *out->data)};
  if (!out->data) {
    j->err.status = NIBBLE_SYSTEM;
    snprintf(j->err.message, sizeof j->err.message, "out of memory: %zu bytes were refused", n);
    return NIBBLE_SYSTEM;
  }
  const char *at = text, *end = text + n;
  for (;;) {
    at += strspn(at, " \t\r\n,[]");
    if (at >= end) return NIBBLE_OK;
    char *behind;
    errno = 0;
    long id = strtol(at, &behind, 10);
    if (behind == at || errno || id < 0 || id > INT32_MAX || !strchr(" \t\r\n,]", *behind)) {
      free(out->data);
      return bad_ids(j, at);
    }
    out->data[out->count++] = (int32_t)id;
    at = behind;
  }
}

static nibble_status decode(job *j, const char *ids_text, size_t n) {
  nibble_ids ids;
  nibble_text text;
  nibble_status status = read_ids(j, ids_text, n, &ids);
  if (status != NIBBLE_OK) return status;
  status = nibble_tokenizer_decode(j->tokenizer, ids.data, ids.count, j->o->no_special, &text, &j->err);
  free(ids.data);
  if (status != NIBBLE_OK) return status;
  j->tokens += ids.count;
  if (j->items) {
    cJSON_AddItemToArray(j->items, cli_json_text(text.data, text.length));
  } else {
    cli_print_text(text.data, text.length);
    if (j->o->lines) putchar('\n');
  }
  free(text.data);
  return NIBBLE_OK;
}

/* A newline ends a line: there is none behind the last. The input has a NUL behind it. */
static nibble_status each_line(job *j, char *text, size_t n) {
  nibble_status status = NIBBLE_OK;
  for (size_t begin = 0; begin < n && status == NIBBLE_OK;) {
    char *newline = memchr(text + begin, '\n', n - begin);
    size_t end = newline ? (size_t)(newline - text) : n;
    text[end] = 0;
    status = j->o->decode ? decode(j, text + begin, end - begin) : encode(j, text + begin, end - begin);
    if (ferror(stdout)) status = NIBBLE_STOPPED; /* cli_finish says why */
    begin = end + 1;
  }
  return status;
}

static void print_json(job *j) {
  cJSON *json = cJSON_CreateObject();
  cJSON_AddNumberToObject(json, "tokens", (double)j->tokens);
  const char *key = j->o->lines ? "lines" : j->o->decode ? "text" : "ids";
  cJSON_AddItemToObject(json, key, j->o->lines ? j->items : cJSON_DetachItemFromArray(j->items, 0));
  if (!j->o->lines) cJSON_Delete(j->items);
  cli_print_json(json);
}

int cli_tokenize(int argc, char **argv) {
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--compare") == 0) return cli_compare_tokens(argc, argv);
  }
  options o = {.text = "-"};
  cli_parse(&argp, argc, argv, &o);
  job j = {.o = &o, .items = o.common.json ? cJSON_CreateArray() : NULL};
  nibble_text text = {0};
  nibble_status status = nibble_tokenizer_open(o.model, &j.tokenizer, &j.err);
  if (status == NIBBLE_OK) status = nibble_text_read(o.text, &text, &j.err);
  if (status == NIBBLE_OK)
    status = o.lines    ? each_line(&j, text.data, text.length)
             : o.decode ? decode(&j, text.data, text.length)
                        : encode(&j, text.data, text.length);
  if (status == NIBBLE_OK && o.common.json)
    print_json(&j);
  else
    cJSON_Delete(j.items);
  free(text.data);
  nibble_tokenizer_close(j.tokenizer);
  return cli_finish(status, &j.err);
}
