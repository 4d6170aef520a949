// A tokenizer of a few tokens, made from JSON in a test.
#ifndef NB_TESTS_TOKENIZER_SMALL_TOKENIZER_H
#define NB_TESTS_TOKENIZER_SMALL_TOKENIZER_H

#include <gtest/gtest.h>

#include <string>
#include <vector>

extern "C" {
#include "tokenizer/spec.h"
#include "tokenizer/tokenizer.h"
}

class SmallTokenizer {
 public:
  explicit SmallTokenizer(const std::string &json) {
    nibble_error err = {};
    EXPECT_EQ(nb_tokenizer_parse("it", json.data(), json.size(), &t_, &err), NIBBLE_OK) << err.message;
  }
  ~SmallTokenizer() { nb_tokenizer_close(t_); }
  SmallTokenizer(const SmallTokenizer &) = delete;
  SmallTokenizer &operator=(const SmallTokenizer &) = delete;

  std::vector<int32_t> Encode(const std::string &text) const {
    std::string message;
    std::vector<int32_t> ids = Run(text, &message);
    EXPECT_EQ(message, "") << text.substr(0, 100);
    return ids;
  }

  // The message of a text that it refuses as bad input.
  std::string EncodeError(const std::string &text) const {
    std::string message;
    Run(text, &message);
    return message;
  }

  std::string Decode(const std::vector<int32_t> &ids, int flags = 0) const {
    nb_buf text = {};
    nibble_error err = {};
    EXPECT_EQ(nb_tokenizer_decode(t_, ids.data(), ids.size(), flags, &text, &err), NIBBLE_OK) << err.message;
    std::string out(text.data ? text.data : "", text.length);
    nb_buf_free(&text);
    return out;
  }

  nb_tokenizer *get() const { return t_; }

 private:
  std::vector<int32_t> Run(const std::string &text, std::string *message) const {
    nb_ids ids = {};
    nibble_error err = {};
    if (!t_) return {};
    nibble_status status = nb_tokenizer_encode(t_, text.data(), text.size(), NB_ADD_SPECIAL, &ids, &err);
    if (status != NIBBLE_OK) *message = status == NIBBLE_BAD_INPUT ? err.message : "another status";
    std::vector<int32_t> out(ids.data, ids.data + ids.length);
    nb_ids_free(&ids);
    return out;
  }

  nb_tokenizer *t_ = nullptr;
};

// The message of JSON that is refused as bad input; "" if it is not.
inline std::string Refusal(const std::string &json) {
  nb_tokenizer *t = nullptr;
  nibble_error err = {};
  nibble_status status = nb_tokenizer_parse("it", json.data(), json.size(), &t, &err);
  nb_tokenizer_close(t);
  return status == NIBBLE_OK ? "" : status == NIBBLE_BAD_INPUT ? err.message : "another status";
}

#endif
