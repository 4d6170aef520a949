/* The members of config.json that mean something here, a row each: every name that Hugging Face gives it, its GGUF key,
 * the field of nb_config that it fills, and its bounds. Read both ways: a GGUF file's metadata becomes a config by the
 * same rows. Each family lists the keys that it reads (family.h); a member that changes what a model computes and that
 * its family does not read is told by name, never ignored. */
#ifndef NB_MODEL_KEYS_H
#define NB_MODEL_KEYS_H

#include "model/config.h"

typedef enum nb_key {
  NB_KEY_NONE,
  NB_KEY_HIDDEN_SIZE,
  NB_KEY_INTERMEDIATE_SIZE,
  NB_KEY_NUM_HIDDEN_LAYERS,
  NB_KEY_NUM_DECODER_LAYERS,
  NB_KEY_NUM_ATTENTION_HEADS,
  NB_KEY_NUM_KEY_VALUE_HEADS,
  NB_KEY_HEAD_DIM,
  NB_KEY_VOCAB_SIZE,
  NB_KEY_MAX_POSITION_EMBEDDINGS,
  NB_KEY_TYPE_VOCAB_SIZE,
  NB_KEY_NORM_EPS,
  NB_KEY_HIDDEN_ACT,
  NB_KEY_FEED_FORWARD_PROJ,
  NB_KEY_TIE_WORD_EMBEDDINGS,
  NB_KEY_ATTENTION_BIAS,
  NB_KEY_MLP_BIAS,
  NB_KEY_IS_CAUSAL,
  NB_KEY_SLIDING_WINDOW,
  NB_KEY_USE_SLIDING_WINDOW,
  NB_KEY_MAX_WINDOW_LAYERS,
  NB_KEY_LAYER_TYPES,
  NB_KEY_NUM_EXPERTS,
  NB_KEY_NUM_EXPERTS_PER_TOK,
  NB_KEY_MOE_INTERMEDIATE_SIZE,
  NB_KEY_NORM_TOPK_PROB,
  NB_KEY_DECODER_SPARSE_STEP,
  NB_KEY_MLP_ONLY_LAYERS,
  NB_KEY_RELATIVE_BUCKETS,
  NB_KEY_RELATIVE_MAX_DISTANCE,
  NB_KEY_SCALE_ATTN_WEIGHTS,
  NB_KEY_SCALE_ATTN_BY_INVERSE_LAYER_IDX,
  NB_KEY_BOS_TOKEN_ID,
  NB_KEY_ROPE_THETA,
  NB_KEY_ROPE_SCALING,
  NB_KEY_ROPE_PARAMETERS,
  NB_KEY_PARTIAL_ROTARY_FACTOR,
  NB_KEYS
} nb_key;

typedef enum nb_key_type {
  NB_KEY_INT,
  NB_KEY_DOUBLE,
  NB_KEY_BOOL,
  NB_KEY_TEXT,
  NB_KEY_OTHER /* a list or an object, understood by code */
} nb_key_type;

typedef struct nb_key_row {
  const char *names; /* "hidden_size|n_embd|d_model": the first is written, any is read */
  const char *gguf;  /* after general.architecture and a point; NULL: GGUF files do not have it */
  nb_key_type type;
  size_t offset;       /* of the field in nb_config; not read for NB_KEY_OTHER */
  int64_t least, most; /* NB_KEY_INT */
  bool null_is_zero;   /* null says "none"; elsewhere it is as good as silence */
  bool is_folded;      /* what it says is in other fields in the end: layers, rope, hidden_act and gated, head_scaled */
} nb_key_row;

const nb_key_row *nb_key_info(nb_key key);

/* The member of config->json under any of the key's names, or NULL. *name is the name that it has there. */
const cJSON *nb_key_find(const cJSON *json, nb_key key, const char **name);

/* The default of a numeric key that the family reads; NAN if it reads no such key. */
double nb_key_default(const nb_family *family, nb_key key);

/* True if the family looks at the key. */
bool nb_family_reads(const nb_family *family, nb_key key);

/* The same of a member of config.json, by any of a key's names. family NULL reads none. */
bool nb_family_reads_member(const nb_family *family, const char *member);

/* True if a key has that name, for families that read it. */
bool nb_key_named(const char *member);

/* True for a member of config.json (NULL: none) that changes what models of some family compute, with a value that
 * makes a difference. */
bool nb_member_matters(const cJSON *member);

/* Fills the config's fields from its JSON by the keys that its family reads, with the family's defaults for what is not
 * said. NIBBLE_BAD_INPUT names the key that is missing, of the wrong type or out of bounds. */
nibble_status nb_keys_read(const char *where, nb_config *config, nibble_error *err);

/* The name of a member of the config that changes what a model computes, has a value that makes a difference, and is
 * none that its family reads; NULL if there is none. */
const char *nb_keys_unread(const nb_config *config);

#endif
