// Reading packed weights: files that bitsandbytes made, and files that nobody should have made.
#include <gtest/gtest.h>
#include <zlib.h>

#include <cmath>
#include <string>
#include <vector>

#include "tests/checkpoint_files.h"
#include "tests/golden_weights.h"

extern "C" {
#include "convert/layouts.h"
#include "convert/source.h"
}

namespace {

class Checkpoint {
 public:
  explicit Checkpoint(const std::string &path) { status = nb_checkpoint_open(path.c_str(), &c, &err); }
  ~Checkpoint() { nb_checkpoint_close(&c); }
  nb_checkpoint c = {};
  nibble_error err = {};
  nibble_status status;
};

int64_t Int(const cJSON *json, const char *key) { return (int64_t)cJSON_GetObjectItem(json, key)->valuedouble; }

std::vector<float> Dequantize(const nb_packed &m) {
  std::vector<float> out((size_t)(m.rows * m.cols));
  nb_format_info(m.format)->dequantize(nb_whole(&m), out.data(), m.cols);
  return out;
}

void ExpectReadsGolden(const std::string &method) {
  std::string path = Golden("bnb-0.50.2/" + method + ".safetensors");
  GoldenFile file = ReadSafetensors(path);
  Checkpoint checkpoint(path);
  ASSERT_EQ(checkpoint.status, NIBBLE_OK) << checkpoint.err.message;
  cJSON *cases = cJSON_Parse(file.metadata.at("cases").c_str());
  const cJSON *row;
  int seen = 0;
  cJSON_ArrayForEach(row, cases) {
    std::string name = std::string(cJSON_GetObjectItem(row, "name")->valuestring) + ".weight";
    SCOPED_TRACE(method + " " + name);
    nb_weight w;
    nibble_error err;
    int64_t rows = Int(row, "rows"), cols = Int(row, "cols");
    ASSERT_EQ(nb_weight_load(&checkpoint.c, name.c_str(), rows, cols, &w, &err), NIBBLE_OK) << err.message;
    EXPECT_EQ(w.packed.rows, rows);
    EXPECT_EQ(w.packed.cols, cols);
    if (method == "int8") {
      std::vector<float> got = Dequantize(w.packed);
      const int8_t *codes = (const int8_t *)file.tensors.at(name).bytes.data();
      const float *scb = (const float *)w.packed.scale.data;
      for (size_t i = 0; i < got.size(); i++)
        ASSERT_FLOAT_EQ(got[i], (float)codes[i] * scb[i / (size_t)cols] / 127) << i;
    } else {
      EXPECT_STREQ(nb_dtype_torch_name(w.source_dtype), cJSON_GetObjectItem(row, "dtype")->valuestring);
      EXPECT_EQ(w.packed.scale.block_cols, Int(row, "block_size"));
      std::string bytes = Bytes(Dequantize(w.packed));
      EXPECT_EQ((int64_t)crc32(0, (const Bytef *)bytes.data(), (uInt)bytes.size()), Int(row, "dequantized_crc32"));
      nb_buf state = {};
      nb_layout_state_json(&w.packed, w.source_dtype, &state);
      std::string type = method.substr(0, 3);
      EXPECT_EQ(std::string(state.data, state.length),
                file.tensors.at(name + ".quant_state.bitsandbytes__" + type).bytes);
      nb_buf_free(&state);
    }
    nb_part parts[NB_MAX_PARTS];
    int count = nb_layout_parts(&w.packed, w.source_dtype, name.c_str(), parts);
    for (int i = 0; i < count; i++) {
      const nb_tensor *t = nb_checkpoint_find(&checkpoint.c, parts[i].name);
      ASSERT_NE(t, nullptr) << parts[i].name;
      EXPECT_EQ(t->is_part, i > 0) << parts[i].name;
      EXPECT_EQ(t->dtype, parts[i].dtype) << parts[i].name;
      EXPECT_EQ(t->ndim, parts[i].ndim) << parts[i].name;
      if (parts[i].role == NB_PART_STATE)
        EXPECT_LE(t->count, parts[i].shape[0]);
      else
        for (int d = 0; d < t->ndim; d++) EXPECT_EQ(t->shape[d], parts[i].shape[d]) << parts[i].name;
    }
    nb_layout_parts_free(parts, count);
    nb_weight_free(&w);
    seen++;
  }
  cJSON_Delete(cases);
  EXPECT_GE(seen, 12);
}

TEST(BitsandbytesFiles, AreReadAsBitsandbytesReadsThem) {
  for (const char *method : {"nf4", "fp4", "nf4-double", "fp4-double", "int8"}) ExpectReadsGolden(method);
}

// A file put together tensor by tensor, in the order given.
struct Builder {
  std::string header = "{\"__metadata__\":{\"format\":\"pt\"}", data;
  Builder &Add(const std::string &name, const std::string &dtype, const std::string &shape, const std::string &bytes) {
    header += "," + Entry(name, dtype, shape, data.size(), data.size() + bytes.size());
    data += bytes;
    return *this;
  }
  std::string Write(const TempFolder &folder) const {
    std::string path = folder / "m.safetensors";
    WriteFile(path, Safetensors(header + "}", data));
    return path;
  }
};

const float kMap[16] = {-1, -.7f, -.5f, -.4f, -.3f, -.2f, -.1f, 0, .1f, .2f, .3f, .4f, .5f, .6f, .7f, 1};
std::string Map() { return std::string((const char *)kMap, sizeof kMap); }
const char kState[] = R"({"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [3, 5]})";
std::string Count(const std::string &s) { return std::to_string(s.size()); }
const char kStateName[] = "a.weight.quant_state.bitsandbytes__nf4";
const std::string kCodes("\x01\x23\x45\x67\x89\xab\xcd\xe7", 8);

TEST(PackedWeight, IsReadWhereItLiesUnaligned) {
  TempFolder folder;
  Builder b;
  b.Add("x", "U8", "1", "x")
      .Add("a.weight.absmax", "F32", "1", Bytes(std::vector<float>{2}))
      .Add("a.weight.quant_map", "F32", "16", Map())
      .Add("a.weight", "U8", "8,1", kCodes)
      .Add(kStateName, "U8", Count(kState), kState);
  Checkpoint checkpoint(b.Write(folder));
  ASSERT_EQ(checkpoint.status, NIBBLE_OK) << checkpoint.err.message;
  nb_weight w;
  nibble_error err;
  ASSERT_EQ(nb_weight_load(&checkpoint.c, "a.weight", 3, 5, &w, &err), NIBBLE_OK) << err.message;
  std::vector<float> got = Dequantize(w.packed);
  for (int i = 0; i < 15; i++) EXPECT_FLOAT_EQ(got[(size_t)i], 2 * kMap[i]) << i;
  nb_weight_free(&w);
}

TEST(PackedWeight, MayLieUnderAnotherStorageDtype) {
  TempFolder folder;
  Builder b;
  b.Add("a.weight", "BF16", "4,1", kCodes)
      .Add("a.weight.absmax", "F32", "1", Bytes(std::vector<float>{2}))
      .Add("a.weight.quant_map", "F32", "16", Map())
      .Add(kStateName, "U8", Count(kState), kState);
  Checkpoint checkpoint(b.Write(folder));
  ASSERT_EQ(checkpoint.status, NIBBLE_OK) << checkpoint.err.message;
  nb_weight w;
  nibble_error err;
  ASSERT_EQ(nb_weight_load(&checkpoint.c, "a.weight", 3, 5, &w, &err), NIBBLE_OK) << err.message;
  EXPECT_FLOAT_EQ(Dequantize(w.packed)[1], 2 * kMap[1]);
  nb_weight_free(&w);
}

// Each damage makes opening, or else loading, fail with one line that names the file, a tensor and the fault.
void ExpectRefused(const Builder &b, int64_t rows, int64_t cols, const std::string &fault) {
  TempFolder folder;
  Checkpoint checkpoint(b.Write(folder));
  nb_weight w = {};
  nibble_error err = checkpoint.err;
  nibble_status status = checkpoint.status;
  if (status == NIBBLE_OK) status = nb_weight_load(&checkpoint.c, "a.weight", rows, cols, &w, &err);
  EXPECT_EQ(status, NIBBLE_BAD_INPUT) << fault;
  EXPECT_NE(std::string(err.message).find(fault), std::string::npos) << err.message;
  EXPECT_NE(std::string(err.message).find("m.safetensors: tensor 'a."), std::string::npos) << err.message;
  nb_weight_free(&w);
}

TEST(PackedWeight, RefusesDamage4bit) {
  std::string one = Bytes(std::vector<float>{1}), nan = Bytes(std::vector<float>{NAN});
  std::string state = kState;
  auto base = [&](const std::string &absmax_dtype, const std::string &absmax_shape, const std::string &absmax) {
    Builder b;
    b.Add("a.weight", "U8", "8,1", kCodes).Add("a.weight.absmax", absmax_dtype, absmax_shape, absmax);
    return b;
  };
  Builder good = base("F32", "1", one);
  good.Add("a.weight.quant_map", "F32", "16", Map()).Add(kStateName, "U8", Count(kState), kState);
  ExpectRefused(good, 5, 3, "the config asks for [5, 3]");

  Builder no_state = base("F32", "1", one);
  no_state.Add("a.weight.quant_map", "F32", "16", Map());
  ExpectRefused(no_state, 3, 5, "quant_state");

  Builder no_map = base("F32", "1", one);
  no_map.Add(kStateName, "U8", Count(kState), kState);
  ExpectRefused(no_map, 3, 5, "'.quant_map' is missing");

  Builder short_map = base("F32", "1", one);
  short_map.Add("a.weight.quant_map", "F32", "15", Map().substr(4)).Add(kStateName, "U8", Count(kState), kState);
  ExpectRefused(short_map, 3, 5, "15 elements");

  Builder bad_scale = base("F32", "1", nan);
  bad_scale.Add("a.weight.quant_map", "F32", "16", Map()).Add(kStateName, "U8", Count(kState), kState);
  ExpectRefused(bad_scale, 3, 5, "not finite at index 0");

  Builder half_scale = base("F16", "1", "12");
  half_scale.Add("a.weight.quant_map", "F32", "16", Map()).Add(kStateName, "U8", Count(kState), kState);
  ExpectRefused(half_scale, 3, 5, "F16");

  Builder too_many = base("F32", "2", one + one);
  too_many.Add("a.weight.quant_map", "F32", "16", Map()).Add(kStateName, "U8", Count(kState), kState);
  ExpectRefused(too_many, 3, 5, "2 elements");

  Builder few_codes;
  few_codes.Add("a.weight", "U8", "7,1", kCodes.substr(1))
      .Add("a.weight.absmax", "F32", "1", one)
      .Add("a.weight.quant_map", "F32", "16", Map())
      .Add(kStateName, "U8", Count(kState), kState);
  ExpectRefused(few_codes, 3, 5, "has 7 bytes");

  Builder wrong_name = base("F32", "1", one);
  wrong_name.Add("a.weight.quant_map", "F32", "16", Map())
      .Add("a.weight.quant_state.bitsandbytes__fp4", "U8", Count(kState), kState);
  ExpectRefused(wrong_name, 3, 5, "quant_type");

  Builder no_json = base("F32", "1", one);
  no_json.Add("a.weight.quant_map", "F32", "16", Map()).Add(kStateName, "U8", "2", "{x");
  ExpectRefused(no_json, 3, 5, "not valid JSON");

  Builder nested = base("F32", "1", one); /* a state that says double quantization over float32 scales */
  state.insert(state.size() - 1, R"(, "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.5)");
  nested.Add("a.weight.quant_map", "F32", "16", Map()).Add(kStateName, "U8", Count(state), state);
  ExpectRefused(nested, 3, 5, "not 1 of U8");

  Builder no_nested = base("U8", "1", "x");
  no_nested.Add("a.weight.quant_map", "F32", "16", Map()).Add(kStateName, "U8", Count(state), state);
  ExpectRefused(no_nested, 3, 5, "'.nested_absmax' is missing");
}

TEST(PackedWeight, RefusesDamageInt8) {
  std::string scales = Bytes(std::vector<float>{1, 2}), codes = "abcdef";
  Builder no_scale;
  no_scale.Add("a.weight", "I8", "2,3", codes);
  ExpectRefused(no_scale, 2, 3, "'SCB' is missing");
  Builder bad_scale;
  bad_scale.Add("a.weight", "I8", "2,3", codes).Add("a.SCB", "F32", "2", Bytes(std::vector<float>{1, INFINITY}));
  ExpectRefused(bad_scale, 2, 3, "not finite at index 1");
  Builder short_scale;
  short_scale.Add("a.weight", "I8", "2,3", codes).Add("a.SCB", "F32", "1", Bytes(std::vector<float>{1}));
  ExpectRefused(short_scale, 2, 3, "1 elements");
  Builder old;
  old.Add("a.weight", "I8", "2,3", codes).Add("a.SCB", "F32", "2", scales).Add("a.weight_format", "U8", "", "\2");
  ExpectRefused(old, 2, 3, "row-major");
  ExpectRefused(old, 3, 2, "row-major");
}

TEST(PlainWeight, IsCopiedOnlyIfUnaligned) {
  TempFolder folder;
  Builder b;
  b.Add("one", "U8", "1", "x").Add("a.weight", "F32", "1,2", Bytes(std::vector<float>{1.5, -2}));
  Checkpoint checkpoint(b.Write(folder));
  ASSERT_EQ(checkpoint.status, NIBBLE_OK) << checkpoint.err.message;
  nb_weight w;
  nibble_error err;
  ASSERT_EQ(nb_weight_load(&checkpoint.c, "a.weight", 1, 2, &w, &err), NIBBLE_OK) << err.message;
  EXPECT_EQ(w.packed.format, NB_FORMAT_F32);
  EXPECT_EQ((uintptr_t)w.packed.codes % 4, 0u);
  EXPECT_EQ(Dequantize(w.packed), (std::vector<float>{1.5, -2}));
  nb_weight_free(&w);
  EXPECT_EQ(nb_weight_load(&checkpoint.c, "b.weight", 1, 2, &w, &err), NIBBLE_BAD_INPUT);
  EXPECT_EQ(nb_weight_load(&checkpoint.c, "a.weight", 2, 1, &w, &err), NIBBLE_BAD_INPUT);
  EXPECT_EQ(nb_weight_load(&checkpoint.c, "one", 1, 1, &w, &err), NIBBLE_BAD_INPUT);
}

}  // namespace
