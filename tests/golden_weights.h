// The weights of tests/golden/bnb-0.50.2, and a reader of safetensors files that shares nothing with the one under
// test.
#ifndef NB_TESTS_GOLDEN_WEIGHTS_H
#define NB_TESTS_GOLDEN_WEIGHTS_H

#include <cjson/cJSON.h>
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "tests/made_weights.h"
#include "tests/support.h"

struct GoldenTensor {
  std::string dtype, bytes;
  std::vector<int64_t> shape;
};

struct GoldenFile {
  std::map<std::string, GoldenTensor> tensors;
  std::map<std::string, std::string> metadata;
};

inline GoldenFile ReadSafetensors(const std::string &path) {
  GoldenFile file;
  std::string all = ReadFile(path);
  uint64_t header = 0;
  if (all.size() < 8) return file;
  memcpy(&header, all.data(), 8);
  cJSON *json = cJSON_ParseWithLength(all.data() + 8, header);
  for (const cJSON *item = json ? json->child : nullptr; item; item = item->next) {
    if (std::string(item->string) == "__metadata__") {
      for (const cJSON *m = item->child; m; m = m->next) file.metadata[m->string] = m->valuestring;
      continue;
    }
    GoldenTensor &t = file.tensors[item->string];
    t.dtype = cJSON_GetObjectItem(item, "dtype")->valuestring;
    const cJSON *e;
    cJSON_ArrayForEach(e, cJSON_GetObjectItem(item, "shape")) t.shape.push_back((int64_t)e->valuedouble);
    const cJSON *at = cJSON_GetObjectItem(item, "data_offsets");
    size_t begin = (size_t)cJSON_GetArrayItem(at, 0)->valuedouble, end = (size_t)cJSON_GetArrayItem(at, 1)->valuedouble;
    t.bytes = all.substr(8 + header + begin, end - begin);
  }
  cJSON_Delete(json);
  return file;
}

#endif
