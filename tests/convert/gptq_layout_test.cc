// GPTQ's layout against weights packed by GPTQModel 7.7.0; scripts/golden/make_gptq.py made them.
#include <gtest/gtest.h>

#include <cstring>

#include "tests/checkpoint_files.h"
#include "tests/support.h"

extern "C" {
#include "convert/layouts.h"
#include "kernels/gptq.h"
}

namespace {

const int64_t kIn = 96, kOut = 32;

// A folder with the golden file of a version and a config that says so.
class GoldenGptq : public testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    bool v2 = GetParam() == 2;
    std::string file = v2 ? "gptqmodel-7.7.0/gptq_v2.safetensors" : "gptqmodel-7.7.0/gptq_v1.safetensors";
    WriteFile(folder_ / "model.safetensors", ReadFile(Golden(file)));
    WriteFile(folder_ / "config.json",
              std::string(R"({"model_type": "unknown", "quantization_config": {"quant_method": "gptq", "bits": 4,)") +
                  R"( "group_size": 32, "checkpoint_format": ")" + (v2 ? "gptq_v2" : "gptq") + "\"}}");
    nibble_error err;
    ASSERT_EQ(nb_checkpoint_open(folder_.path().c_str(), &checkpoint_, &err), NIBBLE_OK) << err.message;
    for (size_t i = 0; i < checkpoint_.tensor_count; i++) {
      std::string name = checkpoint_.tensors[i].name;
      size_t at = name.rfind(".qweight");
      if (at != std::string::npos) modules_.push_back(name.substr(0, at));
    }
    ASSERT_EQ(modules_.size(), 48u);
  }
  void TearDown() override { nb_checkpoint_close(&checkpoint_); }

  template <typename T>
  const T *Data(const std::string &name) const {
    return (const T *)nb_tensor_view(&checkpoint_, nb_checkpoint_find(&checkpoint_, name.c_str()));
  }

  TempFolder folder_;
  nb_checkpoint checkpoint_ = {};
  std::vector<std::string> modules_;
};

TEST_P(GoldenGptq, IsReadAsItsCodesScalesAndZeroPoints) {
  for (const std::string &module : modules_) {
    nb_weight weight;
    nibble_error err;
    ASSERT_EQ(nb_weight_load(&checkpoint_, (module + ".weight").c_str(), kOut, kIn, &weight, &err), NIBBLE_OK)
        << err.message;
    const nb_packed &m = weight.packed;
    ASSERT_EQ(nb_format_info(m.format)->bits, module[1] - '0') << module;
    EXPECT_EQ(m.g_idx != nullptr, module.find("_act") != std::string::npos && m.groups > 1) << module;
    const uint8_t *codes = Data<uint8_t>(module + ".codes"), *zeros = Data<uint8_t>(module + ".zeros");
    const int32_t *g_idx = Data<int32_t>(module + ".g_idx");
    const uint16_t *scales = Data<uint16_t>(module + ".scales");
    std::vector<float> got(kOut * kIn);
    nb_format_info(m.format)->dequantize({&m, 0, kOut, 0, kIn}, got.data(), kIn);
    for (int64_t i = 0; i < kOut * kIn; i++) {
      int64_t at = g_idx[i % kIn] * kOut + i / kIn;
      float want = nb_f16_to_f32(scales[at]) * (float)(codes[i] - zeros[at]);
      ASSERT_EQ(got[i], want) << module << " row " << i / kIn << " column " << i % kIn;
    }
    nb_weight_free(&weight);
  }
}

TEST_P(GoldenGptq, IsPackedToTheSameWords) {
  for (const std::string &module : modules_) {
    int bits = module[1] - '0';
    const nb_tensor *qweight = nb_checkpoint_find(&checkpoint_, (module + ".qweight").c_str());
    const nb_tensor *qzeros = nb_checkpoint_find(&checkpoint_, (module + ".qzeros").c_str());
    std::vector<uint32_t> words(qweight->count, 0xdeadbeef), zero_words(qzeros->count, 0xdeadbeef);
    const uint8_t *codes = Data<uint8_t>(module + ".codes");
    const nb_gptq_codes first = {codes, 7, kIn, bits}, others = {codes + 7 * kIn, kOut - 7, kIn, bits};
    nb_gptq_pack(&first, words.data(), kOut);
    nb_gptq_pack(&others, words.data() + 7, kOut);
    EXPECT_EQ(memcmp(words.data(), nb_tensor_view(&checkpoint_, qweight), qweight->bytes), 0) << module;
    for (int64_t g = 0; g < qzeros->shape[0]; g++) {
      nb_gptq_pack_zeros(Data<uint8_t>(module + ".zeros") + g * kOut, kOut, bits, GetParam() == 1,
                         zero_words.data() + g * qzeros->shape[1]);
    }
    EXPECT_EQ(memcmp(zero_words.data(), nb_tensor_view(&checkpoint_, qzeros), qzeros->bytes), 0) << module;
  }
}

TEST_P(GoldenGptq, HasThePartsThatTheLayoutNames) {
  for (const std::string &module : modules_) {
    nb_packed m;
    nibble_error err;
    const nb_tensor *main = nb_checkpoint_find_weight(&checkpoint_, (module + ".weight").c_str());
    ASSERT_EQ(nb_layout_describe(&checkpoint_, main, &m, nullptr, &err), NIBBLE_OK) << err.message;
    nb_part parts[NB_MAX_PARTS];
    int count = nb_layout_parts(&m, NB_F16, (module + ".weight").c_str(), parts);
    ASSERT_EQ(count, 4);
    int64_t bytes = 0;
    for (int i = 0; i < count; i++) {
      const nb_tensor *t = nb_checkpoint_find(&checkpoint_, parts[i].name);
      ASSERT_NE(t, nullptr) << parts[i].name;
      EXPECT_EQ(t->dtype, parts[i].dtype) << parts[i].name;
      ASSERT_EQ(t->ndim, parts[i].ndim) << parts[i].name;
      for (int d = 0; d < t->ndim; d++) EXPECT_EQ(t->shape[d], parts[i].shape[d]) << parts[i].name;
      EXPECT_EQ(t->is_part, i > 0) << parts[i].name;
      bytes += (int64_t)t->bytes;
    }
    EXPECT_EQ(nb_packed_bytes(&m), bytes) << module;
    nb_layout_parts_free(parts, count);
  }
}

INSTANTIATE_TEST_SUITE_P(Versions, GoldenGptq, testing::Values(1, 2));

// One 4-bit module, in 64, out 32, group 32, with one part replaced.
std::string DamagedError(const std::string &part, const std::string &dtype, const std::string &shape,
                         const std::string &data) {
  struct Part {
    std::string name, dtype, shape, data;
  };
  std::vector<int32_t> g_idx;
  for (int i = 0; i < 64; i++) g_idx.push_back(i / 32);
  std::vector<Part> parts = {{"a.g_idx", "I32", "64", Bytes(g_idx)},
                             {"a.qweight", "I32", "8,32", std::string(1024, '\1')},
                             {"a.qzeros", "I32", "2,4", std::string(32, '\0')},
                             {"a.scales", "F16", "2,32", std::string(128, '\1')}};
  std::string header = "{", all;
  for (Part &p : parts) {
    if (p.name == part) p = {part, dtype, shape, data};
    if (p.dtype.empty()) continue;
    header += (all.empty() ? "" : ",") + Entry(p.name, p.dtype, p.shape, all.size(), all.size() + p.data.size());
    all += p.data;
  }
  TempFolder folder;
  WriteFile(folder / "model.safetensors", Safetensors(header + "}", all));
  WriteFile(folder / "config.json", R"({"model_type": "unknown", "quantization_config": {"quant_method": "gptq"}})");
  nb_checkpoint c;
  nibble_error err = {};
  nb_weight weight;
  nibble_status status = nb_checkpoint_open(folder.path().c_str(), &c, &err);
  if (status == NIBBLE_OK) status = nb_weight_load(&c, "a.weight", 32, 64, &weight, &err);
  std::string message = status == NIBBLE_OK ? "" : err.message;
  if (status == NIBBLE_OK) {
    nb_weight_free(&weight);
  } else {
    EXPECT_EQ(status, NIBBLE_BAD_INPUT);
  }
  nb_checkpoint_close(&c);
  return message;
}

bool Names(const std::string &message, const std::string &what) { return message.find(what) != std::string::npos; }

TEST(GptqLayout, RefusesPartsThatDisagreeByName) {
  EXPECT_EQ(DamagedError("", "", "", ""), "");
  EXPECT_TRUE(Names(DamagedError("a.scales", "", "", ""), "'a.qweight' is packed, but its 'scales' is missing"));
  EXPECT_TRUE(Names(DamagedError("a.qzeros", "", "", ""), "its 'qzeros' is missing"));
  EXPECT_TRUE(Names(DamagedError("a.g_idx", "", "", ""), "its 'g_idx' is missing"));
  EXPECT_TRUE(Names(DamagedError("a.qzeros", "I32", "2,3", std::string(24, '\0')), "tensor 'a.qzeros'"));
  EXPECT_TRUE(Names(DamagedError("a.qzeros", "I32", "1,4", std::string(16, '\0')), "tensor 'a.qzeros'"));
  EXPECT_TRUE(Names(DamagedError("a.qzeros", "I64", "2,4", std::string(64, '\0')), "tensor 'a.qzeros'"));
  EXPECT_TRUE(Names(DamagedError("a.scales", "F16", "2,31", std::string(124, '\1')), "tensor 'a.scales'"));
  EXPECT_TRUE(Names(DamagedError("a.scales", "I32", "2,32", std::string(256, '\1')), "tensor 'a.scales'"));
  EXPECT_TRUE(Names(DamagedError("a.qweight", "I32", "7,32", std::string(896, '\1')), "'a.qweight' has 7 rows"));
  EXPECT_TRUE(Names(DamagedError("a.qweight", "I32", "256", std::string(1024, '\1')), "tensor 'a.qweight'"));
}

TEST(GptqLayout, RefusesGroupsOutOfRangeAndScalesThatAreNotFinite) {
  std::vector<int32_t> g_idx(64, 0);
  g_idx[7] = 2;
  EXPECT_TRUE(Names(DamagedError("a.g_idx", "I32", "64", Bytes(g_idx)), "'a.g_idx' names group 2 at index 7"));
  g_idx[7] = -1;
  EXPECT_TRUE(Names(DamagedError("a.g_idx", "I32", "64", Bytes(g_idx)), "names group -1 at index 7"));
  std::string scales(128, '\1');
  scales[10] = 0, scales[11] = 0x7c;
  EXPECT_TRUE(Names(DamagedError("a.scales", "F16", "2,32", scales), "'a.scales' is not finite at index 5"));
}

// Columns that fill no word, bit by bit; words beside those of the rows packed stay as they are.
TEST(GptqLayout, PacksRaggedColumnsAsAStreamOfBits) {
  const int64_t rows = 5, cols = 77, stride = 9;
  for (int bits : {2, 3, 4, 8}) {
    std::vector<uint8_t> codes(rows * cols);
    for (size_t i = 0; i < codes.size(); i++) codes[i] = (uint8_t)(i * 7 + i / 13) & ((1 << bits) - 1);
    int64_t n = nb_gptq_words(cols, bits);
    std::vector<uint32_t> words(n * stride, 0xdeadbeef), wanted = words;
    for (int64_t r = 0; r < rows; r++) {
      for (int64_t w = 0; w < n; w++) wanted[w * stride + 2 + r] = 0;
      for (int64_t bit = 0; bit < cols * bits; bit++)
        wanted[bit / 32 * stride + 2 + r] |= (uint32_t)(codes[r * cols + bit / bits] >> bit % bits & 1) << bit % 32;
    }
    const nb_gptq_codes packed = {codes.data(), rows, cols, bits};
    nb_gptq_pack(&packed, words.data() + 2, stride);
    EXPECT_EQ(words, wanted) << bits;
  }
}

}  // namespace
