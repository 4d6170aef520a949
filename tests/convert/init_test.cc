#include <gtest/gtest.h>

#include "tests/support.h"

extern "C" {
#include "convert/checkpoint.h"
}

namespace {

const char kConfig[] =
    R"({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 500,
        "torch_dtype": "bfloat16"})";

TEST(Init, WritesEveryTensorThatTheConfigPromises) {
  TempFolder folder;
  WriteFile(folder / "config.json", kConfig);
  CommandResult r = Nibble("init " + (folder / "config.json") + " " + (folder / "m") + " --max-shard-size 50kB");
  ASSERT_EQ(r.code, 0) << r.err;
  nb_checkpoint c;
  nibble_error err;
  ASSERT_EQ(nb_checkpoint_open((folder / "m").c_str(), &c, &err), NIBBLE_OK) << err.message;
  EXPECT_EQ(c.tensor_count, 3u + 2 * 9);
  EXPECT_GT(c.file_count, 2);
  const nb_tensor *t = nb_checkpoint_find(&c, "model.layers.1.mlp.up_proj.weight");
  ASSERT_NE(t, nullptr);
  EXPECT_EQ(t->dtype, NB_BF16);
  std::vector<float> values((size_t)t->count);
  ASSERT_EQ(nb_tensor_read(&c, t, nb_span{0, t->count}, NB_F32, values.data(), &err), NIBBLE_OK);
  double sum = 0, squares = 0;
  for (float v : values) sum += v, squares += (double)v * v;
  EXPECT_NEAR(sum / (double)values.size(), 0, 0.002);
  EXPECT_NEAR(squares / (double)values.size(), 0.02 * 0.02, 0.1 * 0.02 * 0.02);
  nb_checkpoint_close(&c);
}

TEST(Init, SameSeedSameBytesWhateverTheThreads) {
  TempFolder folder;
  WriteFile(folder / "config.json", kConfig);
  auto make = [&](const std::string &name, const std::string &more) {
    CommandResult r = Nibble("init " + folder.path() + " " + (folder / name) + " " + more);
    EXPECT_EQ(r.code, 0) << r.err;
    return ReadFile(folder / (name + "/model.safetensors"));
  };
  std::string one = make("a", "--seed 7 --threads 1"), two = make("b", "--seed 7 --threads 2"), other = make("c", "");
  EXPECT_GT(one.size(), 100000u);
  EXPECT_TRUE(one == two);
  EXPECT_FALSE(one == other);
}

TEST(Init, KeepsAnExistingOutputUnlessForced) {
  TempFolder folder;
  WriteFile(folder / "config.json", kConfig);
  std::string command = "init " + folder.path() + " " + (folder / "m");
  EXPECT_EQ(Nibble(command).code, 0);
  EXPECT_EQ(Nibble(command).code, 2);
  EXPECT_EQ(Nibble(command + " --force").code, 0);
}

}  // namespace
