/* GPT-2 (Radford et al. 2019): learned positions, norms before each half, one matrix for Q, K and V, and linear layers
 * that lie transposed (transformers' Conv1D). */

#include "model/family.h"

static const nb_rule rules[] = {
    {NB_TOKEN_EMBED, "wte", NULL, NB_DIM_VOCAB, NB_DIM_HIDDEN, 0, NB_WHEN_NEVER, 0},
    {NB_POSITION_EMBED, "wpe", NULL, NB_DIM_POSITIONS, NB_DIM_HIDDEN, 0, NB_WHEN_NEVER, 0},
    {NB_ATTN_NORM, "h.{}.ln_1", NULL, NB_DIM_HIDDEN, 0, 0, 0, 0},
    {NB_ATTN_QKV, "h.{}.attn.c_attn", NULL, NB_DIM_QKV, NB_DIM_HIDDEN, 0, 0, NB_TRANSPOSED},
    {NB_ATTN_O, "h.{}.attn.c_proj", NULL, NB_DIM_HIDDEN, NB_DIM_Q, 0, 0, NB_TRANSPOSED},
    {NB_MLP_NORM, "h.{}.ln_2", NULL, NB_DIM_HIDDEN, 0, 0, 0, 0},
    {NB_MLP_UP, "h.{}.mlp.c_fc", NULL, NB_DIM_INTERMEDIATE, NB_DIM_HIDDEN, 0, 0, NB_TRANSPOSED},
    {NB_MLP_DOWN, "h.{}.mlp.c_proj", NULL, NB_DIM_HIDDEN, NB_DIM_INTERMEDIATE, 0, 0, NB_TRANSPOSED},
    {NB_FINAL_NORM, "ln_f", NULL, NB_DIM_HIDDEN, 0, 0, 0, 0},
    {NB_HEAD, "lm_head", NULL, NB_DIM_VOCAB, NB_DIM_HIDDEN, NB_IF_HEAD, NB_WHEN_NEVER, NB_NO_PREFIX},
    {0, NULL, NULL, 0, 0, 0, 0, 0},
};

static const nb_op embed[] = {
    {NB_OP_EMBED, 0, NB_X, NB_TOKEN_EMBED, 0, 0},
    {NB_OP_EMBED, 0, NB_X, NB_POSITION_EMBED, NB_ADDED, 0},
    {NB_OP_END, 0, 0, 0, 0, 0},
};

static const nb_op block[] = {
    {NB_OP_NORM, NB_X, NB_N, NB_ATTN_NORM, 0, 0},
    {NB_OP_LINEAR, NB_N, NB_F, NB_ATTN_QKV, 0, 0},
    {NB_OP_SPLIT, NB_F, 0, 0, 0, 0},
    {NB_OP_CACHE, NB_Q, 0, 0, 0, 0},
    {NB_OP_ATTEND, NB_Q, NB_A, 0, 0, 0},
    {NB_OP_LINEAR, NB_A, NB_X, NB_ATTN_O, NB_ADDED, 0},
    {NB_OP_NORM, NB_X, NB_N, NB_MLP_NORM, 0, 0},
    {NB_OP_LINEAR, NB_N, NB_G, NB_MLP_UP, 0, 0},
    {NB_OP_GATE, NB_G, NB_G, 0, 0, 0},
    {NB_OP_LINEAR, NB_G, NB_X, NB_MLP_DOWN, NB_ADDED, 0},
    {NB_OP_END, 0, 0, 0, 0, 0},
};

static const nb_op end[] = {
    {NB_OP_NORM, NB_X, NB_X, NB_FINAL_NORM, 0, 0},
    {NB_OP_END, 0, 0, 0, 0, 0},
};

/* n_inner is four times the width where the config does not say. */
static nibble_status finish(const char *where, nb_config *c, nibble_error *err) {
  (void)where, (void)err;
  if (!c->intermediate_size) c->intermediate_size = 4 * c->hidden_size;
  return NIBBLE_OK;
}

static const nb_key_use keys[] = {
    {NB_KEY_HIDDEN_SIZE, 768, NULL, false},       {NB_KEY_INTERMEDIATE_SIZE, 0, NULL, false},
    {NB_KEY_NUM_HIDDEN_LAYERS, 12, NULL, false},  {NB_KEY_NUM_ATTENTION_HEADS, 12, NULL, false},
    {NB_KEY_VOCAB_SIZE, 50257, NULL, false},      {NB_KEY_MAX_POSITION_EMBEDDINGS, 1024, NULL, false},
    {NB_KEY_NORM_EPS, 1e-5, NULL, false},         {NB_KEY_HIDDEN_ACT, 0, "gelu_new", false},
    {NB_KEY_TIE_WORD_EMBEDDINGS, 1, NULL, false}, {NB_KEY_IS_CAUSAL, 1, NULL, false},
    {NB_KEY_SCALE_ATTN_WEIGHTS, 1, NULL, false},  {NB_KEY_SCALE_ATTN_BY_INVERSE_LAYER_IDX, 0, NULL, false},
    {NB_KEY_BOS_TOKEN_ID, -1, NULL, false},       {NB_KEY_NONE, 0, NULL, false},
};

const nb_family nb_family_gpt2 = {
    .model_type = "gpt2",
    .default_class = "GPT2LMHeadModel",
    .base_prefix = "transformer.",
    .positions_learned = true,
    .centered_norm = true,
    .stacks = {{rules, embed, block, end, NB_KEY_NUM_HIDDEN_LAYERS, true}},
    .keys = {keys},
    .finish = finish,
};
