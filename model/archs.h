/* The model families, a row each: how their tensors are named in Hugging Face and GGUF files, what shape each has,
 * which are linear layers, and the switches of their blocks. Everything that asks "which tensors does this config
 * promise" (inspect, memory, init, convert, quantize) asks nb_model_tensors; no arithmetic on weights happens here. */
#ifndef NB_MODEL_ARCHS_H
#define NB_MODEL_ARCHS_H

#include "model/config.h"

typedef enum nb_role {
  NB_ROLE_OTHER,
  NB_ROLE_EMBEDDING, /* token, position or type table; never quantized */
  NB_ROLE_NORM,
  NB_ROLE_LINEAR, /* nn.Linear's weight: what quantize packs */
  NB_ROLE_BIAS,
  NB_ROLE_HEAD, /* output embedding: linear, but kept unless --include names it */
} nb_role;

/* Extents, resolved against a config. */
typedef enum nb_dim {
  NB_DIM_NONE,
  NB_DIM_VOCAB,
  NB_DIM_HIDDEN,
  NB_DIM_INTERMEDIATE,
  NB_DIM_Q,    /* num_attention_heads * head_dim */
  NB_DIM_KV,   /* num_key_value_heads * head_dim */
  NB_DIM_HEAD, /* head_dim */
  NB_DIM_POSITIONS,
  NB_DIM_TYPES,
} nb_dim;

/* When a config has the tensor. */
typedef enum nb_when {
  NB_ALWAYS,
  NB_IF_ATTENTION_BIAS,
  NB_IF_OUTPUT_BIAS, /* attention_bias, in a family where it reaches o_proj */
  NB_IF_MLP_BIAS,
  NB_IF_QK_NORM,
  NB_IF_HEAD,   /* a class with an output embedding, not tied to the input's */
  NB_IF_POOLER, /* BERT's base class */
} nb_when;

/* GGUF's llama keeps the rows of Q and K in another order (pairs interleaved); reading puts them back. */
typedef enum nb_permute { NB_PERMUTE_NONE, NB_PERMUTE_Q, NB_PERMUTE_K } nb_permute;

typedef struct nb_tensor_rule {
  const char *name; /* Hugging Face, without base_prefix; "{}" stands for the layer's number */
  const char *gguf; /* GGUF; NULL if it has none */
  nb_role role;
  nb_dim shape[2]; /* [out, in], or [n, NONE] */
  nb_when when;
  nb_permute permute; /* in llama's GGUF files */
} nb_tensor_rule;

struct nb_arch {
  const char *model_type;
  const char *causal_lm;   /* class written to "architectures" when made from GGUF; NULL: has no such class */
  const char *base_class;  /* the class whose checkpoints have no base_prefix */
  const char *base_prefix; /* before every tensor's name of the other classes, but for the head: "model." */
  const char *gguf_arch;   /* general.architecture; NULL if it has none */
  bool runnable;           /* the runner can compute it */
  bool decoder;            /* causal attention and a KV cache */
  bool qk_norm;
  bool tie_default;      /* tie_word_embeddings where the config does not say */
  bool qkv_bias_default; /* attention_bias where the config does not say */
  bool output_bias;      /* attention_bias gives o_proj a bias too */
  bool sliding_window;   /* heeds the config's sliding_window even where use_sliding_window is not said */
  /* What transformers' config classes take where the config is silent. */
  int64_t sliding_window_default, max_window_layers_default;
  double norm_eps_default;
  const nb_tensor_rule *rules;
  size_t rule_count;
};

const nb_arch *nb_arch_by_model_type(const char *model_type);
const nb_arch *nb_arch_by_gguf(const char *gguf_arch);

/* One tensor that a config promises. */
typedef struct nb_model_tensor {
  char *name;
  nb_role role;
  nb_permute permute;
  int layer; /* -1: none */
  int ndim;
  int64_t shape[2];
  const nb_tensor_rule *rule;
} nb_model_tensor;

typedef struct nb_model_tensors {
  nb_model_tensor *items;
  size_t count;
} nb_model_tensors;

/* Lists them in the order a checkpoint is written. config->arch must not be NULL. Free with nb_model_tensors_free. */
nibble_status nb_model_tensors_list(const nb_config *config, nb_model_tensors *out, nibble_error *err);
void nb_model_tensors_free(nb_model_tensors *tensors);

/* The role of the tensor `name` with `ndim` dimensions. By the table if config->arch knows the name, with or without
 * the family's prefix; otherwise by the rule for unknown models: a 2-D "*.weight" that is no embedding, no norm and no
 * head is linear. */
nb_role nb_tensor_role(const nb_config *config, const char *name, int ndim);

/* Translates a GGUF tensor name; the result is malloc'd, with *permute set. NULL if the table has no such name (then
 * nothing is set) or there is no memory. */
char *nb_name_from_gguf(const nb_arch *arch, const char *gguf_name, nb_permute *permute);

#endif
