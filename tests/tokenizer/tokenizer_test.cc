#include <gtest/gtest.h>
#include <openssl/sha.h>
#include <zlib.h>

#include <array>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "tests/support.h"
#include "tests/tokenizer/golden_cases.h"

extern "C" {
#include <cjson/cJSON.h>

#include "base/utf8.h"
#include "convert/tokenizer_open.h"
#include "model/json.h"
#include "runner/text.h"
}

namespace {

struct CloseTokenizer {
  void operator()(nb_tokenizer *t) const { nb_tokenizer_close(t); }
};
using Tokenizer = std::unique_ptr<nb_tokenizer, CloseTokenizer>;

Tokenizer Open(const std::string &path) {
  nb_tokenizer *t = nullptr;
  nibble_error err;
  EXPECT_EQ(nb_tokenizer_open(path.c_str(), &t, &err), NIBBLE_OK) << err.message;
  return Tokenizer(t);
}

std::vector<int32_t> Encode(const Tokenizer &t, const std::string &text, int flags = NB_ADD_SPECIAL) {
  nb_ids ids = {};
  nibble_error err;
  EXPECT_EQ(nb_tokenizer_encode(t.get(), text.data(), text.size(), flags, &ids, &err), NIBBLE_OK) << err.message;
  std::vector<int32_t> out(ids.data, ids.data + ids.length);
  nb_ids_free(&ids);
  return out;
}

std::string Decode(const Tokenizer &t, const std::vector<int32_t> &ids, int flags = 0) {
  nb_buf text = {};
  nibble_error err;
  EXPECT_EQ(nb_tokenizer_decode(t.get(), ids.data(), ids.size(), flags, &text, &err), NIBBLE_OK) << err.message;
  std::string out(text.data ? text.data : "", text.length);
  nb_buf_free(&text);
  return out;
}

std::string Sha256(const std::vector<int32_t> &ids) {
  unsigned char hash[SHA256_DIGEST_LENGTH];
  SHA256((const unsigned char *)ids.data(), ids.size() * sizeof(int32_t), hash);
  std::string hex;
  for (unsigned char byte : hash) {
    char two[3];
    snprintf(two, sizeof two, "%02x", byte);
    hex += two;
  }
  return hex;
}

// The hashes of HF tokenizers' ids (0.23.3); the first is also in reference.json.
TEST(Tokenizer, GivesTheReferencesIdsOnAllOfWikiText2) {
  std::string folder = Shared("data/wikitext-2"), model = Shared("data/smollm2-135m");
  if (folder.empty() || model.empty()) GTEST_SKIP() << "skipped: no ../shared/data";
  Tokenizer t = Open(model);
  for (auto [name, hash] :
       {std::pair{"test.txt", "6ecb49cc3609ae7d45af51ecf05d3413f7671c6005fb9b75420854f1834e5ad8"},
        std::pair{"valid.txt", "b6d2cfa62c23c103a2932b23947049e850cdc755b6ae8c85dd01277c56b3b3d9"}}) {
    std::string text = ReadFile(folder + "/" + name);
    std::vector<int32_t> ids = Encode(t, text);
    EXPECT_EQ(Sha256(ids), hash) << name << ": " << ids.size() << " ids";
    EXPECT_TRUE(Decode(t, ids) == text) << name;
  }
}

// ---- golden data: tests/golden/tokenizer, made by scripts/golden/make_tokenizer.py --------------------------------

std::string Show(const std::vector<int32_t> &ids) {
  std::string out;
  for (int32_t id : ids) out += std::to_string(id) + " ";
  return out;
}

std::vector<int32_t> Ids(const cJSON *list) {
  std::vector<int32_t> ids;
  for (const cJSON *id = list->child; id; id = id->next) ids.push_back(id->valueint);
  return ids;
}

std::string FromHex(const std::string &hex) {
  std::string out;
  for (size_t i = 0; i < hex.size(); i += 2) out += (char)std::stoi(hex.substr(i, 2), nullptr, 16);
  return out;
}

std::string Repaired(const std::string &text) {
  nb_buf out = {};
  nb_utf8_repair(text.data(), text.size(), &out);
  std::string repaired(out.data ? out.data : "", out.length);
  nb_buf_free(&out);
  return repaired;
}

class GoldenTokenizer : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    hard_ = new std::string(ReadFile(Golden("tokenizer/hard.txt")));
    golden_ = new Json(Parse(ReadText(Golden("tokenizer/cases.json.gz"))));
  }
  static void TearDownTestSuite() {
    delete hard_;
    delete golden_;
  }

  static Tokenizer OpenCase(const cJSON *c) {
    std::string base = Get(c, "base")->valuestring;
    if (base == "smollm2-135m") {
      std::string path = Shared("data/smollm2-135m");
      return path.empty() ? nullptr : Open(path);
    }
    std::string text = Patched(ReadFile(Golden("tokenizer/" + base + ".json")), Get(c, "patch"));
    nb_tokenizer *t = nullptr;
    nibble_error err;
    EXPECT_EQ(nb_tokenizer_parse(base.c_str(), text.data(), text.size(), &t, &err), NIBBLE_OK)
        << Get(c, "name")->valuestring << ": " << err.message;
    return Tokenizer(t);
  }

  static const cJSON *Cases() { return Get(golden_->get(), "cases"); }

  static std::string *hard_;
  static Json *golden_;
};

std::string *GoldenTokenizer::hard_;
Json *GoldenTokenizer::golden_;

TEST_F(GoldenTokenizer, EncodesHardLinesAsTheReferenceDoesInEveryConfiguration) {
  std::vector<std::string> lines = Lines(*hard_);
  for (const cJSON *c = Cases()->child; c; c = c->next) {
    std::string name = Get(c, "name")->valuestring;
    Tokenizer t = OpenCase(c);
    if (!t) continue;
    const cJSON *ids = Get(c, "ids"), *crcs = Get(c, "crc"), *plain = Get(c, "plain");
    for (size_t i = 0; i < lines.size(); i++) {
      const cJSON *want = cJSON_GetArrayItem(ids ? ids : crcs, (int)i);
      ASSERT_NE(want, nullptr);
      if (cJSON_IsNull(want)) continue;  // the reference panics
      std::vector<int32_t> got = Encode(t, lines[i]);
      if (ids) {
        EXPECT_EQ(Show(got), Show(Ids(want))) << name << ", line " << i + 1 << ": " << lines[i];
      } else {
        EXPECT_EQ((double)crc32(0, (const Bytef *)got.data(), (uInt)(got.size() * 4)), want->valuedouble)
            << name << ", line " << i + 1 << ": " << lines[i] << "\nids " << Show(got);
      }
      if ((int)i >= cJSON_GetArraySize(plain)) continue;
      EXPECT_EQ(Show(Encode(t, lines[i], 0)), Show(Ids(cJSON_GetArrayItem(plain, (int)i))))
          << name << ", line " << i + 1;
    }
    const cJSON *whole = Get(c, "whole");
    if (cJSON_IsString(whole)) {
      EXPECT_EQ(Sha256(Encode(t, *hard_)), whole->valuestring) << name;
    }
  }
}

TEST_F(GoldenTokenizer, DecodesAsTheReferenceDoes) {
  std::vector<std::string> lines = Lines(*hard_);
  for (const cJSON *c = Cases()->child; c; c = c->next) {
    const cJSON *decoded = Get(c, "decoded");
    Tokenizer t = decoded ? OpenCase(c) : nullptr;
    if (!t) continue;
    for (size_t i = 0; i < lines.size(); i++) {
      const cJSON *ids = cJSON_GetArrayItem(Get(c, "ids"), (int)i);
      for (int k = 0; k < 2 && !cJSON_IsNull(ids); k++) {
        const cJSON *want = cJSON_GetArrayItem(cJSON_GetArrayItem(decoded, (int)i), k);
        if (cJSON_IsNull(want)) continue;
        EXPECT_EQ(Decode(t, Ids(ids), k == 0 ? NB_SKIP_SPECIAL : 0),
                  cJSON_IsString(want) ? FromHex(want->valuestring) : Repaired(lines[i]))
            << Get(c, "name")->valuestring << ", line " << i + 1 << (k ? "" : ", without special tokens");
      }
    }
  }
}

// A specification is read and written by the same file format: what was written is read again as it was.
TEST_F(GoldenTokenizer, SurvivesBeingWrittenAgain) {
  std::vector<std::string> lines = Lines(*hard_);
  for (const char *base : {"bytes", "chars", "llama3"}) {
    std::string text = ReadFile(Golden("tokenizer/" + std::string(base) + ".json")), written[2];
    for (std::string &out : written) {
      nb_tokenizer_spec spec;
      nb_buf buf = {};
      nibble_error err;
      ASSERT_EQ(nb_tokenizer_spec_read(base, text.data(), text.size(), &spec, &err), NIBBLE_OK) << err.message;
      nb_tokenizer_spec_write(&spec, &buf);
      text = out = std::string(buf.data, buf.length);
      nb_buf_free(&buf);
      nb_tokenizer_spec_free(&spec);
    }
    EXPECT_EQ(written[0], written[1]) << base;
    nb_tokenizer *t = nullptr;
    nibble_error err;
    ASSERT_EQ(nb_tokenizer_parse(base, text.data(), text.size(), &t, &err), NIBBLE_OK) << err.message;
    Tokenizer again(t), first = Open(Golden("tokenizer/" + std::string(base) + ".json"));
    for (const std::string &line : lines) EXPECT_EQ(Show(Encode(again, line)), Show(Encode(first, line))) << line;
  }
}

TEST(Json, MakesAnObjectOrNothing) {
  Json json(
      nb_json_make("a:s b:b c:i d:z e:o", "x\"", true, -3, nb_json_push(cJSON_CreateArray(), cJSON_CreateNull())));
  nb_buf text = {};
  nb_json_put(&text, json.get(), &nb_json_indented);
  EXPECT_STREQ(text.data,
               "{\n  \"a\": \"x\\\"\",\n  \"b\": true,\n  \"c\": -3,\n  \"d\": null,\n  \"e\": [\n    null\n  ]\n}");
  nb_buf_free(&text);
  EXPECT_EQ(nb_json_make("a:o b:o", nullptr, cJSON_CreateNull()), nullptr);
  EXPECT_EQ(nb_json_push(nullptr, cJSON_CreateNull()), nullptr);
}

// ---- what no reference can say ------------------------------------------------------------------------------------

// A small tokenizer.json around `model` and other parts.
std::string Minimal(const std::string &model = R"("vocab":{"a":0,"b":1,"ab":2},"merges":["a b"])",
                    const std::string &parts = "") {
  return R"({"version":"1.0",)" + parts + R"("model":{"type":"BPE",)" + model + "}}";
}

Tokenizer ParseTokenizer(const std::string &json, std::string *message = nullptr) {
  nb_tokenizer *t = nullptr;
  nibble_error err = {};
  nibble_status status = nb_tokenizer_parse("it", json.data(), json.size(), &t, &err);
  if (message) *message = status == NIBBLE_BAD_INPUT ? err.message : "status " + std::to_string(status);
  return Tokenizer(t);
}

std::string Repeated(const std::string &item, int times) {
  std::string out = item;
  while (--times > 0) out += "," + item;
  return out;
}

// The ids are those of tokenizers 0.23 from the same files. An added token is found in the text, where it stands alone
// if it asks for that; to the model it is a word like any other, which has a token only if the model's own vocabulary
// says so.
TEST(AddedTokens, AreNoWordsOfTheModelUnlessItsVocabularyHasThem) {
  using Ids = std::vector<int32_t>;
  const struct {
    const char *content, *options;  // of the token, and of the model
    std::vector<std::pair<const char *, Ids>> texts;
  } cases[] = {
      {"cat", "", {{"cat", {13}}, {"cat1", {13, 7}}, {"acat", {0, 13}}, {"cata cat", {13, 0, 8, 13}}}},
      {"cat", "single_word", {{"cat", {13}}, {"cat1", {2, 0, 6, 7}}, {"cata cat", {2, 0, 6, 0, 8, 13}}}},
      {"cat", "single_word ignore_merges", {{"cat", {13}}, {"cat1", {2, 0, 6, 7}}, {"acat", {0, 2, 0, 6}}}},
      {"foo", "", {{"foo", {11}}, {"foo1", {11, 7}}, {"fooa foo", {11, 0, 8, 11}}}},
      {"foo", "single_word ignore_merges", {{"foo", {11}}, {"foo1", {11, 7}}, {"afoo", {0, 11}}}},
      {"z", "", {{"azb", {0, 13, 1}}, {"z zz", {13, 8, 13, 13}}}},
      {"z", "single_word", {{"z", {13}}, {"azb", {0, 12, 1}}, {"z zz", {13, 8, 12, 12}}}},
  };
  for (const auto &c : cases) {
    for (bool special : {false, true}) {
      auto has = [&](const char *option) { return strstr(c.options, option) ? "true" : "false"; };
      std::string added = R"("added_tokens":[{"id":13,"content":")" + std::string(c.content) + R"(","single_word":)" +
                          has("single_word") + R"(,"special":)" + (special ? "true" : "false") + "}],";
      std::string split = R"("pre_tokenizer":{"type":"Split","pattern":{"Regex":"[0-9]| "},"behavior":"Isolated"},)";
      std::string model = R"("unk_token":"?","ignore_merges":)" + std::string(has("ignore_merges")) +
                          R"(,"vocab":{"a":0,"b":1,"c":2,"d":3,"f":4,"o":5,"t":6,"1":7," ":8,"_":9,"oo":10,"foo":11,)"
                          R"("?":12},"merges":["o o","f oo"])";
      Tokenizer t = ParseTokenizer(Minimal(model, added + split));
      ASSERT_NE(t, nullptr);
      for (const auto &[text, ids] : c.texts)
        EXPECT_EQ(Encode(t, text), ids) << text << ", " << c.content << " " << c.options << (special ? " special" : "");
    }
  }
}

TEST(Tokenizer, RefusesWhatItCannotReadOrDoesNotKnowByName) {
  const std::pair<std::string, std::string> cases[] = {
      {"", "not a JSON object"},
      {"[]", "not a JSON object"},
      {R"({"model":)", "not valid JSON"},
      {R"({"version":"2.0","model":{"vocab":{},"merges":[]}})", "version '2.0'"},
      {R"({"model":{"vocab":{"a":0}}})", "model.merges is missing"},
      {R"({"model":{"merges":[]}})", "model.vocab is missing"},
      {R"({"vocab":{},"merges":[]})", "model.vocab is missing"},
      {std::string(100000, '['), "not a JSON object"},
      {Minimal(R"("vocab":{"a":0},"merges":[])", "\"x\":" + std::string(3000, '[') + std::string(3000, ']') + ","),
       "nested too deeply"},
      {Minimal("\"vocab\":{\"\xff\":0},\"merges\":[]"), "not UTF-8"},
      {Minimal(R"("type2":0,"vocab":[],"merges":[])"), "model.vocab is not an object"},
      {Minimal(R"("vocab":{"a":0,},"merges":[])"), "model.vocab is not valid JSON"},
      {Minimal(R"("vocab":{"a":0 "b":1},"merges":[])"), "model.vocab is not valid JSON"},
      {Minimal(R"("vocab":{"\ud800":0},"merges":[])"), "damaged string"},
      {Minimal(R"("vocab":{"\x":0},"merges":[])"), "damaged string"},
      {Minimal("\"vocab\":{\"a\nb\":0},\"merges\":[]"), "damaged string"},
      {Minimal(R"("vocab":{"a":-1},"merges":[])"), "not a whole number"},
      {Minimal(R"("vocab":{"a":1.5},"merges":[])"), "model.vocab is not valid JSON"},
      {Minimal(R"("vocab":{"a":4294967296},"merges":[])"), "larger than any vocabulary"},
      {Minimal(R"("vocab":{"a":99999999999999999999},"merges":[])"), "larger than any vocabulary"},
      {Minimal(R"("vocab":{"a":0,"b":0},"merges":[])"), "two tokens have the id 0"},
      {Minimal(R"("vocab":{"a":0,"a":1},"merges":[])"), "'a' is there twice"},
      {Minimal(R"("vocab":{"a":0},"merges":{})"), "model.merges is not a list"},
      {Minimal(R"("vocab":{"a":0},"merges":["a a"])"), "not in model.vocab"},
      {Minimal(R"("vocab":{"a":0},"merges":["a b"])"), "not in model.vocab"},
      {Minimal(R"("vocab":{"a":0},"merges":["a"])"), "not two tokens"},
      {Minimal(R"("vocab":{"a":0},"merges":["a a a"])"), "not two tokens"},
      {Minimal(R"("vocab":{"a":0},"merges":[["a"]])"), "not a pair"},
      {Minimal(R"("vocab":{"a":0},"merges":[["a","a","a"]])"), "not a pair"},
      {Minimal(R"("vocab":{"a":0},"merges":[1])"), "model.merges is not valid JSON"},
      {Minimal(R"("dropout":0.1,"vocab":{"a":0},"merges":[])"), "dropout"},
      {R"({"model":{"type":"Morfessor","vocab":[],"merges":[]}})", "model type 'Morfessor'"},
      {Minimal(R"("vocab":{"a":0},"merges":[])", R"("pre_tokenizer":{"type":"Words"},)"), "pre_tokenizer 'Words'"},
      {Minimal(R"("vocab":{"a":0},"merges":[])", R"("pre_tokenizer":{},)"), "no \"type\""},
      {Minimal(R"("vocab":{"a":0},"merges":[])", R"("normalizer":{"type":"Compiled"},)"), "normalizer 'Compiled'"},
      {Minimal(R"("vocab":{"a":0},"merges":[])", R"("decoder":{"type":"Piece"},)"), "decoder 'Piece'"},
      {Minimal(R"("vocab":{"a":0},"merges":[])",
               R"("pre_tokenizer":{"type":"Split","behavior":"Odd","invert":false,"pattern":{"String":"a"}},)"),
       "pre_tokenizer Split has the unknown behavior 'Odd'"},
      {Minimal(R"("vocab":{"a":0},"merges":[])", R"("pre_tokenizer":{"type":"Sequence","pretokenizers":[)" +
                                                     Repeated(R"({"type":"BertPreTokenizer"})", 17) + "]},"),
       "pre_tokenizer has more than 32 steps"},
      {Minimal(R"("vocab":{"a":0},"merges":[])", R"("post_processor":{"type":"Sequence"},)"),
       "post_processor 'Sequence'"},
      {Minimal(R"("vocab":{"a":0},"merges":[])",
               R"("post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"x"}}]},)"),
       "does not define"},
      {Minimal(R"("vocab":{"a":0},"merges":[])", R"("added_tokens":[{"content":"a\u0000b"}],)"), "NUL"},
      {Minimal(R"("vocab":{"a":0},"merges":[])", R"("added_tokens":[{"content":")" + std::string(2000, 'x') + "\"}],"),
       "more than the 1024 allowed"},
      {Minimal(R"("vocab":{"a":0},"merges":[])",
               R"("pre_tokenizer":{"type":"Metaspace","replacement":"__","prepend_scheme":"never"},)"),
       "not one character"},
      {Minimal(R"("vocab":{"a":0},"merges":[])",
               R"("normalizer":{"type":"Prepend","prepend":")" + std::string(300, 'x') + "\"},"),
       "more than the 256 allowed"},
      {Minimal(R"("vocab":{"a":0},"merges":[])",
               R"("normalizer":{"type":"Lowercase"},"added_tokens":[{"content":"X"},{"content":"x"}],)"),
       "both written 'x'"},
  };
  for (const auto &[json, fault] : cases) {
    std::string message;
    EXPECT_EQ(ParseTokenizer(json, &message), nullptr) << json.substr(0, 200);
    EXPECT_NE(message.find(fault), std::string::npos) << "\"" << message << "\" for " << json.substr(0, 200);
  }
}

TEST(Tokenizer, RefusesDamagedJsonWhereverItIsDamaged) {
  const std::string cut[] = {R"({"a)", R"({"a\)", R"({"a" 1})", R"({"a":"b)", R"({"a":1)", R"({"a":[1})", R"({"a":1,)"};
  for (const std::string &json : cut) {
    std::string message;
    EXPECT_EQ(ParseTokenizer(json, &message), nullptr) << json;
    EXPECT_NE(message.find("not valid JSON"), std::string::npos) << message << " for " << json;
  }
  // Each escape that is none, in a token and in both kinds of merges.
  for (const char *escape : {R"(\u12)", R"(\u12g4)", R"(\udc00)", R"(\ud83d)", R"(\ud83dA)", R"(\ud83dxx1234)",
                             R"(\ud83d\u00)", R"(\ud83d\u0041)", R"(\ud83d\ud83d)", R"(\q)"}) {
    const std::string e = escape;
    for (const std::string &model :
         {R"("vocab":{")" + e + R"(":0},"merges":[])", R"("vocab":{"a":0},"merges":["a )" + e + R"("])",
          R"("vocab":{"a":0},"merges":[[")" + e + R"(","a"]])", R"("vocab":{"a":0},"merges":[["a",")" + e + R"("]])"}) {
      std::string message;
      EXPECT_EQ(ParseTokenizer(Minimal(model), &message), nullptr) << model;
      EXPECT_NE(message.find("damaged string"), std::string::npos) << message << " for " << model;
    }
  }
}

TEST(Tokenizer, RefusesPartsOfTheWrongKind) {
  const std::string model = R"("vocab":{"a":0},"merges":[])",
                    two = R"({"type":"TemplateProcessing","single":[{"Sequence":{"id":"A"}}]})";
  std::string nested = R"({"type":"ByteLevel"})", pieces;
  for (int i = 0; i < 100; i++) {
    nested = R"({"type":"Sequence","processors":[)" + nested + "]}";
    for (int k = 0; k < 50; k++) pieces += R"({"Sequence":{"id":"A"}},)";
  }
  const std::string special =
      R"({"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"x"}}],"special_tokens":{"x":{"ids":[)";
  const std::pair<std::string, std::string> cases[] = {
      {R"({"model":{"type":5,"vocab":{},"merges":[]}})", "type"},
      {R"({"version":1,"model":{"vocab":{},"merges":[]}})", "version"},
      {Minimal(R"("dropout":"no",)" + model), "dropout"},
      {Minimal(R"("fuse_unk":1,)" + model), "fuse_unk"},
      {Minimal(R"("unk_token":1,)" + model), "unk_token"},
      {Minimal(R"("continuing_subword_prefix":"###","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"])"),
       "not in model.vocab"},
      {Minimal(R"("vocab":{"a":0},"merges":["a)"), "not valid JSON"},
      {Minimal(R"("vocab":{"a":0},"merges":["a a" "a a"])"), "model.vocab"},
      {Minimal(R"("vocab":{"a":0,"aa":1},"merges":["a a" "a a"])"), "model.merges is not valid JSON"},
      {Minimal(R"("vocab":{"a":0},"merges":[["a" "a"]])"), "not a pair"},
      {Minimal(R"("vocab":{"a":0},"merges":[["a",1]])"), "not a pair"},
      {Minimal(R"("vocab":{"a" 0},"merges":[])"), "model.vocab is not valid JSON"},
      {Minimal(R"("vocab":{a:0},"merges":[])"), "model.vocab is not valid JSON"},
      {Minimal(model, R"("pre_tokenizer":{"type":"Split","behavior":"Isolated"},)"), "no \"pattern\""},
      {Minimal(model, R"("normalizer":{"type":"Prepend"},)"), "no string \"prepend\""},
      {Minimal(model, R"("post_processor":5,)"), "no \"type\""},
      {Minimal(model, R"("post_processor":{"type":"Sequence","processors":5},)"), "'Sequence' is not supported"},
      {Minimal(model, "\"post_processor\":" + nested + ","), "'Sequence' is not supported"},
      {Minimal(model, R"("post_processor":{"type":"TemplateProcessing"},)"), "no \"single\""},
      {Minimal(model, R"("post_processor":{"type":"TemplateProcessing","single":[]},)"), "empty template"},
      {Minimal(model, R"("post_processor":{"type":"TemplateProcessing","single":[{"Sequence":{"id":"B"}}]},)"),
       "does not define"},
      {Minimal(model, R"("post_processor":{"type":"TemplateProcessing","single":[{"Sequence":{"id":5}}]},)"), "id"},
      {Minimal(model, R"("post_processor":{"type":"TemplateProcessing","single":[)" + pieces +
                          R"({"Sequence":{"id":"A"}}]},)"),
       "post_processor"},
      {Minimal(model, "\"post_processor\":" + special + R"("y"]}}},)"), "an id that is none"},
      {Minimal(model, "\"post_processor\":" + special + R"(-1]}}},)"), "an id that is none"},
      {Minimal(model, R"("post_processor":{"type":"Sequence","processors":[)" + two + "," + two + "]},"),
       "two templates"},
      {Minimal(model, R"("post_processor":{"type":"Sequence","processors":[)" + two +
                          R"(,{"type":"BertProcessing","cls":["a",0],"sep":["a",0]}]},)"),
       "two templates"},
      {Minimal(model, R"("post_processor":{"type":"RobertaProcessing","cls":["a",0]},)"), "an id that is none"},
      {Minimal(model, R"("post_processor":{"type":"RobertaProcessing","sep":["a",0]},)"), "an id that is none"},
  };
  for (const auto &[json, fault] : cases) {
    std::string message;
    EXPECT_EQ(ParseTokenizer(json, &message), nullptr) << json.substr(0, 200);
    EXPECT_NE(message.find(fault), std::string::npos) << "\"" << message << "\" for " << json.substr(0, 200);
  }
}

TEST(Tokenizer, ReadsEveryEscapeAndTheFirstLineOfMergesTxt) {
  Tokenizer t = ParseTokenizer(Minimal(
      R"("vocab":{"\n":0,"\u0041":1,"\ud83d\ude00":2,"\"\/\\":3,"A\n":4},"merges":["#version: 0.2","\u0041 \n"])"));
  ASSERT_NE(t, nullptr);
  EXPECT_EQ(Encode(t, "A\n"), (std::vector<int32_t>{4}));
  EXPECT_EQ(Encode(t, "\xf0\x9f\x98\x80"), (std::vector<int32_t>{2}));
  EXPECT_EQ(Decode(t, {3}, 0), "\"/\\");
  EXPECT_NE(ParseTokenizer(Minimal(R"("vocab":{},"merges":[])")), nullptr);
}

TEST(Tokenizer, IsFoundInTheFolderOfAModelsFile) {
  TempFolder folder;
  WriteFile(folder / "tokenizer.json", Minimal());
  WriteFile(folder / "model.safetensors", "");
  for (const std::string &path : {folder.path(), folder / "tokenizer.json", folder / "model.safetensors"}) {
    nb_tokenizer *t = nullptr;
    nibble_error err = {};
    EXPECT_EQ(nb_tokenizer_open(path.c_str(), &t, &err), NIBBLE_OK) << path << ": " << err.message;
    nb_tokenizer_close(t);
  }
  nb_tokenizer *t = nullptr;
  nibble_error err = {};
  EXPECT_EQ(nb_tokenizer_open((folder / "none/model.safetensors").c_str(), &t, &err), NIBBLE_BAD_INPUT);
}

TEST(Tokenizer, RefusesPatternsWithoutACounterpart) {
  for (const char *pattern :
       {"(", ")", "[a", "a**", "[a[b]]", "[a&&b]", "\\\\y", "\\\\g<1>", "(?~ab)", "(?s).", "\\\\p{Nope}", "[\\\\W]",
        "\\\\x{110000}", "(?<=a*)b", "[[:lower:]]", "(?P<n>a)", "\\\\"}) {
    std::string message, json = Minimal(R"("vocab":{"a":0},"merges":[])",
                                        R"("pre_tokenizer":{"type":"Split","behavior":"Isolated","invert":false,)"
                                        R"("pattern":{"Regex":")" +
                                            std::string(pattern) + "\"}},");
    EXPECT_EQ(ParseTokenizer(json, &message), nullptr) << pattern;
    EXPECT_NE(message.find("pattern"), std::string::npos) << pattern << ": " << message;
  }
}

TEST(Tokenizer, GivesUpOnAPatternThatExplodes) {
  std::string message;
  Tokenizer t = ParseTokenizer(Minimal(R"("vocab":{"a":0},"merges":[])",
                                       R"("pre_tokenizer":{"type":"Split","behavior":"Isolated","invert":false,)"
                                       R"("pattern":{"Regex":"(a|aa)+[0-9]"}},)"),
                               &message);
  ASSERT_NE(t, nullptr) << message;
  nb_ids ids = {};
  nibble_error err;
  std::string text(5000, 'a');
  EXPECT_EQ(nb_tokenizer_encode(t.get(), text.data(), text.size(), 0, &ids, &err), NIBBLE_BAD_INPUT);
  EXPECT_NE(std::string(err.message).find("costs too much"), std::string::npos) << err.message;
  EXPECT_EQ(ids.length, 0u);
  nb_ids_free(&ids);
}

// Merging pair by pair with a full scan each time: what the heap and the linked list must equal.
std::vector<int32_t> MergeSlowly(std::vector<int32_t> ids, const std::vector<std::array<int32_t, 3>> &merges) {
  for (;;) {
    size_t best = merges.size(), at = 0;
    for (size_t i = 0; i + 1 < ids.size(); i++)
      for (size_t rank = 0; rank < best; rank++)
        if (merges[rank][0] == ids[i] && merges[rank][1] == ids[i + 1]) best = rank, at = i;
    if (best == merges.size()) return ids;
    ids[at] = merges[best][2];
    ids.erase(ids.begin() + (long)at + 1);
  }
}

TEST(Tokenizer, MergesLongWordsAsShortOnesDo) {
  std::string vocab = R"("a":0,"b":1,"c":2,"ab":3,"bc":4,"aa":5,"abc":6,"aab":7,"cab":8,"aaaa":9,"abca":10)";
  std::string merges = R"("b c","a b","a a","a bc","aa b","c ab","aa aa","abc a","ab c")";
  std::vector<std::array<int32_t, 3>> table = {{1, 2, 4}, {0, 1, 3}, {0, 0, 5},  {0, 4, 6}, {5, 1, 7},
                                               {2, 3, 8}, {5, 5, 9}, {6, 0, 10}, {3, 2, 6}};
  Tokenizer t = ParseTokenizer(Minimal("\"vocab\":{" + vocab + "},\"merges\":[" + merges + "]"));
  ASSERT_NE(t, nullptr);
  uint32_t state = 1;
  for (size_t length = 1; length < 120; length++) {
    std::string word;
    std::vector<int32_t> ids;
    for (size_t i = 0; i < length; i++) {
      state = state * 1664525u + 1013904223u;
      word += (char)('a' + (state >> 16) % 3);
      ids.push_back(word.back() - 'a');
    }
    EXPECT_EQ(Show(Encode(t, word)), Show(MergeSlowly(ids, table))) << word;
  }
}

TEST(Tokenizer, TakesTimeInProportionToAHugeWord) {
  std::string vocab = "\"a\":0", merges, token = "a";
  for (int i = 1; i <= 10; i++) {
    merges += (i > 1 ? ",[\"" : "[\"") + token + "\",\"" + token + "\"]";
    token += token;
    vocab += ",\"" + token + "\":" + std::to_string(i);
  }
  Tokenizer t = ParseTokenizer(Minimal("\"vocab\":{" + vocab + "},\"merges\":[" + merges + "]"));
  ASSERT_NE(t, nullptr);
  EXPECT_EQ(Encode(t, std::string(1 << 20, 'a')), std::vector<int32_t>(1 << 10, 10));
}

TEST(Tokenizer, NormalizesHostileRunsOfMarksInProportionToTheirLength) {
  Tokenizer t = ParseTokenizer(Minimal(R"("vocab":{"a":0},"merges":[])", R"("normalizer":{"type":"NFC"},)"));
  ASSERT_NE(t, nullptr);
  std::string text = "a";
  for (int i = 0; i < 300000; i++) text += i % 2 ? "\xcc\xa3" : "\xcc\x81";
  EXPECT_EQ(Encode(t, text).size(), 0u);  // the first mark makes an á of the a, which is no token
}

TEST(Tokenizer, KnowsTokensById) {
  Tokenizer t =
      ParseTokenizer(Minimal(R"("vocab":{"a":0,"\u0000":5,"\ud83d\ude00":2},"merges":[])",
                             R"("added_tokens":[{"content":"<s>","special":true},{"content":"a","special":true}],)"));
  ASSERT_NE(t, nullptr);
  EXPECT_EQ(nb_tokenizer_vocab_size(t.get()), 6);
  EXPECT_EQ(nb_tokenizer_id(t.get(), "<s>", 3), 3);  // the first id that is not counted, as in the reference
  EXPECT_EQ(nb_tokenizer_id(t.get(), "\0", 1), 5);
  EXPECT_EQ(nb_tokenizer_id(t.get(), "\xf0\x9f\x98\x80", 4), 2);
  EXPECT_EQ(nb_tokenizer_id(t.get(), "b", 1), -1);
  size_t n;
  ASSERT_NE(nb_tokenizer_token(t.get(), 3, &n), nullptr);
  EXPECT_EQ(std::string(nb_tokenizer_token(t.get(), 3, &n), n), "<s>");
  for (int32_t id : {-1, 1, 4, 6, INT32_MAX}) EXPECT_EQ(nb_tokenizer_token(t.get(), id, &n), nullptr) << id;
  EXPECT_TRUE(nb_tokenizer_is_special(t.get(), 0));
  EXPECT_FALSE(nb_tokenizer_is_special(t.get(), 2));
  EXPECT_FALSE(nb_tokenizer_is_special(t.get(), -1));
  EXPECT_EQ(Decode(t, {0, -5, 1000000, 2, 3}, NB_SKIP_SPECIAL), "\xf0\x9f\x98\x80");
}

TEST(Tokenizer, FailsOnACharacterThatUnkTokenCannotStandFor) {
  Tokenizer t = ParseTokenizer(Minimal(R"("unk_token":"<unk>","vocab":{"a":0},"merges":[])"));
  ASSERT_NE(t, nullptr);
  nb_ids ids = {};
  nibble_error err;
  EXPECT_EQ(nb_tokenizer_encode(t.get(), "aab", 3, 0, &ids, &err), NIBBLE_BAD_INPUT);
  EXPECT_STREQ(err.message, "the text has a character without a token, and unk_token '<unk>' is no token");
  nb_ids_free(&ids);
}

TEST_F(GoldenTokenizer, StreamsWholeCharactersAndTheSameText) {
  for (const cJSON *c = Cases()->child; c; c = c->next) {
    std::string name = Get(c, "name")->valuestring;
    if (name != "plain GPT-2" && name != "Llama 2" && name.find("Metaspace") != 0) continue;
    Tokenizer t = OpenCase(c);
    for (const std::string &line : Lines(*hard_)) {
      std::vector<int32_t> ids = Encode(t, Repaired(line));
      nb_token_stream stream = {};
      stream.tokenizer = t.get();
      nb_buf text = {};
      nibble_error err;
      for (int32_t id : ids) {
        ASSERT_EQ(nb_token_stream_push(&stream, id, &text, &err), NIBBLE_OK) << err.message;
        EXPECT_EQ(nb_utf8_valid(text.data ? text.data : "", text.length), text.length) << name << ": " << line;
      }
      ASSERT_EQ(nb_token_stream_end(&stream, &text, &err), NIBBLE_OK) << err.message;
      EXPECT_EQ(std::string(text.data ? text.data : "", text.length), Decode(t, ids)) << name << ": " << line;
      nb_buf_free(&text);
    }
  }
}

TEST(Text, ReadsPlainAndGzipAndRefusesWhatIsDamaged) {
  TempFolder folder;
  std::string text = "one\r\ntwo\0three\xff";
  text.resize(16);
  for (int i = 0; i < 15; i++) text += text;
  WriteFile(folder / "plain", text);
  gzFile file = gzopen((folder / "gzip").c_str(), "wb");
  gzwrite(file, text.data(), (unsigned)text.size());
  gzclose(file);
  EXPECT_TRUE(ReadText(folder / "plain") == text);
  EXPECT_TRUE(ReadText(folder / "gzip") == text);
  WriteFile(folder / "empty", "");
  EXPECT_EQ(ReadText(folder / "empty"), "");

  std::string gzip = ReadFile(folder / "gzip"), damaged = gzip;
  WriteFile(folder / "cut", gzip.substr(0, gzip.size() / 2));
  damaged[gzip.size() - 6] ^= 1;  // in the checksum
  WriteFile(folder / "damaged", damaged);
  for (const char *name : {"cut", "damaged", "missing", ""}) {
    nb_buf out = {};
    nibble_error err;
    EXPECT_EQ(nb_text_read((folder / name).c_str(), &out, &err), NIBBLE_BAD_INPUT) << name;
    EXPECT_NE(std::string(err.message).find(folder / name), std::string::npos) << err.message;
    nb_buf_free(&out);
  }
}

TEST(Text, ReplacesDamagedUtf8AsPythonDoes) {
  const std::pair<std::string, std::string> cases[] = {
      {"a\x80z", "a?z"},       {"\xc3", "?"},
      {"\xe2\x82", "?"},       {"\xe2\x82\x41", "?A"},
      {"\xf0\x9f\x98", "?"},   {"\xc0\x80", "??"},
      {"\xed\xa0\x80", "???"}, {"\xf4\x90\x80\x80", "????"},
      {"\xf0\x80\x80", "???"}, {"\xf5\x80", "??"},
      {"\xff\xfe", "??"},      {"\xc3\xc3\xa9", "?\xc3\xa9"},
      {"\xe0\x80\xaf", "???"}, {"12345678\xff", "12345678?"},
  };
  for (const auto &[bytes, want] : cases) {
    std::string marked;
    for (char c : want) marked += c == '?' ? "\xef\xbf\xbd" : std::string(1, c);
    EXPECT_EQ(Repaired(bytes), marked) << testing::PrintToString(bytes);
  }
}

// ---- nibble tokenize ----------------------------------------------------------------------------------------------

TEST(TokenizeCommand, PrintsIdsAndTheirTextAgain) {
  std::string model = Golden("tokenizer/llama3.json");
  TempFolder folder;
  WriteFile(folder / "text", "the 123 caf\xc3\xa9\n\nisn't\n");
  CommandResult ids = Nibble("tokenize " + model + " --text " + (folder / "text"));
  ASSERT_EQ(ids.code, 0) << ids.err;
  Tokenizer t = Open(model);
  EXPECT_EQ(ids.out, Show(Encode(t, ReadFile(folder / "text"))).erase(ids.out.size() - 1) + "\n");
  WriteFile(folder / "ids", ids.out);
  CommandResult text = Nibble("tokenize " + model + " --decode --no-special --text " + (folder / "ids"));
  EXPECT_EQ(text.out, "<s>" + ReadFile(folder / "text")) << text.err;  // a token that its file does not call special

  CommandResult lines = Nibble("tokenize " + model + " --lines --no-special --text " + (folder / "text"));
  EXPECT_EQ(Lines(lines.out).size(), 4u) << lines.out;
  WriteFile(folder / "lines", lines.out);
  EXPECT_EQ(Nibble("tokenize " + model + " --lines --decode --text " + (folder / "lines")).out,
            ReadFile(folder / "text"));

  Json json = Parse(Nibble("tokenize " + model + " --json <" + (folder / "text")).out);
  ASSERT_NE(json, nullptr);
  EXPECT_EQ(Ids(Get(json.get(), "ids")), Encode(t, ReadFile(folder / "text")));
  EXPECT_EQ(Get(json.get(), "tokens")->valueint, cJSON_GetArraySize(Get(json.get(), "ids")));
}

TEST(TokenizeCommand, SaysWhatIsWrong) {
  TempFolder folder;
  WriteFile(folder / "ids", "1 2 x3\n");
  std::string model = Golden("tokenizer/bytes.json");
  CommandResult bad = Nibble("tokenize " + model + " --decode --text " + (folder / "ids"));
  EXPECT_EQ(bad.code, NIBBLE_BAD_INPUT);
  EXPECT_EQ(bad.err, "nibble: " + (folder / "ids") + ": 'x3' is not a token id\n");
  EXPECT_EQ(Nibble("tokenize " + folder.path()).code, NIBBLE_BAD_INPUT);
  EXPECT_EQ(Nibble("tokenize " + model + " --text " + (folder / "none")).code, NIBBLE_BAD_INPUT);
  EXPECT_EQ(Nibble("tokenize").code, NIBBLE_USAGE);
  EXPECT_EQ(Nibble("tokenize " + model + " more").code, NIBBLE_USAGE);
}

}  // namespace
