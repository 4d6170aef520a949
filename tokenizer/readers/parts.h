/* The parts of a tokenizer.json that readers of other files put together: the objects that steps (tokenizer/steps.h)
 * are read from. All of them return NULL without memory, and take what they are given over (model/json.h), so that only
 * the last of a chain needs a look. Texts of tokens in them must hold no NUL. */
#ifndef NB_TOKENIZER_READERS_PARTS_H
#define NB_TOKENIZER_READERS_PARTS_H

#include "tokenizer/spec.h"

cJSON *nb_part_sequence(const char *key, cJSON *steps); /* {"type": "Sequence", key: steps} */
cJSON *nb_part_replace(const char *what, const char *by);
cJSON *nb_part_replace_regex(const char *regex, const char *by);
cJSON *nb_part_split(const char *regex); /* every match becomes a word, and what lies between them */
cJSON *nb_part_metaspace(const char *prepend_scheme, bool split);
cJSON *nb_part_byte_level(bool add_prefix_space, bool trim_offsets, bool use_regex);
cJSON *nb_part_strip_first(const char *content); /* decoder: one from the start of the text */

/* An added token that is taken as it is spelled, wherever it stands. */
typedef struct nb_part_token {
  int32_t id;
  const char *text;
  bool normalized, special;
} nb_part_token;

cJSON *nb_part_added(nb_part_token token);

/* The post-processor that puts `before` in front of each text and `after` behind it; NULL: nothing. */
cJSON *nb_part_template(const nb_part_token *before, const nb_part_token *after);

/* The options of a BPE model; see tokenizer/bpe.c. */
typedef struct nb_part_bpe {
  const char *unk_token, *prefix, *suffix; /* NULL: none */
  bool fuse_unk, byte_fallback, ignore_merges;
} nb_part_bpe;

cJSON *nb_part_bpe_model(const nb_part_bpe *bpe);

/* The parts that differ between files; a step that there is not is cJSON_CreateNull(). */
typedef struct nb_parts {
  cJSON *added, *normalizer, *pre_tokenizer, *post_processor, *decoder, *model;
} nb_parts;

/* tokenizer.json's object of all of them, which it takes over. NIBBLE_SYSTEM without memory. */
nibble_status nb_parts_finish(nb_parts parts, nb_tokenizer_spec *out, nibble_error *err);

#endif
