#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

extern "C" {
#include "model/tensors.h"
}

namespace {

nibble_status Parse(const std::string &text, nb_config *config, nibble_error *err) {
  return nb_config_parse("config.json", text.data(), text.size(), config, err);
}

const char kLlama[] =
    R"({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100,
        "rms_norm_eps": 1e-5, "torch_dtype": "bfloat16", "eos_token_id": [2, 7])";

TEST(Config, ReadsLlamaWithRopeInItsOldAndNewPlace) {
  nibble_error err;
  nb_config c;
  std::string old_style = std::string(kLlama) +
                          R"(, "rope_theta": 5e5, "rope_scaling": {"type": "llama3", "factor": 8.0,
                          "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}})";
  ASSERT_EQ(Parse(old_style, &c, &err), NIBBLE_OK) << err.message;
  EXPECT_EQ(c.rope.type, NB_ROPE_LLAMA3);
  EXPECT_EQ(c.rope.theta, 5e5);
  EXPECT_EQ(c.rope.factor, 8.0);
  EXPECT_EQ(c.rope.original_max_position_embeddings, 32);
  EXPECT_EQ(c.head_dim, 16);
  EXPECT_EQ(c.dtype, NB_BF16);
  EXPECT_EQ(c.eos_token_count, 2);
  EXPECT_EQ(c.eos_token_ids[1], 7);
  nb_config_free(&c);
  std::string new_style = std::string(kLlama) + R"(, "rope_parameters": {"rope_theta": 1e5, "rope_type": "default"}})";
  ASSERT_EQ(Parse(new_style, &c, &err), NIBBLE_OK) << err.message;
  EXPECT_EQ(c.rope.type, NB_ROPE_DEFAULT);
  EXPECT_EQ(c.rope.theta, 1e5);
  nb_config_free(&c);
}

TEST(Config, RefusesWhatCannotBeByName) {
  const std::pair<const char *, const char *> bad[] = {
      {"[]", "not a JSON object"},
      {"{}", "model_type"},
      {R"({"model_type": 3})", "model_type"},
      {R"({"model_type": "llama"})", "hidden_size"},
      {R"({"model_type": "llama", "hidden_size": -4})", "hidden_size"},
      {R"({"model_type": "llama", "hidden_size": 1e30})", "hidden_size"},
      {R"({"model_type": "llama", "hidden_size": 64.5})", "hidden_size"},
      {R"({"model_type": "llama", "hidden_size": 10, "intermediate_size": 8, "num_hidden_layers": 1,
           "num_attention_heads": 3, "vocab_size": 5})",
       "num_attention_heads"},
      {R"({"model_type": "llama", "hidden_size": 12, "intermediate_size": 8, "num_hidden_layers": 1,
           "num_attention_heads": 3, "num_key_value_heads": 2, "vocab_size": 5})",
       "num_key_value_heads"},
      {R"({"model_type": "x"} {)", "follows"},
  };
  for (auto &[text, part] : bad) {
    nb_config c;
    nibble_error err;
    EXPECT_EQ(Parse(text, &c, &err), NIBBLE_BAD_INPUT) << text;
    EXPECT_NE(strstr(err.message, part), nullptr) << text << ": " << err.message;
  }
  std::string deep(100000, '[');
  nb_config c;
  nibble_error err;
  EXPECT_EQ(Parse(deep, &c, &err), NIBBLE_BAD_INPUT);
}

// transformers 5.23: MistralConfig, Qwen2Config and LlamaConfig.
TEST(Config, TakesTheSlidingWindowThatTransformersTakes) {
  const struct {
    const char *type, *rest;
    int64_t window;
  } cases[] = {
      {"mistral", "", 4096},
      {"mistral", R"(, "sliding_window": null)", 0},
      {"mistral", R"(, "sliding_window": 7)", 7},
      {"qwen2", "", 0},
      {"qwen2", R"(, "use_sliding_window": true)", 4096},
      {"qwen2", R"(, "use_sliding_window": false, "sliding_window": 7)", 0},
      {"llama", R"(, "sliding_window": 7)", 0},
  };
  for (const auto &c : cases) {
    std::string text = std::string(kLlama) + c.rest + "}";
    text.replace(text.find("llama"), 5, c.type);
    nb_config config;
    nibble_error err;
    ASSERT_EQ(Parse(text, &config, &err), NIBBLE_OK) << err.message;
    EXPECT_EQ(config.sliding_window, c.window) << text;
    nb_config_free(&config);
  }
}

std::map<std::string, std::string> Tensors(const std::string &text) {
  nb_config c;
  nibble_error err;
  nb_model_tensors list;
  std::map<std::string, std::string> out;
  EXPECT_EQ(Parse(text, &c, &err), NIBBLE_OK) << err.message;
  EXPECT_EQ(nb_model_tensors_list(&c, &list, &err), NIBBLE_OK);
  for (size_t i = 0; i < list.count; i++) {
    std::string shape = std::to_string(list.items[i].shape[0]);
    if (list.items[i].ndim == 2) shape += "x" + std::to_string(list.items[i].shape[1]);
    out[list.items[i].name] = shape;
    nb_identity id = nb_identify(&c, list.items[i].name, list.items[i].ndim);
    EXPECT_EQ(id.role, list.items[i].role) << list.items[i].name;
    EXPECT_EQ(id.layer, list.items[i].layer) << list.items[i].name;
    EXPECT_EQ(id.is_bias, list.items[i].is_bias) << list.items[i].name;
  }
  nb_model_tensors_free(&list);
  nb_config_free(&c);
  return out;
}

TEST(Archs, ListTheTensorsThatTheConfigPromises) {
  auto tied = Tensors(std::string(kLlama) + R"(, "tie_word_embeddings": true})");
  EXPECT_EQ(tied.size(), 2u + 2 * 9);
  EXPECT_EQ(tied["model.layers.1.self_attn.k_proj.weight"], "32x64");
  EXPECT_EQ(tied["model.layers.0.mlp.down_proj.weight"], "64x96");
  EXPECT_EQ(tied.count("lm_head.weight"), 0u);
  auto full = Tensors(std::string(kLlama) + R"(, "attention_bias": true, "mlp_bias": true, "head_dim": 8})");
  EXPECT_EQ(full.size(), 3u + 2 * 16);
  EXPECT_EQ(full["lm_head.weight"], "100x64");
  EXPECT_EQ(full["model.layers.0.self_attn.o_proj.weight"], "64x32");
  EXPECT_EQ(full["model.layers.0.self_attn.o_proj.bias"], "64");
}

TEST(Archs, BertHasItsPrefixByClass) {
  std::string bert = R"({"model_type": "bert", "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1,
                         "num_attention_heads": 2, "vocab_size": 10, "architectures": [")";
  auto base = Tensors(bert + "BertModel\"]}");
  EXPECT_EQ(base.count("pooler.dense.weight"), 1u);
  EXPECT_EQ(base["embeddings.position_embeddings.weight"], "512x8");
  auto masked = Tensors(bert + "BertForMaskedLM\"]}");
  EXPECT_EQ(masked.count("bert.encoder.layer.0.attention.self.query.weight"), 1u);
  EXPECT_EQ(masked.count("bert.pooler.dense.weight"), 0u);
}

TEST(Archs, UnknownFamiliesFollowTheGeneralRule) {
  nb_config c;
  nibble_error err;
  ASSERT_EQ(Parse(R"({"model_type": "brandnew"})", &c, &err), NIBBLE_OK) << err.message;
  EXPECT_EQ(nb_identify(&c, "h.0.attn.proj.weight", 2).role, NB_UNKNOWN_LINEAR);
  EXPECT_EQ(nb_identify(&c, "h.0.attn.proj.weight", 1).role, NB_ROLE_OTHER);
  EXPECT_EQ(nb_identify(&c, "transformer.wte.weight", 2).role, NB_UNKNOWN_EMBED);
  EXPECT_EQ(nb_identify(&c, "layers.0.input_layernorm.weight", 1).role, NB_UNKNOWN_NORM);
  EXPECT_EQ(nb_identify(&c, "lm_head.weight", 2).role, NB_UNKNOWN_HEAD);
  nb_config_free(&c);
}

TEST(Archs, TranslateGgufNames) {
  const nb_family *llama = nb_family_by_gguf("llama");
  nibble_error err;
  nb_identity id;
  char *name = nullptr;
  ASSERT_EQ(nb_identify_gguf(llama, "blk.17.attn_k.weight", &id, &name, &err), NIBBLE_OK) << err.message;
  ASSERT_NE(name, nullptr);
  EXPECT_STREQ(name, "model.layers.17.self_attn.k_proj.weight");
  EXPECT_EQ(id.role, NB_ATTN_K);
  EXPECT_EQ(id.layer, 17);
  EXPECT_TRUE(llama->gguf_interleaved);
  free(name);
  ASSERT_EQ(nb_identify_gguf(llama, "output.weight", &id, &name, &err), NIBBLE_OK) << err.message;
  ASSERT_NE(name, nullptr);
  EXPECT_STREQ(name, "lm_head.weight");
  free(name);
  for (const char *none : {"blk..attn_k.weight", "blk.9999999999.attn_k.weight"}) {
    ASSERT_EQ(nb_identify_gguf(llama, none, &id, &name, &err), NIBBLE_OK) << err.message;
    EXPECT_EQ(name, nullptr) << none;
  }
}

}  // namespace
