// Golden data of tokenizers: a base, which is a tokenizer.json, and cases, which are patches of it and what comes out.
#ifndef NB_TESTS_TOKENIZER_GOLDEN_CASES_H
#define NB_TESTS_TOKENIZER_GOLDEN_CASES_H

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/json.h"

extern "C" {
#include "model/json.h"
#include "runner/text.h"
}

inline std::string ReadText(const std::string &path) {
  nb_buf text = {};
  nibble_error err;
  EXPECT_EQ(nb_text_read(path.c_str(), &text, &err), NIBBLE_OK) << err.message;
  std::string out(text.data ? text.data : "", text.length);
  nb_buf_free(&text);
  return out;
}

inline Json Parse(const std::string &text) { return Json(cJSON_ParseWithLength(text.data(), text.size())); }

inline std::vector<std::string> Lines(const std::string &text) {
  std::vector<std::string> lines;
  size_t begin = 0;
  for (size_t end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1)
    lines.push_back(text.substr(begin, end - begin));
  lines.push_back(text.substr(begin));
  return lines;
}

// The base's JSON with what the case changes. Numbers keep their spelling, by which scores are read to the last bit.
inline std::string Patched(const std::string &base, const cJSON *patch) {
  cJSON *parsed = nullptr;
  nibble_error err;
  EXPECT_EQ(nb_json_parse("base", base.data(), base.size(), &parsed, &err), NIBBLE_OK) << err.message;
  Json root(parsed);
  for (const cJSON *change = patch->child; change; change = change->next) {
    if (std::string(change->string) != "model") {
      cJSON_ReplaceItemInObjectCaseSensitive(root.get(), change->string, cJSON_Duplicate(change, true));
      continue;
    }
    cJSON *model = cJSON_GetObjectItemCaseSensitive(root.get(), "model");
    for (const cJSON *field = change->child; field; field = field->next)
      cJSON_ReplaceItemInObjectCaseSensitive(model, field->string, cJSON_Duplicate(field, true));
  }
  nb_buf text = {};
  nb_json_put(&text, root.get(), &nb_json_indented);
  std::string out = text.data;
  nb_buf_free(&text);
  return out;
}

#endif
