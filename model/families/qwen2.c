/* Qwen2: Llama with biases on Q, K and V whatever the config says, and a window in its last layers. */
#include "model/family.h"

static const nb_key_use keys[] = {
    {NB_KEY_ATTENTION_BIAS, 1, NULL, true},
    {NB_KEY_MLP_BIAS, 0, NULL, true},
    {NB_KEY_SLIDING_WINDOW, 4096, NULL, false},
    {NB_KEY_USE_SLIDING_WINDOW, 0, NULL, false},
    {NB_KEY_MAX_WINDOW_LAYERS, 28, NULL, false},
    {NB_KEY_LAYER_TYPES, 0, NULL, false},
    {NB_KEY_NONE, 0, NULL, false},
};

const nb_family nb_family_qwen2 = {
    .model_type = "qwen2",
    .default_class = "Qwen2ForCausalLM",
    .base_prefix = "model.",
    .gguf_arch = "qwen2",
    .rotary = true,
    .stacks = {{nb_llama_rules, nb_llama_embed, nb_llama_block, nb_llama_end, NB_KEY_NUM_HIDDEN_LAYERS, true}},
    .keys = {keys, nb_llama_keys},
};
