// WordPiece, Unigram and WordLevel: what golden data of trained vocabularies does not reach. All ids are those of
// tokenizers 0.23.3 from the same JSON.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/tokenizer/small_tokenizer.h"

namespace {

std::string Model(const std::string &type, const std::string &members) {
  return R"({"model":{"type":")" + type + "\"," + members + "}}";
}

std::string Unigram(const std::string &vocab, const std::string &more = R"("unk_id":0)") {
  return Model("Unigram", more + R"(,"vocab":[)" + vocab + "]");
}

std::string WordPiece(const std::string &vocab, const std::string &longest = "100") {
  return Model("WordPiece", R"("unk_token":"?","continuing_subword_prefix":"##","max_input_chars_per_word":)" +
                                longest + R"(,"vocab":{)" + vocab + "}");
}

using Ids = std::vector<int32_t>;

TEST(Unigram, TakesTheBestPathAndFusesWhatIsUnknown) {
  SmallTokenizer t(Unigram(R"(["<unk>",0],["a",0],["b",0],["c",0],["d",0],["cd",1],["ab",2],["abc",5],["abcd",10])"));
  EXPECT_EQ(t.Encode("abcdacdxx"), (Ids{8, 1, 5, 0}));
  EXPECT_EQ(t.Encode("xaxyzb<unk>x"), (Ids{0, 1, 0, 2, 0}));
  EXPECT_EQ(t.Encode("\xf0\x9f\x98\x80"), (Ids{0}));
  EXPECT_EQ(t.Encode(""), (Ids{}));
}

// Characters that are unknown one by one may be a piece, or bytes, together.
TEST(Unigram, LooksAnUnknownPartUpAsAWhole) {
  SmallTokenizer fused(Unigram(R"(["<unk>",0],["a",-1],["xy",-90])"));
  EXPECT_EQ(fused.Encode("axya"), (Ids{1, 2, 1}));
  SmallTokenizer bytes(
      Unigram(R"(["<unk>",0],["a",-1],["<0xC3>",-2],["<0xA9>",-2])", R"("unk_id":0,"byte_fallback":true)"));
  EXPECT_EQ(bytes.Encode("a\xc3\xa9"), (Ids{1, 2, 3}));
  EXPECT_EQ(bytes.Encode("a\xc3\xa9x"), (Ids{1, 0})) << "all bytes or none";
}

// Two pieces with one text: it means the last, and the score of both bounds that of an unknown character.
TEST(Unigram, ReadsAPieceThatIsThereTwice) {
  SmallTokenizer t(Unigram(R"(["<unk>",0],["a",-1],["ab",-9],["b",-3],["a",-2])"));
  EXPECT_EQ(t.Encode("ab"), (Ids{4, 3}));
  EXPECT_EQ(t.Decode({1, 4}), "a a");
}

// Scores are read as serde_json reads them, not to the nearest double: x + y + z rounds by their last bits.
TEST(Unigram, ReadsScoresToTheReferencesLastBit) {
  const struct {
    const char *text;
    double score;
  } cases[] = {
      {"-15.275492379532281", -15.27549237953228},
      {"-9.908701741838819", -9.90870174183882},
      {"-1.8771917354846979", -1.877191735484698},
      {"-1.2345678901234567890123456789e-3", -0.0012345678901234567},
      {"-12345678901234567890123", -1.2345678901234568e+22},
      {"123456789012345678901234567890.5", 1.2345678901234568e+29},
      {"1e-320", 1e-320},
      {"3", 3},
      {"1E2", 100},
      {"-0.0", -0.0},
      {"5e+1", 50},
  };
  for (const auto &c : cases) {
    nb_tokenizer_spec spec;
    nibble_error err = {};
    std::string json = Unigram("[\"a\"," + std::string(c.text) + "]");
    ASSERT_EQ(nb_tokenizer_spec_read("it", json.data(), json.size(), &spec, &err), NIBBLE_OK) << err.message;
    EXPECT_EQ(spec.vocab.scores[0], c.score) << c.text;
    nb_tokenizer_spec_free(&spec);
  }
}

TEST(Unigram, RefusesBadScoresAndIds) {
  const std::pair<std::string, std::string> cases[] = {
      {Unigram(R"(["a",NaN])"), "the score of a token is no number"},
      {Unigram(R"(["a",1e999])"), "the score of a token is no number"},
      {Unigram(R"(["a",1e99999999999])"), "the score of a token is no number"},
      {Unigram(R"(["a",-])"), "the score of a token is no number"},
      {Unigram(R"(["a",1.])"), "the score of a token is no number"},
      {Unigram(R"(["a",01])"), "the score of a token is no number"},
      {Unigram(R"(["a","1"])"), "the score of a token is no number"},
      {Unigram(R"(["a"])"), "not a list of pairs"},
      {Unigram(R"("a",1)"), "not a list of pairs"},
      {Unigram(R"(["a",1,2])"), "not a list of pairs"},
      {Unigram(R"(["\q",1])"), "damaged string"},
      {Unigram(R"(["a",1])", R"("unk_id":1)"), "model.unk_id is 1, but there are 1 pieces"},
      {Unigram(R"(["a",1])", R"("unk_id":-1)"), "unk_id"},
      {Model("Unigram", R"("unk_id":0,"vocab":{"a":0})"), "model.vocab is not a list"},
      {Model("WordLevel", R"("unk_token":"a","vocab":[["a",0]])"), "model.vocab is not an object"},
      {Model("WordLevel", R"("vocab":{"a":0})"), "model.unk_token is missing"},
      {Model("WordPiece", R"("vocab":{"a":0})"), "model.unk_token is missing"},
      {Model("WordPiece", R"("unk_token":"a","vocab":{"a":0})"), "model.continuing_subword_prefix is missing"},
      {Model("WordPiece", R"("unk_token":"a","continuing_subword_prefix":"##","vocab":{"a":0})"),
       "max_input_chars_per_word"},
      {WordPiece(R"("a":0)", "-1"), "max_input_chars_per_word"},
      {WordPiece(R"("a":0,"b":0)"), "two tokens have the id 0"},
  };
  for (const auto &[json, fault] : cases) EXPECT_NE(Refusal(json).find(fault), std::string::npos) << Refusal(json);
}

TEST(Unigram, NeedsAnUnknownPieceOnlyForWhatIsUnknown) {
  SmallTokenizer t(Unigram(R"(["a",-1],["b",-2])", R"("byte_fallback":false)"));
  EXPECT_EQ(t.Encode("abba"), (Ids{0, 1, 1, 0}));
  EXPECT_NE(t.EncodeError("abx").find("there is no unk_id"), std::string::npos);
}

TEST(WordPiece, TakesTheLongestPieceOrTheWholeWordIsUnknown) {
  SmallTokenizer t(WordPiece(R"("?":0,"un":1,"##aff":2,"##able":3,"##ab":4,"u":5,"##n":6,"##":7,"unaffable!":8)", "9"));
  EXPECT_EQ(t.Encode("unaffable"), (Ids{1, 2, 3}));
  EXPECT_EQ(t.Encode("unaffab"), (Ids{1, 2, 4}));
  EXPECT_EQ(t.Encode("unaffa"), (Ids{0})) << "what is left has no piece";
  EXPECT_EQ(t.Encode("unaffable!"), (Ids{0})) << "more than 9 characters, though it is a token";
  EXPECT_EQ(t.Encode("##"), (Ids{7}));
  EXPECT_NE(SmallTokenizer(WordPiece(R"("a":0)")).EncodeError("b").find("unk_token '?' is no token"),
            std::string::npos);
}

TEST(WordLevel, LooksWordsUp) {
  SmallTokenizer t(Model("WordLevel", R"("unk_token":"?","vocab":{"?":0,"the":1,"dog":2})"));
  EXPECT_EQ(t.Encode("dog"), (Ids{2}));
  EXPECT_EQ(t.Encode("dogs"), (Ids{0}));
}

// Files from before "type" tell by their other members.
TEST(TokenModels, AreToldWithoutAType) {
  SmallTokenizer wordpiece(
      R"({"model":{"unk_token":"?","continuing_subword_prefix":"##","max_input_chars_per_word":9,"vocab":{"a":0,"##b":1}}})");
  EXPECT_EQ(wordpiece.Encode("ab"), (Ids{0, 1}));
  SmallTokenizer unigram(R"({"model":{"unk_id":0,"vocab":[["<unk>",0],["ab",-1]]}})");
  EXPECT_EQ(unigram.Encode("ab"), (Ids{1}));
}

// A megabyte in one word: every model is linear, or ends by name. All pieces of one letter share every place.
TEST(TokenModels, AreLinearInAMegabyteOfOneLetter) {
  std::string pieces, words, letters;
  for (int n = 1; n <= 16; n++) {
    letters += 'a';
    pieces += ",[\"" + letters + "\"," + std::to_string(-n) + "]";
    words += ",\"" + letters + "\":" + std::to_string(2 * n - 1) + ",\"##" + letters + "\":" + std::to_string(2 * n);
  }
  const std::string text(1 << 20, 'a');
  EXPECT_EQ(SmallTokenizer(Unigram(R"(["<unk>",0])" + pieces)).Encode(text).size(), size_t(1 << 16))
      << "of equal sums the first, which is that of the longest piece";
  EXPECT_EQ(SmallTokenizer(WordPiece("\"?\":0" + words, "2000000")).Encode(text).size(), size_t(1 << 16));
  // One piece that is nearly there at every place.
  std::string near = R"(["<unk>",0],["a",-1],[")" + std::string(1 << 16, 'a') + R"(b",-1])";
  EXPECT_NE(SmallTokenizer(Unigram(near)).EncodeError(text).find("costs too much on this text"), std::string::npos);
}

TEST(TokenModels, SurviveBeingWrittenAgain) {
  for (const std::string &json :
       {Unigram(R"(["<unk>",0.0],["a",-1.5],["b\n",-15.275492379532281])"), WordPiece(R"("?":0,"a":1,"##b":2)"),
        Model("WordLevel", R"("unk_token":"?","vocab":{"?":0})")}) {
    std::string text = json, written[2];
    for (std::string &out : written) {
      nb_tokenizer_spec spec;
      nb_buf buf = {};
      nibble_error err = {};
      ASSERT_EQ(nb_tokenizer_spec_read("it", text.data(), text.size(), &spec, &err), NIBBLE_OK) << err.message;
      nb_tokenizer_spec_write(&spec, &buf);
      text = out = std::string(buf.data, buf.length);
      nb_buf_free(&buf);
      nb_tokenizer_spec_free(&spec);
    }
    EXPECT_EQ(written[0], written[1]);
    EXPECT_EQ(Refusal(text), "");
  }
}

}  // namespace
