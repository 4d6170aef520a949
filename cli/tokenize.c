/* nibble tokenize MODEL */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/encodings.h"

typedef struct options {
  cli_common common;
  const char *model, *text, *pair;
  bool decode, no_special, lines, offsets;
  bool whole; /* one of the options asks for whole encodings */
  bool truncates, has_length;
  const char *truncation_side, *padding_side;
  nibble_encode_options encode;
} options;

enum {
  OPT_TEXT = 0x100,
  OPT_DECODE,
  OPT_NO_SPECIAL,
  OPT_LINES,
  OPT_PAIR, /* from here on they ask for whole encodings */
  OPT_OFFSETS,
  OPT_TRUNCATION,
  OPT_MAX_LENGTH,
  OPT_STRIDE,
  OPT_OVERFLOW,
  OPT_TRUNCATION_SIDE,
  OPT_PADDING,
  OPT_PAD_MULTIPLE,
  OPT_PADDING_SIDE,
};

/* The index of a name in `names`, which ends with NULL; calls argp_error if it is none of them. */
static int name_of(const struct argp_state *state, const char *option, const char *text, const char *const names[]) {
  for (int i = 0; names[i]; i++) {
    if (strcmp(text, names[i]) == 0) return i;
  }
  argp_error(state, "%s is not '%s'", option, text);
  return 0;
}

/* The options of whole encodings; an optional argument that is not there is NULL. */
static error_t parse_whole(int key, char *arg, struct argp_state *state, options *o) {
  static const char *const units[] = {"characters", "bytes", NULL};
  static const char *const strategies[] = {"longest_first", "only_first", "only_second", NULL};
  static const char *const lengths[] = {"longest", "max_length", NULL};
  static const char *const sides[] = {"left", "right", NULL};
  nibble_encode_options *e = &o->encode;
  o->whole = true;
  switch (key) {
    case OPT_PAIR: o->pair = arg; return 0;
    case OPT_OFFSETS:
      o->offsets = true;
      e->offsets = arg ? (nibble_offsets)name_of(state, "--offsets", arg, units) : NIBBLE_OFFSETS_CHARACTERS;
      return 0;
    case OPT_TRUNCATION:
      o->truncates = true;
      e->truncation = (nibble_truncate)(1 + (arg ? name_of(state, "--truncation", arg, strategies) : 0));
      return 0;
    case OPT_MAX_LENGTH:
      o->has_length = true;
      e->max_length = (size_t)cli_int(state, "--max-length", arg, 0, INT32_MAX);
      return 0;
    case OPT_STRIDE: e->stride = (size_t)cli_int(state, "--stride", arg, 0, INT32_MAX); return 0;
    case OPT_OVERFLOW: e->overflow = true; return 0;
    case OPT_TRUNCATION_SIDE: o->truncation_side = sides[name_of(state, "--truncation-side", arg, sides)]; return 0;
    case OPT_PADDING:
      e->padding = arg && name_of(state, "--padding", arg, lengths) ? NIBBLE_PAD_FIXED : NIBBLE_PAD_LONGEST;
      return 0;
    case OPT_PAD_MULTIPLE:
      e->pad_multiple_of = (size_t)cli_int(state, "--pad-to-multiple-of", arg, 1, INT32_MAX);
      return 0;
    default: o->padding_side = sides[name_of(state, "--padding-side", arg, sides)]; return 0;
  }
}

static error_t parse(int key, char *arg, struct argp_state *state) {
  options *o = state->input;
  const char **slots[] = {&o->model};
  switch (key) {
    case OPT_TEXT: o->text = arg; return 0;
    case OPT_DECODE: o->decode = true; return 0;
    case OPT_NO_SPECIAL: o->no_special = true; return 0;
    case OPT_LINES: o->lines = true; return 0;
    case ARGP_KEY_SUCCESS:
      if (o->decode && o->whole) argp_error(state, "--decode goes with no option of encodings");
      return 0;
    default:
      if (key >= OPT_PAIR && key <= OPT_PADDING_SIDE) return parse_whole(key, arg, state, o);
      return cli_argument(key, arg, state, slots, 1);
  }
}

static const struct argp_option own_options[] = {
    {"text", OPT_TEXT, "FILE", 0, "The input, plain or gzip (default: -, standard input)", 0},
    {"decode", OPT_DECODE, NULL, 0, "The input is ids, the output their text", 0},
    {"no-special", OPT_NO_SPECIAL, NULL, 0,
     "Leave out the special tokens that the tokenizer puts around a text; with --decode all of them", 0},
    {"lines", OPT_LINES, NULL, 0, "Each line of the input by itself", 0},
    {0, 0, 0, 0, "Whole encodings:", 1},
    {"pair", OPT_PAIR, "TEXT", 0, "A second text, which is encoded together with the input or each of its lines", 1},
    {"offsets", OPT_OFFSETS, "characters|bytes", OPTION_ARG_OPTIONAL,
     "Where each token stands in its text, from 0 (default: in characters, as Python counts)", 1},
    {"truncation", OPT_TRUNCATION, "longest_first|only_first|only_second", OPTION_ARG_OPTIONAL,
     "Cut to the maximum length (default: longest_first)", 1},
    {"max-length", OPT_MAX_LENGTH, "N", 0,
     "Tokens of an encoding, special ones included (default: the tokenizer's own). Alone it cuts, too", 1},
    {"stride", OPT_STRIDE, "N", 0, "Tokens that what overflows shares with what comes before it (default: 0)", 1},
    {"overflow", OPT_OVERFLOW, NULL, 0, "Print what is cut off, too: in --json as \"overflowing\", else a line each",
     1},
    {"truncation-side", OPT_TRUNCATION_SIDE, "left|right", 0, "Where to cut (default: the tokenizer's own)", 1},
    {"padding", OPT_PADDING, "longest|max_length", OPTION_ARG_OPTIONAL,
     "Fill up to the longest line, or to the maximum length (default: longest)", 1},
    {"pad-to-multiple-of", OPT_PAD_MULTIPLE, "N", 0, "Fill up to a multiple of N", 1},
    {"padding-side", OPT_PADDING_SIDE, "left|right", 0, "Where to fill up (default: the tokenizer's own)", 1},
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

static nibble_status refuse(job *j, nibble_status status, const char *why) {
  char name[CLI_NAME_ROOM];
  j->err.status = status;
  snprintf(j->err.message, sizeof j->err.message, "%.900s: %s", cli_name(name, j->o->model), why);
  return status;
}

/* What nobody asks for otherwise is as the tokenizer's files say. */
static nibble_status settle(job *j, nibble_encode_options *e) {
  const options *o = j->o;
  nibble_encode_options own = {.size = sizeof own};
  nibble_status status = nibble_tokenizer_limits(j->tokenizer, &own, &j->err);
  if (status != NIBBLE_OK) return status;
  *e = o->encode;
  e->size = sizeof *e;
  e->context = o->common.context;
  e->no_special = o->no_special;
  if (!o->has_length) e->max_length = own.max_length;
  bool alone = o->has_length && e->padding == NIBBLE_PAD_NONE && !o->truncates;
  if (alone) e->truncation = NIBBLE_TRUNCATE_LONGEST_FIRST;
  bool needs_length = e->truncation != NIBBLE_TRUNCATE_NONE || e->padding == NIBBLE_PAD_FIXED;
  if (needs_length && !o->has_length && own.max_length == 0)
    return refuse(j, NIBBLE_USAGE, "the tokenizer names no maximum length; --max-length is required");
  e->truncate_left = o->truncation_side ? strcmp(o->truncation_side, "left") == 0 : own.truncate_left;
  e->pad_left = o->padding_side ? strcmp(o->padding_side, "left") == 0 : own.pad_left;
  e->pad_length = e->max_length;
  e->pad_id = own.pad_id;
  e->pad_type_id = own.pad_type_id;
  if (e->padding != NIBBLE_PAD_NONE && e->pad_id < 0)
    return refuse(j, NIBBLE_BAD_INPUT, "the tokenizer names no padding token");
  return NIBBLE_OK;
}

static nibble_status encode_whole(job *j, const char *text, size_t n) {
  nibble_encode_options e;
  nibble_status status = settle(j, &e);
  if (status != NIBBLE_OK) return status;
  cli_encodings whole = {.tokenizer = j->tokenizer,
                         .options = &e,
                         .pair = j->o->pair,
                         .offsets = j->o->offsets,
                         .json = j->o->common.json,
                         .lines = j->o->lines};
  return cli_print_encodings(&whole, text, n, &j->err);
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
    status = o.whole    ? encode_whole(&j, text.data, text.length)
             : o.lines  ? each_line(&j, text.data, text.length)
             : o.decode ? decode(&j, text.data, text.length)
                        : encode(&j, text.data, text.length);
  if (status == NIBBLE_OK && o.common.json && !o.whole)
    print_json(&j);
  else
    cJSON_Delete(j.items);
  free(text.data);
  nibble_tokenizer_close(j.tokenizer);
  return cli_finish(status, &j.err);
}
