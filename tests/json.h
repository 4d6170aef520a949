// A JSON tree that goes away, and its members.
#ifndef NB_TESTS_JSON_H
#define NB_TESTS_JSON_H

#include <memory>

extern "C" {
#include <cjson/cJSON.h>
}

struct DeleteJson {
  void operator()(cJSON *json) const { cJSON_Delete(json); }
};
using Json = std::unique_ptr<cJSON, DeleteJson>;

inline const cJSON *Get(const cJSON *json, const char *key) { return cJSON_GetObjectItemCaseSensitive(json, key); }

#endif
