// The vocabularies that llama.cpp keeps for its own tests: a GGUF file without tensors, texts beside it, and the ids
// that the models' own tokenizers gave for them. scripts/get-llama-cpp fetches them; without them there is nothing to
// test.
#include <gtest/gtest.h>

#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "tests/support.h"

extern "C" {
#include "convert/tokenizer_open.h"
}

namespace {

std::string Folder() {
  const char *own = getenv("NIBBLE_CACHE"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
  std::string cache = own ? own : xdg ? std::string(xdg) + "/nibble" : std::string(home ? home : "") + "/.cache/nibble";
  return cache + "/llama-cpp-0.3.36/source/vendor/llama.cpp/models";
}

std::vector<std::string> Split(const std::string &text, const std::string &by) {
  std::vector<std::string> parts;
  size_t begin = 0;
  for (size_t end; (end = text.find(by, begin)) != std::string::npos; begin = end + by.size())
    parts.push_back(text.substr(begin, end - begin));
  if (begin < text.size()) parts.push_back(text.substr(begin));  // not every file ends with the separator
  return parts;
}

std::string Encode(nb_tokenizer *t, const std::string &text) {
  nb_ids ids = {};
  nibble_error err;
  EXPECT_EQ(nb_tokenizer_encode(t, text.data(), text.size(), 0, &ids, &err), NIBBLE_OK) << err.message;
  std::string out;
  for (size_t i = 0; i < ids.length; i++) out += " " + std::to_string(ids.data[i]);
  nb_ids_free(&ids);
  return out;
}

TEST(RealModelGgufVocabs, GiveTheIdsOfLlamaCppsTests) {
  int files = 0;
  if (!std::filesystem::exists(Folder())) GTEST_SKIP() << "skipped: scripts/get-llama-cpp has not run";
  for (const auto &entry : std::filesystem::directory_iterator(Folder())) {
    std::string path = entry.path().string();
    if (entry.path().extension() != ".gguf" || !std::filesystem::exists(path + ".inp")) continue;
    SCOPED_TRACE(entry.path().filename().string());
    files++;
    nb_tokenizer *t = nullptr;
    nibble_error err;
    EXPECT_EQ(nb_tokenizer_open(path.c_str(), &t, &err), NIBBLE_OK) << err.message;
    if (!t) continue;
    std::vector<std::string> texts = Split(ReadFile(path + ".inp"), "\n__ggml_vocab_test__\n");
    std::vector<std::string> ids = Split(ReadFile(path + ".out"), "\n");
    EXPECT_EQ(texts.size(), ids.size());  // both end with an empty one
    for (size_t i = 0; i + 1 < texts.size() && i < ids.size(); i++) {
      std::string want;
      int id;
      for (std::istringstream numbers(ids[i]); numbers >> id;) want += " " + std::to_string(id);
      EXPECT_EQ(Encode(t, texts[i]), want) << "text " << i << ": " << texts[i];
    }
    nb_tokenizer_close(t);
  }
  EXPECT_EQ(files, 15);
}

}  // namespace
