#include <gtest/gtest.h>

#include "support.h"

namespace {

const char kConfig[] =
    R"({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 256, "intermediate_size": 512,
        "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 1000, "tie_word_embeddings": true})";

TEST(Cli, SaysWhatItCanDo) {
  CommandResult help = Nibble("--help");
  EXPECT_EQ(help.code, 0);
  EXPECT_NE(help.out.find("memory"), std::string::npos);
  EXPECT_EQ(Nibble("--version").code, 0);
  EXPECT_EQ(Nibble("memory --help").code, 0);
  EXPECT_NE(Nibble("memory --help").out.find("Example:"), std::string::npos);
}

TEST(Cli, WrongUsageExitsWith2) {
  EXPECT_EQ(Nibble("").code, 2);
  EXPECT_EQ(Nibble("frobnicate").code, 2);
  EXPECT_EQ(Nibble("memory").code, 2);
  EXPECT_EQ(Nibble("memory --no-such-option x").code, 2);
  EXPECT_EQ(Nibble("memory --ctx -5 x").code, 2);
  EXPECT_EQ(Nibble("memory --device cuda x").code, 2);
}

TEST(Cli, ClosedStdoutExitsWith4) {
  TempFolder folder;
  WriteFile(folder / "config.json", kConfig);
  EXPECT_EQ(Nibble("memory " + folder.path() + " >/dev/full").code, 4);
}

TEST(Memory, CountsWeightsByHand) {
  TempFolder folder;
  WriteFile(folder / "config.json", kConfig);
  CommandResult r = Nibble("memory " + folder.path() + " --json --ctx 10");
  ASSERT_EQ(r.code, 0) << r.err;
  // embedding + 2 * (4 * 256*256 + 3 * 256*512 + 2 norms) + norm
  int64_t linear = 2 * (4 * 256 * 256 + 3 * 256 * 512), rest = 1000 * 256 + 5 * 256;
  auto has = [&](const std::string &key, int64_t value) {
    return r.out.find("\"" + key + "\":\t" + std::to_string(value)) != std::string::npos;
  };
  EXPECT_TRUE(has("parameters", linear + rest)) << r.out;
  EXPECT_TRUE(has("weight_bytes", 4 * (linear + rest))) << r.out;
  EXPECT_TRUE(has("weight_bytes", linear / 2 + linear / 64 * 4 + 14 * 64 + 2 * rest)) << r.out;
  EXPECT_TRUE(has("kv_cache_bytes", 2 * 2 * 256 * 10 * 2)) << r.out;
}

TEST(Memory, RefusesWhatIsNoConfig) {
  TempFolder folder;
  WriteFile(folder / "config.json", "{}");
  EXPECT_EQ(Nibble("memory " + folder.path()).code, 3);
  EXPECT_EQ(Nibble("memory " + (folder / "nothing")).code, 3);
}

}  // namespace
