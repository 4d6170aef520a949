// The chat templates of real models over a corpus of conversations: the text is what transformers' apply_chat_template
// makes, or both refuse. tests/golden/chat/real.json has conversations and hashes (scripts/golden/make_real_chat.py);
// the templates are other people's and are read from llama.cpp's source, where scripts/get-llama-cpp puts it.
#include <gtest/gtest.h>
#include <openssl/sha.h>

#include <ctime>
#include <string>

#include "tests/support.h"

extern "C" {
#include "runner/conversation.h"
}

namespace {

// "" if it is not there.
std::string TemplatesFolder() {
  const char *set = getenv("NIBBLE_CACHE"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
  std::string caches = xdg ? xdg : std::string(home ? home : "") + "/.cache";
  std::string path = (set ? set : caches + "/nibble") + "/llama-cpp-0.3.36/source/vendor/llama.cpp/models/templates";
  return std::filesystem::exists(path) ? path : "";
}

std::string Sha256(const std::string &bytes) {
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256((const unsigned char *)bytes.data(), bytes.size(), digest);
  std::string hex;
  for (unsigned char byte : digest) {
    char two[3];
    snprintf(two, sizeof two, "%02x", byte);
    hex += two;
  }
  return hex;
}

// The hash of what a template makes of a conversation, or "fails".
std::string Made(const nb_chat_template &chat, const cJSON *conversation, bool add_prompt, std::string *text) {
  nb_buf out = {};
  nibble_error err = {};
  nibble_status status = nb_conversation_render(conversation, &chat, add_prompt, &out, &err);
  EXPECT_TRUE(status == NIBBLE_OK || status == NIBBLE_BAD_INPUT) << err.message;
  *text = status == NIBBLE_OK ? std::string(out.data ? out.data : "", out.length) : err.message;
  nb_buf_free(&out);
  return status == NIBBLE_OK ? Sha256(*text).substr(0, 16) : "fails";
}

TEST(RealTemplates, MakeWhatTransformersMakes) {
  const std::string folder = TemplatesFolder();
  if (folder.empty()) GTEST_SKIP() << "no llama.cpp (scripts/get-llama-cpp)";
  cJSON *golden = nullptr;
  nibble_error err = {};
  ASSERT_EQ(nb_json_load(Golden("chat/real.json").c_str(), &golden, &err), NIBBLE_OK) << err.message;
  struct tm now = {};
  ASSERT_TRUE(strptime(cJSON_GetObjectItem(golden, "now")->valuestring, "%Y-%m-%dT%H:%M:%S", &now));
  now.tm_isdst = -1;
  mktime(&now);
  int templates = 0, made = 0;
  const cJSON *item;
  cJSON_ArrayForEach(item, cJSON_GetObjectItem(golden, "templates")) {
    const std::string text = ReadFile(folder + "/" + item->string);
    ASSERT_EQ(Sha256(text), cJSON_GetObjectItem(item, "sha256")->valuestring) << item->string;
    nb_chat_template chat = {};
    ASSERT_EQ(nb_template_parse(item->string, text.data(), text.size(), &chat.text, &err), NIBBLE_OK) << err.message;
    chat.tokens = cJSON_GetObjectItem(golden, "tokens");
    chat.now = &now;
    templates++;
    int i = 0;
    const cJSON *conversation;
    cJSON_ArrayForEach(conversation, cJSON_GetObjectItem(golden, "conversations")) {
      cJSON *without_name = cJSON_Duplicate(conversation, true);
      cJSON_DeleteItemFromObject(without_name, "name");
      for (bool add_prompt : {false, true}) {
        std::string said;
        const char *want = cJSON_GetArrayItem(cJSON_GetObjectItem(item, "outputs"), i++)->valuestring;
        EXPECT_EQ(Made(chat, without_name, add_prompt, &said), want)
            << item->string << ", " << cJSON_GetObjectItem(conversation, "name")->valuestring << ":\n"
            << said;
        made += strcmp(want, "fails") != 0;
      }
      cJSON_Delete(without_name);
    }
    nb_template_free(chat.text);
  }
  cJSON_Delete(golden);
  EXPECT_GE(templates, 30);
  EXPECT_GT(made, 2000);
}

}  // namespace
