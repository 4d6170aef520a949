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
    {NB_HEAD_DENSE, "cls.predictions.transform.dense", NULL, NB_DIM_HIDDEN, NB_DIM_HIDDEN, NB_IF_MASKED, 0,
     NB_NO_PREFIX},
    {NB_HEAD_NORM, "cls.predictions.transform.LayerNorm", NULL, NB_DIM_HIDDEN, 0, NB_IF_MASKED, 0, NB_NO_PREFIX},
    {NB_HEAD_BIAS, "cls.predictions.bias", NULL, NB_DIM_VOCAB, 0, NB_IF_MASKED, NB_WHEN_NEVER, NB_BARE | NB_NO_PREFIX},
    {NB_HEAD, "cls.predictions.decoder", NULL, NB_DIM_VOCAB, NB_DIM_HIDDEN, NB_IF_HEAD, NB_IF_HEAD, NB_NO_PREFIX},
    {NB_CLASSIFIER, "classifier", NULL, NB_DIM_LABELS, NB_DIM_HIDDEN, NB_IF_CLASSIFY, 0, NB_NO_PREFIX},
    {0, NULL, NULL, 0, 0, 0, 0, 0},
};

static const nb_op embed[] = {
    {NB_OP_EMBED, 0, NB_X, NB_TOKEN_EMBED, 0, 0},
    {NB_OP_EMBED, 0, NB_X, NB_TYPE_EMBED, NB_ADDED, 0},
    {NB_OP_EMBED, 0, NB_X, NB_POSITION_EMBED, NB_ADDED, 0},
    {NB_OP_NORM, NB_X, NB_X, NB_EMBED_NORM, 0, 0},
    {NB_OP_END, 0, 0, 0, 0, 0},
};

static const nb_op block[] = {
    {NB_OP_LINEAR, NB_X, NB_Q, NB_ATTN_Q, 0, 0},
    {NB_OP_LINEAR, NB_X, NB_K, NB_ATTN_K, 0, 0},
    {NB_OP_LINEAR, NB_X, NB_V, NB_ATTN_V, 0, 0},
    {NB_OP_CACHE, NB_Q, 0, 0, 0, 0},
    {NB_OP_ATTEND, NB_Q, NB_A, 0, 0, 0},
    {NB_OP_LINEAR, NB_A, NB_X, NB_ATTN_O, NB_ADDED, 0},
    {NB_OP_NORM, NB_X, NB_X, NB_ATTN_POST_NORM, 0, 0},
    {NB_OP_LINEAR, NB_X, NB_G, NB_MLP_UP, 0, 0},
    {NB_OP_GATE, NB_G, NB_G, 0, 0, 0},
    {NB_OP_LINEAR, NB_G, NB_X, NB_MLP_DOWN, NB_ADDED, 0},
    {NB_OP_NORM, NB_X, NB_X, NB_MLP_POST_NORM, 0, 0},
    {NB_OP_END, 0, 0, 0, 0, 0},
};

static const nb_op end[] = {{NB_OP_END, 0, 0, 0, 0, 0}};

/* An encoder sees all tokens whatever "is_causal" says, but for true, which makes it something else. */
static nibble_status finish(const char *where, nb_config *c, nibble_error *err) {
  (void)where, (void)err;
  if (c->is_causal) c->unread = nb_key_info(NB_KEY_IS_CAUSAL)->names;
  c->is_causal = false;
  return NIBBLE_OK;
}

static const nb_key_use keys[] = {
    {NB_KEY_HIDDEN_SIZE, NAN, NULL, false},
    {NB_KEY_INTERMEDIATE_SIZE, NAN, NULL, false},
    {NB_KEY_NUM_HIDDEN_LAYERS, NAN, NULL, false},
    {NB_KEY_NUM_ATTENTION_HEADS, NAN, NULL, false},
    {NB_KEY_VOCAB_SIZE, NAN, NULL, false},
    {NB_KEY_MAX_POSITION_EMBEDDINGS, 512, NULL, false},
    {NB_KEY_TYPE_VOCAB_SIZE, 2, NULL, false},
    {NB_KEY_NORM_EPS, 1e-12, NULL, false},
    {NB_KEY_HIDDEN_ACT, 0, "gelu", false},
    {NB_KEY_TIE_WORD_EMBEDDINGS, 1, NULL, false},
    {NB_KEY_IS_CAUSAL, 0, NULL, false},
    {NB_KEY_BOS_TOKEN_ID, -1, NULL, false},
    {NB_KEY_NONE, 0, NULL, false},
};

const nb_family nb_family_bert = {
    .model_type = "bert",
    .default_class = "BertModel",
    .base_prefix = "bert.",
    .positions_learned = true,
    .centered_norm = true,
    .stacks = {{rules, embed, block, end, NB_KEY_NUM_HIDDEN_LAYERS, false}},
    .keys = {keys},
    .finish = finish,
};
