/* Checkpoints that torch and transformers wrote (scripts/golden/make_checkpoints.py), read back bit by bit. */
#include <gtest/gtest.h>

#include <cstring>

#include "tests/open_folder.h"
#include "tests/support.h"

extern "C" {
#include <cjson/cJSON.h>

#include "convert/checkpoint.h"
#include "convert/sinks/safetensors.h"
}

namespace {

std::string FromHex(const char *hex) {
  std::string bytes;
  for (; hex[0] && hex[1]; hex += 2) bytes += (char)std::stoi(std::string(hex, 2), nullptr, 16);
  return bytes;
}

class Expected {
 public:
  Expected() : json_(cJSON_Parse(ReadFile(Golden("checkpoints/expected.json")).c_str())) {}
  ~Expected() { cJSON_Delete(json_); }
  const cJSON *File(const char *name) const {
    const cJSON *file = cJSON_GetObjectItem(cJSON_GetObjectItem(json_, "files"), name);
    const cJSON *same = cJSON_GetObjectItem(file, "same_as");
    return same ? File(same->valuestring) : file;
  }

 private:
  cJSON *json_;
};

class TorchGolden : public testing::TestWithParam<const char *> {};

TEST_P(TorchGolden, IsReadBitForBit) {
  Expected expected;
  const cJSON *file = expected.File(GetParam());
  ASSERT_NE(file, nullptr);
  nb_checkpoint c;
  nibble_error err;
  ASSERT_EQ(nb_checkpoint_open(Golden(std::string("checkpoints/") + GetParam()).c_str(), &c, &err), NIBBLE_OK)
      << err.message;
  EXPECT_EQ((int)c.tensor_count, cJSON_GetArraySize(file));
  for (const cJSON *want = file->child; want; want = want->next) {
    const nb_tensor *t = nb_checkpoint_find(&c, want->string);
    ASSERT_NE(t, nullptr) << want->string;
    EXPECT_STREQ(nb_dtype_torch_name(t->dtype), cJSON_GetObjectItem(want, "dtype")->valuestring) << want->string;
    const cJSON *shape = cJSON_GetObjectItem(want, "shape");
    ASSERT_EQ(t->ndim, cJSON_GetArraySize(shape)) << want->string;
    for (int d = 0; d < t->ndim; d++) EXPECT_EQ(t->shape[d], cJSON_GetArrayItem(shape, d)->valuedouble);
    std::string bytes = FromHex(cJSON_GetObjectItem(want, "hex")->valuestring);
    size_t size = nb_dtype_size(t->dtype);
    ASSERT_EQ(bytes.size(), (size_t)t->count * size) << want->string;
    std::string got(bytes.size(), 0);
    ASSERT_EQ(nb_tensor_read(&c, t, nb_span{0, t->count}, t->dtype, got.data(), &err), NIBBLE_OK) << err.message;
    EXPECT_EQ(got, bytes) << want->string;
    for (int64_t i = 0; i < t->count; i++) { /* and from any element on */
      std::string rest((size_t)(t->count - i) * size, 0);
      ASSERT_EQ(nb_tensor_read(&c, t, nb_span{i, t->count - i}, t->dtype, rest.data(), &err), NIBBLE_OK);
      ASSERT_EQ(rest, bytes.substr((size_t)i * size)) << want->string << " from element " << i;
      if (t->count > 100) break;
    }
  }
  nb_checkpoint_close(&c);
}

INSTANTIATE_TEST_SUITE_P(Files, TorchGolden,
                         testing::Values("dtypes.bin", "views.bin", "module.bin", "protocol4.bin", "sharded_bin",
                                         "dtypes.safetensors", "sharded"),
                         [](const auto &info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '.', '_');
                           return name;
                         });

TEST(Torch, CountsWhatIsNoTensor) {
  nb_checkpoint c;
  nibble_error err;
  ASSERT_EQ(nb_checkpoint_open(Golden("checkpoints/views.bin").c_str(), &c, &err), NIBBLE_OK) << err.message;
  EXPECT_EQ(c.skipped_values, 5u); /* step, name, nothing, rates, nested */
  EXPECT_STREQ(c.kind, "pytorch");
  EXPECT_EQ(nb_tensor_view(&c, nb_checkpoint_find(&c, "transposed")), nullptr);
  EXPECT_EQ(nb_tensor_view(&c, nb_checkpoint_find(&c, "embed")), nb_tensor_view(&c, nb_checkpoint_find(&c, "tied")));
  nb_checkpoint_close(&c);
}

TEST(Torch, NamesTheOldFormatWhenItRefusesIt) {
  nb_checkpoint c;
  nibble_error err;
  EXPECT_EQ(nb_checkpoint_open(Golden("checkpoints/legacy.bin").c_str(), &c, &err), NIBBLE_BAD_INPUT);
  EXPECT_NE(strstr(err.message, "before version 1.6"), nullptr) << err.message;
}

TEST(Writer, MatchesTransformersShardsByteForByte) {
  Expected expected;
  const cJSON *file = expected.File("sharded");
  TempFolder out;
  OpenFolder folder(out.path());
  nb_writer *w;
  nibble_error err;
  ASSERT_EQ(nb_writer_open(folder.get(), 6000, &w, &err), NIBBLE_OK);
  auto each = [&](auto fn) {
    size_t i = 0;
    for (const cJSON *t = file->child; t; t = t->next) {
      std::vector<int64_t> shape;
      for (const cJSON *d = cJSON_GetObjectItem(t, "shape")->child; d; d = d->next) shape.push_back(d->valueint);
      fn(i++, t->string, shape, FromHex(cJSON_GetObjectItem(t, "hex")->valuestring));
    }
  };
  each([&](size_t, const char *name, const std::vector<int64_t> &shape, const std::string &) {
    ASSERT_EQ(nb_writer_declare(w, name, NB_BF16, shape.data(), (int)shape.size(), &err), NIBBLE_OK) << err.message;
  });
  each([&](size_t i, const char *, const std::vector<int64_t> &, const std::string &bytes) {
    ASSERT_EQ(nb_writer_begin(w, i, (int64_t)bytes.size() / 2, &err), NIBBLE_OK) << err.message;
    ASSERT_EQ(nb_writer_write(w, i, 0, bytes.data(), bytes.size(), &err), NIBBLE_OK) << err.message;
  });
  ASSERT_EQ(nb_writer_finish(w, &err), NIBBLE_OK) << err.message;
  nb_writer_close(w);
  for (const char *name : {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"})
    EXPECT_TRUE(ReadFile(out / name) == ReadFile(Golden(std::string("checkpoints/sharded/") + name))) << name;
}

}  // namespace
