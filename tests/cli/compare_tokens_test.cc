// nibble tokenize --compare: what a text takes under several tokenizers, by script.
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "tests/cli/byte_model.h"
#include "tests/json.h"

extern "C" {
#include "tokenizer/script.h"
}

namespace {

double Number(const cJSON *json, const char *key) { return cJSON_GetNumberValue(Get(json, key)); }

// A token for every word.
const char kWords[] =
    R"({"version":"1.0","pre_tokenizer":{"type":"WhitespaceSplit"},
        "model":{"type":"WordLevel","vocab":{"?":0,"one":1},"unk_token":"?"}})";

// Two Latin lines (of the second most letters are Latin), a Cyrillic one, a Han one, one without letters, an empty one.
const char kText[] = "one two\nab \u0434 c\n\u043e\u0434\u0438\u043d \u0434\u0432\u0430\n\u4e00\u4e8c\u4e09\n12 !\n\n";

class CompareTokens : public testing::Test {
 protected:
  void SetUp() override {
    WriteFile(folder_ / "bytes.json", ByteTokenizer());
    WriteFile(folder_ / "words.json", kWords);
    WriteFile(folder_ / "text", kText);
  }

  CommandResult Run(const std::string &options) {
    return Nibble("tokenize --compare " + (folder_ / "bytes.json") + " " + (folder_ / "words.json") + " --text " +
                  (folder_ / "text") + " " + options);
  }

  TempFolder folder_;
};

TEST(Scripts, AreUnicodes) {
  auto name = [](uint32_t code) { return std::string(nb_script_names[nb_script_of(code)]); };
  EXPECT_EQ(name(0), "Common");
  EXPECT_EQ(name('A'), "Latin");
  EXPECT_EQ(name('['), "Common");
  EXPECT_EQ(name(0xe9), "Latin");
  EXPECT_EQ(name(0x300), "Inherited");
  EXPECT_EQ(name(0x378), "Unknown");
  EXPECT_EQ(name(0x3b1), "Greek");
  EXPECT_EQ(name(0x5d0), "Hebrew");
  EXPECT_EQ(name(0x3042), "Hiragana");
  EXPECT_EQ(name(0x4e00), "Han");
  EXPECT_EQ(name(0x31350), "Han");
  EXPECT_EQ(name(0xac00), "Hangul");
  EXPECT_EQ(name(0x1e4d0), "Nag Mundari");
  EXPECT_EQ(name(0x10ffff), "Unknown");
}

TEST_F(CompareTokens, CountsByTheScriptOfALine) {
  CommandResult r = Run("--json");
  ASSERT_EQ(r.code, 0) << r.err;
  Json root(cJSON_Parse(r.out.c_str()));
  ASSERT_TRUE(root);
  struct Want {
    const char *script;
    int lines, words, characters, bytes, by_bytes, by_words;
  };
  const cJSON *row = Get(root.get(), "scripts")->child;
  for (const Want &w : {Want{"Cyrillic", 1, 2, 8, 15, 15, 2}, Want{"Latin", 2, 5, 13, 14, 14, 5},
                        Want{"Han", 1, 1, 3, 9, 9, 1}, Want{"Common", 1, 2, 4, 4, 4, 2}}) {
    ASSERT_TRUE(row) << w.script;
    EXPECT_STREQ(Get(row, "script")->valuestring, w.script);
    EXPECT_EQ(Number(row, "lines"), w.lines) << w.script;
    EXPECT_EQ(Number(row, "words"), w.words) << w.script;
    EXPECT_EQ(Number(row, "characters"), w.characters) << w.script;
    EXPECT_EQ(Number(row, "bytes"), w.bytes) << w.script;
    const cJSON *bytes = Get(row, "tokenizers")->child, *words = bytes->next;
    EXPECT_EQ(Number(bytes, "tokens"), w.by_bytes) << w.script;
    EXPECT_EQ(Number(words, "tokens"), w.by_words) << w.script;
    EXPECT_DOUBLE_EQ(Number(bytes, "tokens_per_character"), (double)w.by_bytes / w.characters) << w.script;
    EXPECT_DOUBLE_EQ(Number(words, "tokens_per_word"), 1) << w.script;
    EXPECT_DOUBLE_EQ(Number(bytes, "tokens_per_byte"), 1) << w.script;
    row = row->next;
  }
  EXPECT_FALSE(row);
  const cJSON *total = Get(root.get(), "total");
  EXPECT_EQ(Number(total, "lines"), 5);
  EXPECT_EQ(Number(total, "bytes"), 42);
  EXPECT_EQ(Number(Get(total, "tokenizers")->child->next, "tokens"), 10);
}

TEST_F(CompareTokens, PrintsATableAndDraws) {
  CommandResult r = Run("--svg " + (folder_ / "out.svg"));
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_NE(r.out.find("a word  a character   a byte\nCyrillic "), std::string::npos) << r.out;
  EXPECT_NE(r.out.find("        15    7.500        1.875    1.000\n"), std::string::npos) << r.out;
  EXPECT_NE(r.out.find("\ntotal "), std::string::npos) << r.out;
  std::string svg = ReadFile(folder_ / "out.svg");
  EXPECT_EQ(svg.rfind("<svg xmlns=\"http://www.w3.org/2000/svg\"", 0), 0u) << svg;
  EXPECT_NE(svg.find(">Cyrillic</text>"), std::string::npos);
  EXPECT_NE(svg.find(">1.875</text>"), std::string::npos);
  EXPECT_EQ(svg.substr(svg.size() - 7), "</svg>\n");
}

TEST_F(CompareTokens, AnEmptyTextHasNoScripts) {
  WriteFile(folder_ / "text", "");
  CommandResult r = Run("");
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_NE(r.out.find("total "), std::string::npos) << r.out;
  EXPECT_NE(r.out.find("    0.000        0.000    0.000\n"), std::string::npos) << r.out;
}

TEST_F(CompareTokens, WhatIsWrongIsSaid) {
  EXPECT_EQ(Nibble("tokenize --compare").code, 2);
  EXPECT_EQ(Run("--decode").code, 2);
  CommandResult missing = Run(folder_ / "none.json");
  EXPECT_EQ(missing.code, 3) << missing.err;
  EXPECT_EQ(Run("--svg " + (folder_ / "no/such/folder.svg")).code, 4);
}

}  // namespace
