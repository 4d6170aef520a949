/* Mixtral (Jiang et al. 2024, arXiv:2401.04088): Mistral with a router and experts in the place of the MLP. */
#include <math.h>

#include "model/family.h"

static const nb_rule rules[] = {
    {NB_TOKEN_EMBED, "embed_tokens", NULL, NB_DIM_VOCAB, NB_DIM_HIDDEN, 0, NB_WHEN_NEVER, 0},
    {NB_ATTN_NORM, "layers.{}.input_layernorm", NULL, NB_DIM_HIDDEN, 0, 0, NB_WHEN_NEVER, 0},
    {NB_ATTN_Q, "layers.{}.self_attn.q_proj", NULL, NB_DIM_Q, NB_DIM_HIDDEN, 0, NB_WHEN_NEVER, 0},
    {NB_ATTN_K, "layers.{}.self_attn.k_proj", NULL, NB_DIM_KV, NB_DIM_HIDDEN, 0, NB_WHEN_NEVER, 0},
    {NB_ATTN_V, "layers.{}.self_attn.v_proj", NULL, NB_DIM_KV, NB_DIM_HIDDEN, 0, NB_WHEN_NEVER, 0},
    {NB_ATTN_O, "layers.{}.self_attn.o_proj", NULL, NB_DIM_HIDDEN, NB_DIM_Q, 0, NB_WHEN_NEVER, 0},
    {NB_MLP_NORM, "layers.{}.post_attention_layernorm", NULL, NB_DIM_HIDDEN, 0, 0, NB_WHEN_NEVER, 0},
    {NB_ROUTER, "layers.{}.block_sparse_moe.gate|layers.{}.mlp.gate", NULL, NB_DIM_EXPERTS, NB_DIM_HIDDEN, 0,
     NB_WHEN_NEVER, NB_MODULE_LAST},
    {NB_EXPERT_GATE,
     "layers.{}.block_sparse_moe.experts.{}.w1|layers.{}.mlp.experts.{}.w1|layers.{}.mlp.experts.{}.gate_proj", NULL,
     NB_DIM_EXPERT, NB_DIM_HIDDEN, 0, NB_WHEN_NEVER, NB_MODULE_LAST},
    {NB_EXPERT_UP,
     "layers.{}.block_sparse_moe.experts.{}.w3|layers.{}.mlp.experts.{}.w3|layers.{}.mlp.experts.{}.up_proj", NULL,
     NB_DIM_EXPERT, NB_DIM_HIDDEN, 0, NB_WHEN_NEVER, NB_MODULE_LAST},
    {NB_EXPERT_DOWN,
     "layers.{}.block_sparse_moe.experts.{}.w2|layers.{}.mlp.experts.{}.w2|layers.{}.mlp.experts.{}.down_proj", NULL,
     NB_DIM_HIDDEN, NB_DIM_EXPERT, 0, NB_WHEN_NEVER, NB_MODULE_LAST},
    {NB_EXPERTS_GATE_UP, "layers.{}.mlp.experts.gate_up_proj|layers.{}.block_sparse_moe.experts.gate_up_proj", NULL,
     NB_DIM_EXPERTS, 0, NB_WHEN_NEVER, NB_WHEN_NEVER, NB_BARE},
    {NB_EXPERTS_DOWN, "layers.{}.mlp.experts.down_proj|layers.{}.block_sparse_moe.experts.down_proj", NULL,
     NB_DIM_EXPERTS, 0, NB_WHEN_NEVER, NB_WHEN_NEVER, NB_BARE},
    {NB_FINAL_NORM, "norm", NULL, NB_DIM_HIDDEN, 0, 0, NB_WHEN_NEVER, 0},
    {NB_HEAD, "lm_head", NULL, NB_DIM_VOCAB, NB_DIM_HIDDEN, NB_IF_HEAD, NB_WHEN_NEVER, NB_NO_PREFIX},
    {0, NULL, NULL, 0, 0, 0, 0, 0},
};

static const nb_op block[] = {
    {NB_OP_NORM, NB_X, NB_N, NB_ATTN_NORM, 0, 0},
    {NB_OP_LINEAR, NB_N, NB_Q, NB_ATTN_Q, 0, 0},
    {NB_OP_LINEAR, NB_N, NB_K, NB_ATTN_K, 0, 0},
    {NB_OP_LINEAR, NB_N, NB_V, NB_ATTN_V, 0, 0},
    {NB_OP_CACHE, NB_Q, 0, 0, NB_ROTATED, 0},
    {NB_OP_ATTEND, NB_Q, NB_A, 0, 0, 0},
    {NB_OP_LINEAR, NB_A, NB_X, NB_ATTN_O, NB_ADDED, 0},
    {NB_OP_NORM, NB_X, NB_N, NB_MLP_NORM, 0, 0},
    {NB_OP_LINEAR, NB_N, NB_R, NB_ROUTER, 0, 0},
    {NB_OP_EXPERTS, NB_N, NB_X, 0, NB_ADDED, 0},
    {NB_OP_END, 0, 0, 0, 0, 0},
};

/* intermediate_size is an expert's. */
static nibble_status finish(const char *where, nb_config *c, nibble_error *err) {
  (void)where, (void)err;
  c->moe_intermediate_size = c->intermediate_size;
  return NIBBLE_OK;
}

static const nb_key_use keys[] = {
    {NB_KEY_MAX_POSITION_EMBEDDINGS, 131072, NULL, false},
    {NB_KEY_NORM_EPS, 1e-5, NULL, false},
    {NB_KEY_ATTENTION_BIAS, 0, NULL, true},
    {NB_KEY_MLP_BIAS, 0, NULL, true},
    {NB_KEY_SLIDING_WINDOW, 0, NULL, false},
    {NB_KEY_NUM_EXPERTS, 8, NULL, false},
    {NB_KEY_NUM_EXPERTS_PER_TOK, 2, NULL, false},
    {NB_KEY_NORM_TOPK_PROB, 1, NULL, true},
    {NB_KEY_ROPE_THETA, 1e6, NULL, false},
    {NB_KEY_NONE, 0, NULL, false},
};

const nb_family nb_family_mixtral = {
    .model_type = "mixtral",
    .default_class = "MixtralForCausalLM",
    .base_prefix = "model.",
    .rotary = true,
    .stacks = {{rules, nb_llama_embed, block, nb_llama_end, NB_KEY_NUM_HIDDEN_LAYERS, true}},
    .keys = {keys, nb_llama_keys},
    .finish = finish,
};
