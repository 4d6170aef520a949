/* Mistral: Llama with attention over a sliding window, in all layers. */
#include "model/family.h"

static const nb_key_use keys[] = {
    {NB_KEY_SLIDING_WINDOW, 4096, NULL, false},
    {NB_KEY_ATTENTION_BIAS, 0, NULL, true},
    {NB_KEY_MLP_BIAS, 0, NULL, true},
    {NB_KEY_NONE, 0, NULL, false},
};

const nb_family nb_family_mistral = {
    .model_type = "mistral",
    .default_class = "MistralForCausalLM",
    .base_prefix = "model.",
    .rotary = true,
    .stacks = {{nb_llama_rules, nb_llama_embed, nb_llama_block, nb_llama_end, NB_KEY_NUM_HIDDEN_LAYERS, true}},
    .keys = {keys, nb_llama_keys},
};
