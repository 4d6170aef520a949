#include "cli/encodings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 1024 }; /* texts that are encoded together where they need not all be padded to the longest */

/* A list of one number a token. */
static cJSON *list_of(const nibble_encoding *e, cJSON *(*make)(const nibble_token *token)) {
  cJSON *list = cJSON_CreateArray();
  for (size_t i = 0; i < e->count; i++) cJSON_AddItemToArray(list, make(&e->tokens[i]));
  return list;
}

static cJSON *id_of(const nibble_token *token) { return cJSON_CreateNumber(token->id); }
static cJSON *type_of(const nibble_token *token) { return cJSON_CreateNumber(token->type_id); }
static cJSON *special_of(const nibble_token *token) { return cJSON_CreateNumber(token->special); }
static cJSON *attention_of(const nibble_token *token) { return cJSON_CreateNumber(!token->padding); }

static cJSON *word_of(const nibble_token *token) {
  return token->word < 0 ? cJSON_CreateNull() : cJSON_CreateNumber(token->word);
}

static cJSON *offsets_of(const nibble_token *token) {
  cJSON *pair = cJSON_CreateArray();
  cJSON_AddItemToArray(pair, cJSON_CreateNumber((double)token->begin));
  cJSON_AddItemToArray(pair, cJSON_CreateNumber((double)token->end));
  return pair;
}

/* Under the names that tokenizers has for them. */
static void add_fields(const cli_encodings *c, const nibble_encoding *e, cJSON *json) {
  cJSON_AddItemToObject(json, "ids", list_of(e, id_of));
  cJSON_AddItemToObject(json, "type_ids", list_of(e, type_of));
  cJSON_AddItemToObject(json, "special_tokens_mask", list_of(e, special_of));
  cJSON_AddItemToObject(json, "attention_mask", list_of(e, attention_of));
  cJSON_AddItemToObject(json, "word_ids", list_of(e, word_of));
  if (c->offsets) cJSON_AddItemToObject(json, "offsets", list_of(e, offsets_of));
}

static void print_line(const cli_encodings *c, const nibble_encoding *e) {
  for (size_t i = 0; i < e->count && !ferror(stdout); i++) {
    const nibble_token *t = &e->tokens[i];
    printf(i ? " %d" : "%d", t->id);
    if (c->offsets) printf(":%zu-%zu", t->begin, t->end);
  }
  putchar('\n');
}

/* Where the output goes: an object for each text, or a line for each encoding. */
typedef struct output {
  const cli_encodings *c;
  cJSON *items;       /* NULL: lines */
  cJSON *overflowing; /* the list of the last of them */
  size_t tokens;
} output;

static void put(output *out, const nibble_encoding *e) {
  out->tokens += e->count;
  if (!out->items) {
    print_line(out->c, e);
    return;
  }
  cJSON *json = cJSON_CreateObject();
  add_fields(out->c, e, json);
  cJSON_AddItemToArray(e->overflowing ? out->overflowing : out->items, json);
  if (!e->overflowing && out->c->options->overflow) out->overflowing = cJSON_AddArrayToObject(json, "overflowing");
}

static nibble_status encode(output *out, const nibble_text_pair *texts, size_t count, nibble_error *err) {
  nibble_encodings encodings;
  nibble_status status =
      nibble_tokenizer_encode_batch(out->c->tokenizer, texts, count, out->c->options, &encodings, err);
  for (size_t i = 0; i < encodings.count && !ferror(stdout); i++) put(out, &encodings.list[i]);
  nibble_encodings_free(&encodings);
  return status;
}

/* A newline ends a line: there is none behind the last. */
static size_t count_lines(const char *text, size_t n) {
  size_t count = n > 0 && text[n - 1] != '\n';
  for (size_t i = 0; i < n; i++) count += text[i] == '\n';
  return count;
}

static nibble_status encode_lines(output *out, const char *text, size_t n, nibble_error *err) {
  bool together = out->c->options->padding == NIBBLE_PAD_LONGEST;
  size_t room = together ? count_lines(text, n) : BATCH, count = 0;
  nibble_text_pair *texts = calloc(room + 1, sizeof *texts);
  if (!texts) {
    err->status = NIBBLE_SYSTEM;
    snprintf(err->message, sizeof err->message, "out of memory: %zu lines", room);
    return NIBBLE_SYSTEM;
  }
  size_t pair_length = out->c->pair ? strlen(out->c->pair) : 0;
  nibble_status status = NIBBLE_OK;
  for (size_t begin = 0; begin < n && status == NIBBLE_OK;) {
    const char *newline = memchr(text + begin, '\n', n - begin);
    size_t end = newline ? (size_t)(newline - text) : n;
    texts[count++] = (nibble_text_pair){text + begin, end - begin, out->c->pair, pair_length};
    begin = end + 1;
    if (count < room && begin < n) continue;
    status = encode(out, texts, count, err);
    if (status == NIBBLE_OK && ferror(stdout)) status = NIBBLE_STOPPED; /* cli_finish says why */
    count = 0;
  }
  free(texts);
  return status;
}

static void print_json(output *out) {
  cJSON *json = out->c->lines ? cJSON_CreateObject() : cJSON_DetachItemFromArray(out->items, 0);
  cJSON_AddNumberToObject(json, "tokens", (double)out->tokens);
  if (out->c->offsets)
    cJSON_AddStringToObject(json, "offsets_in",
                            out->c->options->offsets == NIBBLE_OFFSETS_BYTES ? "bytes" : "characters");
  if (out->c->lines) cJSON_AddItemToObject(json, "lines", out->items);
  if (!out->c->lines) cJSON_Delete(out->items);
  out->items = NULL;
  cli_print_json(json);
}

nibble_status cli_print_encodings(const cli_encodings *c, const char *text, size_t n, nibble_error *err) {
  output out = {.c = c, .items = c->json ? cJSON_CreateArray() : NULL};
  nibble_text_pair one = {text, n, c->pair, c->pair ? strlen(c->pair) : 0};
  nibble_status status = c->lines ? encode_lines(&out, text, n, err) : encode(&out, &one, 1, err);
  if (status == NIBBLE_OK && out.items) print_json(&out);
  cJSON_Delete(out.items);
  return status;
}
