/* tiktoken's files hold ranked tokens only. Which pattern cuts the text, and which special tokens there are, stands in
 * the programs that read them; so the table below goes by the file's name. The patterns are those of tiktoken 0.14
 * (tiktoken_ext/openai_public.py), with `\z` for its `$` and without the possessive quantifiers, which only make it
 * faster. Llama 3's tokenizer.model is read as transformers does: without special tokens, which tokenizer_config.json
 * has. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "model/json.h"
#include "tokenizer/readers/parts.h"
#include "tokenizer/readers/ranks.h"
#include "tokenizer/readers/readers.h"

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define BEFORE "[^\\r\\n\\p{L}\\p{N}]?"
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define SYMBOLS " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
#define SPACES "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

#define GPT2 "'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define CL100K CONTRACTIONS "|" BEFORE "\\p{L}+|\\p{N}{1,3}|" SYMBOLS "|\\s+\\z|" SPACES
#define LLAMA3 CONTRACTIONS "|" BEFORE "\\p{L}+|\\p{N}{1,3}|" SYMBOLS "|" SPACES
#define QWEN CONTRACTIONS "|" BEFORE "\\p{L}+|\\p{N}|" SYMBOLS "|" SPACES
#define O200K                                                                          \
  BEFORE UPPER "*" LOWER "+" CONTRACTIONS "?|" BEFORE UPPER "+" LOWER "*" CONTRACTIONS \
               "?|\\p{N}{1,3}| "                                                       \
               "?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES

enum { MAX_SPECIAL = 6, BEHIND = -1 /* the next id behind the file's */ };

typedef struct encoding {
  const char *names, *pattern;
  nb_named_id special[MAX_SPECIAL]; /* a NULL text ends the list */
  int extras;                       /* how many <|extra_N|> follow */
  bool nfc;
} encoding;

static const encoding encodings[] = {
    {.names = "r50k_base.tiktoken p50k_base.tiktoken", .pattern = GPT2, .special = {{"<|endoftext|>", 50256}}},
    {.names = "gpt2.tiktoken multilingual.tiktoken", /* Whisper's */
     .pattern = GPT2,
     .special = {{"<|endoftext|>", BEHIND}, {"<|startoftranscript|>", BEHIND}}},
    {.names = "cl100k_base.tiktoken",
     .pattern = CL100K,
     .special = {{"<|endoftext|>", 100257},
                 {"<|fim_prefix|>", 100258},
                 {"<|fim_middle|>", 100259},
                 {"<|fim_suffix|>", 100260},
                 {"<|endofprompt|>", 100276}}},
    {.names = "o200k_base.tiktoken",
     .pattern = O200K,
     .special = {{"<|endoftext|>", 199999}, {"<|endofprompt|>", 200018}}},
    {.names = "qwen.tiktoken",
     .pattern = QWEN,
     .special = {{"<|endoftext|>", BEHIND}, {"<|im_start|>", BEHIND}, {"<|im_end|>", BEHIND}},
     .extras = 205,
     .nfc = true},
    {.names = "*.model", .pattern = LLAMA3},
};

static const encoding *encoding_of(const char *name) {
  for (size_t i = 0; i < sizeof encodings / sizeof *encodings; i++) {
    if (nb_tokenizer_name_is(name, encodings[i].names)) return &encodings[i];
  }
  return NULL;
}

/* ---- the file ---- */

/* A whole number below NB_MAX_ID; -1 if it is none. */
static int32_t rank_of(nb_str digits) {
  int32_t rank = 0;
  if (digits.length == 0) return -1;
  for (size_t i = 0; i < digits.length; i++) {
    if (digits.data[i] < '0' || digits.data[i] > '9') return -1;
    rank = rank * 10 + (digits.data[i] - '0');
    if (rank >= NB_MAX_ID) return -1;
  }
  return rank;
}

static nibble_status read_lines(const nb_tokenizer_file *file, nb_ranks *ranks, nibble_error *err) {
  nb_str text = file->text;
  for (size_t number = 1; text.length > 0; number++) {
    nb_str line = nb_take_line(&text);
    if (line.length == 0) continue;
    const char *space = memchr(line.data, ' ', line.length);
    if (!space)
      return nb_fail(err, NIBBLE_BAD_INPUT, "%s: line %zu is not a token in base64, a space and its rank", file->path,
                     number);
    nb_str token = {line.data, (size_t)(space - line.data)};
    nb_str digits = {space + 1, line.length - token.length - 1};
    int32_t rank = rank_of(digits);
    if (rank < 0)
      return nb_fail(err, NIBBLE_BAD_INPUT, "%s: line %zu: the rank '%.*s' is no whole number below %d", file->path,
                     number, (int)nb_min_i64((int64_t)digits.length, 40), digits.data, NB_MAX_ID);
    nibble_status status = nb_ranks_add(ranks, file->path, number, token, rank, err);
    if (status != NIBBLE_OK) return status;
  }
  if (ranks->count == 0) return nb_fail(err, NIBBLE_BAD_INPUT, "%s: it holds no token", file->path);
  return NIBBLE_OK;
}

bool nb_tiktoken_is(nb_str text) {
  nb_str line = nb_take_line(&text);
  const char *space = line.length > 0 ? memchr(line.data, ' ', line.length) : NULL;
  return space && rank_of((nb_str){space + 1, line.length - (size_t)(space + 1 - line.data)}) >= 0;
}

/* ---- the special tokens ---- */

typedef struct specials {
  nb_named_id *list;
  char (*names)[32]; /* of the extras */
  size_t count;
} specials;

static nibble_status name_specials(const encoding *e, const nb_ranks *ranks, specials *out, nibble_error *err) {
  size_t most = MAX_SPECIAL + (size_t)e->extras;
  int32_t next = 0;
  for (size_t i = 0; i < ranks->count; i++) next = (int32_t)nb_max_i64(next, ranks->list[i].id + 1);
  out->list = nb_alloc(most, sizeof *out->list);
  out->names = nb_alloc(most, sizeof *out->names);
  if (!out->list || !out->names) return nb_fail_memory(err, most * sizeof *out->names);
  for (size_t i = 0; i < MAX_SPECIAL && e->special[i].text; i++) {
    nb_named_id special = e->special[i];
    if (special.id == BEHIND) special.id = next++;
    out->list[out->count++] = special;
  }
  for (int i = 0; i < e->extras; i++) {
    snprintf(out->names[i], sizeof out->names[i], "<|extra_%d|>", i);
    out->list[out->count++] = (nb_named_id){out->names[i], next++};
  }
  return NIBBLE_OK;
}

nibble_status nb_read_tiktoken(const nb_tokenizer_file *file, nb_tokenizer_spec *out, nibble_error *err) {
  const encoding *e = encoding_of(file->name);
  if (!e)
    return nb_fail(err, NIBBLE_BAD_INPUT, "%s: no tiktoken encoding has this name, so its pattern is not known",
                   file->path);
  nb_ranks ranks = {0};
  specials special = {0};
  nibble_status status = read_lines(file, &ranks, err);
  if (status == NIBBLE_OK) status = name_specials(e, &ranks, &special, err);
  if (status == NIBBLE_OK) status = nb_ranks_finish(&ranks, file->path, special.list, special.count, out, err);
  if (status == NIBBLE_OK) {
    cJSON *added = cJSON_CreateArray();
    for (size_t i = 0; i < special.count; i++)
      added =
          nb_json_push(added, nb_part_added((nb_part_token){special.list[i].id, special.list[i].text, false, true}));
    status = nb_ranks_parts(e->pattern, e->nfc, added, out, err);
  }
  free(special.list);
  free(special.names);
  nb_ranks_free(&ranks);
  return status;
}
