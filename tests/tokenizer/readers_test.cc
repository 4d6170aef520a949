// The files that tokenizers come in beside tokenizer.json: ids against the libraries' (tests/golden/tokenizer_files,
// made by scripts/golden/make_tokenizer_files.py), and files that are damaged.
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "tests/support.h"
#include "tests/tokenizer/golden_cases.h"

extern "C" {
#include "convert/tokenizer_open.h"
#include "tokenizer/readers/readers.h"
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

std::vector<int32_t> Encode(const Tokenizer &t, const std::string &text) {
  nb_ids ids = {};
  nibble_error err;
  EXPECT_EQ(nb_tokenizer_encode(t.get(), text.data(), text.size(), NB_ADD_SPECIAL, &ids, &err), NIBBLE_OK)
      << err.message;
  std::vector<int32_t> out(ids.data, ids.data + ids.length);
  nb_ids_free(&ids);
  return out;
}

std::vector<int32_t> Ids(const cJSON *list) {
  std::vector<int32_t> ids;
  for (const cJSON *id = list->child; id; id = id->next) ids.push_back(id->valueint);
  return ids;
}

std::string Show(const std::vector<int32_t> &ids) {
  std::string out;
  for (int32_t id : ids) out += std::to_string(id) + " ";
  return out;
}

TEST(TokenizerFiles, GiveTheReferencesIds) {
  std::string folder = Golden("tokenizer_files");
  std::string text = ReadText(folder + "/expected.json.gz");
  Json root(cJSON_ParseWithLength(text.data(), text.size()));
  ASSERT_TRUE(root);
  std::vector<std::string> lines = Lines(ReadFile(Golden("tokenizer/hard.txt")));
  int cases = 0;
  for (const cJSON *c = Get(root.get(), "cases")->child; c; c = c->next, cases++) {
    SCOPED_TRACE(Get(c, "name")->valuestring);
    Tokenizer t = Open(folder + "/" + Get(c, "path")->valuestring);
    if (!t) continue;
    const cJSON *ids = Get(c, "ids")->child;
    size_t line = 0;
    for (; line < lines.size() && ids; line++, ids = ids->next) {
      if (cJSON_IsNull(ids)) continue;  // a line that the library reads otherwise than transformers
      std::string got = Show(Encode(t, lines[line])), want = Show(Ids(ids));
      EXPECT_EQ(got, want) << "line " << line + 1 << ": " << lines[line];
      if (got != want) break;
    }
    if (line < lines.size()) continue;
    EXPECT_FALSE(ids);
  }
  EXPECT_GE(cases, 8);
}

std::string Decode(const Tokenizer &t, const std::vector<int32_t> &ids) {
  nb_buf text = {};
  nibble_error err;
  EXPECT_EQ(nb_tokenizer_decode(t.get(), ids.data(), ids.size(), 0, &text, &err), NIBBLE_OK) << err.message;
  std::string out(text.data ? text.data : "", text.length);
  nb_buf_free(&text);
  return out;
}

// The text of ids that come one by one.
std::string Stream(const Tokenizer &t, const std::vector<int32_t> &ids) {
  nb_token_stream stream = {};
  stream.tokenizer = t.get();
  nb_buf text = {};
  nibble_error err;
  for (int32_t id : ids) EXPECT_EQ(nb_token_stream_push(&stream, id, &text, &err), NIBBLE_OK) << err.message;
  EXPECT_EQ(nb_token_stream_end(&stream, &text, &err), NIBBLE_OK) << err.message;
  std::string out(text.data ? text.data : "", text.length);
  nb_buf_free(&text);
  return out;
}

std::string Print(const cJSON *json) {
  char *text = cJSON_PrintUnformatted(json);
  std::string out = text;
  free(text);
  return out;
}

// Every class of transformers that has steps of its own, over a vocabulary whose steps are others.
TEST(TokenizerFiles, ClassesGiveTransformersIdsAndText) {
  std::string folder = Golden("tokenizer_files");
  std::string text = ReadText(folder + "/expected.json.gz");
  Json root(cJSON_ParseWithLength(text.data(), text.size()));
  ASSERT_TRUE(root);
  const cJSON *classes = Get(root.get(), "classes");
  int cases = 0;
  for (const cJSON *c = Get(classes, "cases")->child; c; c = c->next, cases++) {
    std::string settings = Print(Get(c, "settings"));
    SCOPED_TRACE(settings);
    TempFolder dir;
    std::string base = ReadFile(folder + "/class_" + Get(c, "base")->valuestring + ".json");
    const std::string none = "\"post_processor\": null";
    base.replace(base.find(none), none.size(), "\"post_processor\": " + Print(Get(c, "ends")));
    WriteFile(dir / "tokenizer.json", base);
    WriteFile(dir / "tokenizer_config.json", settings);
    Tokenizer t = Open(dir.path());
    if (!t) continue;
    const cJSON *line = Get(classes, "lines")->child, *ids = Get(c, "ids")->child, *back = Get(c, "texts")->child;
    for (; line; line = line->next, ids = ids->next, back = back->next) {
      std::string got = Show(Encode(t, line->valuestring)), want = Show(Ids(ids));
      EXPECT_EQ(got, want) << line->valuestring;
      std::string decoded = Decode(t, Ids(ids));
      EXPECT_EQ(decoded, back->valuestring) << line->valuestring;
      EXPECT_EQ(Stream(t, Ids(ids)), decoded) << line->valuestring;
      if (got != want || decoded != back->valuestring) break;
    }
    Json tokens(cJSON_CreateObject());
    nibble_error err;
    ASSERT_EQ(nb_tokenizer_folder_tokens(dir.path().c_str(), tokens.get(), &err), NIBBLE_OK) << err.message;
    EXPECT_TRUE(cJSON_Compare(tokens.get(), Get(c, "tokens"), true)) << Print(tokens.get()) << Print(Get(c, "tokens"));
  }
  EXPECT_GE(cases, 120);
}

// ---- damaged files -------------------------------------------------------------------------------------------------

// What reading a file of this name and text says.
std::string Refusal(const std::string &name, const std::string &text, const std::string &beside = "") {
  const nb_tokenizer_kind *kind = nb_tokenizer_kind_of(name.c_str());
  if (!kind) return "no kind";
  nb_tokenizer_file file = {};
  file.path = file.name = name.c_str();
  file.text = {text.data(), text.size()};
  file.beside_path = kind->beside;
  file.beside = {beside.data(), beside.size()};
  nb_tokenizer_spec spec = {};
  nibble_error err = {};
  nb_tokenizer *t = nullptr;
  nibble_status status = kind->read(&file, &spec, &err);
  if (status == NIBBLE_OK) status = nb_tokenizer_make(name.c_str(), &spec, &t, &err);
  nb_tokenizer_close(t);
  nb_tokenizer_spec_free(&spec);
  if (status == NIBBLE_OK) return "opened";
  EXPECT_EQ(status, NIBBLE_BAD_INPUT) << err.message;
  return err.message;
}

struct Damage {
  std::string name, text, beside, message;
};

void ExpectRefusals(const std::vector<Damage> &damages) {
  for (const Damage &d : damages) EXPECT_EQ(Refusal(d.name, d.text, d.beside), d.message) << d.text.substr(0, 200);
}

TEST(TokenizerFiles, TiktokenWithDamageIsRefusedByName) {
  const std::string f = "qwen.tiktoken";
  ExpectRefusals({
      {f, "IQ== 0\nIg== 1\r\n\n", "", "opened"},
      {f, "", "", f + ": it holds no token"},
      {f, "IQ==\n", "", f + ": line 1 is not a token in base64, a space and its rank"},
      {f, "IQ== 0\nIQ=! 1\n", "", f + ": token 2, 'IQ=!', is not base64"},
      {f, "IQ= 0\n", "", f + ": token 1, 'IQ=', is not base64"},
      {f, "IR== 0\n", "", f + ": token 1, 'IR==', is not base64"},
      {f, "I=== 0\n", "", f + ": token 1, 'I===', is not base64"},
      {f, "IQ== x\n", "", f + ": line 1: the rank 'x' is no whole number below 2097152"},
      {f, "IQ== -1\n", "", f + ": line 1: the rank '-1' is no whole number below 2097152"},
      {f, "IQ== 99999999999\n", "", f + ": line 1: the rank '99999999999' is no whole number below 2097152"},
      {f, "IQ== 2097152\n", "", f + ": line 1: the rank '2097152' is no whole number below 2097152"},
      {f, "IQ== 0\nIg== 0\n", "", f + ": two tokens have the id 0, the second is '\"'"},
      {f, "IQ== 0\nIQ== 1\n", "", f + ": the token '!' is there twice"},
      {f, "IQ== 0\nIg== 2\n", "", f + ": no token has the rank 1"},
      {f, std::string(4096, 'A') + " 0\n", "", f + ": token 1 has more than 1024 bytes"},
      {f, std::string(1368, 'A') + " 0\n", "", f + ": token 1 has more than 1024 bytes"},
      {"other.tiktoken", "IQ== 0\n", "",
       "other.tiktoken: no tiktoken encoding has this name, so its pattern is not known"},
  });
}

TEST(TokenizerFiles, TekkenWithDamageIsRefusedByName) {
  const std::string f = "tekken.json", config = R"({"config": {"pattern": "a+", "default_num_special_tokens": 2},)";
  const std::string specials = R"("special_tokens": [{"rank": 0, "token_str": "<s>"}], )";
  const std::string token = R"({"rank": 0, "token_bytes": "IQ==", "token_str": "\u0000"})";
  auto vocab = [&](const std::string &list) { return config + specials + "\"vocab\": " + list + "}"; };
  ExpectRefusals({
      {f, vocab("[" + token + "]"), "", "opened"},
      {f, vocab("[]"), "", f + ": it holds no token"},
      {f, vocab("{}"), "", f + ": \"vocab\" is not a list of tokens, at byte 124"},
      {f, vocab("[" + token + "," + token + "]"), "", f + ": the token '!' is there twice"},
      {f, vocab("[{\"rank\": 0}]"), "", f + ": \"vocab\" is not a list of tokens, at byte 135"},
      {f, vocab("[{\"token_bytes\": \"IQ\"}]"), "", f + ": token 0, 'IQ', is not base64"},
      {f, vocab("[" + token).substr(0, 150), "", f + ": \"vocab\" is not a list of tokens, at byte 150"},
      {f, "[]", "", f + ": it is no JSON object with a \"vocab\""},
      {f, R"({"config": {}, "vocab": []})", "", f + ": config.pattern is missing"},
      {f, R"({"config": {"pattern": "(a"}, "special_tokens": [], "vocab": [)" + token + "]}", "",
       f + ": the pattern '(a' has a ( too many, which nibble does not know"},
      {f, config + R"("special_tokens": [{"rank": 1, "token_str": "a"}], "vocab": []})", "",
       f + ": \"rank\" must be a whole number from 0 to 0"},
  });
}

TEST(TokenizerFiles, VocabJsonWithDamageIsRefusedByName) {
  const std::string f = "vocab.json", vocab = R"({"a": 0, "b": 1, "ab": 2})";
  ExpectRefusals({
      {f, vocab, "#version: 0.2\na b\n", "opened"},
      {f, vocab, "a b\r\n", "opened"},
      {f, vocab, "a  b\n", "merges.txt: line 1 is not two tokens with a space between"},
      {f, vocab, "a b\n\n", "merges.txt: line 2 is not two tokens with a space between"},
      {f, vocab, "a c\n", "merges.txt: line 1, 'a c', names a token that is not in vocab.json"},
      {f, R"({"a": 0, "b": 0})", "", f + ": two tokens have the id 0, the second is 'b'"},
      {f, R"({"a": 0, "a": 1})", "", f + ": the token 'a' is there twice"},
      {f, R"({"a": 99999999})", "", f + ": a token's id is larger than any vocabulary at byte 13"},
      {f, R"({"a": 0)", "", f + ": model.vocab is not valid JSON at byte 7"},
      {f, "\xff", "", f + ": not UTF-8 at byte 0"},
  });
}

// ---- SentencePiece's message, written by hand ----

std::string Varint(uint64_t value) {
  std::string out;
  for (; value > 127; value >>= 7) out += (char)(value | 128);
  return out + (char)value;
}

std::string Bytes(int field, const std::string &bytes) {
  return Varint((uint64_t)field << 3 | 2) + Varint(bytes.size()) + bytes;
}

std::string Number(int field, uint64_t value) { return Varint((uint64_t)field << 3) + Varint(value); }

std::string Piece(const std::string &text, float score, int type = 1) {
  std::string bits((const char *)&score, sizeof score);
  return Bytes(1, Bytes(1, text) + Varint(2 << 3 | 5) + bits + Number(3, (uint64_t)type));
}

TEST(TokenizerFiles, SentencePieceWithDamageIsRefusedByName) {
  const std::string f = "tokenizer.model", pieces = Piece("<unk>", 0, 2) + Piece("a", -1) + Piece("aa", -2);
  const std::string bpe = pieces + Bytes(2, Number(3, 2)),
                    damaged = f + ": it is no model of SentencePiece, or a damaged one";
  ExpectRefusals({
      {f, bpe, "", "opened"},
      {f, pieces, "", "opened"},
      {f, bpe + Bytes(9, "of a later version"), "", "opened"},
      {f, "", "", f + ": it holds 0 pieces; 1 to 2097152 are allowed"},
      {f, bpe.substr(0, bpe.size() - 1), "", damaged},
      {f, bpe.substr(0, 9), "", damaged},
      {f, std::string(300, '\xff'), "", damaged},
      {f, bpe + Piece("a", -3), "", f + ": the token 'a' is there twice"},
      {f, bpe + Piece("", -3), "", f + ": piece 3 is empty"},
      {f, bpe + Piece("\xff", -3), "", f + ": piece 3 is not UTF-8"},
      {f, bpe + Piece(std::string(1025, 'x'), -3), "", f + ": piece 3 has more than 1024 bytes"},
      {f, bpe + Piece("b", NAN), "", f + ": the score of piece 3 is no number"},
      {f, bpe + Piece(std::string("b\0c", 3), 0, 4), "",
       f + ": piece 3, which is a user-defined one, has a NUL character"},
      {f, bpe + Piece(std::string("b\0c", 3), 0, 3), "", f + ": piece 3, which is a special one, has a NUL character"},
      {f, pieces + Bytes(2, Number(40, 3)), "", f + ": unk_id 3 is the id of no piece"},
      {f, pieces + Bytes(2, Number(24, 1)), "", "opened"},
      {f, pieces + Bytes(2, Number(3, 3)), "", "opened"},
      {f, pieces + Bytes(2, Number(3, 5)), "", f + ": model_type 5 is none of SentencePiece's"},
      {f, pieces + Bytes(2, Bytes(45, "\xff")), "", f + ": the name of a special piece is not text"},
  });
}

// Pieces of two bytes take eighty each in memory; those of a file of 4 MiB would take more than it may.
TEST(TokenizerFiles, SentencePieceTakesMemoryInProportionToItsFile) {
  std::string many;
  for (int i = 0; i < 2 << 20; i++) many += Bytes(1, "");
  EXPECT_EQ(Refusal("tokenizer.model", many), "tokenizer.model: it is no model of SentencePiece, or a damaged one");
}

TEST(TokenizerFiles, VocabTxtWithDamageIsRefusedByName) {
  const std::string f = "vocab.txt";
  ExpectRefusals({
      {f, "[UNK]\n[CLS]\n[SEP]\na\na\n\n", "", "opened"},
      {f, "", "", f + ": it holds no token"},
      {f, "a\n\xff\n", "", f + ": not UTF-8 at byte 2"},
  });
}

// ---- folders -------------------------------------------------------------------------------------------------------

struct FolderDamage {
  std::string name, text, message;
};

TEST(TokenizerFiles, SettingsThatChangeIdsAreReadOrRefusedByName) {
  const std::string base = ReadFile(Golden("tokenizer_files/folder_gpt2_class/tokenizer.json"));
  const std::string config = "tokenizer_config.json";
  for (const FolderDamage &d : std::vector<FolderDamage>{
           {config, R"({"tokenizer_class": "MarianTokenizer"})",
            "/tokenizer_config.json: tokenizer_class 'MarianTokenizer' reads files of its own in Python, and no "
            "tokenizer.json"},
           {config, R"({"tokenizer_class": "LayoutLMv3TokenizerFast"})",
            "/tokenizer_config.json: tokenizer_class 'LayoutLMv3TokenizerFast' takes words with their boxes, and no "
            "plain text"},
           {config, R"({"tokenizer_class": "EsmcTokenizer"})",
            "/tokenizer_config.json: tokenizer_class 'EsmcTokenizer' has a vocabulary of its own, whatever the file "
            "says"},
           {config, R"({"tokenizer_class": "WhisperTokenizer", "language": "german"})",
            "/tokenizer_config.json: \"language\" is not supported with tokenizer_class 'WhisperTokenizer'"},
           {config, R"({"tokenizer_class": "BertTokenizer"})",
            "/tokenizer_config.json: tokenizer_class 'BertTokenizer' has a model of type WordPiece, the tokenizer's is "
            "BPE"},
           {config, R"({"split_special_tokens": true})",
            "/tokenizer_config.json: split_special_tokens is not supported"},
           {config, R"({"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": 3})",
            "/tokenizer_config.json: \"add_prefix_space\" must be true or false"},
           {config, R"({"added_tokens_decoder": {"9": {"content": "x", "lstrip": 1}}})",
            "/tokenizer_config.json: \"lstrip\" must be true or false"},
           {config, "[]", "/tokenizer_config.json: it is no JSON object"},
           {"added_tokens.json", "3", "/added_tokens.json: it is no JSON object"},
       }) {
    TempFolder dir;
    WriteFile(dir / "tokenizer.json", base);
    WriteFile(dir / d.name, d.text);
    nb_tokenizer *t = nullptr;
    nibble_error err = {};
    EXPECT_EQ(nb_tokenizer_open(dir.path().c_str(), &t, &err), NIBBLE_BAD_INPUT) << d.text;
    EXPECT_EQ(std::string(err.message), dir.path() + d.message);
    nb_tokenizer_close(t);
  }
  TempFolder empty;
  nb_tokenizer *t = nullptr;
  nibble_error err = {};
  EXPECT_EQ(nb_tokenizer_open(empty.path().c_str(), &t, &err), NIBBLE_BAD_INPUT);
  EXPECT_EQ(std::string(err.message), empty.path() + ": no tokenizer.json, nor another file of a tokenizer, is there");
}

}  // namespace
