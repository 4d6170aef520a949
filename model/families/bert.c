/* BERT (Devlin et al. 2018, arXiv:1810.04805): an encoder with three tables of embeddings and its norms after each
 * sum. */
#include <math.h>

#include "model/family.h"

static const nb_rule rules[] = {
    {NB_TOKEN_EMBED, "embeddings.word_embeddings", NULL, NB_DIM_VOCAB, NB_DIM_HIDDEN, 0, NB_WHEN_NEVER, 0},
    {NB_POSITION_EMBED, "embeddings.position_embeddings", NULL, NB_DIM_POSITIONS, NB_DIM_HIDDEN, 0, NB_WHEN_NEVER, 0},
    {NB_TYPE_EMBED, "embeddings.token_type_embeddings", NULL, NB_DIM_TYPES, NB_DIM_HIDDEN, 0, NB_WHEN_NEVER, 0},
    {NB_EMBED_NORM, "embeddings.LayerNorm", NULL, NB_DIM_HIDDEN, 0, 0, 0, 0},
    {NB_ATTN_Q, "encoder.layer.{}.attention.self.query", NULL, NB_DIM_Q, NB_DIM_HIDDEN, 0, 0, 0},
    {NB_ATTN_K, "encoder.layer.{}.attention.self.key", NULL, NB_DIM_KV, NB_DIM_HIDDEN, 0, 0, 0},
    {NB_ATTN_V, "encoder.layer.{}.attention.self.value", NULL, NB_DIM_KV, NB_DIM_HIDDEN, 0, 0, 0},
    {NB_ATTN_O, "encoder.layer.{}.attention.output.dense", NULL, NB_DIM_HIDDEN, NB_DIM_Q, 0, 0, 0},
    {NB_ATTN_POST_NORM, "encoder.layer.{}.attention.output.LayerNorm", NULL, NB_DIM_HIDDEN, 0, 0, 0, 0},
    {NB_MLP_UP, "encoder.layer.{}.intermediate.dense", NULL, NB_DIM_INTERMEDIATE, NB_DIM_HIDDEN, 0, 0, 0},
    {NB_MLP_DOWN, "encoder.layer.{}.output.dense", NULL, NB_DIM_HIDDEN, NB_DIM_INTERMEDIATE, 0, 0, 0},
    {NB_MLP_POST_NORM, "encoder.layer.{}.output.LayerNorm", NULL, NB_DIM_HIDDEN, 0, 0, 0, 0},
    {NB_POOLER, "pooler.dense", NULL, NB_DIM_HIDDEN, NB_DIM_HIDDEN, NB_IF_POOLER, 0, 0},
    {0, NULL, NULL, 0, 0, 0, 0, 0},
};

static const nb_op block[] = {
    {NB_OP_END, 0, 0, 0, 0, 0},
};

static const nb_key_use keys[] = {
    {NB_KEY_HIDDEN_SIZE, NAN, NULL, false},       {NB_KEY_INTERMEDIATE_SIZE, NAN, NULL, false},
    {NB_KEY_NUM_HIDDEN_LAYERS, NAN, NULL, false}, {NB_KEY_NUM_ATTENTION_HEADS, NAN, NULL, false},
    {NB_KEY_VOCAB_SIZE, NAN, NULL, false},        {NB_KEY_MAX_POSITION_EMBEDDINGS, 512, NULL, false},
    {NB_KEY_TYPE_VOCAB_SIZE, 2, NULL, false},     {NB_KEY_NORM_EPS, 1e-12, NULL, false},
    {NB_KEY_HIDDEN_ACT, 0, "gelu", false},        {NB_KEY_TIE_WORD_EMBEDDINGS, 1, NULL, false},
    {NB_KEY_BOS_TOKEN_ID, -1, NULL, false},       {NB_KEY_NONE, 0, NULL, false},
};

const nb_family nb_family_bert = {
    .model_type = "bert",
    .default_class = "BertModel",
    .base_prefix = "bert.",
    .positions_learned = true,
    .centered_norm = true,
    .stacks = {{rules, block, block, block, NB_KEY_NUM_HIDDEN_LAYERS, false}},
    .keys = {keys},
};
