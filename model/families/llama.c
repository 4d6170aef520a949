/* Llama, and the decoder that it made common: RMS norms, rotary positions, grouped keys, a gated MLP. */
#include <math.h>

#include "model/family.h"

/* A row that a family never has is left out by its `when`. */
const nb_rule nb_llama_rules[] = {
    {NB_TOKEN_EMBED, "embed_tokens", "token_embd", NB_DIM_VOCAB, NB_DIM_HIDDEN, 0, NB_WHEN_NEVER, 0},
    {NB_ATTN_NORM, "layers.{}.input_layernorm", "blk.{}.attn_norm", NB_DIM_HIDDEN, 0, 0, NB_WHEN_NEVER, 0},
    {NB_ATTN_Q, "layers.{}.self_attn.q_proj", "blk.{}.attn_q", NB_DIM_Q, NB_DIM_HIDDEN, 0, NB_IF_ATTENTION_BIAS, 0},
    {NB_ATTN_K, "layers.{}.self_attn.k_proj", "blk.{}.attn_k", NB_DIM_KV, NB_DIM_HIDDEN, 0, NB_IF_ATTENTION_BIAS, 0},
    {NB_ATTN_V, "layers.{}.self_attn.v_proj", "blk.{}.attn_v", NB_DIM_KV, NB_DIM_HIDDEN, 0, NB_IF_ATTENTION_BIAS, 0},
    {NB_ATTN_O, "layers.{}.self_attn.o_proj", "blk.{}.attn_output", NB_DIM_HIDDEN, NB_DIM_Q, 0, NB_IF_OUTPUT_BIAS, 0},
    {NB_Q_NORM, "layers.{}.self_attn.q_norm", "blk.{}.attn_q_norm", NB_DIM_HEAD, 0, NB_IF_QK_NORM, NB_WHEN_NEVER, 0},
    {NB_K_NORM, "layers.{}.self_attn.k_norm", "blk.{}.attn_k_norm", NB_DIM_HEAD, 0, NB_IF_QK_NORM, NB_WHEN_NEVER, 0},
    {NB_MLP_NORM, "layers.{}.post_attention_layernorm", "blk.{}.ffn_norm", NB_DIM_HIDDEN, 0, 0, NB_WHEN_NEVER, 0},
    {NB_MLP_GATE, "layers.{}.mlp.gate_proj", "blk.{}.ffn_gate", NB_DIM_INTERMEDIATE, NB_DIM_HIDDEN, 0, NB_IF_MLP_BIAS,
     0},
    {NB_MLP_UP, "layers.{}.mlp.up_proj", "blk.{}.ffn_up", NB_DIM_INTERMEDIATE, NB_DIM_HIDDEN, 0, NB_IF_MLP_BIAS, 0},
    {NB_MLP_DOWN, "layers.{}.mlp.down_proj", "blk.{}.ffn_down", NB_DIM_HIDDEN, NB_DIM_INTERMEDIATE, 0, NB_IF_MLP_BIAS,
     0},
    {NB_FINAL_NORM, "norm", "output_norm", NB_DIM_HIDDEN, 0, 0, NB_WHEN_NEVER, 0},
    {NB_HEAD, "lm_head", "output", NB_DIM_VOCAB, NB_DIM_HIDDEN, NB_IF_HEAD, NB_WHEN_NEVER, NB_NO_PREFIX},
    {0, NULL, NULL, 0, 0, 0, 0, 0},
};

const nb_op nb_llama_embed[] = {
    {NB_OP_EMBED, 0, NB_X, NB_TOKEN_EMBED, 0, 0},
    {NB_OP_END, 0, 0, 0, 0, 0},
};

const nb_op nb_llama_block[] = {
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
    {NB_OP_LINEAR, NB_N, NB_G, NB_MLP_GATE, 0, 0},
    {NB_OP_LINEAR, NB_N, NB_U, NB_MLP_UP, 0, 0},
    {NB_OP_GATE, NB_G, NB_G, 0, 0, NB_U},
    {NB_OP_LINEAR, NB_G, NB_X, NB_MLP_DOWN, NB_ADDED, 0},
    {NB_OP_END, 0, 0, 0, 0, 0},
};

const nb_op nb_llama_end[] = {
    {NB_OP_NORM, NB_X, NB_X, NB_FINAL_NORM, 0, 0},
    {NB_OP_END, 0, 0, 0, 0, 0},
};

const nb_key_use nb_llama_keys[] = {
    {NB_KEY_HIDDEN_SIZE, NAN, NULL, false},
    {NB_KEY_INTERMEDIATE_SIZE, NAN, NULL, false},
    {NB_KEY_NUM_HIDDEN_LAYERS, NAN, NULL, false},
    {NB_KEY_NUM_ATTENTION_HEADS, NAN, NULL, false},
    {NB_KEY_NUM_KEY_VALUE_HEADS, 0, NULL, false},
    {NB_KEY_HEAD_DIM, 0, NULL, false},
    {NB_KEY_VOCAB_SIZE, NAN, NULL, false},
    {NB_KEY_MAX_POSITION_EMBEDDINGS, 2048, NULL, false},
    {NB_KEY_NORM_EPS, 1e-6, NULL, false},
    {NB_KEY_HIDDEN_ACT, 0, "silu", false},
    {NB_KEY_TIE_WORD_EMBEDDINGS, 0, NULL, false},
    {NB_KEY_ATTENTION_BIAS, 0, NULL, false},
    {NB_KEY_MLP_BIAS, 0, NULL, false},
    {NB_KEY_IS_CAUSAL, 1, NULL, false},
    {NB_KEY_BOS_TOKEN_ID, -1, NULL, false},
    {NB_KEY_ROPE_THETA, 10000, NULL, false},
    {NB_KEY_ROPE_SCALING, 0, NULL, false},
    {NB_KEY_ROPE_PARAMETERS, 0, NULL, false},
    {NB_KEY_PARTIAL_ROTARY_FACTOR, 0, NULL, false},
    {NB_KEY_NONE, 0, NULL, false},
};

const nb_family nb_family_llama = {
    .model_type = "llama",
    .default_class = "LlamaForCausalLM",
    .base_prefix = "model.",
    .gguf_arch = "llama",
    .gguf_interleaved = true,
    .output_bias = true,
    .rotary = true,
    .stacks = {{nb_llama_rules, nb_llama_embed, nb_llama_block, nb_llama_end, NB_KEY_NUM_HIDDEN_LAYERS, true}},
    .keys = {nb_llama_keys},
};
