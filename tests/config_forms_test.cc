// What config.json files look like in the wild: members that no command needs, written in ways that few expect.
// Right is what transformers 5.24 does with the same folder.
#include <gtest/gtest.h>

#include "support.h"

extern "C" {
#include "model/config.h"
}

namespace {

const char kConfig[] = R"({
  "architectures": ["LlamaForCausalLM"],
  "model_type": "llama",
  "hidden_size": 64,
  "intermediate_size": 96,
  "num_hidden_layers": 2,
  "num_attention_heads": 4,
  "num_key_value_heads": 4,
  "head_dim": 16,
  "vocab_size": 96,
  "max_position_embeddings": 128,
  "rms_norm_eps": 1e-05,
  "rope_theta": 10000.0,
  "torch_dtype": "float32",
  "eos_token_id": 2
})";

struct Form {
  const char *name, *member, *instead;  // `instead` replaces `member` in kConfig
};

const Form kForms[] = {
    {"AsItIs", R"("eos_token_id": 2)", R"("eos_token_id": 2)"},
    {"ArchitecturesNull", R"(["LlamaForCausalLM"])", "null"},
    {"ArchitecturesEmpty", R"(["LlamaForCausalLM"])", "[]"},
    {"ArchitecturesMissing", R"("architectures": ["LlamaForCausalLM"],)", ""},
    {"DtypeOfTorch", R"("float32")", R"("torch.float32")"},
    {"DtypeAuto", R"("float32")", R"("auto")"},
    {"DtypeInt8", R"("float32")", R"("int8")"},
    {"DtypeUint8", R"("float32")", R"("uint8")"},
    {"DtypeNull", R"("float32")", "null"},
    {"DtypesTwo", R"("torch_dtype": "float32")", R"("dtype": "float32", "torch_dtype": "float16")"},
    {"EosNegative", R"("eos_token_id": 2)", R"("eos_token_id": -1)"},
    {"EosListWithNegative", R"("eos_token_id": 2)", R"("eos_token_id": [-1, 2])"},
    {"PositionsBeyond31Bits", ": 128", ": 2147483648"},
    {"PositionsFloat", ": 128", ": 128.0"},
    {"HeadsFloat", R"("num_attention_heads": 4)", R"("num_attention_heads": 4.0)"},
    {"BigIntegers", R"("eos_token_id": 2)",
     R"("eos_token_id": 2, "limit": 9223372036854775807, "other": 1000000000000000000000000000000)"},
    {"KeyValueHeadsNull", R"("num_key_value_heads": 4)", R"("num_key_value_heads": null)"},
    {"HeadDimNull", R"("head_dim": 16)", R"("head_dim": null)"},
    {"RopeNull", R"("rope_theta": 10000.0)", R"("rope_theta": 10000.0, "rope_scaling": null, "rope_parameters": null)"},
    {"QuantizationNull", R"("eos_token_id": 2)", R"("eos_token_id": 2, "quantization_config": null)"},
    {"QuantizationEmpty", R"("eos_token_id": 2)", R"("eos_token_id": 2, "quantization_config": {})"},
};

class ConfigForms : public testing::TestWithParam<Form> {
 protected:
  // A folder with the weights that kConfig promises and `config` beside them.
  void Make(const std::string &name, const std::string &config) {
    WriteFile(folder_ / "plain.json", kConfig);
    CommandResult r = Nibble("init --quiet --no-sync " + (folder_ / "plain.json") + " " + (folder_ / name));
    ASSERT_EQ(r.code, 0) << r.err;
    WriteFile(folder_ / (name + "/config.json"), config);
  }

  std::string Logits(const std::string &name) {
    std::string file = folder_ / (name + ".logits");
    CommandResult r = Nibble("logits --quiet --ids 1,2,3 --out " + file + " " + (folder_ / name));
    EXPECT_EQ(r.code, 0) << name << ": " << r.err;
    return ReadFile(file);
  }

  TempFolder folder_;
};

TEST_P(ConfigForms, EveryCommandTakesIt) {
  std::string config = kConfig, member = GetParam().member;
  Make("plain", config);
  config.replace(config.find(member), member.size(), GetParam().instead);
  Make("odd", config);
  const std::string logits = Logits("plain");
  ASSERT_GT(logits.size(), 3u * 96 * 4);
  EXPECT_EQ(Logits("odd"), logits);
  CommandResult r = Nibble("inspect " + (folder_ / "odd"));
  EXPECT_EQ(r.code, 0) << r.err;
  r = Nibble("convert --quiet --no-sync " + (folder_ / "odd") + " " + (folder_ / "same"));
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_EQ(Logits("same"), logits);
  EXPECT_EQ(Nibble("quantize --quiet --no-sync --method nf4 " + (folder_ / "plain") + " " + (folder_ / "q1")).code, 0);
  r = Nibble("quantize --quiet --no-sync --method nf4 " + (folder_ / "odd") + " " + (folder_ / "q2"));
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_EQ(ReadFile(folder_ / "q2/model.safetensors"), ReadFile(folder_ / "q1/model.safetensors"));
  EXPECT_EQ(Logits("q2"), Logits("q1"));
  r = Nibble("verify " + (folder_ / "q2"));
  EXPECT_EQ(r.code, 0) << r.out << r.err;
}

INSTANTIATE_TEST_SUITE_P(All, ConfigForms, testing::ValuesIn(kForms),
                         [](const testing::TestParamInfo<Form> &form) { return std::string(form.param.name); });

// kConfig with its last line but one, the dtype, and its last, the token that ends a text, written as given.
nb_config Parse(const std::string &dtype, const std::string &eos) {
  std::string text = kConfig;
  text.replace(text.find(R"("torch_dtype": "float32",)"), 25, dtype);
  text.replace(text.find(R"("eos_token_id": 2)"), 17, eos);
  cJSON *json;
  nb_config config = {};
  nibble_error err;
  EXPECT_EQ(nb_json_parse("config.json", text.data(), text.size(), &json, &err), NIBBLE_OK) << err.message;
  EXPECT_EQ(nb_config_parse("config.json", json, &config, &err), NIBBLE_OK) << err.message;
  return config;
}

TEST(ConfigForms, TheDtypeIsTheOneThatTransformersTakes) {
  const struct {
    const char *member;
    nb_dtype dtype;
  } cases[] = {
      {R"("torch_dtype": "bfloat16",)", NB_BF16},
      {R"("dtype": "bfloat16",)", NB_BF16},
      {R"("dtype": "torch.bfloat16",)", NB_BF16},
      {R"("dtype": "bfloat16", "torch_dtype": "float16",)", NB_BF16},
      {R"("torch_dtype": "float16", "dtype": "bfloat16",)", NB_BF16},
      {R"("dtype": null, "torch_dtype": "float16",)", NB_F16},
      {R"("torch_dtype": "auto",)", NB_F32},
      {R"("torch_dtype": "int8",)", NB_F32},
      {R"("torch_dtype": {"": "bfloat16"},)", NB_F32},
      {"", NB_F32},
  };
  for (const auto &c : cases) {
    nb_config config = Parse(c.member, R"("eos_token_id": 2)");
    EXPECT_EQ(config.dtype, c.dtype) << c.member;
    nb_config_free(&config);
  }
}

TEST(ConfigForms, ANegativeTokenIsNone) {
  nb_config none = Parse("", R"("bos_token_id": -1, "eos_token_id": -1)");
  EXPECT_EQ(none.bos_token_id, -1);
  EXPECT_EQ(none.eos_token_count, 0);
  nb_config_free(&none);
  nb_config two = Parse("", R"("eos_token_id": [7, -1, 9])");
  ASSERT_EQ(two.eos_token_count, 2);
  EXPECT_EQ(two.eos_token_ids[0], 7);
  EXPECT_EQ(two.eos_token_ids[1], 9);
  nb_config_free(&two);
}

}  // namespace
