#include <gtest/gtest.h>

#include "tests/support.h"

namespace {

const char kConfig[] =
    R"({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 1, "num_attention_heads": 4, "vocab_size": 500, "torch_dtype": "bfloat16"})";

TEST(Inspect, CountsAndNamesTensors) {
  TempFolder folder;
  WriteFile(folder / "config.json", kConfig);
  ASSERT_EQ(Nibble("init " + folder.path() + " " + (folder / "m")).code, 0);
  CommandResult r = Nibble("inspect " + (folder / "m") + " --tensors");
  ASSERT_EQ(r.code, 0) << r.err;
  int64_t parameters = 2 * 500 * 64 + 4 * 64 * 64 + 3 * 64 * 96 + 3 * 64;
  EXPECT_NE(r.out.find("12 tensors, " + std::to_string(parameters) + " parameters"), std::string::npos) << r.out;
  EXPECT_NE(r.out.find("model.layers.0.mlp.down_proj.weight"), std::string::npos);
  r = Nibble("inspect " + (folder / "m") + " --json");
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_NE(r.out.find("\"parameters\":\t" + std::to_string(parameters)), std::string::npos) << r.out;
  EXPECT_NE(r.out.find("\"missing\":\t0"), std::string::npos);
}

TEST(Inspect, UnknownFamilyIsStillShownAndWeighed) {
  TempFolder folder;
  WriteFile(folder / "config.json", kConfig);
  ASSERT_EQ(Nibble("init " + folder.path() + " " + (folder / "m")).code, 0);
  WriteFile(folder / "m/config.json", R"({"model_type": "brandnew"})");
  CommandResult r = Nibble("inspect " + (folder / "m"));
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_NE(r.out.find("brandnew"), std::string::npos) << r.out;
  r = Nibble("memory " + (folder / "m") + " --json");
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_NE(r.out.find("\"quantizable_parameters\":\t" + std::to_string(4 * 64 * 64 + 3 * 64 * 96)), std::string::npos)
      << r.out;
}

TEST(Inspect, RefusesWhatIsNoModel) {
  TempFolder folder;
  EXPECT_EQ(Nibble("inspect " + folder.path()).code, 3);
  EXPECT_EQ(Nibble("inspect " + (folder / "nothing")).code, 3);
  WriteFile(folder / "model.safetensors", "garbage");
  CommandResult r = Nibble("inspect " + folder.path());
  EXPECT_EQ(r.code, 3);
  EXPECT_NE(r.err.find("model.safetensors"), std::string::npos) << r.err;
}

}  // namespace
