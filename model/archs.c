#include "model/archs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"

/* Llama, Mistral, Qwen2 and Qwen3 differ in biases and in the norms of Q and K; a row that a family never has is left
 * out of its table by its `when`. Row order is the order of writing. */
static const nb_tensor_rule llama_rules[] = {
    {"embed_tokens.weight", "token_embd.weight", NB_ROLE_EMBEDDING, {NB_DIM_VOCAB, NB_DIM_HIDDEN}, 0, 0},
    {"layers.{}.input_layernorm.weight", "blk.{}.attn_norm.weight", NB_ROLE_NORM, {NB_DIM_HIDDEN, 0}, 0, 0},
    {"layers.{}.self_attn.q_proj.weight",
     "blk.{}.attn_q.weight",
     NB_ROLE_LINEAR,
     {NB_DIM_Q, NB_DIM_HIDDEN},
     0,
     NB_PERMUTE_Q},
    {"layers.{}.self_attn.q_proj.bias",
     "blk.{}.attn_q.bias",
     NB_ROLE_BIAS,
     {NB_DIM_Q, 0},
     NB_IF_ATTENTION_BIAS,
     NB_PERMUTE_Q},
    {"layers.{}.self_attn.k_proj.weight",
     "blk.{}.attn_k.weight",
     NB_ROLE_LINEAR,
     {NB_DIM_KV, NB_DIM_HIDDEN},
     0,
     NB_PERMUTE_K},
    {"layers.{}.self_attn.k_proj.bias",
     "blk.{}.attn_k.bias",
     NB_ROLE_BIAS,
     {NB_DIM_KV, 0},
     NB_IF_ATTENTION_BIAS,
     NB_PERMUTE_K},
    {"layers.{}.self_attn.v_proj.weight", "blk.{}.attn_v.weight", NB_ROLE_LINEAR, {NB_DIM_KV, NB_DIM_HIDDEN}, 0, 0},
    {"layers.{}.self_attn.v_proj.bias", "blk.{}.attn_v.bias", NB_ROLE_BIAS, {NB_DIM_KV, 0}, NB_IF_ATTENTION_BIAS, 0},
    {"layers.{}.self_attn.o_proj.weight", "blk.{}.attn_output.weight", NB_ROLE_LINEAR, {NB_DIM_HIDDEN, NB_DIM_Q}, 0, 0},
    {"layers.{}.self_attn.o_proj.bias",
     "blk.{}.attn_output.bias",
     NB_ROLE_BIAS,
     {NB_DIM_HIDDEN, 0},
     NB_IF_OUTPUT_BIAS,
     0},
    {"layers.{}.self_attn.q_norm.weight",
     "blk.{}.attn_q_norm.weight",
     NB_ROLE_NORM,
     {NB_DIM_HEAD, 0},
     NB_IF_QK_NORM,
     0},
    {"layers.{}.self_attn.k_norm.weight",
     "blk.{}.attn_k_norm.weight",
     NB_ROLE_NORM,
     {NB_DIM_HEAD, 0},
     NB_IF_QK_NORM,
     0},
    {"layers.{}.post_attention_layernorm.weight", "blk.{}.ffn_norm.weight", NB_ROLE_NORM, {NB_DIM_HIDDEN, 0}, 0, 0},
    {"layers.{}.mlp.gate_proj.weight",
     "blk.{}.ffn_gate.weight",
     NB_ROLE_LINEAR,
     {NB_DIM_INTERMEDIATE, NB_DIM_HIDDEN},
     0,
     0},
    {"layers.{}.mlp.gate_proj.bias", "blk.{}.ffn_gate.bias", NB_ROLE_BIAS, {NB_DIM_INTERMEDIATE, 0}, NB_IF_MLP_BIAS, 0},
    {"layers.{}.mlp.up_proj.weight",
     "blk.{}.ffn_up.weight",
     NB_ROLE_LINEAR,
     {NB_DIM_INTERMEDIATE, NB_DIM_HIDDEN},
     0,
     0},
    {"layers.{}.mlp.up_proj.bias", "blk.{}.ffn_up.bias", NB_ROLE_BIAS, {NB_DIM_INTERMEDIATE, 0}, NB_IF_MLP_BIAS, 0},
    {"layers.{}.mlp.down_proj.weight",
     "blk.{}.ffn_down.weight",
     NB_ROLE_LINEAR,
     {NB_DIM_HIDDEN, NB_DIM_INTERMEDIATE},
     0,
     0},
    {"layers.{}.mlp.down_proj.bias", "blk.{}.ffn_down.bias", NB_ROLE_BIAS, {NB_DIM_HIDDEN, 0}, NB_IF_MLP_BIAS, 0},
    {"norm.weight", "output_norm.weight", NB_ROLE_NORM, {NB_DIM_HIDDEN, 0}, 0, 0},
    {"lm_head.weight", "output.weight", NB_ROLE_HEAD, {NB_DIM_VOCAB, NB_DIM_HIDDEN}, NB_IF_HEAD, 0},
};

static const nb_tensor_rule bert_rules[] = {
    {"embeddings.word_embeddings.weight", NULL, NB_ROLE_EMBEDDING, {NB_DIM_VOCAB, NB_DIM_HIDDEN}, 0, 0},
    {"embeddings.position_embeddings.weight", NULL, NB_ROLE_EMBEDDING, {NB_DIM_POSITIONS, NB_DIM_HIDDEN}, 0, 0},
    {"embeddings.token_type_embeddings.weight", NULL, NB_ROLE_EMBEDDING, {NB_DIM_TYPES, NB_DIM_HIDDEN}, 0, 0},
    {"embeddings.LayerNorm.weight", NULL, NB_ROLE_NORM, {NB_DIM_HIDDEN, 0}, 0, 0},
    {"embeddings.LayerNorm.bias", NULL, NB_ROLE_NORM, {NB_DIM_HIDDEN, 0}, 0, 0},
    {"encoder.layer.{}.attention.self.query.weight", NULL, NB_ROLE_LINEAR, {NB_DIM_Q, NB_DIM_HIDDEN}, 0, 0},
    {"encoder.layer.{}.attention.self.query.bias", NULL, NB_ROLE_BIAS, {NB_DIM_Q, 0}, 0, 0},
    {"encoder.layer.{}.attention.self.key.weight", NULL, NB_ROLE_LINEAR, {NB_DIM_KV, NB_DIM_HIDDEN}, 0, 0},
    {"encoder.layer.{}.attention.self.key.bias", NULL, NB_ROLE_BIAS, {NB_DIM_KV, 0}, 0, 0},
    {"encoder.layer.{}.attention.self.value.weight", NULL, NB_ROLE_LINEAR, {NB_DIM_KV, NB_DIM_HIDDEN}, 0, 0},
    {"encoder.layer.{}.attention.self.value.bias", NULL, NB_ROLE_BIAS, {NB_DIM_KV, 0}, 0, 0},
    {"encoder.layer.{}.attention.output.dense.weight", NULL, NB_ROLE_LINEAR, {NB_DIM_HIDDEN, NB_DIM_Q}, 0, 0},
    {"encoder.layer.{}.attention.output.dense.bias", NULL, NB_ROLE_BIAS, {NB_DIM_HIDDEN, 0}, 0, 0},
    {"encoder.layer.{}.attention.output.LayerNorm.weight", NULL, NB_ROLE_NORM, {NB_DIM_HIDDEN, 0}, 0, 0},
    {"encoder.layer.{}.attention.output.LayerNorm.bias", NULL, NB_ROLE_NORM, {NB_DIM_HIDDEN, 0}, 0, 0},
    {"encoder.layer.{}.intermediate.dense.weight", NULL, NB_ROLE_LINEAR, {NB_DIM_INTERMEDIATE, NB_DIM_HIDDEN}, 0, 0},
    {"encoder.layer.{}.intermediate.dense.bias", NULL, NB_ROLE_BIAS, {NB_DIM_INTERMEDIATE, 0}, 0, 0},
    {"encoder.layer.{}.output.dense.weight", NULL, NB_ROLE_LINEAR, {NB_DIM_HIDDEN, NB_DIM_INTERMEDIATE}, 0, 0},
    {"encoder.layer.{}.output.dense.bias", NULL, NB_ROLE_BIAS, {NB_DIM_HIDDEN, 0}, 0, 0},
    {"encoder.layer.{}.output.LayerNorm.weight", NULL, NB_ROLE_NORM, {NB_DIM_HIDDEN, 0}, 0, 0},
    {"encoder.layer.{}.output.LayerNorm.bias", NULL, NB_ROLE_NORM, {NB_DIM_HIDDEN, 0}, 0, 0},
    {"pooler.dense.weight", NULL, NB_ROLE_LINEAR, {NB_DIM_HIDDEN, NB_DIM_HIDDEN}, NB_IF_POOLER, 0},
    {"pooler.dense.bias", NULL, NB_ROLE_BIAS, {NB_DIM_HIDDEN, 0}, NB_IF_POOLER, 0},
};

enum {
  LLAMA_RULES = sizeof llama_rules / sizeof *llama_rules,
  BERT_RULES = sizeof bert_rules / sizeof *bert_rules,
};

static const nb_arch archs[] = {
    {
        .model_type = "llama",
        .causal_lm = "LlamaForCausalLM",
        .base_class = "LlamaModel",
        .base_prefix = "model.",
        .gguf_arch = "llama",
        .runnable = true,
        .decoder = true,
        .output_bias = true,
        .norm_eps_default = 1e-6,
        .rules = llama_rules,
        .rule_count = LLAMA_RULES,
    },
    {
        .model_type = "mistral",
        .causal_lm = "MistralForCausalLM",
        .base_class = "MistralModel",
        .base_prefix = "model.",
        .runnable = true,
        .decoder = true,
        .sliding_window = true,
        .sliding_window_default = 4096,
        .norm_eps_default = 1e-6,
        .rules = llama_rules,
        .rule_count = LLAMA_RULES,
    },
    {
        .model_type = "qwen2",
        .causal_lm = "Qwen2ForCausalLM",
        .base_class = "Qwen2Model",
        .base_prefix = "model.",
        .gguf_arch = "qwen2",
        .runnable = true,
        .decoder = true,
        .qkv_bias_default = true,
        .sliding_window_default = 4096,
        .max_window_layers_default = 28,
        .norm_eps_default = 1e-6,
        .rules = llama_rules,
        .rule_count = LLAMA_RULES,
    },
    {
        .model_type = "qwen3",
        .causal_lm = "Qwen3ForCausalLM",
        .base_class = "Qwen3Model",
        .base_prefix = "model.",
        .gguf_arch = "qwen3",
        .runnable = true,
        .decoder = true,
        .qk_norm = true,
        .output_bias = true,
        .sliding_window_default = 4096,
        .max_window_layers_default = 28,
        .norm_eps_default = 1e-6,
        .rules = llama_rules,
        .rule_count = LLAMA_RULES,
    },
    {
        .model_type = "bert",
        .base_class = "BertModel",
        .base_prefix = "bert.",
        .tie_default = true,
        .norm_eps_default = 1e-12,
        .rules = bert_rules,
        .rule_count = BERT_RULES,
    },
};

enum { ARCHS = sizeof archs / sizeof *archs };

const nb_arch *nb_arch_by_model_type(const char *model_type) {
  for (int i = 0; i < ARCHS; i++) {
    if (strcmp(archs[i].model_type, model_type) == 0) return &archs[i];
  }
  return NULL;
}

const nb_arch *nb_arch_by_gguf(const char *gguf_arch) {
  for (int i = 0; i < ARCHS; i++) {
    if (archs[i].gguf_arch && strcmp(archs[i].gguf_arch, gguf_arch) == 0) return &archs[i];
  }
  return NULL;
}

static int64_t extent(const nb_config *c, nb_dim dim) {
  switch (dim) {
    case NB_DIM_NONE: return 0;
    case NB_DIM_VOCAB: return c->vocab_size;
    case NB_DIM_HIDDEN: return c->hidden_size;
    case NB_DIM_INTERMEDIATE: return c->intermediate_size;
    case NB_DIM_Q: return c->num_attention_heads * c->head_dim;
    case NB_DIM_KV: return c->num_key_value_heads * c->head_dim;
    case NB_DIM_HEAD: return c->head_dim;
    case NB_DIM_POSITIONS: return c->max_position_embeddings;
    case NB_DIM_TYPES: return c->type_vocab_size;
  }
  return 0;
}

static bool is_base_class(const nb_config *c) { return strcmp(c->architecture, c->arch->base_class) == 0; }

static bool wanted(const nb_config *c, nb_when when) {
  bool causal = !*c->architecture || (c->arch->causal_lm && strcmp(c->architecture, c->arch->causal_lm) == 0);
  switch (when) {
    case NB_ALWAYS: return true;
    case NB_IF_ATTENTION_BIAS: return c->attention_bias;
    case NB_IF_OUTPUT_BIAS: return c->attention_bias && c->arch->output_bias;
    case NB_IF_MLP_BIAS: return c->mlp_bias;
    case NB_IF_QK_NORM: return c->qk_norm;
    case NB_IF_HEAD: return causal && !c->tie_word_embeddings;
    case NB_IF_POOLER: return is_base_class(c);
  }
  return false;
}

/* `prefix` + `pattern` with "{}" replaced by the layer's number; malloc'd. */
static char *expand(const char *prefix, const char *pattern, int layer) {
  size_t room = strlen(prefix) + strlen(pattern) + 12;
  char *name = malloc(room);
  if (!name) return NULL;
  const char *hole = strstr(pattern, "{}");
  if (hole) {
    snprintf(name, room, "%s%.*s%d%s", prefix, (int)(hole - pattern), pattern, layer, hole + 2);
  } else {
    snprintf(name, room, "%s%s", prefix, pattern);
  }
  return name;
}

static bool append(nb_model_tensors *list, const nb_config *c, const nb_tensor_rule *rule, int layer) {
  const char *prefix = is_base_class(c) || rule->role == NB_ROLE_HEAD ? "" : c->arch->base_prefix;
  nb_model_tensor *t = &list->items[list->count];
  *t = (nb_model_tensor){.name = expand(prefix, rule->name, layer),
                         .role = rule->role,
                         .permute = rule->permute,
                         .layer = layer,
                         .ndim = rule->shape[1] == NB_DIM_NONE ? 1 : 2,
                         .shape = {extent(c, rule->shape[0]), extent(c, rule->shape[1])},
                         .rule = rule};
  if (!t->name) return false;
  list->count++;
  return true;
}

nibble_status nb_model_tensors_list(const nb_config *c, nb_model_tensors *out, nibble_error *err) {
  const nb_arch *arch = c->arch;
  size_t most = arch->rule_count * (size_t)(c->num_hidden_layers + 1);
  *out = (nb_model_tensors){.items = nb_alloc(most, sizeof *out->items)};
  bool ok = out->items != NULL;
  for (size_t r = 0; ok && r < arch->rule_count;) {
    size_t end = r; /* rows [r, end) are repeated for every layer, or it is one row that is not */
    while (end < arch->rule_count && strstr(arch->rules[end].name, "{}")) end++;
    if (end == r) {
      if (wanted(c, arch->rules[r].when)) ok = append(out, c, &arch->rules[r], -1);
      r++;
      continue;
    }
    for (int layer = 0; layer < c->num_hidden_layers; layer++) {
      for (size_t i = r; ok && i < end; i++) {
        if (wanted(c, arch->rules[i].when)) ok = append(out, c, &arch->rules[i], layer);
      }
    }
    r = end;
  }
  if (ok) return NIBBLE_OK;
  nb_model_tensors_free(out);
  return nb_fail_memory(err, most * sizeof *out->items);
}

void nb_model_tensors_free(nb_model_tensors *tensors) {
  for (size_t i = 0; i < tensors->count; i++) free(tensors->items[i].name);
  free(tensors->items);
  *tensors = (nb_model_tensors){0};
}

/* Matches a name against a pattern with one "{}", which stands for a run of digits; *layer is that number or -1. */
static bool match(const char *pattern, const char *name, int *layer) {
  const char *hole = strstr(pattern, "{}");
  *layer = -1;
  if (!hole) return strcmp(pattern, name) == 0;
  size_t before = (size_t)(hole - pattern);
  if (strncmp(pattern, name, before) != 0) return false;
  const char *digits = name + before, *end = digits;
  int value = 0;
  while (*end >= '0' && *end <= '9' && end - digits < 6) value = value * 10 + (*end++ - '0');
  if (end == digits || strcmp(end, hole + 2) != 0) return false;
  *layer = value;
  return true;
}

static bool contains_any(const char *name, const char *const *parts) {
  for (; *parts; parts++) {
    if (strcasestr(name, *parts)) return true;
  }
  return false;
}

/* For families without a row. */
static nb_role guess_role(const char *name, int ndim) {
  static const char *const embeddings[] = {"embed", "wte.", "wpe.", "shared.weight", "relative_attention_bias", NULL};
  static const char *const norms[] = {"norm", ".ln_", "ln_f", NULL};
  static const char *const heads[] = {"lm_head.weight", "score.weight", "embed_out.weight", NULL};
  size_t n = strlen(name);
  if (contains_any(name, heads)) return NB_ROLE_HEAD;
  if (contains_any(name, embeddings)) return NB_ROLE_EMBEDDING;
  if (contains_any(name, norms)) return NB_ROLE_NORM;
  if (n >= 5 && strcmp(name + n - 5, ".bias") == 0) return NB_ROLE_BIAS;
  return ndim == 2 && n >= 7 && strcmp(name + n - 7, ".weight") == 0 ? NB_ROLE_LINEAR : NB_ROLE_OTHER;
}

nb_role nb_tensor_role(const nb_config *config, const char *name, int ndim) {
  const nb_arch *arch = config->arch;
  if (!arch) return guess_role(name, ndim);
  size_t prefix = strlen(arch->base_prefix);
  const char *bare = strncmp(name, arch->base_prefix, prefix) == 0 ? name + prefix : name;
  for (size_t r = 0; r < arch->rule_count; r++) {
    int layer;
    if (match(arch->rules[r].name, bare, &layer)) return arch->rules[r].role;
  }
  return guess_role(name, ndim);
}

char *nb_name_from_gguf(const nb_arch *arch, const char *gguf_name, nb_permute *permute) {
  for (size_t r = 0; r < arch->rule_count; r++) {
    const nb_tensor_rule *rule = &arch->rules[r];
    int layer;
    if (!rule->gguf || !match(rule->gguf, gguf_name, &layer)) continue;
    char *name = expand(rule->role == NB_ROLE_HEAD ? "" : arch->base_prefix, rule->name, layer);
    /* Only llama's files interleave the rows; the others keep Hugging Face's order. */
    if (name) *permute = strcmp(arch->gguf_arch, "llama") == 0 ? rule->permute : NB_PERMUTE_NONE;
    return name;
  }
  return NULL;
}
