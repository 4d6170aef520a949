/* The steps of a tokenizer, in four groups: normalizers (text to text), pre-tokenizers (text to words),
 * post-processors (special tokens around the ids) and decoders (ids to text). Each group is a file with a table of the
 * types that tokenizer.json has for it; adding a type touches that file only. A step is read once, from its JSON object
 * with a "type" and options, and then run over every text.
 *
 * Types without a row are refused by name: ids are the reference's or there are none. */
#ifndef NB_TOKENIZER_STEPS_H
#define NB_TOKENIZER_STEPS_H

#include <cjson/cJSON.h>

#include "base/buf.h"
#include "tokenizer/model.h"
#include "tokenizer/regex.h"

enum {
  NB_MAX_STEPS = 32,    /* in one group of a tokenizer */
  NB_MAX_CONTENT = 256, /* bytes that a step puts into a text, as often as it likes */
};

/* --- normalizers.c --- */

typedef struct nb_normalizer nb_normalizer;

/* Every group is read so: `json` is its member of tokenizer.json, `where` the file's name. *out is NULL where there is
 * nothing to do. */
nibble_status nb_normalizer_read(const char *where, const cJSON *json, nb_normalizer **out, nibble_error *err);

/* Normalizes *text (valid UTF-8) in place; `scratch` is overwritten. *at_start is cleared if text at its start went. */
nibble_status nb_normalize(const nb_normalizer *normalizer, nb_buf *text, nb_buf *scratch, bool *at_start,
                           nibble_error *err);
void nb_normalizer_free(nb_normalizer *normalizer);

/* --- pretokenizers.c --- */

typedef struct nb_pre_tokenizer nb_pre_tokenizer;

/* Takes the words of a text in their order. */
typedef struct nb_word_sink {
  nibble_status (*take)(void *ctx, const nb_word *word, nibble_error *err);
  void *ctx;
} nb_word_sink;

nibble_status nb_pre_tokenizer_read(const char *where, const cJSON *json, nb_pre_tokenizer **out, nibble_error *err);

/* Hands on the words of `text` (valid UTF-8); `at_start`: it begins the whole input. */
nibble_status nb_pre_tokenize(nb_pre_tokenizer *pre, nb_str text, bool at_start, nb_word_sink sink, nibble_error *err);
void nb_pre_tokenizer_free(nb_pre_tokenizer *pre);

/* --- postprocessors.c --- */

/* Reads the template for a single text: the ids of special tokens, and -1 where the text's own go. It stays empty where
 * there is none. */
nibble_status nb_post_read(const char *where, const cJSON *json, nb_ids *template, nibble_error *err);

/* --- decoders.c --- */

typedef struct nb_decoder nb_decoder;

nibble_status nb_decoder_read(const char *where, const cJSON *json, nb_decoder **out, nibble_error *err);

/* Appends the text of tokens[0, count). Without a decoder they are joined with spaces, as the reference does. */
nibble_status nb_decode_tokens(const nb_decoder *decoder, const nb_token *tokens, size_t count, nb_buf *text,
                               nibble_error *err);
void nb_decoder_free(nb_decoder *decoder);

/* --- for those files --- */

/* The step that is being read. */
typedef struct nb_step_reader {
  const char *where; /* the file, for messages */
  const char *name;  /* the group: "normalizer" */
  const char *list;  /* the key under which a Sequence has its steps: "normalizers" */
  const char *type;  /* the step's: "Replace" */
  nibble_error *err;
} nb_step_reader;

/* Adds the step that `json` describes to what ctx is. */
typedef nibble_status (*nb_step_fn)(const nb_step_reader *r, const cJSON *json, void *ctx);

/* Calls `add` for the step `json`, or for each of a Sequence, with the `type` filled in; succeeds on NULL and null. */
nibble_status nb_steps_each(const nb_step_reader *group, const cJSON *json, nb_step_fn add, void *ctx);

/* Refuses a type that has no row. */
nibble_status nb_step_unknown(const nb_step_reader *r);

/* Fails if a group that has `count` steps has no room for one more. */
nibble_status nb_step_room(const nb_step_reader *r, int count);

/* A pattern written {"Regex": "..."} or {"String": "..."} under "pattern". */
nibble_status nb_step_pattern(const nb_step_reader *r, const cJSON *json, nb_regex **out);

/* A copy, owned by the caller, of the string under `key`, which must be there and have at most `limit` bytes. */
nibble_status nb_step_string(const nb_step_reader *r, const cJSON *json, const char *key, size_t limit, char **out);

/* The same for one character. */
nibble_status nb_step_char(const nb_step_reader *r, const cJSON *json, const char *key, char **out);

#endif
