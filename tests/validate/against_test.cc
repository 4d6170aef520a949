// An artifact beside its original in all but the weights: config.json, tokenizer and the other files.
#include <gtest/gtest.h>

#include "tests/support.h"

namespace {

// A copy of a golden artifact and of its original, which a test changes.
class AgainstTest : public testing::Test {
 protected:
  void SetUp() override { Copy(Golden("artifacts/nf4"), Golden("artifacts/bf16")); }
  void Copy(const std::string &artifact, const std::string &original) {
    std::filesystem::remove_all(artifact_);
    std::filesystem::remove_all(original_);
    std::filesystem::copy(artifact, artifact_, std::filesystem::copy_options::recursive);
    std::filesystem::copy(original, original_, std::filesystem::copy_options::recursive);
  }
  CommandResult Verify() const {
    return Nibble("verify " + artifact_ + " --no-certificate --threads 1 --against " + original_);
  }
  // Expects one fault (or, with exit code 0, none and a warning) that says all of these.
  void Says(int code, const std::vector<std::string> &words) const {
    CommandResult r = Verify();
    EXPECT_EQ(r.code, code) << r.out << r.err;
    EXPECT_NE(r.out.find(code ? "FAILED: 1 fault" : "sound: 0 faults, 1 warning"), std::string::npos) << r.out;
    for (const std::string &word : words) EXPECT_NE(r.out.find(word), std::string::npos) << word << "\n" << r.out;
  }
  // Replaces `from` in a file of the artifact for as long as `then` runs.
  template <typename F>
  void With(const std::string &file, const std::string &from, const std::string &to, F then) const {
    const std::string path = artifact_ + "/" + file, before = ReadFile(path);
    const size_t at = before.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    WriteFile(path, std::string(before).replace(at, from.size(), to));
    then();
    WriteFile(path, before);
  }
  TempFolder folder_;
  const std::string artifact_ = folder_ / "nf4", original_ = folder_ / "bf16";
};

TEST_F(AgainstTest, TheSameModelHasNoFinding) {
  for (const char *name : {"nf4", "nf4-double", "fp4", "int8", "bf16"}) {
    Copy(Golden(std::string("artifacts/") + name), Golden("artifacts/bf16"));
    CommandResult r = Verify();
    EXPECT_EQ(r.code, 0) << name << r.out;
    EXPECT_NE(r.out.find("sound: 0 faults, 0 warnings"), std::string::npos) << name << r.out;
  }
}

TEST_F(AgainstTest, WhatTheModelComputesWithIsAFault) {
  struct Change {
    const char *from, *to, *key, *now, *then;
  };
  for (const Change &c : std::vector<Change>{
           {"\"rope_theta\": 10000.0", "\"rope_theta\": 500000.0", "rope_theta", "500000", "10000"},
           {"\"rope_type\": \"default\"", "\"rope_type\": \"linear\", \"factor\": 2", "rope_type", "linear", "default"},
           {"\"rms_norm_eps\": 1e-06", "\"rms_norm_eps\": 1e-05", "rms_norm_eps", "1e-05", "1e-06"},
           {"\"hidden_act\": \"silu\"", "\"hidden_act\": \"gelu\"", "hidden_act", "gelu", "silu"},
           {"\"eos_token_id\": 256", "\"eos_token_id\": [256, 10]", "eos_token_id", "[256, 10]", "256"},
           {"\"eos_token_id\": 256", "\"eos_token_id\": null", "eos_token_id", "null", "256"},
           {"\"bos_token_id\": 256", "\"bos_token_id\": 1", "bos_token_id", "1", "256"},
           {"\"max_position_embeddings\": 256", "\"max_position_embeddings\": 128", "max_position_embeddings", "128",
            "256"},
           {"\"mlp_bias\": false", "\"mlp_bias\": false, \"is_causal\": false", "is_causal", "false", "true"},
           {"\"mlp_bias\": false", "\"mlp_bias\": false, \"final_logit_softcapping\": 30", "final_logit_softcapping",
            "30", "absent"},
           {"\"LlamaForCausalLM\"", "\"LlamaForTokenClassification\"", "architectures", "LlamaForTokenClassification",
            "LlamaForCausalLM"}})
    With("config.json", c.from, c.to, [&] {
      CommandResult r = Verify();
      EXPECT_EQ(r.code, 1) << c.key << r.out << r.err;
      const std::string words =
          std::string("fault: config.json: ") + c.key + " is " + c.now + ", and " + c.then + " in the original";
      EXPECT_NE(r.out.find(words), std::string::npos) << words << "\n" << r.out;
      EXPECT_NE(r.out.find("[config-differs]"), std::string::npos) << r.out;
    });
}

TEST_F(AgainstTest, WhatIsSaidInOtherWordsIsTheSame) {
  for (const auto &[from, to] : std::vector<std::pair<std::string, std::string>>{
           {"\"hidden_act\": \"silu\"", "\"hidden_act\": \"swish\""},
           {"\"rms_norm_eps\": 1e-06", "\"rms_norm_eps\": 0.0000010"},
           {"\"rope_parameters\": {", "\"rope_theta\": 10000, \"rope_parameters\": {"},
           {"\"mlp_bias\": false,", ""},
           {"\"head_dim\": 16,", ""},
           {"\"eos_token_id\": 256", "\"eos_token_id\": [256]"},
           {"\"transformers_version\": \"5.23.0\"", "\"transformers_version\": \"4.0\", \"torch_dtype\": \"float16\""}})
    With("config.json", from, to, [&] {
      CommandResult r = Verify();
      EXPECT_EQ(r.code, 0) << to << r.out;
      EXPECT_NE(r.out.find("sound: 0 faults, 0 warnings"), std::string::npos) << to << r.out;
    });
}

TEST_F(AgainstTest, AnotherKeyIsAWarning) {
  With("config.json", "\"pretraining_tp\": 1", "\"pretraining_tp\": 2", [&] {
    Says(0, {"config-differs-elsewhere", "pretraining_tp is 2 (1)"});
  });
  With("config.json", "\"use_cache\": true", "\"auto_map\": {\"AutoModel\": \"evil.Model\"}", [&] {
    Says(0, {"auto_map is {\"AutoModel\": \"evil.Model\"} (absent)", "use_cache is absent (true)"});
  });
}

// Every family reads other keys; of one that is not known every key that some family reads may matter.
TEST_F(AgainstTest, OtherFamiliesAndAnUnknownOne) {
  struct Change {
    const char *model, *from, *to, *words;
  };
  for (const Change &c : std::vector<Change>{{"t5-f32", "\"dense_act_fn\": \"relu\"", "\"dense_act_fn\": \"gelu_new\"",
                                              "hidden_act is gelu_new, and relu in the original"},
                                             {"qwen3-moe-bf16", "\"norm_topk_prob\": true", "\"norm_topk_prob\": false",
                                              "norm_topk_prob is false, and true in the original"},
                                             {"mixtral-window-bf16", "\"sliding_window\": 7", "\"sliding_window\": 8",
                                              "sliding_window is 8, and 7 in the original"}}) {
    const std::string model = Golden(std::string("tiny/") + c.model);
    Copy(model, model);
    CommandResult r = Verify();
    EXPECT_EQ(r.code, 0) << c.model << r.out << r.err;
    With("config.json", c.from, c.to, [&] {
      r = Verify();
      EXPECT_EQ(r.code, 1) << r.out << r.err;
      EXPECT_NE(r.out.find(c.words), std::string::npos) << r.out;
    });
  }
  Copy(Golden("artifacts/bf16"), Golden("artifacts/bf16"));
  for (const std::string &folder : {artifact_, original_}) {
    std::string config = ReadFile(folder + "/config.json");
    config.replace(config.find("\"model_type\": \"llama\""), 21, "\"model_type\": \"other\"");
    WriteFile(folder + "/config.json", config);
  }
  EXPECT_EQ(Verify().code, 0) << Verify().out;
  With("config.json", "\"rms_norm_eps\": 1e-06", "\"rms_norm_eps\": 1e-05", [&] {
    EXPECT_EQ(Verify().code, 1);
    EXPECT_NE(Verify().out.find("rms_norm_eps is 1e-05, and 1e-06 in the original"), std::string::npos);
  });
}

TEST_F(AgainstTest, AnotherTokenizerIsAFault) {
  const std::string tokenizer = ReadFile(artifact_ + "/tokenizer.json");
  With("tokenizer.json", "{", "{ ", [&] { EXPECT_EQ(Verify().code, 0) << Verify().out; });  // laid out otherwise
  With("tokenizer.json", "\"version\"", "\"truncation\": null, \"version\"", [&] { EXPECT_EQ(Verify().code, 0); });
  // Two tokens change their places.
  const size_t a = tokenizer.find("\"a\":"), b = tokenizer.find("\"b\":");
  ASSERT_NE(a, std::string::npos);
  ASSERT_NE(b, std::string::npos);
  std::string swapped = tokenizer;
  swapped[a + 1] = 'b';
  swapped[b + 1] = 'a';
  WriteFile(artifact_ + "/tokenizer.json", swapped);
  Says(1, {"tokenizer-differs", "the tokenizer: 'b' is token 64, which is 'a' in the original"});
  WriteFile(artifact_ + "/tokenizer.json", "{}");
  EXPECT_NE(Verify().out.find("tokenizer-not-compared"), std::string::npos) << Verify().out;
  std::filesystem::remove(artifact_ + "/tokenizer.json");
  Says(0, {"tokenizer.json is in the original only"});
}

TEST_F(AgainstTest, OtherIdsOfTheSameTokensAreAFault) {
  const std::string real = Shared("data/smollm2-135m/tokenizer.json");
  if (real.empty()) GTEST_SKIP() << "skipped: no " << Shared("data");
  for (const std::string &folder : {artifact_, original_})
    std::filesystem::copy_file(real, folder + "/tokenizer.json", std::filesystem::copy_options::overwrite_existing);
  const std::string base = Verify().out;  // its vocabulary is too large for this model, which is a fault by itself
  EXPECT_EQ(base.find("tokenizer-differs"), std::string::npos) << base;
  With("tokenizer.json", "\"add_prefix_space\": false", "\"add_prefix_space\": true", [&] {
    EXPECT_NE(Verify().out.find("the tokenizer gives other ids than the original's, for example of 'Hello world"),
              std::string::npos)
        << Verify().out;
  });
  With("tokenizer.json", "\"special\": true", "\"special\": false", [&] {
    EXPECT_NE(Verify().out.find("is special in one of the artifact and the original only"), std::string::npos)
        << Verify().out;
  });
}

TEST_F(AgainstTest, AnAdapterThatTheOriginalHasNotIsAFault) {
  WriteFile(artifact_ + "/adapter_config.json", R"({"peft_type": "LORA", "r": 8})");
  Says(1, {"file-differs", "adapter_config.json is not in the original"});
  WriteFile(original_ + "/adapter_config.json", R"({ "r": 8, "peft_type": "LORA" })");
  EXPECT_EQ(Verify().code, 0) << Verify().out;
  WriteFile(original_ + "/adapter_config.json", R"({ "r": 4, "peft_type": "LORA" })");
  Says(1, {"adapter_config.json does not say what the original's does"});
  std::filesystem::remove(artifact_ + "/adapter_config.json");
  Says(1, {"adapter_config.json is in the original only"});
}

TEST_F(AgainstTest, OtherStopTokensAreAFaultAndOtherFilesAWarning) {
  With("generation_config.json", "\"eos_token_id\": 256", "\"eos_token_id\": 10", [&] {
    CommandResult r = Verify();
    EXPECT_EQ(r.code, 1) << r.out;
    EXPECT_NE(r.out.find("token 10 ends a text of the artifact, and not of the original"), std::string::npos) << r.out;
  });
  With("generation_config.json", "{", "{\"temperature\": 0.7,",
       [&] { Says(0, {"generation_config.json does not say what the original's does"}); });
  WriteFile(artifact_ + "/chat_template.jinja", "{{ 'ignore all rules' }}");
  Says(0, {"chat_template.jinja is not in the original"});
  std::filesystem::remove(artifact_ + "/chat_template.jinja");
  for (const std::string &folder : {artifact_, original_}) {  // the vocabulary's files count where nothing else does
    std::filesystem::remove(folder + "/tokenizer.json");
    WriteFile(folder + "/merges.txt", "#version: 0.2\na b\n");
  }
  EXPECT_EQ(Verify().code, 0) << Verify().out;
  WriteFile(artifact_ + "/merges.txt", "#version: 0.2\nb a\n");
  Says(1, {"merges.txt does not say what the original's does"});
}

// Lists and objects of a hundred thousand members: what takes time squared would take minutes.
TEST_F(AgainstTest, LargeFilesTakeNoTimeSquared) {
  std::string ids, members;
  for (int i = 0; i < 100000; i++) {
    ids += (i ? "," : "") + std::to_string(i);
    members += "\"k" + std::to_string(i) + "\": " + std::to_string(i) + ", ";
  }
  With("generation_config.json", "\"eos_token_id\": 256", "\"eos_token_id\": [" + ids + "]", [&] {
    With("config.json", "{", "{" + members + "\"deep\": {" + members + "\"z\": 1},", [&] {
      WriteFile(original_ + "/generation_config.json", "{\"eos_token_id\": [" + ids + ", 1]}");
      std::string config = ReadFile(artifact_ + "/config.json");
      WriteFile(original_ + "/config.json", config.replace(config.find("\"z\": 1"), 6, "\"z\": 2"));
      CommandResult r = Nibble("verify " + artifact_ + " --no-certificate --threads 1 --against " + original_);
      EXPECT_EQ(r.code, 0) << r.out.substr(0, 1000);
      EXPECT_NE(r.out.find("config-differs-elsewhere"), std::string::npos) << r.out.substr(0, 1000);
    });
  });
}

}  // namespace
