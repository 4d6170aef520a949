// What config.json files look like in the wild: members that no command needs, written in ways that few expect. Right
// is what transformers 5.24 makes of them; "auto", "torch.float32" and floats for integers it refuses, as older
// versions did not. Whatever a config holds, its bytes come out as they went in.
#include <gtest/gtest.h>

#include "tests/checkpoint_files.h"
#include "tests/gguf_files.h"
#include "tests/support.h"

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
    {"PartOfTheRotationUnread", R"("rope_theta": 10000.0)", R"("rope_theta": 10000.0, "partial_rotary_factor": 0.5)"},
    {"PartOfTheRotationUnreadInside", R"("rope_theta": 10000.0)",
     R"("rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5})"},
    {"WindowUnread", R"("eos_token_id": 2)", R"("eos_token_id": 2, "sliding_window": -1, "use_sliding_window": true)"},
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
  EXPECT_EQ(ReadFile(folder_ / "same/config.json"), config);
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
  nb_config config = {};
  nibble_error err;
  EXPECT_EQ(nb_config_parse("config.json", text.data(), text.size(), &config, &err), NIBBLE_OK) << err.message;
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

// What a config asks of the runner that transformers cannot compute either, or that it computes and the runner does
// not.
TEST(ConfigForms, WhatIsNotComputedIsNamedWhereItMatters) {
  const char *const forms[][3] = {
      // model_type, members, what is named; "": nothing
      {"llama", R"("rope_scaling": {"type": "linear", "factor": 2.0, "partial_rotary_factor": 0.5})",
       "partial_rotary_factor"},
      {"llama", R"("rope_scaling": {"type": "linear", "factor": 2.0}, "partial_rotary_factor": 0.5)",
       "partial_rotary_factor"},
      {"llama", R"("rope_scaling": {"type": "linear", "factor": 2.0, "partial_rotary_factor": 1.0})", ""},
      {"qwen3", R"("rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5})", ""},
      {"qwen3", R"("rope_parameters": {"full_attention": {"rope_theta": 500.0}})", "full_attention"},
      {"mistral", R"("sliding_window": -1)", "sliding_window"},
      {"mistral", R"("sliding_window": 0)", "sliding_window"},
      {"mistral", R"("sliding_window": null)", ""},
      {"qwen2", R"("sliding_window": -1)", ""},
      {"qwen2", R"("sliding_window": -1, "use_sliding_window": true)", ""},  // from layer 28 on
      {"qwen2", R"("sliding_window": -1, "use_sliding_window": true, "max_window_layers": 1)", "sliding_window"},
      {"qwen2", R"("layer_types": ["full_attention", "sliding_attention"])", "layer_types"},
      {"qwen2", R"("layer_types": ["full_attention", "full_attention"], "sliding_window": 0)", ""},
  };
  for (const auto &[type, members, named] : forms) {
    std::string text = kConfig;
    text.replace(text.find("\"llama\""), 7, std::string("\"") + type + "\"");
    text.insert(text.find('{') + 1, std::string(members) + ",");
    nb_config config = {};
    nibble_error err;
    ASSERT_EQ(nb_config_parse("config.json", text.data(), text.size(), &config, &err), NIBBLE_OK) << err.message;
    EXPECT_STREQ(config.unread ? config.unread : "", named) << type << members;
    EXPECT_GE(config.sliding_window, 0) << type << members;
    nb_config_free(&config);
  }
}

// The numbers that transformers' strict configs tell from others, and such as only Python's JSON has.
const char kNumbers[] = R"({
    "architectures" : ["BrandnewModel"],
    "cap": 30.0, "limit": 9223372036854775807,
    "model_type": "brandnew",
    "time_step_limit": [ 0.0, Infinity ],
    "torch_dtype": "float32",
    "unset": NaN, "zero": -0.0, "é": "\u00e9"
})";

TEST(ConfigText, ComesOutAsItWentIn) {
  TempFolder dir;
  const std::string src = dir / "src", to = " " + src + " " + dir.path() + "/", config = kNumbers;
  std::filesystem::create_directory(src);
  WriteFile(src + "/config.json", config);
  std::string entry = Entry("h.0.attn.proj.weight", "F32", "64, 64", 0, 64 * 64 * 4);
  WriteFile(src + "/model.safetensors", Safetensors("{" + entry + "}", std::string(64 * 64 * 4, 1)));
  CommandResult r = Nibble("convert --quiet --no-sync" + to + "same");
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_EQ(ReadFile(dir / "same/config.json"), config);
  r = Nibble("convert --quiet --no-sync --dtype bfloat16" + to + "bf16");
  ASSERT_EQ(r.code, 0) << r.err;
  std::string bf16 = config;
  EXPECT_EQ(ReadFile(dir / "bf16/config.json"), bf16.replace(bf16.find("float32"), 7, "bfloat16"));
  r = Nibble("quantize --quiet --no-sync --method nf4 --unknown-family" + to + "q");
  ASSERT_EQ(r.code, 0) << r.err;
  std::string quantized = ReadFile(dir / "q/config.json");
  size_t at = config.find("    \"time_step"), more = quantized.size() - config.size();
  EXPECT_EQ(quantized.substr(at, 30), "    \"quantization_config\" : {\n");
  EXPECT_EQ(quantized.erase(at, more), config);
  r = Nibble("convert --quiet --no-sync --dequantize " + (dir / "q") + " " + (dir / "plain"));
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_EQ(ReadFile(dir / "plain/config.json"), config);
}

// tests/golden/artifacts: written by transformers.
TEST(ConfigText, IsTransformersOwnByteForByteAfterQuantizing) {
  TempFolder dir;
  const std::pair<const char *, const char *> cases[] = {
      {"nf4", "nf4"}, {"nf4-double", "nf4 --double-quant"}, {"fp4", "fp4"}, {"int8", "int8"}};
  for (const auto &[name, method] : cases) {
    CommandResult r = Nibble(std::string("quantize --quiet --no-sync --method ") + method + " " +
                             Golden("artifacts/bf16") + " " + (dir / name));
    ASSERT_EQ(r.code, 0) << r.err;
    EXPECT_EQ(ReadFile((dir / name) + "/config.json"),
              ReadFile(Golden(std::string("artifacts/") + name + "/config.json")))
        << name;
  }
}

TEST(ConfigText, OfAnUnpackedModelLosesWhatQuantizingPutIn) {
  TempFolder dir;
  CommandResult r = Nibble("convert --quiet --no-sync --dequantize " + Golden("artifacts/nf4") + " " + (dir / "plain"));
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_EQ(ReadFile(dir / "plain/config.json"), ReadFile(Golden("artifacts/bf16/config.json")));
}

TEST(ConfigText, OfAMadeUpModelIsTheOneItWasMadeFrom) {
  TempFolder dir;
  WriteFile(dir / "config.json", kConfig);
  ASSERT_EQ(Nibble("init --quiet --no-sync " + dir.path() + " " + (dir / "same")).code, 0);
  EXPECT_EQ(ReadFile(dir / "same/config.json"), kConfig);
  ASSERT_EQ(Nibble("init --quiet --no-sync --dtype float16 " + Golden("artifacts/nf4") + " " + (dir / "f16")).code, 0);
  std::string want = ReadFile(Golden("artifacts/bf16/config.json"));
  EXPECT_EQ(ReadFile(dir / "f16/config.json"), want.replace(want.find("bfloat16"), 8, "float16"));
}

// transformers refuses "rms_norm_eps": 0 where it wants 0.0.
TEST(ConfigText, MadeFromGgufSpellsFloatsAsFloats) {
  TempFolder dir;
  GgufFile f = TinyLlama();
  f.Set("llama.rope.freq_base", F32Value(500000.0f));
  f.Set("llama.rope.scaling.type", TextValue("linear"));
  f.Set("llama.rope.scaling.factor", F32Value(2.0f));
  WriteFile(dir / "m.gguf", f.Build());
  CommandResult r = Nibble("convert --quiet --no-sync " + (dir / "m.gguf") + " " + (dir / "out"));
  ASSERT_EQ(r.code, 0) << r.err;
  std::string config = ReadFile(dir / "out/config.json");
  EXPECT_NE(config.find("\"rope_theta\": 500000.0,\n"), std::string::npos) << config;
  EXPECT_NE(config.find("\"factor\": 2.0,\n"), std::string::npos) << config;
  EXPECT_NE(config.find("\"hidden_size\": 8,\n"), std::string::npos) << config;
}

}  // namespace
