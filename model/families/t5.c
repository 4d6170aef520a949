/* T5 (Raffel et al. 2019, arXiv:1910.10683): an encoder and a decoder with RMS norms, no biases, scores that are not
 * scaled, and a bias by relative position that the first block of each stack has for all. */
#include <math.h>
#include <string.h>

#include "model/family.h"

static const nb_rule encoder_rules[] = {
    {NB_TOKEN_EMBED, "shared|encoder.embed_tokens|decoder.embed_tokens", NULL, NB_DIM_VOCAB, NB_DIM_HIDDEN, 0,
     NB_WHEN_NEVER, 0},
    {NB_ATTN_NORM, "encoder.block.{}.layer.0.layer_norm", NULL, NB_DIM_HIDDEN, 0, 0, NB_WHEN_NEVER, 0},
    {NB_ATTN_Q, "encoder.block.{}.layer.0.SelfAttention.q", NULL, NB_DIM_Q, NB_DIM_HIDDEN, 0, NB_WHEN_NEVER, 0},
    {NB_ATTN_K, "encoder.block.{}.layer.0.SelfAttention.k", NULL, NB_DIM_KV, NB_DIM_HIDDEN, 0, NB_WHEN_NEVER, 0},
    {NB_ATTN_V, "encoder.block.{}.layer.0.SelfAttention.v", NULL, NB_DIM_KV, NB_DIM_HIDDEN, 0, NB_WHEN_NEVER, 0},
    {NB_ATTN_O, "encoder.block.{}.layer.0.SelfAttention.o", NULL, NB_DIM_HIDDEN, NB_DIM_Q, 0, NB_WHEN_NEVER, 0},
    {NB_ATTN_BIAS, "encoder.block.{}.layer.0.SelfAttention.relative_attention_bias", NULL, NB_DIM_BUCKETS, NB_DIM_HEADS,
     NB_IF_FIRST_LAYER, NB_WHEN_NEVER, 0},
    {NB_MLP_NORM, "encoder.block.{}.layer.1.layer_norm", NULL, NB_DIM_HIDDEN, 0, 0, NB_WHEN_NEVER, 0},
    {NB_MLP_GATE, "encoder.block.{}.layer.1.DenseReluDense.wi", NULL, NB_DIM_INTERMEDIATE, NB_DIM_HIDDEN,
     NB_IF_NOT_GATED, NB_WHEN_NEVER, 0},
    {NB_MLP_GATE, "encoder.block.{}.layer.1.DenseReluDense.wi_0", NULL, NB_DIM_INTERMEDIATE, NB_DIM_HIDDEN, NB_IF_GATED,
     NB_WHEN_NEVER, 0},
    {NB_MLP_UP, "encoder.block.{}.layer.1.DenseReluDense.wi_1", NULL, NB_DIM_INTERMEDIATE, NB_DIM_HIDDEN, NB_IF_GATED,
     NB_WHEN_NEVER, 0},
    {NB_MLP_DOWN, "encoder.block.{}.layer.1.DenseReluDense.wo", NULL, NB_DIM_HIDDEN, NB_DIM_INTERMEDIATE, 0,
     NB_WHEN_NEVER, NB_KEEP_F32},
    {NB_FINAL_NORM, "encoder.final_layer_norm", NULL, NB_DIM_HIDDEN, 0, 0, NB_WHEN_NEVER, 0},
    {0, NULL, NULL, 0, 0, 0, 0, 0},
};

static const nb_rule decoder_rules[] = {
    {NB_ATTN_NORM, "decoder.block.{}.layer.0.layer_norm", NULL, NB_DIM_HIDDEN, 0, 0, NB_WHEN_NEVER, 0},
    {NB_ATTN_Q, "decoder.block.{}.layer.0.SelfAttention.q", NULL, NB_DIM_Q, NB_DIM_HIDDEN, 0, NB_WHEN_NEVER, 0},
    {NB_ATTN_K, "decoder.block.{}.layer.0.SelfAttention.k", NULL, NB_DIM_KV, NB_DIM_HIDDEN, 0, NB_WHEN_NEVER, 0},
    {NB_ATTN_V, "decoder.block.{}.layer.0.SelfAttention.v", NULL, NB_DIM_KV, NB_DIM_HIDDEN, 0, NB_WHEN_NEVER, 0},
    {NB_ATTN_O, "decoder.block.{}.layer.0.SelfAttention.o", NULL, NB_DIM_HIDDEN, NB_DIM_Q, 0, NB_WHEN_NEVER, 0},
    {NB_ATTN_BIAS, "decoder.block.{}.layer.0.SelfAttention.relative_attention_bias", NULL, NB_DIM_BUCKETS, NB_DIM_HEADS,
     NB_IF_FIRST_LAYER, NB_WHEN_NEVER, 0},
    {NB_CROSS_NORM, "decoder.block.{}.layer.1.layer_norm", NULL, NB_DIM_HIDDEN, 0, 0, NB_WHEN_NEVER, 0},
    {NB_CROSS_Q, "decoder.block.{}.layer.1.EncDecAttention.q", NULL, NB_DIM_Q, NB_DIM_HIDDEN, 0, NB_WHEN_NEVER, 0},
    {NB_CROSS_K, "decoder.block.{}.layer.1.EncDecAttention.k", NULL, NB_DIM_KV, NB_DIM_HIDDEN, 0, NB_WHEN_NEVER, 0},
    {NB_CROSS_V, "decoder.block.{}.layer.1.EncDecAttention.v", NULL, NB_DIM_KV, NB_DIM_HIDDEN, 0, NB_WHEN_NEVER, 0},
    {NB_CROSS_O, "decoder.block.{}.layer.1.EncDecAttention.o", NULL, NB_DIM_HIDDEN, NB_DIM_Q, 0, NB_WHEN_NEVER, 0},
    {NB_BUFFER, "decoder.block.{}.layer.1.EncDecAttention.relative_attention_bias", NULL, NB_DIM_BUCKETS, NB_DIM_HEADS,
     NB_WHEN_NEVER, NB_WHEN_NEVER, 0},
    {NB_MLP_NORM, "decoder.block.{}.layer.2.layer_norm", NULL, NB_DIM_HIDDEN, 0, 0, NB_WHEN_NEVER, 0},
    {NB_MLP_GATE, "decoder.block.{}.layer.2.DenseReluDense.wi", NULL, NB_DIM_INTERMEDIATE, NB_DIM_HIDDEN,
     NB_IF_NOT_GATED, NB_WHEN_NEVER, 0},
    {NB_MLP_GATE, "decoder.block.{}.layer.2.DenseReluDense.wi_0", NULL, NB_DIM_INTERMEDIATE, NB_DIM_HIDDEN, NB_IF_GATED,
     NB_WHEN_NEVER, 0},
    {NB_MLP_UP, "decoder.block.{}.layer.2.DenseReluDense.wi_1", NULL, NB_DIM_INTERMEDIATE, NB_DIM_HIDDEN, NB_IF_GATED,
     NB_WHEN_NEVER, 0},
    {NB_MLP_DOWN, "decoder.block.{}.layer.2.DenseReluDense.wo", NULL, NB_DIM_HIDDEN, NB_DIM_INTERMEDIATE, 0,
     NB_WHEN_NEVER, NB_KEEP_F32},
    {NB_FINAL_NORM, "decoder.final_layer_norm", NULL, NB_DIM_HIDDEN, 0, 0, NB_WHEN_NEVER, 0},
    {NB_HEAD, "lm_head", NULL, NB_DIM_VOCAB, NB_DIM_HIDDEN, NB_IF_HEAD, NB_WHEN_NEVER, 0},
    {0, NULL, NULL, 0, 0, 0, 0, 0},
};

static const nb_op encoder[] = {
    {NB_OP_NORM, NB_X, NB_N, NB_ATTN_NORM, 0, 0},
    {NB_OP_LINEAR, NB_N, NB_Q, NB_ATTN_Q, 0, 0},
    {NB_OP_LINEAR, NB_N, NB_K, NB_ATTN_K, 0, 0},
    {NB_OP_LINEAR, NB_N, NB_V, NB_ATTN_V, 0, 0},
    {NB_OP_CACHE, NB_Q, 0, 0, 0, 0},
    {NB_OP_ATTEND, NB_Q, NB_A, 0, 0, 0},
    {NB_OP_LINEAR, NB_A, NB_X, NB_ATTN_O, NB_ADDED, 0},
    {NB_OP_NORM, NB_X, NB_N, NB_MLP_NORM, 0, 0},
    {NB_OP_LINEAR, NB_N, NB_G, NB_MLP_GATE, 0, 0},
    {NB_OP_LINEAR, NB_N, NB_U, NB_MLP_UP, 0, 0},
    {NB_OP_GATE, NB_G, NB_G, 0, 0, NB_U},
    {NB_OP_LINEAR, NB_G, NB_X, NB_MLP_DOWN, NB_ADDED, 0},
    {NB_OP_END, 0, 0, 0, 0, 0},
};

static const nb_op decoder[] = {
    {NB_OP_NORM, NB_X, NB_N, NB_ATTN_NORM, 0, 0},
    {NB_OP_LINEAR, NB_N, NB_Q, NB_ATTN_Q, 0, 0},
    {NB_OP_LINEAR, NB_N, NB_K, NB_ATTN_K, 0, 0},
    {NB_OP_LINEAR, NB_N, NB_V, NB_ATTN_V, 0, 0},
    {NB_OP_CACHE, NB_Q, 0, 0, 0, 0},
    {NB_OP_ATTEND, NB_Q, NB_A, 0, 0, 0},
    {NB_OP_LINEAR, NB_A, NB_X, NB_ATTN_O, NB_ADDED, 0},
    {NB_OP_LINEAR, NB_E, NB_K, NB_CROSS_K, NB_ONCE, 0},
    {NB_OP_LINEAR, NB_E, NB_V, NB_CROSS_V, NB_ONCE, 0},
    {NB_OP_CACHE, 0, 0, 0, NB_CROSS | NB_ONCE, 0},
    {NB_OP_NORM, NB_X, NB_N, NB_CROSS_NORM, 0, 0},
    {NB_OP_LINEAR, NB_N, NB_Q, NB_CROSS_Q, 0, 0},
    {NB_OP_ATTEND, NB_Q, NB_A, 0, NB_CROSS, 0},
    {NB_OP_LINEAR, NB_A, NB_X, NB_CROSS_O, NB_ADDED, 0},
    {NB_OP_NORM, NB_X, NB_N, NB_MLP_NORM, 0, 0},
    {NB_OP_LINEAR, NB_N, NB_G, NB_MLP_GATE, 0, 0},
    {NB_OP_LINEAR, NB_N, NB_U, NB_MLP_UP, 0, 0},
    {NB_OP_GATE, NB_G, NB_G, 0, 0, NB_U},
    {NB_OP_LINEAR, NB_G, NB_X, NB_MLP_DOWN, NB_ADDED, 0},
    {NB_OP_END, 0, 0, 0, 0, 0},
};

/* What feed_forward_proj means, where the two members that T5Config makes of it are not there; those go first. */
static nibble_status read_activation(const char *where, nb_config *c, nibble_error *err) {
  static const char prefix[] = "gated-";
  const char *name = c->feed_forward_proj;
  c->gated = strncmp(name, prefix, sizeof prefix - 1) == 0;
  c->hidden_act = c->gated ? name + sizeof prefix - 1 : name;
  if (c->gated && strcmp(c->hidden_act, "gelu") == 0) c->hidden_act = "gelu_new";
  nibble_status status = nb_json_string(where, c->json, "dense_act_fn", &c->hidden_act, err);
  return status == NIBBLE_OK ? nb_json_bool(where, c->json, "is_gated_act", &c->gated, err) : status;
}

/* T5Config ties whatever tie_word_embeddings says, which tells the head's scale alone; a head of its own in the file
 * is taken all the same. */
static nibble_status finish(const char *where, nb_config *c, nibble_error *err) {
  c->head_scaled = c->tie_word_embeddings;
  c->tie_word_embeddings = c->tie_is_loose = true;
  if (!c->num_decoder_layers) c->num_decoder_layers = c->num_hidden_layers;
  nibble_status status = nb_json_bool(where, c->json, "scale_decoder_outputs", &c->head_scaled, err);
  return status == NIBBLE_OK ? read_activation(where, c, err) : status;
}

static const nb_key_use keys[] = {
    {NB_KEY_HIDDEN_SIZE, NAN, NULL, false},
    {NB_KEY_INTERMEDIATE_SIZE, NAN, NULL, false},
    {NB_KEY_NUM_HIDDEN_LAYERS, NAN, NULL, false},
    {NB_KEY_NUM_DECODER_LAYERS, 0, NULL, false},
    {NB_KEY_NUM_ATTENTION_HEADS, NAN, NULL, false},
    {NB_KEY_HEAD_DIM, NAN, NULL, false},
    {NB_KEY_VOCAB_SIZE, NAN, NULL, false},
    {NB_KEY_MAX_POSITION_EMBEDDINGS, 2048, NULL, true},
    {NB_KEY_NORM_EPS, 1e-6, NULL, false},
    {NB_KEY_FEED_FORWARD_PROJ, 0, "relu", false},
    {NB_KEY_TIE_WORD_EMBEDDINGS, 1, NULL, false},
    {NB_KEY_RELATIVE_BUCKETS, 32, NULL, false},
    {NB_KEY_RELATIVE_MAX_DISTANCE, 128, NULL, false},
    {NB_KEY_NONE, 0, NULL, false},
};

const nb_family nb_family_t5 = {
    .model_type = "t5",
    .default_class = "T5ForConditionalGeneration",
    .base_prefix = "",
    .attention_unscaled = true,
    .stacks = {{encoder_rules, nb_llama_embed, encoder, nb_llama_end, NB_KEY_NUM_HIDDEN_LAYERS, false},
               {decoder_rules, nb_llama_embed, decoder, nb_llama_end, NB_KEY_NUM_DECODER_LAYERS, true}},
    .keys = {keys},
    .finish = finish,
};
