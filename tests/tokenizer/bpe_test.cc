// BPE on what golden data of trained vocabularies is too small for: long words, which are encoded in parts, and long
// lists of merges, which are read in parts. What is expected follows from short ones.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/tokenizer/small_tokenizer.h"

namespace {

using Ids = std::vector<int32_t>;

std::string Bpe(const std::string &members) { return R"({"model":{"type":"BPE",)" + members + "}}"; }

std::string Times(const std::string &text, int n) {
  std::string out;
  while (n-- > 0) out += text;
  return out;
}

Ids Times(const Ids &ids, int n) {
  Ids out;
  while (n-- > 0) out.insert(out.end(), ids.begin(), ids.end());
  return out;
}

// ▁ begins a part, but not behind b, since b▁ is a token.
TEST(Bpe, EncodesALongWordAsTheShortOnesThatItIsMadeOf) {
  SmallTokenizer t(Bpe(
      R"("unk_token":"?","fuse_unk":true,"vocab":{"▁":0,"a":1,"b":2,"▁a":3,"b▁":4,"ab▁":5,"?":6},"merges":["b ▁","a b▁","▁ a"])"));
  const Ids unit = {0, 5, 1, 3, 6};  // ▁ ab▁ a ▁a ?
  ASSERT_EQ(t.Encode("▁ab▁a▁axy"), unit);
  EXPECT_EQ(t.Encode(Times("▁ab▁a▁axy", 500)), Times(unit, 500));
  EXPECT_EQ(t.Encode(Times("▁ab", 500)), [] {
    Ids out = {0};  // ▁ ab▁ ab▁ ... ab, whose b ends the text
    for (int i = 0; i < 499; i++) out.push_back(5);
    out.insert(out.end(), {1, 2});
    return out;
  }());
}

// A whole word that is a token is that token, however long; a part of a word is merged, though it is one, too.
TEST(Bpe, LooksForWholeWordsOnlyBeforeMerges) {
  std::string all = Times("▁ab", 30);
  SmallTokenizer t(Bpe(R"("ignore_merges":true,"unk_token":"?","vocab":{"▁":0,"a":1,"b":2,"▁a":3,"▁ab":4,"?":5,")" +
                       all + R"(":6},"merges":["▁ a"])"));
  const Ids unit = {3, 2};
  EXPECT_EQ(t.Encode("▁ab"), Ids{4});
  EXPECT_EQ(t.Encode(all), Ids{6});
  EXPECT_EQ(t.Encode(all + "▁ab"), Times(unit, 31)) << "and not those of the word that came first";
  EXPECT_EQ(t.Encode("▁ab"), Ids{4});
}

// What a token stands for is not how it is spelled where it is a byte's or the unknown one.
TEST(Bpe, LooksForNoPartsWhereMergesJoinBytesOrUnknownCharacters) {
  SmallTokenizer bytes(Bpe(
      R"("byte_fallback":true,"unk_token":"?","vocab":{"▁":0,"<0xC3>":1,"<0xA9>":2,"<0xA9>▁":3,"?":4},"merges":["<0xA9> ▁"])"));
  Ids want = {0};
  for (int i = 0; i < 99; i++) want.insert(want.end(), {1, 3});
  want.insert(want.end(), {1, 2});
  EXPECT_EQ(bytes.Encode(Times("▁é", 100)), want);
  SmallTokenizer unknown(Bpe(R"("unk_token":"?","vocab":{"▁":0,"?":1,"?▁":2},"merges":["? ▁"])"));
  want = {0};
  for (int i = 0; i < 99; i++) want.push_back(2);
  want.push_back(1);
  EXPECT_EQ(unknown.Encode(Times("▁é", 100)), want);
  // Without an unknown token x leaves nothing, and a and ▁ are side by side.
  SmallTokenizer dropped(Bpe(R"("vocab":{"▁":0,"a":1,"a▁":2},"merges":["a ▁"])"));
  want = {0};
  for (int i = 0; i < 99; i++) want.push_back(2);
  want.push_back(1);
  EXPECT_EQ(dropped.Encode(Times("▁ax", 100)), want);
}

// ---- lists ----

// Tokens of one to three letters, and after them "],[", which looks like the end of a merge.
const int kPairs = 26 * 26, kTriples = 26 * kPairs;

struct List {
  const char *begin, *between, *end, *after;
};

std::string Letter(int i) { return std::string(1, static_cast<char>('a' + i)); }

std::string Vocabulary() {
  std::string out = R"("vocab":{)";
  int id = 0;
  auto add = [&](const std::string &text) { out += '"' + text + "\":" + std::to_string(id++) + ','; };
  for (int i = 0; i < 26; i++) add(Letter(i));
  for (int i = 0; i < kPairs; i++) add(Letter(i / 26) + Letter(i % 26));
  for (int i = 0; i < kTriples; i++) add(Letter(i / kPairs) + Letter(i / 26 % 26) + Letter(i % 26));
  add("],[");
  add("],[a");
  out.back() = '}';
  return out;
}

std::string Merges(const List &list, int odd_ones, const std::string &last = "") {
  std::string out = R"(,"merges":[)";
  auto add = [&](const std::string &left, const std::string &right) {
    out += list.begin + left + list.between + right + list.end + list.after;
  };
  for (int i = 0; i < kPairs; i++) add(Letter(i / 26), Letter(i % 26));
  for (int i = 0; i < odd_ones; i++) add("],[", "a");
  for (int i = 0; i < kTriples; i++) add(Letter(i / kPairs) + Letter(i / 26 % 26), Letter(i % 26));
  if (!last.empty()) add(last, "a");
  out.erase(out.rfind(','));
  return out + "]";
}

const List kLists[] = {
    {"[\"", "\",\"", "\"]", ","},
    {"[\n        \"", "\",\n        \"", "\"\n      ]", ",\n      "},
    {"\"", " ", "\"", ","},
    {"\"\\u0061", " ", "\"", ","},  // left ones begin with another a, written as an escape
};

TEST(Bpe, ReadsALongListOfMergesInPartsAsFromTheFront) {
  for (int l = 0; l < 3; l++) {
    for (int odd_ones : {0, 30000}) {
      SmallTokenizer t(Bpe(Vocabulary() + Merges(kLists[l], odd_ones)));
      for (int i = 0; i < kTriples; i += 7) {
        int a = i / kPairs, b = i / 26 % 26, c = i % 26;
        Ids want = {26 + kPairs + i};
        if (b * 26 + c < a * 26 + b) want = {a, 26 + b * 26 + c};  // the right pair comes first, and none joins it
        EXPECT_EQ(t.Encode(Letter(a) + Letter(b) + Letter(c)), want) << l << " " << odd_ones << " " << i;
      }
    }
  }
}

TEST(Bpe, NamesTheMergeOfALongListThatIsNone) {
  const std::string number = std::to_string(kPairs + kTriples);
  for (int l = 0; l < 3; l++) {
    std::string refusal = Refusal(Bpe(Vocabulary() + Merges(kLists[l], 0, "zzzz")));
    EXPECT_NE(refusal.find("merge " + number + " of 'zzzz' and 'a'"), std::string::npos) << refusal;
  }
  std::string escaped = Refusal(Bpe(Vocabulary() + Merges(kLists[3], 0)));
  EXPECT_NE(escaped.find("merge 676 of 'aaa' and 'a'"), std::string::npos) << escaped;
  std::string cut = Bpe(Vocabulary() + Merges(kLists[0], 0) + "]");
  EXPECT_NE(Refusal(cut).find("not valid JSON"), std::string::npos);
}

}  // namespace
