// `tokenize` with the options of whole encodings.
#include <gtest/gtest.h>

#include "tests/support.h"

namespace {

const char kTokenizer[] =
    R"({"truncation":{"direction":"Left","max_length":5,"strategy":"LongestFirst","stride":0},
        "padding":{"strategy":"BatchLongest","direction":"Right","pad_id":7,"pad_type_id":2,"pad_token":"p"},
        "normalizer":{"type":"NFC"},"pre_tokenizer":{"type":"WhitespaceSplit"},
        "post_processor":{"type":"BertProcessing","cls":["c",8],"sep":["s",9]},
        "model":{"type":"WordLevel","unk_token":"?","vocab":{"?":0,"é":2,"x":3,"y":4}}})";

class Tokenize : public ::testing::Test {
 protected:
  void SetUp() override {
    WriteFile(folder_ / "tokenizer.json", kTokenizer);
    Input("x e\xcc\x81\n\ny x y x\n");
  }

  void Input(const std::string &text) { WriteFile(folder_ / "text.txt", text); }

  CommandResult Run(const std::string &options, const std::string &model = "tokenizer.json") {
    return Nibble("tokenize " + options + " --text " + (folder_ / "text.txt") + " " + (folder_ / model));
  }

  // Without white space.
  std::string Json(const std::string &options, const std::string &model = "tokenizer.json") {
    CommandResult r = Run(options + " --json", model);
    EXPECT_EQ(r.code, 0) << r.err;
    std::string flat;
    for (char c : r.out) flat += std::string(" \n\t").find(c) == std::string::npos ? std::string(1, c) : "";
    return flat;
  }

  TempFolder folder_;
};

TEST_F(Tokenize, CutsAndPadsOnlyWhenAsked) {
  EXPECT_EQ(Run("--lines").out, "8 3 2 9\n8 9\n8 4 3 4 3 9\n");
  EXPECT_EQ(Run("--lines --offsets").out,
            "8:0-0 3:0-1 2:2-3 9:0-0\n8:0-0 9:0-0\n8:0-0 4:0-1 3:2-3 4:4-5 3:6-7 9:0-0\n");
  EXPECT_EQ(Run("--lines --truncation").out, "8 3 2 9\n8 9\n8 3 4 3 9\n") << "the file's length and side";
  EXPECT_EQ(Run("--lines --max-length 4 --truncation-side right").out, "8 3 2 9\n8 9\n8 4 3 9\n");
  EXPECT_EQ(Run("--lines --padding").out, "8 3 2 9 7 7\n8 9 7 7 7 7\n8 4 3 4 3 9\n");
  EXPECT_EQ(Run("--lines --padding=max_length --padding-side left").out, "7 8 3 2 9\n7 7 7 8 9\n8 4 3 4 3 9\n");
  EXPECT_EQ(Run("--lines --padding --pad-to-multiple-of 4 --max-length 4 --truncation --truncation-side right").out,
            "8 3 2 9\n8 9 7 7\n8 4 3 9\n");
}

TEST_F(Tokenize, PrintsWhatOverflows) {
  EXPECT_EQ(Run("--lines --max-length 4 --stride 1 --overflow --truncation-side right").out,
            "8 3 2 9\n8 9\n8 4 3 9\n8 3 4 9\n8 4 3 9\n");
}

TEST_F(Tokenize, ListsEveryFieldInJson) {
  EXPECT_EQ(Json("--lines --offsets --pair x"),
            R"({"tokens":18,"offsets_in":"characters","lines":[)"
            R"({"ids":[8,3,2,9,3,9],"type_ids":[0,0,0,0,1,1],"special_tokens_mask":[1,0,0,1,0,1],)"
            R"("attention_mask":[1,1,1,1,1,1],"word_ids":[null,0,1,null,0,null],)"
            R"("offsets":[[0,0],[0,1],[2,3],[0,0],[0,1],[0,0]]},)"
            R"({"ids":[8,9,3,9],"type_ids":[0,0,1,1],"special_tokens_mask":[1,1,0,1],"attention_mask":[1,1,1,1],)"
            R"("word_ids":[null,null,0,null],"offsets":[[0,0],[0,0],[0,1],[0,0]]},)"
            R"({"ids":[8,4,3,4,3,9,3,9],"type_ids":[0,0,0,0,0,0,1,1],"special_tokens_mask":[1,0,0,0,0,1,0,1],)"
            R"("attention_mask":[1,1,1,1,1,1,1,1],"word_ids":[null,0,1,2,3,null,0,null],)"
            R"("offsets":[[0,0],[0,1],[2,3],[4,5],[6,7],[0,0],[0,1],[0,0]]}]})");
}

TEST_F(Tokenize, ListsEmptyTextsAndNuls) {
  Input("");
  EXPECT_EQ(Json("--no-special --offsets"),
            R"({"ids":[],"type_ids":[],"special_tokens_mask":[],"attention_mask":[],"word_ids":[],"offsets":[],)"
            R"("tokens":0,"offsets_in":"characters"})");
  EXPECT_EQ(Json("--no-special --lines --offsets"), R"({"tokens":0,"offsets_in":"characters","lines":[]})");
  Input(std::string("x\0 x\n\n", 6));
  EXPECT_EQ(Run("--no-special --lines --offsets=bytes").out, "0:0-2 3:3-4\n\n");
}

TEST_F(Tokenize, NestsWhatOverflowsInJson) {
  Input("x y x");
  EXPECT_EQ(Json("--no-special --truncation=only_first --max-length 2 --stride 1 --truncation-side right --overflow"),
            R"({"ids":[3,4],"type_ids":[0,0],"special_tokens_mask":[0,0],"attention_mask":[1,1],"word_ids":[0,1],)"
            R"("overflowing":[{"ids":[4,3],"type_ids":[0,0],"special_tokens_mask":[0,0],"attention_mask":[1,1],)"
            R"("word_ids":[1,2]}],"tokens":4})");
}

TEST_F(Tokenize, CountsOffsetsInBytesIfAsked) {
  EXPECT_EQ(Run("--lines --no-special --offsets=bytes").out, "3:0-1 2:2-3\n\n4:0-1 3:2-3 4:4-5 3:6-7\n");
}

// What tokenizer_config.json says comes before what tokenizer.json says, as in transformers.
TEST_F(Tokenize, TakesALengthASideAndAPadTokenFromTheFolder) {
  WriteFile(folder_ / "tokenizer_config.json",
            R"({"model_max_length":4,"truncation_side":"right","padding_side":"left","pad_token":"y"})");
  EXPECT_EQ(Run("--lines --truncation --padding", "").out, "8 3 2 9\n4 4 8 9\n8 4 3 9\n");
  EXPECT_NE(Json("--lines --padding", "").find(R"("type_ids":[0,0,0,0,0,0])"), std::string::npos);
  WriteFile(folder_ / "tokenizer_config.json", R"({"model_max_length":1000000000000000019884624838656})");
  EXPECT_EQ(Run("--lines --truncation", "").out, "8 3 2 9\n8 9\n8 3 4 3 9\n");
  WriteFile(folder_ / "tokenizer_config.json", R"({"padding_side":"up"})");
  CommandResult bad = Run("--lines", "");
  EXPECT_EQ(bad.code, 3);
  EXPECT_NE(bad.err.find("padding_side is 'up', neither left nor right"), std::string::npos) << bad.err;
}

TEST_F(Tokenize, RefusesWhatIsNotThere) {
  WriteFile(folder_ / "bare.json", R"({"model":{"type":"WordLevel","unk_token":"?","vocab":{"?":0}}})");
  const std::tuple<const char *, int, const char *> cases[] = {
      {"--truncation", 2, "--max-length is required"},
      {"--padding=max_length", 2, "--max-length is required"},
      {"--padding", 3, "names no padding token"},
      {"--truncation=shortest", 2, "--truncation is not 'shortest'"},
      {"--padding-side up", 2, "--padding-side is not 'up'"},
      {"--max-length -1", 2, "--max-length"},
      {"--decode --offsets", 2, "--decode goes with no option of encodings"},
  };
  Input("x y");
  for (const auto &[options, code, message] : cases) {
    CommandResult r = Run(options, "bare.json");
    EXPECT_EQ(r.code, code) << options << "\n" << r.err;
    EXPECT_NE(r.err.find(message), std::string::npos) << options << "\n" << r.err;
  }
  CommandResult r = Run("--truncation=only_second --max-length 3");
  EXPECT_EQ(r.code, 3);
  EXPECT_NE(r.err.find("has no second one"), std::string::npos) << r.err;
}

TEST_F(Tokenize, RefusesDamagedLimits) {
  const std::pair<const char *, const char *> cases[] = {
      {R"("truncation":5)", "truncation is no object"},
      {R"("truncation":{"max_length":-1})", "max_length"},
      {R"("truncation":{"strategy":"Any"})", "the truncation 'Any' is unknown"},
      {R"("truncation":{"direction":"Up"})", "the direction 'Up'"},
      {R"("padding":{"strategy":"Any"})", "the padding's strategy is unknown"},
      {R"("padding":{"pad_id":-2})", "pad_id"},
  };
  for (const auto &[part, message] : cases) {
    WriteFile(folder_ / "bad.json",
              "{" + std::string(part) + R"(,"model":{"type":"WordLevel","unk_token":"?","vocab":{"?":0}}})");
    CommandResult r = Run("", "bad.json");
    EXPECT_EQ(r.code, 3) << part;
    EXPECT_NE(r.err.find(message), std::string::npos) << part << "\n" << r.err;
  }
}

}  // namespace
