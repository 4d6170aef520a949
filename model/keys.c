#include "model/keys.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "model/family.h"

/* Larger than any model there is, small enough that products of three stay inside an int64. */
enum { MAX_EXTENT = 1 << 20, MAX_LAYERS = 1 << 14, MAX_VOCAB = 1 << 24, MAX_EXPERTS = 1 << 14 };

/* Configs say 2^31 and more for "no limit". A table of so many positions times MAX_EXTENT is still an int64 of bytes.
 */
#define MAX_POSITIONS ((int64_t)1 << 40)

#define FIELD(name) offsetof(nb_config, name)
static const nb_key_row rows[NB_KEYS] = {
    [NB_KEY_HIDDEN_SIZE] = {"hidden_size|n_embd|d_model", "embedding_length", NB_KEY_INT, FIELD(hidden_size), 1,
                            MAX_EXTENT},
    [NB_KEY_INTERMEDIATE_SIZE] = {"intermediate_size|n_inner|d_ff", "feed_forward_length", NB_KEY_INT,
                                  FIELD(intermediate_size), 1, MAX_EXTENT},
    [NB_KEY_NUM_HIDDEN_LAYERS] = {"num_hidden_layers|n_layer|num_layers", "block_count", NB_KEY_INT,
                                  FIELD(num_hidden_layers), 0, MAX_LAYERS},
    [NB_KEY_NUM_DECODER_LAYERS] = {"num_decoder_layers", NULL, NB_KEY_INT, FIELD(num_decoder_layers), 0, MAX_LAYERS},
    [NB_KEY_NUM_ATTENTION_HEADS] = {"num_attention_heads|n_head|num_heads", "attention.head_count", NB_KEY_INT,
                                    FIELD(num_attention_heads), 1, MAX_EXTENT},
    [NB_KEY_NUM_KEY_VALUE_HEADS] = {"num_key_value_heads", "attention.head_count_kv", NB_KEY_INT,
                                    FIELD(num_key_value_heads), 1, MAX_EXTENT},
    [NB_KEY_HEAD_DIM] = {"head_dim|d_kv", NULL, NB_KEY_INT, FIELD(head_dim), 1, MAX_EXTENT},
    [NB_KEY_VOCAB_SIZE] = {"vocab_size", "vocab_size", NB_KEY_INT, FIELD(vocab_size), 1, MAX_VOCAB},
    [NB_KEY_MAX_POSITION_EMBEDDINGS] = {"max_position_embeddings|n_positions", "context_length", NB_KEY_INT,
                                        FIELD(max_position_embeddings), 1, MAX_POSITIONS},
    [NB_KEY_TYPE_VOCAB_SIZE] = {"type_vocab_size", NULL, NB_KEY_INT, FIELD(type_vocab_size), 1, MAX_VOCAB},
    [NB_KEY_NORM_EPS] = {"rms_norm_eps|layer_norm_eps|layer_norm_epsilon", "attention.layer_norm_rms_epsilon",
                         NB_KEY_DOUBLE, FIELD(norm_eps), 0, 0},
    [NB_KEY_HIDDEN_ACT] = {"hidden_act|activation_function", NULL, NB_KEY_TEXT, FIELD(hidden_act), 0, 0},
    [NB_KEY_FEED_FORWARD_PROJ] = {"feed_forward_proj", NULL, NB_KEY_TEXT, FIELD(feed_forward_proj), 0, 0,
                                  .is_folded = true},
    [NB_KEY_TIE_WORD_EMBEDDINGS] = {"tie_word_embeddings", NULL, NB_KEY_BOOL, FIELD(tie_word_embeddings), 0, 0,
                                    .is_folded = true},
    [NB_KEY_ATTENTION_BIAS] = {"attention_bias", NULL, NB_KEY_BOOL, FIELD(attention_bias), 0, 0},
    [NB_KEY_MLP_BIAS] = {"mlp_bias", NULL, NB_KEY_BOOL, FIELD(mlp_bias), 0, 0},
    [NB_KEY_IS_CAUSAL] = {"is_causal", "attention.causal", NB_KEY_BOOL, FIELD(is_causal), 0, 0, false},
    [NB_KEY_SLIDING_WINDOW] = {"sliding_window", NULL, NB_KEY_INT, FIELD(sliding_window), -MAX_POSITIONS, MAX_POSITIONS,
                               true},
    [NB_KEY_USE_SLIDING_WINDOW] = {"use_sliding_window", NULL, NB_KEY_BOOL, FIELD(use_sliding_window), 0, 0,
                                   .is_folded = true},
    [NB_KEY_MAX_WINDOW_LAYERS] = {"max_window_layers", NULL, NB_KEY_INT, FIELD(max_window_layers), 0, MAX_POSITIONS,
                                  .is_folded = true},
    [NB_KEY_LAYER_TYPES] = {"layer_types", NULL, NB_KEY_OTHER, 0, 0, 0, .is_folded = true},
    [NB_KEY_NUM_EXPERTS] = {"num_local_experts|num_experts", "expert_count", NB_KEY_INT, FIELD(num_experts), 0,
                            MAX_EXPERTS},
    [NB_KEY_NUM_EXPERTS_PER_TOK] = {"num_experts_per_tok", "expert_used_count", NB_KEY_INT, FIELD(num_experts_per_tok),
                                    1, MAX_EXPERTS},
    [NB_KEY_MOE_INTERMEDIATE_SIZE] = {"moe_intermediate_size", "expert_feed_forward_length", NB_KEY_INT,
                                      FIELD(moe_intermediate_size), 1, MAX_EXTENT},
    [NB_KEY_NORM_TOPK_PROB] = {"norm_topk_prob", NULL, NB_KEY_BOOL, FIELD(norm_topk_prob), 0, 0},
    [NB_KEY_DECODER_SPARSE_STEP] = {"decoder_sparse_step", NULL, NB_KEY_INT, FIELD(decoder_sparse_step), 1, MAX_LAYERS,
                                    .is_folded = true},
    [NB_KEY_MLP_ONLY_LAYERS] = {"mlp_only_layers", NULL, NB_KEY_OTHER, 0, 0, 0, .is_folded = true},
    [NB_KEY_RELATIVE_BUCKETS] = {"relative_attention_num_buckets", NULL, NB_KEY_INT,
                                 FIELD(relative_attention_num_buckets), 4, MAX_EXTENT},
    [NB_KEY_RELATIVE_MAX_DISTANCE] = {"relative_attention_max_distance", NULL, NB_KEY_INT,
                                      FIELD(relative_attention_max_distance), 2, MAX_POSITIONS},
    [NB_KEY_SCALE_ATTN_WEIGHTS] = {"scale_attn_weights", NULL, NB_KEY_BOOL, FIELD(scale_attn_weights), 0, 0},
    [NB_KEY_SCALE_ATTN_BY_INVERSE_LAYER_IDX] = {"scale_attn_by_inverse_layer_idx", NULL, NB_KEY_BOOL,
                                                FIELD(scale_attn_by_inverse_layer_idx), 0, 0},
    [NB_KEY_BOS_TOKEN_ID] = {"bos_token_id", NULL, NB_KEY_INT, FIELD(bos_token_id), -1, MAX_VOCAB},
    [NB_KEY_ROPE_THETA] = {"rope_theta", "rope.freq_base", NB_KEY_OTHER, 0, 0, 0, .is_folded = true},
    [NB_KEY_ROPE_SCALING] = {"rope_scaling", NULL, NB_KEY_OTHER, 0, 0, 0, .is_folded = true},
    [NB_KEY_ROPE_PARAMETERS] = {"rope_parameters", NULL, NB_KEY_OTHER, 0, 0, 0, .is_folded = true},
    [NB_KEY_PARTIAL_ROTARY_FACTOR] = {"partial_rotary_factor", NULL, NB_KEY_OTHER, 0, 0, 0, .is_folded = true},
};
#undef FIELD

/* Members that some family's mathematics depend on, with the value that stands for "not so". Null is always that. */
static const struct {
  const char *name;
  double neutral; /* of a number, false being 0 and true 1; NAN: any number makes a difference */
  const char *text;
} mathematics[] = {
    {"alibi", 0, NULL},
    {"add_cross_attention", 0, NULL},
    {"attention_multiplier", NAN, NULL},
    {"attention_out_multiplier", 1, NULL},
    {"attn_logit_softcapping", 0, NULL},
    {"clip_qkv", 0, NULL},
    {"embedding_multiplier", 1, NULL},
    {"final_logit_softcapping", 0, NULL},
    {"is_causal", NAN, NULL},
    {"is_decoder", 0, NULL},
    {"logit_scale", 1, NULL},
    {"logits_scaling", 1, NULL},
    {"n_shared_experts", 0, NULL},
    {"num_experts", 0, NULL},
    {"num_local_experts", 0, NULL},
    {"parallel_attn", 0, NULL},
    {"partial_rotary_factor", 1, NULL},
    {"position_embedding_type", NAN, "absolute"},
    {"qk_layernorm", 0, NULL},
    {"query_pre_attn_scalar", NAN, NULL},
    {"residual_multiplier", 1, NULL},
    {"rope_interleaved", 0, NULL},
    {"rotary_pct", 1, NULL},
    {"scale_depth", NAN, NULL},
    {"scale_emb", 1, NULL},
    {"use_parallel_residual", 0, NULL},
    {"use_qk_norm", 0, NULL},
};

const nb_key_row *nb_key_info(nb_key key) { return &rows[key]; }

/* Copies the next of names that are parted by "|" and moves on; false after the last. */
static bool next_name(const char **names, char out[64]) {
  if (!**names) return false;
  size_t n = strcspn(*names, "|");
  memcpy(out, *names, n);
  out[n] = 0;
  *names += n + ((*names)[n] == '|');
  return true;
}

const cJSON *nb_key_find(const cJSON *json, nb_key key, const char **name) {
  char one[64];
  for (const char *names = rows[key].names; next_name(&names, one);) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, one);
    if (!item) continue;
    if (name) *name = item->string;
    return item;
  }
  return NULL;
}

/* The first of the key's names, which is what a message about a missing one says. */
static nibble_status missing(const char *where, nb_key key, nibble_error *err) {
  const char *names = rows[key].names;
  return nb_fail(err, NIBBLE_BAD_INPUT, "%s: \"%.*s\" is missing", where, (int)strcspn(names, "|"), names);
}

static nibble_status read_key(const char *where, nb_config *c, const nb_key_use *use, nibble_error *err) {
  const nb_key_row *row = &rows[use->key];
  void *field = (char *)c + row->offset;
  const char *name = "";
  const cJSON *item = use->fixed ? NULL : nb_key_find(c->json, use->key, &name);
  bool silent = !item || cJSON_IsNull(item);
  if (row->type == NB_KEY_OTHER) return NIBBLE_OK;
  if (silent && isnan(use->value)) return missing(where, use->key, err);
  switch (row->type) {
    case NB_KEY_INT: *(int64_t *)field = isnan(use->value) ? 0 : (int64_t)use->value; break; /* NaN: no default */
    case NB_KEY_DOUBLE: *(double *)field = use->value; break;
    case NB_KEY_BOOL: *(bool *)field = use->value != 0; break;
    case NB_KEY_TEXT: *(const char **)field = use->text; break;
    case NB_KEY_OTHER: break;
  }
  if (item && silent && row->null_is_zero) *(int64_t *)field = 0;
  if (silent) return NIBBLE_OK;
  switch (row->type) {
    case NB_KEY_INT: return nb_json_int(where, c->json, name, (nb_range){row->least, row->most}, field, err);
    case NB_KEY_DOUBLE: return nb_json_double(where, c->json, name, field, err);
    case NB_KEY_BOOL: return nb_json_bool(where, c->json, name, field, err);
    case NB_KEY_TEXT: return nb_json_string(where, c->json, name, field, err);
    case NB_KEY_OTHER: break;
  }
  return NIBBLE_OK;
}

/* The use of `key` that counts; NULL if the family does not read it. */
static const nb_key_use *find_use(const nb_family *family, nb_key key) {
  for (size_t i = 0; i < sizeof family->keys / sizeof *family->keys; i++) {
    for (const nb_key_use *use = family->keys[i]; use && use->key != NB_KEY_NONE; use++) {
      if (use->key == key) return use;
    }
  }
  return NULL;
}

nibble_status nb_keys_read(const char *where, nb_config *config, nibble_error *err) {
  nibble_status status = NIBBLE_OK;
  for (nb_key key = NB_KEY_NONE + 1; status == NIBBLE_OK && key < NB_KEYS; key++) {
    const nb_key_use *use = find_use(config->family, key);
    if (use) status = read_key(where, config, use, err);
  }
  return status;
}

double nb_key_default(const nb_family *family, nb_key key) {
  const nb_key_use *use = find_use(family, key);
  return use ? use->value : NAN;
}

bool nb_family_reads(const nb_family *family, nb_key key) {
  const nb_key_use *use = find_use(family, key);
  return use && !use->fixed;
}

static bool has_name(nb_key key, const char *member) {
  char one[64];
  for (const char *names = rows[key].names; next_name(&names, one);) {
    if (strcmp(one, member) == 0) return true;
  }
  return false;
}

static bool is_read(const nb_family *family, const char *member) {
  for (nb_key key = NB_KEY_NONE + 1; key < NB_KEYS; key++) {
    if (find_use(family, key) && has_name(key, member)) return true;
  }
  return false;
}

bool nb_key_named(const char *member) {
  for (nb_key key = NB_KEY_NONE + 1; key < NB_KEYS; key++) {
    if (has_name(key, member)) return true;
  }
  return false;
}

bool nb_family_reads_member(const nb_family *family, const char *member) {
  for (nb_key key = NB_KEY_NONE + 1; family && key < NB_KEYS; key++) {
    if (nb_family_reads(family, key) && has_name(key, member)) return true;
  }
  return false;
}

static bool makes_a_difference(const cJSON *item, double neutral, const char *text) {
  if (cJSON_IsNull(item)) return false;
  if (cJSON_IsBool(item)) return (cJSON_IsTrue(item) ? 1 : 0) != neutral; /* NAN: either */
  if (cJSON_IsNumber(item)) return item->valuedouble != neutral;
  if (cJSON_IsString(item)) return !text || strcmp(item->valuestring, text) != 0;
  return item->child != NULL;
}

bool nb_member_matters(const cJSON *item) {
  if (!item) return false;
  for (size_t i = 0; i < sizeof mathematics / sizeof *mathematics; i++) {
    if (strcmp(mathematics[i].name, item->string) == 0)
      return makes_a_difference(item, mathematics[i].neutral, mathematics[i].text);
  }
  return false;
}

const char *nb_keys_unread(const nb_config *config) {
  for (size_t i = 0; i < sizeof mathematics / sizeof *mathematics; i++) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(config->json, mathematics[i].name);
    if (item && !is_read(config->family, mathematics[i].name) &&
        makes_a_difference(item, mathematics[i].neutral, mathematics[i].text))
      return mathematics[i].name;
  }
  return NULL;
}
