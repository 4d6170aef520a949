#include <gtest/gtest.h>
#include <sys/stat.h>

#include "tests/checkpoint_files.h"
#include "tests/open_folder.h"
#include "tests/support.h"

extern "C" {
#include "convert/manifest.h"
#include "convert/sidefiles.h"
}

namespace {

const char kModel[] = "model.safetensors";

void MakeModel(const TempFolder &dir, const std::string &config) {
  WriteFile(dir / kModel, Safetensors("{" + Entry("x", "F32", "1", 0, 4) + "}", "abcd"));
  if (!config.empty()) WriteFile(dir / "config.json", config);
  for (const char *name : {"tokenizer.json", "vocab.txt", "spiece.model", "chat_template.jinja", "LICENSE", "README.md",
                           "modeling_x.py", "model.safetensors.index.json.bak", "pytorch_model.bin", "nibble.json",
                           "pytorch_model.bin.index.json", ".gitattributes", "events.out"})
    WriteFile(dir / name, name);
  std::filesystem::create_directories(dir / "1_Pooling/deeper");
  std::filesystem::create_directories(dir / "onnx");
  WriteFile(dir / "1_Pooling/config.json", "{}");
  WriteFile(dir / "1_Pooling/pytorch_model.bin", "weights");
  WriteFile(dir / "onnx/config.json", "{}");
  symlink("/nowhere/at/all", (dir / "dangling.json").c_str());
}

TEST(Sidefiles, ComeAlongWithoutWeights) {
  TempFolder dir, out;
  MakeModel(dir, R"({"model_type": "x"})");
  nb_checkpoint c;
  nibble_error err;
  ASSERT_EQ(nb_checkpoint_open(dir.path().c_str(), &c, &err), NIBBLE_OK) << err.message;
  ASSERT_EQ(nb_sidefiles_copy(&c, OpenFolder(out.path()).get(), nullptr, &err), NIBBLE_OK) << err.message;
  EXPECT_EQ(ListFolder(out.path()),
            (std::vector<std::string>{"1_Pooling", "LICENSE", "README.md", "chat_template.jinja", "modeling_x.py",
                                      "spiece.model", "tokenizer.json", "vocab.txt"}));
  EXPECT_EQ(ListFolder(out / "1_Pooling"), (std::vector<std::string>{"config.json"}));
  EXPECT_EQ(ReadFile(out / "tokenizer.json"), "tokenizer.json");
  nb_checkpoint_close(&c);
}

// A folder from a stranger may have links to anything that the reader's account can read.
TEST(Sidefiles, AreNotFollowedOutOfTheModel) {
  TempFolder dir, out;
  const std::string model = dir / "model";
  std::filesystem::create_directories(model + "/docs");
  std::filesystem::create_directory(dir / "private");
  WriteFile(dir / "private/id", "secret");
  WriteFile(dir / "private/x.json", "secret");
  WriteFile(model + "/config.json", R"({"model_type": "x"})");
  WriteFile(model + "/model.safetensors", Safetensors("{" + Entry("x", "F32", "1", 0, 4) + "}", "abcd"));
  WriteFile(model + "/docs/real.md", "text");
  symlink("../private/id", (model + "/README.md").c_str());
  symlink((dir / "private/id").c_str(), (model + "/NOTICE").c_str());
  symlink("../private", (model + "/1_Pooling").c_str());
  symlink("docs/real.md", (model + "/LICENSE").c_str());
  mkfifo((model + "/vocab.txt").c_str(), 0600);
  nb_checkpoint c;
  nibble_error err;
  std::string said;
  nibble_progress progress = {};
  progress.ctx = &said;
  progress.warning = [](void *ctx, const char *message) { *(std::string *)ctx += message; };
  ASSERT_EQ(nb_checkpoint_open(model.c_str(), &c, &err), NIBBLE_OK) << err.message;
  ASSERT_EQ(nb_sidefiles_copy(&c, OpenFolder(out.path()).get(), &progress, &err), NIBBLE_OK) << err.message;
  nb_checkpoint_close(&c);
  EXPECT_EQ(ListFolder(out.path()), std::vector<std::string>{"LICENSE"});
  EXPECT_EQ(ReadFile(out / "LICENSE"), "text");
  for (const char *name : {"README.md", "NOTICE", "1_Pooling"})
    EXPECT_NE(said.find(std::string(name) + ": a link to outside of the model"), std::string::npos) << said;
}

// snapshots/REVISION/file -> ../../blobs/HASH
TEST(Sidefiles, OfAHubsCacheAreFollowedToItsBlobs) {
  TempFolder dir, out;
  const std::string model = dir / "models--a--b/snapshots/1234";
  std::filesystem::create_directories(model + "/1_Pooling");
  std::filesystem::create_directories(dir / "models--a--b/blobs");
  WriteFile(dir / "models--a--b/blobs/aa", "tokenizer");
  WriteFile(dir / "models--a--b/refs", "1234");
  WriteFile(model + "/config.json", R"({"model_type": "x"})");
  WriteFile(model + "/model.safetensors", Safetensors("{" + Entry("x", "F32", "1", 0, 4) + "}", "abcd"));
  symlink("../../blobs/aa", (model + "/tokenizer.json").c_str());
  symlink("../../../blobs/aa", (model + "/1_Pooling/config.json").c_str());
  symlink("../../refs", (model + "/README.md").c_str());
  nb_checkpoint c;
  nibble_error err;
  ASSERT_EQ(nb_checkpoint_open(model.c_str(), &c, &err), NIBBLE_OK) << err.message;
  ASSERT_EQ(nb_sidefiles_copy(&c, OpenFolder(out.path()).get(), nullptr, &err), NIBBLE_OK) << err.message;
  nb_checkpoint_close(&c);
  EXPECT_EQ(ListFolder(out.path()), (std::vector<std::string>{"1_Pooling", "tokenizer.json"}));
  EXPECT_EQ(ReadFile(out / "1_Pooling/config.json"), "tokenizer");
}

TEST(Sidefiles, StayWhereNoConfigSaysThatTheyBelongToTheModel) {
  TempFolder dir, out;
  MakeModel(dir, "");
  nb_checkpoint c;
  nibble_error err;
  ASSERT_EQ(nb_checkpoint_open((dir / kModel).c_str(), &c, &err), NIBBLE_OK) << err.message;
  ASSERT_EQ(nb_sidefiles_copy(&c, OpenFolder(out.path()).get(), nullptr, &err), NIBBLE_OK);
  ASSERT_EQ(nb_config_save(&c.config, nullptr, OpenFolder(out.path()).get(), &err), NIBBLE_OK);
  EXPECT_TRUE(ListFolder(out.path()).empty());
  nb_checkpoint_close(&c);
}

// The config.json that becomes of `text`.
std::string Saved(const std::string &text, const char *changes) {
  TempFolder dir, out;
  MakeModel(dir, text);
  nb_checkpoint c;
  nibble_error err;
  EXPECT_EQ(nb_checkpoint_open(dir.path().c_str(), &c, &err), NIBBLE_OK) << err.message;
  cJSON *json = cJSON_Parse(changes);
  EXPECT_EQ(nb_config_save(&c.config, json, OpenFolder(out.path()).get(), &err), NIBBLE_OK) << err.message;
  cJSON_Delete(json);
  nb_checkpoint_close(&c);
  return ReadFile(out / "config.json");
}

TEST(ConfigSave, ChangesWhatItIsToldAndKeepsEveryOtherByte) {
  EXPECT_EQ(
      Saved(
          R"({"model_type": "x",  "torch_dtype": "float32", "cap": 30.0, "quantization_config": {}, "k": [1, Infinity]})",
          R"({"dtype": "bfloat16", "quantization_config": null, "new": 7})"),
      R"({"model_type": "x",  "torch_dtype": "bfloat16", "cap": 30.0, "k": [1, Infinity], "new": 7})");
  const std::string untouched = "{\"model_type\": \"x\",\r\n\t\"limit\":9223372036854775807, \"eps\" :1E-5}\r\n\r\n";
  EXPECT_EQ(Saved(untouched, "{}"), untouched);
}

TEST(ConfigSave, WritesTheDtypeUnderEveryKeyThatItHas) {
  const char changes[] = R"({"dtype": "bfloat16"})";
  EXPECT_EQ(Saved(R"({"model_type": "x", "dtype": "float32", "torch_dtype": "float16"})", changes),
            R"({"model_type": "x", "dtype": "bfloat16", "torch_dtype": "bfloat16"})");
  EXPECT_EQ(Saved(R"({"model_type": "x", "dtype": "float32"})", changes),
            R"({"model_type": "x", "dtype": "bfloat16"})");
  EXPECT_EQ(Saved(R"({"model_type": "x", "hidden": 1})", changes),
            R"({"model_type": "x", "hidden": 1, "dtype": "bfloat16"})");
}

TEST(Manifest, NamesTheSourceAndItsHashes) {
  TempFolder dir, out;
  MakeModel(dir, R"({"model_type": "x"})");
  nb_checkpoint c;
  nibble_error err;
  ASSERT_EQ(nb_checkpoint_open((dir.path() + "//").c_str(), &c, &err), NIBBLE_OK) << err.message;
  nb_manifest *m;
  ASSERT_EQ(nb_manifest_begin("convert", &c, &m, &err), NIBBLE_OK);
  cJSON_AddStringToObject(nb_manifest_settings(m), "dtype", "keep");
  char hash[NB_HASH_CHARS];
  nb_tensor_hash(&c, &c.tensors[0], hash, nullptr);
  EXPECT_STREQ(hash, "8d6b60383dfa90c21be79eecd1b1353d"); /* printf abcd | xxhsum -H2 */
  ASSERT_EQ(nb_manifest_add(m, "x", hash, cJSON_Parse(R"({"method": "nf4", "error": 0.5})"), &err), NIBBLE_OK);
  ASSERT_EQ(nb_manifest_save(m, OpenFolder(out.path()).get(), &err), NIBBLE_OK);
  nb_manifest_free(m);
  std::string text = ReadFile(out / "nibble.json");
  EXPECT_NE(text.find("\"name\": \"" + dir.path().substr(5) + "\""), std::string::npos) << text;
  EXPECT_NE(text.find("\"source_xxh3_128\": \"8d6b60383dfa90c21be79eecd1b1353d\",\n      \"method\": \"nf4\","),
            std::string::npos)
      << text;
  nb_checkpoint_close(&c);
}

}  // namespace
