#include <gtest/gtest.h>
#include <openssl/sha.h>
#include <zlib.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "tests/support.h"

extern "C" {
#include <cjson/cJSON.h>

#include "runner/text.h"
#include "runner/tokenizer.h"
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

std::string ReadText(const std::string &path) {
  nb_buf text = {};
  nibble_error err;
  EXPECT_EQ(nb_text_read(path.c_str(), &text, &err), NIBBLE_OK) << err.message;
  std::string out(text.data ? text.data : "", text.length);
  nb_buf_free(&text);
  return out;
}

struct DeleteJson {
  void operator()(cJSON *json) const { cJSON_Delete(json); }
};
using Json = std::unique_ptr<cJSON, DeleteJson>;

Json Parse(const std::string &text) { return Json(cJSON_ParseWithLength(text.data(), text.size())); }

const cJSON *Get(const cJSON *json, const char *key) { return cJSON_GetObjectItemCaseSensitive(json, key); }

std::vector<std::string> Lines(const std::string &text) {
  std::vector<std::string> lines;
  size_t begin = 0;
  for (size_t end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1)
    lines.push_back(text.substr(begin, end - begin));
  lines.push_back(text.substr(begin));
  return lines;
}

// The base's JSON with what the case changes.
std::string Patched(const std::string &base, const cJSON *patch) {
  Json root = Parse(base);
  for (const cJSON *change = patch->child; change; change = change->next) {
    if (std::string(change->string) != "model") {
      cJSON_ReplaceItemInObjectCaseSensitive(root.get(), change->string, cJSON_Duplicate(change, true));
      continue;
    }
    cJSON *model = cJSON_GetObjectItemCaseSensitive(root.get(), "model");
    for (const cJSON *field = change->child; field; field = field->next)
      cJSON_ReplaceItemInObjectCaseSensitive(model, field->string, cJSON_Duplicate(field, true));
  }
  char *text = cJSON_PrintUnformatted(root.get());
  std::string out = text;
  cJSON_free(text);
  return out;
}

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

}  // namespace
