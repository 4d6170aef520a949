// The whole thread on a real model: GGUF to a Hugging Face folder, to packed weights, to perplexity, against what
// transformers and bitsandbytes measured on the same weights and text.
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
    reference_ = Shared("data/smollm2-135m/reference.json");
    if (text_.empty() || reference_.empty()) GTEST_SKIP() << "skipped: no shared data beside the repository";
    CommandResult r = Nibble("convert " + RealModel() + " " + (folder_ / "hf") + " --to hf --no-sync");
    ASSERT_EQ(r.code, 0) << r.err;
  }

  double Measure(const std::string &model, const std::string &options) {
    CommandResult r =
        Nibble("ppl " + (folder_ / model) + " --text " + text_ + " --ctx 512 --chunks 24 --json " + options);
    EXPECT_EQ(r.code, 0) << r.err;
    size_t at = r.out.find("\"perplexity\":");
    return at == std::string::npos ? NAN : atof(r.out.c_str() + at + strlen("\"perplexity\":"));
  }

  double Reference(const char *table, const char *key) {
    cJSON *json = nullptr;
    nibble_error err;
    EXPECT_EQ(nb_json_load(reference_.c_str(), &json, &err), NIBBLE_OK) << err.message;
    const cJSON *value = cJSON_GetObjectItem(nb_json_object(json, table), key);
    double number = value ? value->valuedouble : NAN;
    cJSON_Delete(json);
    return number;
  }

  void Quantize(const std::string &name, const std::string &options) {
    CommandResult r = Nibble("quantize " + (folder_ / "hf") + " " + (folder_ / name) + " --no-sync " + options);
    ASSERT_EQ(r.code, 0) << r.err;
  }

  TempFolder folder_;
  std::string text_, reference_;
  const char *kHf = "perplexity_ctx512_first24_hf", *kLlama = "perplexity_ctx512_first24_llama_cpp_convention";
};

TEST_F(RealModelPerplexity, OfFloat32ArithmeticIsTransformers) {
  double want = Reference(kHf, "float32");
  EXPECT_NEAR(Measure("hf", ""), want, 1e-4 * want);
  want = Reference(kLlama, "f16");
  EXPECT_NEAR(Measure("hf", "--convention llama.cpp"), want, 1e-3 * want);
}

TEST_F(RealModelPerplexity, OfNf4IsBitsandbytes) {
  Quantize("nf4", "--method nf4 --double-quant");
  double want = Reference(kHf, "nf4_double_quant");
  EXPECT_NEAR(Measure("nf4", ""), want, 1e-3 * want);
}

TEST_F(RealModelPerplexity, RisesByLessThanHalfAPercentWithActivationsInEightBits) {
  Quantize("nf4", "--method nf4");
  double exact = Measure("nf4", ""), rounded = Measure("nf4", "--activations int8");
  EXPECT_LT(rounded, 1.005 * exact);
  EXPECT_NE(rounded, exact);
}

TEST_F(RealModelPerplexity, OfInt8IsBitsandbytesInBothMeanings) {
  Quantize("int8", "--method int8");
  double want = Reference(kHf, "int8_weight_only");
  EXPECT_NEAR(Measure("int8", ""), want, 1e-3 * want);
  want = Reference(kHf, "int8_llm_int8");
  EXPECT_NEAR(Measure("int8", "--int8 llm.int8"), want, 5e-3 * want);
}

}  // namespace
