// What is asked for where speed counts: the head in int8, and activations in eight bits where they pay.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/golden_folder.h"
#include "tests/support.h"

extern "C" {
#include "kernels/cpu/isa.h"
#include "kernels/q8.h"
}

namespace {

std::string Tiny(const std::string &name) { return Golden("tiny/" + name); }

std::vector<float> Logits(const std::string &model, const std::string &options) {
  TempFolder folder;
  CommandResult r =
      Nibble("logits " + model + " --quiet --ids 3,1,4,1,5,9,2,6 --out " + (folder / "l") + " " + options);
  EXPECT_EQ(r.code, 0) << r.err;
  GoldenFile file = ReadSafetensors(folder / "l");
  const std::string &bytes = file.tensors["logits"].bytes;
  std::vector<float> logits(bytes.size() / sizeof(float));
  memcpy(logits.data(), bytes.data(), bytes.size());
  return logits;
}

// The largest difference, as a share of the largest of `want`.
double Difference(const std::vector<float> &got, const std::vector<float> &want) {
  EXPECT_EQ(got.size(), want.size());
  double difference = 0, largest = 0;
  for (size_t i = 0; i < std::min(got.size(), want.size()); i++) {
    difference = std::max(difference, std::fabs((double)got[i] - want[i]));
    largest = std::max(largest, std::fabs((double)want[i]));
  }
  return difference / largest;
}

TEST(HeadInInt8, IsTheHeadThatQuantizingIncludes) {
  TempFolder folder;
  const std::string from = Tiny("llama-head-dim-llama3-bf16");
  ASSERT_EQ(Nibble("quantize " + from + " " + (folder / "without") + " --method int8 --quiet").code, 0);
  ASSERT_EQ(Nibble("quantize " + from + " " + (folder / "with") + " --method int8 --include lm_head --quiet").code, 0);
  std::vector<float> as_stored = Logits(folder / "without", ""), rounded = Logits(folder / "without", "--head int8");
  EXPECT_EQ(rounded, Logits(folder / "with", ""));
  EXPECT_NE(rounded, as_stored);
  EXPECT_EQ(Logits(folder / "with", "--head int8"), rounded) << "packed already: nothing to do";
}

TEST(HeadInInt8, LeavesATiedEmbeddingAsItIs) {
  const std::string model = Tiny("llama-tied-biases-f16");
  std::vector<float> as_stored = Logits(model, ""), rounded = Logits(model, "--head int8");
  EXPECT_NE(rounded, as_stored);
  EXPECT_LT(Difference(rounded, as_stored), 0.01) << "half a step of 127 a weight, and no other product changed";
}

TEST(HeadInInt8, IsNothingToAModelWithoutOne) {
  EXPECT_EQ(Logits(Tiny("llama-int8"), ""), Logits(Tiny("llama-int8"), "--head as-stored"));
  EXPECT_EQ(Nibble("logits " + Tiny("llama-f32") + " --ids 1 --out /tmp/x --head int4").code, 2);
}

TEST(HeadInInt8, OfWeightsThatAreNotFiniteIsRefusedByName) {
  TempFolder folder;
  GoldenFolder model("tiny/llama-f32");
  const float infinite = INFINITY;
  memcpy(&model.file.tensors["lm_head.weight"].bytes[4 * 5], &infinite, sizeof infinite);
  model.Save(folder / "m");
  CommandResult r = Nibble("logits " + (folder / "m") + " --ids 1 --out " + (folder / "l") + " --head int8");
  EXPECT_EQ(r.code, 3);
  EXPECT_NE(r.err.find("lm_head.weight"), std::string::npos) << r.err;
  EXPECT_NE(r.err.find("row 0, column 5"), std::string::npos) << r.err;
}

TEST(FastActivations, AreRoundedWhereThatPaysAndExactElsewhere) {
  const std::string packed = Tiny("llama-nf4"), plain = Tiny("llama-f32");
  EXPECT_EQ(Logits(plain, "--activations fast"), Logits(plain, "")) << "nothing is packed";
  bool pays = nb_isa_current() != NB_ISA_SCALAR;
  EXPECT_EQ(Logits(packed, "--activations fast"), Logits(packed, pays ? "--activations int8" : ""));
  EXPECT_NE(Logits(packed, "--activations fast"), Logits(packed, pays ? "" : "--activations int8"));
}

// Rounded for the head of a real model in GGUF's Q8_0, they changed a greedy answer.
TEST(FastActivations, LeaveTheHeadExact) {
  if (nb_isa_current() == NB_ISA_SCALAR) GTEST_SKIP() << "skipped: no product is faster with rounded activations here";
  const std::string packed = Tiny("llama-nf4");
  EXPECT_EQ(Logits(packed, "--activations fast"), Logits(packed, "--activations int8")) << "a head in plain floats";
  EXPECT_NE(Logits(packed, "--head int8 --activations fast"), Logits(packed, "--head int8 --activations int8"));
}

TEST(FastActivations, AreWhatGenerateAndBenchTakeAndSay) {
  TempFolder folder;
  std::filesystem::copy(Tiny("llama-nf4"), folder / "packed");
  std::filesystem::copy(Tiny("llama-f32/tokenizer.json"), folder / "packed/tokenizer.json");
  const std::string pays = nb_isa_current() != NB_ISA_SCALAR ? "int8" : "exact";
  for (const std::string command :
       {"generate --prompt the --max-new-tokens 2 --json ", "bench --prompt 4 --gen 2 --repetitions 1 --json "}) {
    auto says = [&](const std::string &rest) {
      CommandResult r = Nibble(command + rest);
      EXPECT_EQ(r.code, 0) << r.err;
      cJSON *json = cJSON_Parse(r.out.c_str()), *said = cJSON_GetObjectItem(json, "activations");
      std::string text = cJSON_IsString(said) ? said->valuestring : "nothing";
      cJSON_Delete(json);
      return text;
    };
    EXPECT_EQ(says(folder / "packed"), pays) << command;
    EXPECT_EQ(says((folder / "packed") + " --activations exact"), "exact") << command;
    EXPECT_EQ(says(Tiny("llama-f32")), "exact") << command;
  }
}

}  // namespace
