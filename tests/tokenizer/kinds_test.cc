// WordPiece, Unigram and WordLevel, and the steps that come with them, against golden data
// (scripts/golden/make_tokenizer_kinds.py).
#include <gtest/gtest.h>
#include <zlib.h>

#include <string>
#include <vector>

#include "tests/support.h"
#include "tests/tokenizer/golden_cases.h"
#include "tests/tokenizer/small_tokenizer.h"

namespace {

double Crc(const void *data, size_t n) { return (double)crc32(0, (const Bytef *)data, (uInt)n); }

TEST(TokenizerKinds, EncodeAndDecodeHardLinesAsTheReferenceDoes) {
  const std::vector<std::string> lines = Lines(ReadFile(Golden("tokenizer/hard.txt")));
  const Json golden = Parse(ReadText(Golden("tokenizer/kinds.json.gz")));
  const cJSON *cases = Get(golden.get(), "cases");
  ASSERT_GT(cJSON_GetArraySize(cases), 40);
  for (const cJSON *c = cases->child; c; c = c->next) {
    const std::string name = Get(c, "name")->valuestring, base = Get(c, "base")->valuestring;
    SmallTokenizer t(Patched(ReadFile(Golden("tokenizer/" + base + ".json")), Get(c, "patch")));
    ASSERT_NE(t.get(), nullptr) << name;
    const cJSON *want = Get(c, "ids")->child, *text = Get(c, "decoded")->child;
    for (const std::string &line : lines) {
      ASSERT_TRUE(want && text) << name;
      if (cJSON_IsNumber(want)) {  // else the reference fails
        std::vector<int32_t> ids = t.Encode(line);
        EXPECT_EQ(Crc(ids.data(), ids.size() * sizeof ids[0]), want->valuedouble) << name << ": " << line;
        std::string decoded = t.Decode(ids, NB_SKIP_SPECIAL) + std::string(1, '\0') + t.Decode(ids);
        if (cJSON_IsNumber(text)) {
          EXPECT_EQ(Crc(decoded.data(), decoded.size()), text->valuedouble) << name << ": " << line;
        }
      }
      want = want->next, text = text->next;
    }
  }
}

// ---- charsmaps --------------------------------------------------------------------------------------------------

std::string Base64(const std::string &bytes) {
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    unsigned bits = 0, have = 0;
    for (size_t k = i; k < i + 3; k++) {
      bits = bits << 8 | (k < bytes.size() ? (unsigned char)bytes[k] : 0);
      have += k < bytes.size();
    }
    for (unsigned k = 0; k < 4; k++) out += k <= have ? digits[bits >> (18 - 6 * k) & 63] : '=';
  }
  return out;
}

std::string Map(const std::vector<uint32_t> &units, const std::string &texts, int more_size = 0) {
  std::string out;
  uint32_t size = (uint32_t)(units.size() * 4) + (uint32_t)more_size;
  out.append((const char *)&size, 4);
  out.append((const char *)units.data(), units.size() * 4);
  return Base64(out + texts);
}

std::string WithMap(const std::string &base64) {
  return R"({"normalizer":{"type":"Precompiled","precompiled_charsmap":")" + base64 +
         R"("},"model":{"type":"WordLevel","unk_token":"?","vocab":{"?":0,"xy":1,"b":2}}})";
}

// "a" becomes the text at `place`: root, at 1 ^ 'a' its unit, whose leaf is at `leaf`.
std::vector<uint32_t> Units(uint32_t place, uint32_t leaf = 2) {
  std::vector<uint32_t> units(256, 1u << 31);
  units[0] = 1u << 10;
  units[1 ^ 'a'] = (1 ^ 'a' ^ leaf) << 10 | 1 << 8 | 'a';
  if (leaf < units.size()) units[leaf] = 1u << 31 | place;
  return units;
}

TEST(Charsmap, ReplacesWhatItHas) {
  SmallTokenizer t(WithMap(Map(Units(2), std::string("q\0xy\0", 5))));
  EXPECT_EQ(t.Encode("a"), (std::vector<int32_t>{1}));
  EXPECT_EQ(t.Encode("b"), (std::vector<int32_t>{2}));
  SmallTokenizer cut(WithMap(Map(Units(2), std::string("q\0xy", 4))));
  EXPECT_EQ(cut.Encode("a"), (std::vector<int32_t>{1})) << "the last text needs no NUL";
}

TEST(Charsmap, RefusesWhatIsDamaged) {
  const std::string texts("q\0\xc3\xa9\0", 5);
  const std::pair<std::string, std::string> unread[] = {
      {"", "no valid size"},
      {"AA==", "no valid size"},
      {Map({}, ""), "no valid size"},
      {Map(Units(0), "", 4), "no valid size"},
      {Map(Units(0), texts, -1), "no valid size"},
      {Map(Units(0), "\xff"), "not UTF-8"},
      {"A", "not base64"},
      {"****", "not base64"},
  };
  for (const auto &[map, fault] : unread) EXPECT_NE(Refusal(WithMap(map)).find(fault), std::string::npos) << fault;
  EXPECT_NE(Refusal(R"({"normalizer":{"type":"Precompiled"},"model":{"type":"WordLevel","unk_token":"?","vocab":{}}})")
                .find("no \"precompiled_charsmap\""),
            std::string::npos);
  std::vector<uint32_t> far = Units(0);
  far[0] = 1000u << 10;
  for (const std::string &map :
       {Map(Units(6), texts), Map(Units(3), texts), Map(Units(0, 5000), texts), Map(far, texts)}) {
    SmallTokenizer t(WithMap(map));
    EXPECT_EQ(t.EncodeError("a"), "the tokenizer's charsmap points outside itself");
  }
}

// A megabyte in one grapheme cluster, which no map is looked up for as a whole.
TEST(Charsmap, IsLinearInOneCluster) {
  std::string text = "a";
  for (int i = 0; i < 1 << 19; i++) text += "\xcc\x81";
  SmallTokenizer t(WithMap(Map(Units(2), std::string("q\0xy\0", 5))));
  EXPECT_EQ(t.Encode(text), (std::vector<int32_t>{0}));
}

TEST(Steps, RefuseOptionsThatMakeNoSense) {
  const std::string model = R"("model":{"type":"WordLevel","unk_token":"?","vocab":{"?":0}}})";
  const std::pair<std::string, std::string> cases[] = {
      {R"("pre_tokenizer":{"type":"FixedLength","length":0})", "cuts after no character"},
      {R"("pre_tokenizer":{"type":"FixedLength","length":-1})", "length"},
      {R"("normalizer":{"type":"BertNormalizer","clean_text":1})", "clean_text"},
      {R"("decoder":{"type":"WordPiece"})", "no string \"prefix\""},
      {R"("decoder":{"type":"CTC","pad_token":"x"})", "no string \"word_delimiter_token\""},
      {R"("normalizer":{"type":"Bert"})", "normalizer 'Bert' is not supported"},
  };
  for (const auto &[part, fault] : cases) {
    std::string message = Refusal("{" + part + "," + model);
    EXPECT_NE(message.find(fault), std::string::npos) << message << " for " << part;
  }
}

}  // namespace
