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
#include "tokenizer/alignment.h"
#include "tokenizer/budget.h"
#include "tokenizer/model.h"
#include "tokenizer/regex.h"

enum {
  NB_MAX_STEPS = 32,    /* in one group of a tokenizer */
  NB_MAX_CONTENT = 256, /* bytes that a step puts into a text, as often as it likes */
};

/* --- normalizers.c --- */

typedef struct nb_normalizer nb_normalizer;

/* Every group is read so: `parts` is the object of tokenizer.json, `where` the file's name. *out is NULL where there is
 * nothing to do. */
nibble_status nb_normalizer_read(const char *where, const cJSON *parts, nb_normalizer **out, nibble_error *err);

/* A text that is normalized in place. */
typedef struct nb_normal {
  nb_buf text;      /* valid UTF-8 */
  bool at_start;    /* it begins the whole input; cleared if nothing is left of its first character */
  nb_places *align; /* the text's, which is kept true; NULL: nobody asks */
  nb_buf scratch;   /* overwritten, as what follows */
  nb_places align_scratch;
} nb_normal;

void nb_normal_free(nb_normal *normal); /* not `align` */

/* NIBBLE_BAD_INPUT once the steps have spent the budget. */
nibble_status nb_normalize(const nb_normalizer *normalizer, nb_normal *normal, nb_budget *budget, nibble_error *err);
void nb_normalizer_free(nb_normalizer *normalizer);

/* --- pretokenizers.c --- */

typedef struct nb_pre_tokenizer nb_pre_tokenizer;

/* Takes the words of a text in their order. */
typedef struct nb_word_sink {
  nibble_status (*take)(void *ctx, const nb_word *word, nibble_error *err);
  void *ctx;
} nb_word_sink;

nibble_status nb_pre_tokenizer_read(const char *where, const cJSON *parts, nb_pre_tokenizer **out, nibble_error *err);

/* A text that is cut into words. */
typedef struct nb_normal_part {
  nb_str text;           /* valid UTF-8 */
  bool at_start;         /* it begins the whole input */
  const nb_place *align; /* its alignment; NULL: nobody asks. Else the words have theirs, and none is raw */
} nb_normal_part;

/* Hands on the words of a text. NIBBLE_BAD_INPUT once the steps have spent the budget. */
nibble_status nb_pre_tokenize(nb_pre_tokenizer *pre, nb_normal_part part, nb_word_sink sink, nb_budget *budget,
                              nibble_error *err);
void nb_pre_tokenizer_free(nb_pre_tokenizer *pre);

/* --- postprocessors.c --- */

/* A piece of a template: a special token, or one of the texts. */
typedef struct nb_post_piece {
  int32_t id; /* of a special token, or: */
  int32_t type_id;
} nb_post_piece;

enum { NB_FIRST_TEXT = -1, NB_SECOND_TEXT = -2 };

typedef struct nb_post_template {
  nb_post_piece *pieces; /* NULL: none */
  size_t count;
} nb_post_template;

/* Takes the white space at the ends of tokens out of their offsets (trim_offsets). */
typedef struct nb_post_trim {
  bool prefix_space; /* one space in front of a text was put there by the tokenizer, so it is not in the text */
  bool behind[2];    /* a special token stands before the first or second text when this is done */
} nb_post_trim;

typedef struct nb_post {
  nb_post_template single, pair;
  bool zero_types; /* what overflows has the template's types too, where special tokens are put */
  nb_post_trim trims[NB_MAX_STEPS];
  int trim_count;
} nb_post;

/* Reads the templates for a text and for two. They stay empty where there are none. *out needs nb_post_free, also after
 * a failure. */
nibble_status nb_post_read(const char *where, const cJSON *parts, nb_post *out, nibble_error *err);
void nb_post_free(nb_post *post);

/* --- decoders.c --- */

/* Takes the spaces out that stand before punctuation and contractions, as transformers' clean_up_tokenization does;
 * text[0, length) stays. */
void nb_clean_up(nb_buf *text, size_t length);

typedef struct nb_decoder nb_decoder;

nibble_status nb_decoder_read(const char *where, const cJSON *parts, nb_decoder **out, nibble_error *err);

/* Appends the text of tokens[0, count). Without a decoder they are joined with spaces, as the reference does.
 * NIBBLE_BAD_INPUT if the steps spend more than the budget of the tokens' text. */
nibble_status nb_decode_tokens(const nb_decoder *decoder, const nb_token *tokens, size_t count, nb_buf *text,
                               nibble_error *err);
void nb_decoder_free(nb_decoder *decoder);

/* --- for those files --- */

/* The types of a group: rows of whatever kind that begin with a `const char *type`. */
typedef struct nb_step_types {
  const void *rows;
  size_t row_size, count;
} nb_step_types;

#define NB_STEP_TYPES(table) \
  { table, sizeof *(table), sizeof(table) / sizeof *(table) }

/* The step that is being read. The functions below stick at the first failure: call them for all options, look at
 * `status` once. */
typedef struct nb_step_reader {
  const char *where; /* the file, for messages */
  const char *group; /* the member of tokenizer.json: "normalizer" */
  const char *list;  /* the key under which a Sequence has its steps: "normalizers" */
  nb_step_types types;
  const char *type;  /* the step's: "Replace" */
  const cJSON *json; /* the step's object */
  nibble_status status;
  nibble_error *err;
} nb_step_reader;

/* Adds the step that r->json describes, of the type that has `row`, to the group that ctx is. */
typedef void (*nb_step_fn)(nb_step_reader *r, const void *row, void *ctx);

/* Calls `add` for the step that the group in `parts` is, or for each of a Sequence, until there is a failure: a type
 * without a row is refused by name. Succeeds, and leaves r->json NULL, where the group is absent. */
nibble_status nb_steps_each(nb_step_reader *r, const cJSON *parts, nb_step_fn add, void *ctx);

/* Fails with "FILE: GROUP TYPE " before the message. */
void nb_step_fail(nb_step_reader *r, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* False, after a failure, if a group of `count` steps has no room for one more. */
bool nb_step_room(nb_step_reader *r, int count);

/* Options, which keep their defaults where they are absent. */
void nb_step_bool(nb_step_reader *r, const char *key, bool *out);
void nb_step_count(nb_step_reader *r, const char *key, int64_t *out);
void nb_step_text(nb_step_reader *r, const char *key, const char **out); /* *out points into the JSON */

/* Options that must be there, copied for the caller: a text of at most `limit` bytes, one character, and a pattern
 * written {"Regex": "..."} or {"String": "..."} under "pattern". *out is left alone after a failure. */
void nb_step_string(nb_step_reader *r, const char *key, size_t limit, char **out);
void nb_step_char(nb_step_reader *r, const char *key, char **out);
void nb_step_pattern(nb_step_reader *r, nb_regex **out);

#endif
