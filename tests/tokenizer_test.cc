#include <gtest/gtest.h>
#include <openssl/sha.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "tests/support.h"

extern "C" {
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

}  // namespace
