// The whole thread on a real model: GGUF to a Hugging Face folder, to packed weights, to perplexity, against what
// transformers and bitsandbytes measured on the same weights and text. Over the first 6 windows, which
// scripts/golden/make_real_model.py measured; with NIBBLE_REAL_WINDOWS=24, as scripts/nightly has it, over those of the
// shared data. The more the steadier, but float32 arithmetic agrees or does not on any of them.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "tests/support.h"

extern "C" {
#include "model/json.h"
}

namespace {

class RealModelPerplexity : public testing::Test {
 protected:
  void SetUp() override {
    if (Sanitized()) GTEST_SKIP() << "skipped: too slow under the sanitizers";
    if (RealModel().empty()) GTEST_SKIP() << "skipped: the model is not in the cache; scripts/get-model fetches it";
    text_ = Shared("data/wikitext-2/test.txt");
    shared_ = Shared("data/smollm2-135m/reference.json");
    if (text_.empty() || shared_.empty()) GTEST_SKIP() << "skipped: no shared data beside the repository";
    CommandResult r = Nibble("convert " + RealModel() + " " + (folder_ / "hf") + " --to hf --no-sync");
    ASSERT_EQ(r.code, 0) << r.err;
  }

  double Measure(const std::string &model, int windows, const std::string &options) {
    CommandResult r = Nibble("ppl " + (folder_ / model) + " --text " + text_ + " --ctx 512 --chunks " +
                             std::to_string(windows) + " --json " + options);
    EXPECT_EQ(r.code, 0) << r.err;
    size_t at = r.out.find("\"perplexity\":");
    return at == std::string::npos ? NAN : atof(r.out.c_str() + at + strlen("\"perplexity\":"));
  }

  double Reference(const std::string &file, const char *table, const char *key) {
    cJSON *json = nullptr;
    nibble_error err;
    EXPECT_EQ(nb_json_load(file.c_str(), &json, &err), NIBBLE_OK) << err.message;
    const cJSON *value = cJSON_GetObjectItem(table ? nb_json_object(json, table) : json, key);
    double number = value ? value->valuedouble : NAN;
    cJSON_Delete(json);
    return number;
  }

  // Over windows_ windows, what transformers or bitsandbytes measured.
  double Reference(const char *key) {
    if (windows_ == kAll) return Reference(shared_, "perplexity_ctx512_first24_hf", key);
    return Reference(Golden("real_model.json"), nullptr, key);
  }

  void Quantize(const std::string &name, const std::string &options) {
    CommandResult r = Nibble("quantize " + (folder_ / "hf") + " " + (folder_ / name) + " --no-sync " + options);
    ASSERT_EQ(r.code, 0) << r.err;
  }

  static constexpr int kAll = 24;
  const int windows_ = getenv("NIBBLE_REAL_WINDOWS") ? atoi(getenv("NIBBLE_REAL_WINDOWS")) : 6;
  TempFolder folder_;
  std::string text_, shared_;
};

TEST_F(RealModelPerplexity, OfFloat32ArithmeticIsTransformers) {
  double want = Reference("float32");
  EXPECT_NEAR(Measure("hf", windows_, ""), want, 1e-4 * want);
  want = windows_ == kAll ? Reference(shared_, "perplexity_ctx512_first24_llama_cpp_convention", "f16")
                          : Reference("llama_cpp_f16");
  EXPECT_NEAR(Measure("hf", windows_, "--convention llama.cpp"), want, 1e-3 * want);
}

TEST_F(RealModelPerplexity, OfNf4IsBitsandbytesAndRisesByLessThanHalfAPercentWithActivationsInEightBits) {
  Quantize("nf4", "--method nf4 --double-quant");
  double want = Reference("nf4_double_quant"), exact = Measure("nf4", windows_, "");
  EXPECT_NEAR(exact, want, 1e-3 * want);
  double rounded = Measure("nf4", windows_, "--activations int8");
  EXPECT_LT(rounded, 1.005 * exact);
  EXPECT_NE(rounded, exact);
}

TEST_F(RealModelPerplexity, OfInt8IsBitsandbytesInBothMeanings) {
  Quantize("int8", "--method int8");
  double want = Reference("int8_weight_only");
  EXPECT_NEAR(Measure("int8", windows_, ""), want, 1e-3 * want);
  want = Reference("int8_llm_int8");
  EXPECT_NEAR(Measure("int8", windows_, "--int8 llm.int8"), want, 5e-3 * want);
}

// The template puts the question where the model was trained to find it, and the end of the turn ends the answer.
TEST(RealModelChat, AnswersAQuestionAndStops) {
  if (RealModel().empty()) GTEST_SKIP() << "no real model (scripts/get-model)";
  CommandResult r =
      Nibble("generate " + RealModel() + " --chat --quiet --json --prompt 'What is the capital of France?'");
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_NE(r.out.find("Paris"), std::string::npos) << r.out;
  EXPECT_NE(r.out.find("\"stopped_at_eos\":\ttrue"), std::string::npos) << r.out;
}

}  // namespace
