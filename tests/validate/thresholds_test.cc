// The limits of the profile "normal": each format's own.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/support.h"

extern "C" {
#include "kernels/formats.h"
#include "validate/thresholds.h"
}

namespace {

const nb_format_row &Row(int format) { return *nb_format_info((nb_format)format); }

void ExpectNoWider(const nb_limits &a, const nb_limits &b, const std::string &names) {
  EXPECT_LE(a.max_kl, b.max_kl) << names;
  EXPECT_LE(a.max_ppl_increase, b.max_ppl_increase) << names;
  EXPECT_GE(a.min_top1, b.min_top1) << names;
}

TEST(Limits, AreNoWiderForMoreBitsAndNeverWiderThanLoose) {
  const nb_limits loose = {1.5, 2, 0.4};
  for (int a = 0; a < NB_FORMAT_COUNT; a++) {
    EXPECT_GT(Row(a).limits.max_kl, 0) << Row(a).name;
    EXPECT_GT(Row(a).limits.max_ppl_increase, 0) << Row(a).name;
    EXPECT_LT(Row(a).limits.min_top1, 1) << Row(a).name;
    ExpectNoWider(Row(a).limits, loose, Row(a).name);
    for (int b = 0; b < NB_FORMAT_COUNT; b++) {
      if (Row(a).bits > Row(b).bits)
        ExpectNoWider(Row(a).limits, Row(b).limits, std::string(Row(a).name) + ", " + Row(b).name);
    }
    if (Row(a).traded_limits.max_kl > 0) ExpectNoWider(Row(a).traded_limits, Row(a).limits, Row(a).name);
    EXPECT_EQ(Row(a).llm_int8_limits.max_kl > 0, Row(a).llm_int8) << Row(a).name;
    if (Row(a).llm_int8) ExpectNoWider(Row(a).limits, Row(a).llm_int8_limits, Row(a).name);
  }
}

TEST(Limits, AreUsedByShares) {
  const nibble_thresholds t = {"", 0.2, 0.1, 0.9};
  nibble_behaviour b = {};
  b.kl_mean = 0.05;
  b.ppl_increase = 0.15;
  b.top1_agreement = 0.92;
  nibble_limit limits[NIBBLE_LIMITS];
  nb_thresholds_compare(&t, &b, limits);
  EXPECT_DOUBLE_EQ(limits[0].used, 0.25);
  EXPECT_DOUBLE_EQ(limits[1].used, 1.5);
  EXPECT_NEAR(limits[2].used, 0.8, 1e-12);  // 8 of the 10 percent that may differ
  b.ppl_increase = -0.01;                   // it fell
  b.kl_mean = NAN;                          // it was not measured
  b.top1_agreement = 1;
  nb_thresholds_compare(&t, &b, limits);
  EXPECT_TRUE(std::isnan(limits[0].used));
  EXPECT_EQ(limits[1].used, 0);
  EXPECT_EQ(limits[2].used, 0);
  nb_findings findings = {};
  nb_thresholds_check(&t, &b, &findings);
  ASSERT_EQ(findings.count, 1u);
  EXPECT_STREQ(findings.items[0].cause, "kl-too-large");
  nb_findings_free(&findings);
}

class NormalTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string text;
    for (int i = 0; i < 20; i++)
      text += "The quick brown fox jumps over the lazy dog, " + std::to_string(i) + " times.\n";
    WriteFile(folder_ / "text.txt", text);
  }
  CommandResult Verify(const std::string &artifact, const std::string &more = "") const {
    return Nibble("verify " + artifact + " --threads 1 --no-certificate --ctx 64 --against " + original_ + " --text " +
                  (folder_ / "text.txt") + " " + more);
  }
  std::string Quantize(const std::string &name, const std::string &options) const {
    CommandResult r =
        Nibble("quantize " + original_ + " " + (folder_ / name) + " --no-sync --group-size 32 " + options);
    EXPECT_EQ(r.code, 0) << r.err;
    return folder_ / name;
  }
  // The line of the table that begins with a figure's title.
  static std::string Line(const CommandResult &r, const std::string &title) {
    size_t at = r.out.find(title), end = r.out.find('\n', at);
    return at == std::string::npos ? "" : r.out.substr(at, end - at);
  }
  static void ExpectKlLimit(const CommandResult &r, const std::string &of, const std::string &limit) {
    EXPECT_NE(r.out.find("limits (normal, " + of + ")"), std::string::npos) << r.out << r.err;
    EXPECT_NE(Line(r, "mean KL divergence").find(" most " + limit + " "), std::string::npos) << r.out;
  }
  TempFolder folder_;
  const std::string original_ = Golden("artifacts/bf16");
};

std::string Padded(double value) {
  char text[32];
  snprintf(text, sizeof text, "%8.4g", value);
  return text;
}

TEST_F(NormalTest, AsksWhatTheFormatDoes) {
  for (int format : {NB_FORMAT_NF4, NB_FORMAT_FP4, NB_FORMAT_INT8, NB_FORMAT_BF16}) {
    CommandResult r = Verify(Golden(std::string("artifacts/") + Row(format).name));
    ExpectKlLimit(r, Row(format).name, Padded(Row(format).limits.max_kl));
  }
  ExpectKlLimit(Verify(Golden("artifacts/int8"), "--int8 llm.int8"), "int8",
                Padded(Row(NB_FORMAT_INT8).llm_int8_limits.max_kl));
}

// Both are in one layout; what their weights' errors are tells them apart, and no label.
TEST_F(NormalTest, AsksMoreOfGptqThanOfRounding) {
  const std::string rtn = Quantize("rtn", "--method rtn --bits 4");
  const std::string gptq =
      Quantize("gptq", "--method gptq --bits 4 --nsamples 8 --seqlen 64 --calib " + (folder_ / "text.txt"));
  ExpectKlLimit(Verify(rtn), "gptq4", Padded(Row(NB_FORMAT_GPTQ4).limits.max_kl));
  ExpectKlLimit(Verify(gptq), "gptq4", Padded(Row(NB_FORMAT_GPTQ4).traded_limits.max_kl));
}

TEST_F(NormalTest, LosesAgainstTheUsersOwn) {
  CommandResult r = Verify(Golden("artifacts/nf4"), "--max-kl 0.000001 --max-ppl-increase 40% --min-top1 0.1");
  EXPECT_EQ(r.code, 1);
  EXPECT_NE(Line(r, "mean KL divergence").find("MISSED"), std::string::npos) << r.out;
  EXPECT_NE(r.out.find("[kl-too-large]"), std::string::npos) << r.out;
  EXPECT_NE(Line(r, "increase of perplexity").find(" 40% "), std::string::npos) << r.out;
  EXPECT_NE(Line(r, "increase of perplexity").find_first_of("+-"), std::string::npos) << r.out;
  EXPECT_NE(Line(r, "same likeliest token").find("least      10%"), std::string::npos) << r.out;
  r = Verify(Golden("artifacts/nf4"), "--profile strict");
  EXPECT_NE(r.out.find("limits (strict)"), std::string::npos) << r.out;
}

TEST_F(NormalTest, IsShownEverywhere) {
  const std::string int8 = folder_ / "int8";
  std::filesystem::copy(Golden("artifacts/int8"), int8, std::filesystem::copy_options::recursive);
  CommandResult r = Nibble("verify " + int8 + " --threads 1 --ctx 64 --against " + original_ + " --text " +
                           (folder_ / "text.txt") + " --json --report " + (folder_ / "r.html"));
  ASSERT_EQ(r.code, 0) << r.out << r.err;
  for (const char *words : {"\"limits_of\":\t\"int8\"", "\"used\":\t{", "\"used\":\t{"})
    EXPECT_NE(r.out.find(words), std::string::npos) << words << r.out;
  const std::string page = ReadFile(folder_ / "r.html");
  EXPECT_NE(page.find("for int8"), std::string::npos);
  EXPECT_NE(page.find("at most 0.004: "), std::string::npos);
  EXPECT_NE(page.find("% used"), std::string::npos);
  ExpectKlLimit(Nibble("verify " + int8 + " --check-only"), "int8", Padded(0.004));
  r = Nibble("verify " + int8 + " --check-only --model-card");
  EXPECT_NE(r.out.find("| limits (normal, int8) | mean KL divergence "), std::string::npos) << r.out;
  EXPECT_NE(r.out.find(", at most 0.004: "), std::string::npos) << r.out;
  // Asked anew of the certificate.
  EXPECT_EQ(Nibble("verify " + int8 + " --check-only --profile normal").code, 0);
}

}  // namespace
