/* config.json as this project understands it: one struct of numbers and switches, every one of them checked. The file's
 * own text is kept beside it, because what we do not understand must travel to the output unchanged.
 * A config of an unknown model_type is accepted with `arch` NULL: such a model can be inspected, converted and
 * quantized, but not run. */
#ifndef NB_MODEL_CONFIG_H
#define NB_MODEL_CONFIG_H

#include "base/dtype.h"
#include "model/json.h"

typedef struct nb_arch nb_arch;

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
  bool gptq_v2;             /* zero points are stored as they are, not less one */
} nb_quant_config;

typedef struct nb_config {
  char *text;               /* the whole file; NULL if there is none */
  cJSON *json;              /* of the text; an empty object if there is none */
  const char *model_type;   /* in `json`; "" if missing */
  const char *architecture; /* architectures[0], in `json`; "" if missing */
  const nb_arch *arch;      /* row of model/archs.c, or NULL */
  nb_dtype dtype;           /* "dtype" or "torch_dtype"; F32 if missing or no float dtype */

  /* The rest is set if arch is not NULL. */
  int64_t hidden_size, intermediate_size, num_hidden_layers, num_attention_heads, num_key_value_heads, head_dim;
  int64_t vocab_size, max_position_embeddings, type_vocab_size;
  double norm_eps;
  nb_rope rope;
  bool tie_word_embeddings, attention_bias, mlp_bias, qk_norm;
  int64_t sliding_window;   /* 0: none */
  const char *hidden_act;   /* in `json` */
  int64_t bos_token_id;     /* -1: none */
  int64_t eos_token_ids[8]; /* from config.json; generation_config.json may name more */
  int eos_token_count;
  nb_quant_config quant;
} nb_config;

/* Checks and understands n bytes, of which the config keeps a copy. `where` is the path for messages. Free with
 * nb_config_free. */
nibble_status nb_config_parse(const char *where, const char *text, size_t n, nb_config *out, nibble_error *err);
nibble_status nb_config_load(const char *path, nb_config *out, nibble_error *err);
void nb_config_free(nb_config *config);

#endif
