// What a Hugging Face folder gets besides the weights when it is made from a GGUF file.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/gguf_files.h"
#include "tests/open_folder.h"
#include "tests/support.h"

extern "C" {
#include "convert/gguf.h"
#include "convert/sidefiles.h"
#include "convert/tokenizer_open.h"
#include "model/json.h"
}

namespace {

struct Json {
  cJSON *root = nullptr;
  explicit Json(const std::string &text) {
    nibble_error err;
    EXPECT_EQ(nb_json_parse("json", text.data(), text.size(), &root, &err), NIBBLE_OK) << err.message << "\n" << text;
  }
  ~Json() { cJSON_Delete(root); }
  std::string Part(const std::vector<std::string> &path) const {
    const cJSON *at = root;
    for (const auto &key : path) at = cJSON_GetObjectItemCaseSensitive(at, key.c_str());
    char *text = at ? cJSON_PrintUnformatted(at) : nullptr;
    std::string out = text ? text : "(absent)";
    cJSON_free(text);
    return out;
  }
};

// tokenizer.json of a file's bytes; the message if there is none.
std::string Tokenizer(const std::string &bytes, nibble_status *status = nullptr) {
  nb_mapfile map = {(const uint8_t *)bytes.data(), bytes.size()};
  nb_checkpoint c = {};
  nibble_error err = {};
  EXPECT_EQ(nb_gguf_parse("m.gguf", &map, &c.gguf, &err), NIBBLE_OK) << err.message;
  nb_buf out = {};
  nibble_status result = nb_gguf_tokenizer_json(&c, &out, &err);
  std::string text = result == NIBBLE_OK ? std::string(out.data, out.length) : err.message;
  if (status) *status = result;
  nb_buf_free(&out);
  nb_gguf_free(c.gguf);
  return text;
}

GgufFile ByteLevel(const std::string &pre) {
  GgufFile f;
  f.Set("tokenizer.ggml.model", TextValue("gpt2"))
      .Set("tokenizer.ggml.pre", TextValue(pre))
      .Set("tokenizer.ggml.tokens", TextsValue({"<s>", "<tag>", "a", "b", "ab", "\n\"\\\x01"}))
      .Set("tokenizer.ggml.token_type", NumbersValue<int32_t>(5, {3, 4, 1, 1, 1, 1}))
      .Set("tokenizer.ggml.merges", TextsValue({"a b"}))
      .Set("tokenizer.ggml.bos_token_id", U32Value(0))
      .Set("tokenizer.ggml.eos_token_id", U32Value(1));
  return f;
}

TEST(GgufTokenizer, SmollmSplitsDigitsOneByOne) {
  Json json(Tokenizer(ByteLevel("smollm").Build()));
  EXPECT_EQ(json.Part({"pre_tokenizer"}),
            R"({"type":"Sequence","pretokenizers":[{"type":"Digits","individual_digits":true},)"
            R"({"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true}]})");
  EXPECT_EQ(json.Part({"model", "vocab"}), "{\"<s>\":0,\"<tag>\":1,\"a\":2,\"b\":3,\"ab\":4,\"\\n\\\"\\\\\\u0001\":5}");
  EXPECT_EQ(json.Part({"model", "merges"}), R"([["a","b"]])");
  EXPECT_EQ(json.Part({"added_tokens"}),
            R"([{"id":0,"content":"<s>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,)"
            R"("special":true},{"id":1,"content":"<tag>","single_word":false,"lstrip":false,"rstrip":false,)"
            R"("normalized":false,"special":false}])");
  EXPECT_EQ(json.Part({"post_processor", "single"}), R"([{"Sequence":{"id":"A","type_id":0}}])");
}

TEST(GgufTokenizer, AddsBeginAndEndWhereTheFileSaysSo) {
  GgufFile f = ByteLevel("llama-bpe");
  Json by_default(Tokenizer(f.Build()));
  EXPECT_EQ(by_default.Part({"post_processor", "single"}),
            R"([{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}])");
  EXPECT_EQ(by_default.Part({"post_processor", "special_tokens"}),
            R"({"<s>":{"id":"<s>","ids":[0],"tokens":["<s>"]}})");
  EXPECT_EQ(by_default.Part({"model", "ignore_merges"}), "true");
  f.Set("tokenizer.ggml.add_bos_token", BoolValue(false)).Set("tokenizer.ggml.add_eos_token", BoolValue(true));
  Json said(Tokenizer(f.Build()));
  EXPECT_EQ(said.Part({"post_processor", "single"}),
            R"([{"Sequence":{"id":"A","type_id":0}},{"SpecialToken":{"id":"<tag>","type_id":0}}])");
}

// What the metadata describe is opened without a tokenizer.json in between, and gives the ids of the one written.
TEST(GgufTokenizer, GivesTheIdsOfTheTokenizerJsonThatItBecomes) {
  const std::string files[] = {ReadFile(Golden("gguf/tiny.gguf")), ReadFile(Golden("gguf/spm.gguf")),
                               ByteLevel("llama-bpe").Build(), ByteLevel("default").Build()};
  std::string text = ReadFile(Golden("tokenizer/hard.txt")) + " a b ab<tag>ab<s>";
  for (const std::string &bytes : files) {
    nb_mapfile map = {(const uint8_t *)bytes.data(), bytes.size()};
    nb_gguf *gguf = nullptr;
    nb_tokenizer_spec spec;
    nb_tokenizer *direct = nullptr, *written = nullptr;
    nibble_error err = {};
    ASSERT_EQ(nb_gguf_parse("m.gguf", &map, &gguf, &err), NIBBLE_OK) << err.message;
    ASSERT_EQ(nb_gguf_tokenizer(gguf, &spec, &err), NIBBLE_OK) << err.message;
    ASSERT_EQ(nb_tokenizer_make("m.gguf", &spec, &direct, &err), NIBBLE_OK) << err.message;
    nb_tokenizer_spec_free(&spec);
    nb_gguf_free(gguf);
    std::string json = Tokenizer(bytes);
    ASSERT_EQ(nb_tokenizer_parse("written", json.data(), json.size(), &written, &err), NIBBLE_OK) << err.message;
    nb_ids a = {}, b = {};
    EXPECT_EQ(nb_tokenizer_encode(direct, text.data(), text.size(), NB_ADD_SPECIAL, &a, &err), NIBBLE_OK);
    EXPECT_EQ(nb_tokenizer_encode(written, text.data(), text.size(), NB_ADD_SPECIAL, &b, &err), NIBBLE_OK);
    EXPECT_GT(a.length, 4u);
    EXPECT_EQ(std::vector<int32_t>(a.data, a.data + a.length), std::vector<int32_t>(b.data, b.data + b.length));
    nb_ids_free(&a);
    nb_ids_free(&b);
    nb_tokenizer_close(direct);
    nb_tokenizer_close(written);
  }
}

TEST(GgufTokenizer, DerivesSentencePieceMergesAsTransformersDoes) {
  Json json(Tokenizer(ReadFile(Golden("gguf/spm.gguf")))), golden(ReadFile(Golden("gguf/spm_merges.json")));
  EXPECT_EQ(json.Part({"model", "merges"}), golden.Part({"merges"}));
  EXPECT_EQ(json.Part({"model", "byte_fallback"}), "true");
  EXPECT_EQ(json.Part({"model", "unk_token"}), "\"<unk>\"");
  EXPECT_EQ(json.Part({"post_processor", "single"}),
            R"([{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}])");
}

TEST(GgufTokenizer, RefusesWhatItCannotConvert) {
  struct Case {
    const char *key;
    std::string value, fault;
  };
  const Case cases[] = {
      {"tokenizer.ggml.model", TextValue("rwkv"), "kind 'rwkv'"},
      {"tokenizer.ggml.model", TextValue("llama"), "scores"},
      {"tokenizer.ggml.pre", TextValue("new-one"), "'new-one' is not known"},
      {"tokenizer.ggml.tokens", TextsValue({}), "no tokenizer"},
      {"tokenizer.ggml.tokens", TextsValue({"a", "a"}), "twice"},
      {"tokenizer.ggml.tokens", TextsValue({"a\xff"}), "UTF-8"},
      {"tokenizer.ggml.tokens", U32Value(3), "array of strings"},
      {"tokenizer.ggml.token_type", NumbersValue<int32_t>(5, {1}), "each of the 6 tokens"},
      {"tokenizer.ggml.merges", TextsValue({"a c"}), "merge 0, 'a c'"},
      {"tokenizer.ggml.merges", TextsValue({"ab"}), "merge 0, 'ab'"},
      {"tokenizer.ggml.merges", TextsValue({"b a"}), "merge 0, 'b a'"},
      {"tokenizer.ggml.bos_token_id", U32Value(6), "bos_token_id"},
      {"tokenizer.ggml.tokens", TextsValue({std::string("<s\0>", 4), "<tag>", "a", "b", "ab", "x"}), "token 0"},
  };
  for (const Case &c : cases) {
    GgufFile f = ByteLevel("smollm");
    if (c.fault == "scores") f.metadata.erase(f.metadata.begin() + 4);  // without merges, scores must be there
    nibble_status status;
    std::string message = Tokenizer(f.Set(c.key, c.value).Build(), &status);
    EXPECT_EQ(status, NIBBLE_BAD_INPUT) << c.fault;
    EXPECT_NE(message.find(c.fault), std::string::npos) << message << "\nexpected: " << c.fault;
  }
  EXPECT_NE(Tokenizer(TinyLlama().Build()).find("no tokenizer"), std::string::npos);
}

TEST(GgufSidefiles, AreMadeFromTheMetadata) {
  TempFolder out;
  nb_checkpoint c;
  nibble_error err;
  ASSERT_EQ(nb_checkpoint_open(Golden("gguf/tiny.gguf").c_str(), &c, &err), NIBBLE_OK) << err.message;
  ASSERT_EQ(nb_sidefiles_copy(&c, OpenFolder(out.path()).get(), nullptr, &err), NIBBLE_OK) << err.message;
  nb_checkpoint_close(&c);
  EXPECT_EQ(ListFolder(out.path()),
            (std::vector<std::string>{"chat_template.jinja", "generation_config.json", "special_tokens_map.json",
                                      "tokenizer.json", "tokenizer_config.json"}));
  EXPECT_EQ(ReadFile(out / "chat_template.jinja"), "{{ messages[0]['content'] }}");
  Json generation(ReadFile(out / "generation_config.json")), config(ReadFile(out / "tokenizer_config.json"));
  EXPECT_EQ(generation.Part({"eos_token_id"}), "0");
  EXPECT_EQ(config.Part({"bos_token"}), "\"<|end|>\"");
  EXPECT_EQ(config.Part({"model_max_length"}), "128");
}

TEST(GgufSidefiles, WarnOfATokenizerThatIsNotConverted) {
  TempFolder dir, out;
  WriteFile(dir / "m.gguf", TinyLlama().Set("tokenizer.ggml.model", TextValue("rwkv")).Build());
  nb_checkpoint c;
  nibble_error err;
  std::string warning;
  nibble_progress progress = {};
  progress.ctx = &warning;
  progress.warning = [](void *ctx, const char *message) { *(std::string *)ctx += message; };
  ASSERT_EQ(nb_checkpoint_open((dir / "m.gguf").c_str(), &c, &err), NIBBLE_OK) << err.message;
  EXPECT_EQ(nb_sidefiles_copy(&c, OpenFolder(out.path()).get(), &progress, &err), NIBBLE_OK) << err.message;
  nb_checkpoint_close(&c);
  EXPECT_NE(warning.find("kind 'rwkv'"), std::string::npos) << warning;
  EXPECT_EQ(ListFolder(out.path()), (std::vector<std::string>{"generation_config.json"}));
}

TEST(GgufSidefiles, RefuseAFamilyWithoutNames) {
  TempFolder dir, out;
  WriteFile(dir / "m.gguf", TinyLlama().Set("general.architecture", TextValue("mamba")).Build());
  nb_checkpoint c;
  nibble_error err;
  ASSERT_EQ(nb_checkpoint_open((dir / "m.gguf").c_str(), &c, &err), NIBBLE_OK) << err.message;
  EXPECT_STREQ(c.config.model_type, "gguf-mamba");
  EXPECT_EQ(nb_sidefiles_copy(&c, OpenFolder(out.path()).get(), nullptr, &err), NIBBLE_BAD_INPUT);
  EXPECT_TRUE(ListFolder(out.path()).empty());
  nb_checkpoint_close(&c);
}

}  // namespace
