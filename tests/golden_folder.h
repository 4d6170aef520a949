// A folder of tests/golden whose tensors and config a test changes, and what the program computes from such folders.
#ifndef NB_TESTS_GOLDEN_FOLDER_H
#define NB_TESTS_GOLDEN_FOLDER_H

#include <functional>

#include "tests/checkpoint_files.h"
#include "tests/golden_weights.h"

struct GoldenFolder {
  GoldenFile file;
  std::string config;

  explicit GoldenFolder(const std::string &name)
      : file(ReadSafetensors(Golden(name + "/model.safetensors"))), config(ReadFile(Golden(name + "/config.json"))) {}

  // Gives every tensor the name that `rename` makes of its own.
  void Rename(const std::function<std::string(const std::string &)> &rename) {
    std::map<std::string, GoldenTensor> renamed;
    for (auto &[name, tensor] : file.tensors) renamed[rename(name)] = std::move(tensor);
    EXPECT_EQ(renamed.size(), file.tensors.size());
    file.tensors = std::move(renamed);
  }

  // Gives the config a member, in the place of the one that it has.
  void Set(const std::string &key, const std::string &json) {
    cJSON *all = cJSON_Parse(config.c_str());
    cJSON_DeleteItemFromObjectCaseSensitive(all, key.c_str());
    cJSON_AddItemToObject(all, key.c_str(), cJSON_Parse(json.c_str()));
    char *text = cJSON_Print(all);
    config = text;
    free(text);
    cJSON_Delete(all);
  }

  std::string Save(const std::string &folder) const {
    std::string header, data;
    for (const auto &[name, t] : file.tensors) {
      std::string shape;
      for (int64_t n : t.shape) shape += (shape.empty() ? "" : ",") + std::to_string(n);
      header += (header.empty() ? "{" : ",") + Entry(name, t.dtype, shape, data.size(), data.size() + t.bytes.size());
      data += t.bytes;
    }
    std::filesystem::create_directory(folder);
    WriteFile(folder + "/model.safetensors", Safetensors(header + "}", data));
    WriteFile(folder + "/config.json", config);
    return folder;
  }
};

// The names of a folder's models, which are the folders in it.
inline std::vector<std::string> GoldenModels(const std::string &folder) {
  std::vector<std::string> names;
  for (const std::string &name : ListFolder(Golden(folder))) {
    if (std::filesystem::is_directory(Golden(folder + "/" + name))) names.push_back(folder + "/" + name);
  }
  return names;
}

// A run of `nibble logits` over the same few tokens; `out` is the file that it wrote, byte by byte.
inline CommandResult LogitsOf(const std::string &folder) {
  TempFolder dir;
  std::string config = ReadFile(folder + "/config.json"), command = "logits " + folder + " --ids 3,1,4,15,9,2,6,5,35,8";
  if (config.find("\"is_encoder_decoder\": true") != std::string::npos) command += " --decoder-ids 0,7,9,32,3";
  CommandResult r = Nibble(command + " --out " + (dir / "out"));
  r.out = r.code == 0 ? ReadFile(dir / "out") : "";
  return r;
}

inline void ExpectSameLogits(const std::string &folder, const std::string &as) {
  CommandResult got = LogitsOf(folder), want = LogitsOf(as);
  ASSERT_EQ(want.code, 0) << as << ": " << want.err;
  ASSERT_EQ(got.code, 0) << folder << ": " << got.err;
  EXPECT_TRUE(got.out == want.out) << folder << " is not computed as " << as;
}

// The tensors of two folders, byte by byte.
inline void ExpectSameTensors(const std::string &folder, const std::string &as) {
  GoldenFile got = ReadSafetensors(folder + "/model.safetensors"), want = ReadSafetensors(as + "/model.safetensors");
  ASSERT_GT(want.tensors.size(), 0u) << as;
  EXPECT_EQ(got.tensors.size(), want.tensors.size()) << folder;
  for (const auto &[name, t] : want.tensors) {
    ASSERT_TRUE(got.tensors.count(name)) << folder << ": " << name;
    EXPECT_EQ(got.tensors[name].dtype, t.dtype) << folder << ": " << name;
    EXPECT_EQ(got.tensors[name].shape, t.shape) << folder << ": " << name;
    EXPECT_TRUE(got.tensors[name].bytes == t.bytes) << folder << ": " << name;
  }
}

// A command that ends with exit 3 and names what it cannot do.
inline void ExpectRefused(const std::string &command, const std::string &name) {
  CommandResult r = Nibble(command);
  EXPECT_EQ(r.code, 3) << command << r.err;
  EXPECT_NE(r.err.find(name), std::string::npos) << command << r.err;
}

// What `nibble verify` finds of a severity ("fault", "warning", "note"), a line each.
inline std::vector<std::string> Findings(const std::string &folder, const std::string &severity) {
  std::vector<std::string> lines;
  std::istringstream all(Nibble("verify --no-certificate " + folder).out);
  for (std::string line; std::getline(all, line);) {
    if (line.rfind(severity + ": ", 0) == 0) lines.push_back(line);
  }
  return lines;
}

#endif
