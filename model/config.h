/* config.json as this project understands it: one struct of numbers and switches, every one of them checked. The file's
 * own text is kept beside it, because what we do not understand must travel to the output unchanged.
 * A config of an unknown model_type is accepted with `family` NULL: such a model can be inspected, converted and
 * quantized, but not run. */
#ifndef NB_MODEL_CONFIG_H
#define NB_MODEL_CONFIG_H

#include "base/dtype.h"
#include "model/json.h"

typedef struct nb_family nb_family;
typedef struct nb_head_row nb_head_row;

/* NB_ROPE_OTHER: a scaling this project does not compute ("yarn", "longrope"); the runner refuses it by name. */
typedef enum nb_rope_type { NB_ROPE_DEFAULT, NB_ROPE_LINEAR, NB_ROPE_LLAMA3, NB_ROPE_OTHER } nb_rope_type;

typedef struct nb_rope {
  nb_rope_type type;
  const char *type_name; /* as the config spells it */
  double theta, factor;
  double low_freq_factor, high_freq_factor; /* llama3 */
  int64_t original_max_position_embeddings; /* llama3 */
} nb_rope;

/* quantization_config, if there is one: what the tensors of the folder are already packed as. */
typedef struct nb_quant_config {
  bool present;
  const char *method; /* "bitsandbytes", "gptq", ...; in `json` */
  bool load_in_4bit, load_in_8bit, double_quant;
  const char *quant_type;   /* "nf4", "fp4" */
  double int8_threshold;    /* llm_int8_threshold */
  int64_t bits, group_size; /* gptq; 0 where the config does not say, group_size -1: one group a row */
  bool sym;                 /* gptq: every zero point is the middle of the grid */
  bool gptq_v2;             /* it says that zero points are stored as they are, not less one */
  bool zeros_as_stored;     /* and so they are: by that, or by what symmetric ones must be (layouts/gptq.c) */
} nb_quant_config;

/* What differs from layer to layer. */
enum {
  NB_LAYER_SLIDING = 1, /* attention over sliding_window tokens only */
  NB_LAYER_SPARSE = 2,  /* experts in the place of one MLP */
};

typedef struct nb_config {
  char *text;               /* the whole file; NULL if there is none */
  cJSON *json;              /* of the text; an empty object if there is none */
  const char *model_type;   /* in `json`; "" if missing */
  const char *architecture; /* architectures[0], in `json`; "" if missing */
  const nb_family *family;  /* of model/families/, or NULL */
  nb_dtype dtype;           /* "dtype" or "torch_dtype"; F32 if missing or no float dtype */
  nb_quant_config quant;

  /* The rest is set if family is not NULL; fields whose keys the family does not read stay 0. */
  const nb_head_row *head; /* what the class puts on top (heads.h); never NULL */
  const char *unread;      /* a member of `json` that changes the mathematics, but is none that the family reads; in
                              `json`, or NULL */
  uint8_t *layers;         /* [num_hidden_layers] flags above; owned */
  int64_t hidden_size, intermediate_size, num_hidden_layers, num_decoder_layers;
  int64_t num_attention_heads, num_key_value_heads, head_dim;
  int64_t vocab_size, max_position_embeddings, type_vocab_size, num_labels;
  int64_t num_experts, num_experts_per_tok, moe_intermediate_size, decoder_sparse_step;
  int64_t relative_attention_num_buckets, relative_attention_max_distance;
  int64_t sliding_window, max_window_layers; /* sliding_window 0: none */
  double norm_eps;
  nb_rope rope;
  bool tie_word_embeddings; /* as the config says */
  bool tie_is_loose;        /* and means nothing: the family takes whatever head the file has */
  bool head_scaled;         /* hidden states are divided by sqrt(hidden_size) before the head */
  bool head_differs;        /* and the checkpoint has another head all the same */
  bool attention_bias, output_bias, mlp_bias, qk_norm, gated, is_causal;
  bool use_sliding_window, norm_topk_prob, scale_attn_weights, scale_attn_by_inverse_layer_idx;
  const char *hidden_act;        /* in `json`, or the family's */
  const char *feed_forward_proj; /* T5's: activation and gate in one */
  int64_t bos_token_id;          /* -1: none */
  int64_t eos_token_ids[8];      /* from config.json; generation_config.json may name more */
  int eos_token_count;
} nb_config;

/* Checks and understands n bytes, of which the config keeps a copy. `where` is the path for messages. Free with
 * nb_config_free. */
nibble_status nb_config_parse(const char *where, const char *text, size_t n, nb_config *out, nibble_error *err);
nibble_status nb_config_load(const char *path, nb_config *out, nibble_error *err);
void nb_config_free(nb_config *config);

#endif
