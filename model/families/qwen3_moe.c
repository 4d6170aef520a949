/* Qwen3-MoE: Qwen3 with a router and experts in the place of the MLP, in the layers that the config says. */
#include "model/family.h"

static const nb_rule rules[] = {
    {NB_TOKEN_EMBED, "embed_tokens", NULL, NB_DIM_VOCAB, NB_DIM_HIDDEN, 0, NB_WHEN_NEVER, 0},
    {NB_ATTN_NORM, "layers.{}.input_layernorm", NULL, NB_DIM_HIDDEN, 0, 0, NB_WHEN_NEVER, 0},
    {NB_ATTN_Q, "layers.{}.self_attn.q_proj", NULL, NB_DIM_Q, NB_DIM_HIDDEN, 0, NB_IF_ATTENTION_BIAS, 0},
    {NB_ATTN_K, "layers.{}.self_attn.k_proj", NULL, NB_DIM_KV, NB_DIM_HIDDEN, 0, NB_IF_ATTENTION_BIAS, 0},
    {NB_ATTN_V, "layers.{}.self_attn.v_proj", NULL, NB_DIM_KV, NB_DIM_HIDDEN, 0, NB_IF_ATTENTION_BIAS, 0},
    {NB_ATTN_O, "layers.{}.self_attn.o_proj", NULL, NB_DIM_HIDDEN, NB_DIM_Q, 0, NB_IF_OUTPUT_BIAS, 0},
    {NB_Q_NORM, "layers.{}.self_attn.q_norm", NULL, NB_DIM_HEAD, 0, 0, NB_WHEN_NEVER, 0},
    {NB_K_NORM, "layers.{}.self_attn.k_norm", NULL, NB_DIM_HEAD, 0, 0, NB_WHEN_NEVER, 0},
    {NB_MLP_NORM, "layers.{}.post_attention_layernorm", NULL, NB_DIM_HIDDEN, 0, 0, NB_WHEN_NEVER, 0},
    {NB_MLP_GATE, "layers.{}.mlp.gate_proj", NULL, NB_DIM_INTERMEDIATE, NB_DIM_HIDDEN, NB_IF_DENSE, NB_WHEN_NEVER,
     NB_UNLISTED},
    {NB_MLP_UP, "layers.{}.mlp.up_proj", NULL, NB_DIM_INTERMEDIATE, NB_DIM_HIDDEN, NB_IF_DENSE, NB_WHEN_NEVER,
     NB_UNLISTED},
    {NB_MLP_DOWN, "layers.{}.mlp.down_proj", NULL, NB_DIM_HIDDEN, NB_DIM_INTERMEDIATE, NB_IF_DENSE, NB_WHEN_NEVER,
     NB_UNLISTED},
    {NB_ROUTER, "layers.{}.mlp.gate", NULL, NB_DIM_EXPERTS, NB_DIM_HIDDEN, NB_IF_SPARSE, NB_WHEN_NEVER, 0},
    {NB_EXPERT_GATE, "layers.{}.mlp.experts.{}.gate_proj", NULL, NB_DIM_EXPERT, NB_DIM_HIDDEN, NB_IF_SPARSE,
     NB_WHEN_NEVER, 0},
    {NB_EXPERT_UP, "layers.{}.mlp.experts.{}.up_proj", NULL, NB_DIM_EXPERT, NB_DIM_HIDDEN, NB_IF_SPARSE, NB_WHEN_NEVER,
     0},
    {NB_EXPERT_DOWN, "layers.{}.mlp.experts.{}.down_proj", NULL, NB_DIM_HIDDEN, NB_DIM_EXPERT, NB_IF_SPARSE,
     NB_WHEN_NEVER, 0},
    {NB_EXPERTS_GATE_UP, "layers.{}.mlp.experts.gate_up_proj", NULL, NB_DIM_EXPERTS, 0, NB_WHEN_NEVER, NB_WHEN_NEVER,
     NB_BARE},
    {NB_EXPERTS_DOWN, "layers.{}.mlp.experts.down_proj", NULL, NB_DIM_EXPERTS, 0, NB_WHEN_NEVER, NB_WHEN_NEVER,
     NB_BARE},
    {NB_FINAL_NORM, "norm", NULL, NB_DIM_HIDDEN, 0, 0, NB_WHEN_NEVER, 0},
    {NB_HEAD, "lm_head", NULL, NB_DIM_VOCAB, NB_DIM_HIDDEN, NB_IF_HEAD, NB_WHEN_NEVER, NB_NO_PREFIX},
    {0, NULL, NULL, 0, 0, 0, 0, 0},
};

static const nb_op block[] = {
    {NB_OP_NORM, NB_X, NB_N, NB_ATTN_NORM, 0, 0},
    {NB_OP_LINEAR, NB_N, NB_Q, NB_ATTN_Q, 0, 0},
    {NB_OP_LINEAR, NB_N, NB_K, NB_ATTN_K, 0, 0},
    {NB_OP_LINEAR, NB_N, NB_V, NB_ATTN_V, 0, 0},
    {NB_OP_NORM, NB_Q, NB_Q, NB_Q_NORM, NB_PER_HEAD, 0},
    {NB_OP_NORM, NB_K, NB_K, NB_K_NORM, NB_PER_HEAD, 0},
    {NB_OP_CACHE, NB_Q, 0, 0, NB_ROTATED, 0},
    {NB_OP_ATTEND, NB_Q, NB_A, 0, 0, 0},
    {NB_OP_LINEAR, NB_A, NB_X, NB_ATTN_O, NB_ADDED, 0},
    {NB_OP_NORM, NB_X, NB_N, NB_MLP_NORM, 0, 0},
    {NB_OP_LINEAR, NB_N, NB_G, NB_MLP_GATE, 0, 0}, /* of a layer without experts, and so to NB_MLP_DOWN */
    {NB_OP_LINEAR, NB_N, NB_U, NB_MLP_UP, 0, 0},
    {NB_OP_GATE, NB_G, NB_G, 0, 0, NB_U},
    {NB_OP_LINEAR, NB_G, NB_X, NB_MLP_DOWN, NB_ADDED, 0},
    {NB_OP_LINEAR, NB_N, NB_R, NB_ROUTER, 0, 0}, /* of one with */
    {NB_OP_EXPERTS, NB_N, NB_X, 0, NB_ADDED, 0},
    {NB_OP_END, 0, 0, 0, 0, 0},
};

static const nb_key_use keys[] = {
    {NB_KEY_MAX_POSITION_EMBEDDINGS, 32768, NULL, false},
    {NB_KEY_MLP_BIAS, 0, NULL, true},
    {NB_KEY_SLIDING_WINDOW, 4096, NULL, false},
    {NB_KEY_USE_SLIDING_WINDOW, 0, NULL, false},
    {NB_KEY_NUM_EXPERTS, 128, NULL, false},
    {NB_KEY_NUM_EXPERTS_PER_TOK, 8, NULL, false},
    {NB_KEY_MOE_INTERMEDIATE_SIZE, 768, NULL, false},
    {NB_KEY_NORM_TOPK_PROB, 0, NULL, false},
    {NB_KEY_DECODER_SPARSE_STEP, 1, NULL, false},
    {NB_KEY_MLP_ONLY_LAYERS, 0, NULL, false},
    {NB_KEY_NONE, 0, NULL, false},
};

const nb_family nb_family_qwen3_moe = {
    .model_type = "qwen3_moe",
    .default_class = "Qwen3MoeForCausalLM",
    .base_prefix = "model.",
    .output_bias = true,
    .rotary = true,
    .stacks = {{rules, nb_llama_embed, block, nb_llama_end, NB_KEY_NUM_HIDDEN_LAYERS, true}},
    .keys = {keys, nb_llama_keys},
};
