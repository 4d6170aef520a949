// Every family that has a golden model (scripts/golden/make_tiny_models.py, make_families.py), through the whole job:
// what transformers computes, what bitsandbytes packs, and back.
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/golden_weights.h"
#include "tests/support.h"

extern "C" {
#include "convert/layouts.h"
#include "kernels/cpu/isa.h"
#include "runner/session.h"
}

namespace {

// The golden models in a folder: those with outputs beside them.
std::vector<std::string> Names(const std::string &folder) {
  std::vector<std::string> names;
  for (const auto &entry : std::filesystem::directory_iterator(Golden(folder))) {
    std::string name = entry.path().filename();
    if (entry.is_directory() && std::filesystem::exists(Golden(folder + "/" + name + ".safetensors")))
      names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::string TestName(const testing::TestParamInfo<std::string> &info) {
  std::string name = info.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

template <typename T>
std::vector<T> Values(const GoldenTensor &t) {
  std::vector<T> out(t.bytes.size() / sizeof(T));
  memcpy(out.data(), t.bytes.data(), t.bytes.size());
  return out;
}

double Difference(const std::vector<float> &got, const std::vector<float> &want) {
  EXPECT_EQ(got.size(), want.size());
  double difference = 0, largest = 0;
  for (size_t i = 0; i < std::min(got.size(), want.size()); i++) {
    difference = std::max(difference, std::isnan(got[i]) ? INFINITY : std::fabs((double)got[i] - want[i]));
    largest = std::max(largest, std::fabs((double)want[i]));
  }
  return difference / largest;
}

std::string Ids(const std::vector<int32_t> &ids) {
  std::string text;
  for (int32_t id : ids) text += (text.empty() ? "" : ",") + std::to_string(id);
  return text;
}

// What `nibble logits` writes for the golden file's ids.
std::vector<float> Logits(const std::string &model, GoldenFile &golden, std::string *tensor) {
  TempFolder dir;
  std::string command = "logits " + model + " --ids " + Ids(Values<int32_t>(golden.tensors["ids"])) + " --out " +
                        (dir / "out.safetensors");
  if (golden.tensors.count("decoder_ids"))
    command += " --decoder-ids " + Ids(Values<int32_t>(golden.tensors["decoder_ids"]));
  CommandResult result = Nibble(command);
  EXPECT_EQ(result.code, 0) << result.err;
  if (result.code != 0) return {};
  GoldenFile out = ReadSafetensors((dir / "out.safetensors"));
  *tensor = out.tensors.begin()->first;
  return Values<float>(out.tensors.begin()->second);
}

const char *Output(GoldenFile &golden) {
  return golden.tensors.count("last_hidden_state") ? "last_hidden_state" : "logits";
}

class Family : public testing::TestWithParam<std::string> {};

TEST_P(Family, GivesTheOutputsOfTransformers) {
  GoldenFile golden = ReadSafetensors(Golden("tiny/" + GetParam() + ".safetensors"));
  std::string tensor;
  std::vector<float> got = Logits(Golden("tiny/" + GetParam()), golden, &tensor);
  EXPECT_EQ(tensor, Output(golden));
  EXPECT_LT(Difference(got, Values<float>(golden.tensors[Output(golden)])), 1e-4);
}

TEST_P(Family, PassesVerifyAndComesThroughConvertUnchanged) {
  TempFolder dir;
  std::string model = Golden("tiny/" + GetParam()), copy = (dir / "copy");
  CommandResult verified = Nibble("verify " + model);
  EXPECT_EQ(verified.code, 0) << verified.out << verified.err;
  CommandResult converted = Nibble("convert " + model + " " + copy);
  ASSERT_EQ(converted.code, 0) << converted.err;
  GoldenFile before = ReadSafetensors(model + "/model.safetensors"),
             after = ReadSafetensors(copy + "/model.safetensors");
  ASSERT_EQ(before.tensors.size(), after.tensors.size());
  for (auto &[name, tensor] : before.tensors) {
    EXPECT_EQ(tensor.shape, after.tensors[name].shape) << name;
    EXPECT_EQ(tensor.bytes, after.tensors[name].bytes) << name;
  }
  for (const char *command : {"inspect ", "memory "}) {
    CommandResult result = Nibble(command + model);
    EXPECT_EQ(result.code, 0) << command << result.err;
  }
}

INSTANTIATE_TEST_SUITE_P(Families, Family, testing::ValuesIn(Names("tiny")), TestName);

class Artifact : public testing::TestWithParam<std::string> {
 protected:
  // "t5-gated-bf16-nf4": of model t5-gated-bf16, by method nf4.
  std::string Model() const { return GetParam().substr(0, GetParam().rfind('-')); }
  std::string Method() const { return GetParam().substr(GetParam().rfind('-') + 1); }
};

TEST_P(Artifact, IsWhatTransformersSavesByteForByte) {
  TempFolder dir;
  std::string out = (dir / "out");
  CommandResult result = Nibble("quantize " + Golden("tiny/" + Model()) + " " + out + " --method " + Method());
  ASSERT_EQ(result.code, 0) << result.err;
  GoldenFile want = ReadSafetensors(Golden("families-bnb/" + GetParam() + "/model.safetensors"));
  GoldenFile got = ReadSafetensors(out + "/model.safetensors");
  EXPECT_EQ(got.tensors.size(), want.tensors.size());
  for (auto &[name, tensor] : want.tensors) {
    ASSERT_TRUE(got.tensors.count(name)) << name;
    EXPECT_EQ(got.tensors[name].dtype, tensor.dtype) << name;
    EXPECT_EQ(got.tensors[name].shape, tensor.shape) << name;
    EXPECT_EQ(got.tensors[name].bytes, tensor.bytes) << name;
  }
  CommandResult verified = Nibble("verify " + out + " --against " + Golden("tiny/" + Model()));
  EXPECT_EQ(verified.code, 0) << verified.out << verified.err;
}

TEST_P(Artifact, GivesTheOutputsOfItsDequantizedWeights) {
  GoldenFile golden = ReadSafetensors(Golden("families-bnb/" + GetParam() + ".safetensors"));
  std::string tensor;
  std::vector<float> got = Logits(Golden("families-bnb/" + GetParam()), golden, &tensor);
  EXPECT_EQ(tensor, Output(golden));
  EXPECT_LT(Difference(got, Values<float>(golden.tensors[Output(golden)])), 1e-4);
}

// Back to plain weights that lie as the family's do: transformers gives the same for them.
TEST_P(Artifact, ComesBackAsPlainWeightsOfItsFamily) {
  TempFolder dir;
  std::string out = (dir / "out");
  CommandResult result =
      Nibble("convert " + Golden("families-bnb/" + GetParam()) + " " + out + " --dequantize --dtype float32");
  ASSERT_EQ(result.code, 0) << result.err;
  GoldenFile plain = ReadSafetensors(out + "/model.safetensors");
  GoldenFile model = ReadSafetensors(Golden("tiny/" + Model() + "/model.safetensors"));
  for (auto &[name, tensor] : model.tensors) {
    ASSERT_TRUE(plain.tensors.count(name)) << name;
    EXPECT_EQ(plain.tensors[name].shape, tensor.shape) << name;
  }
  GoldenFile golden = ReadSafetensors(Golden("families-bnb/" + GetParam() + ".safetensors"));
  std::string tensor;
  std::vector<float> got = Logits(out, golden, &tensor);
  EXPECT_LT(Difference(got, Values<float>(golden.tensors[Output(golden)])), 1e-4);
}

INSTANTIATE_TEST_SUITE_P(Families, Artifact, testing::ValuesIn(Names("families-bnb")), TestName);

}  // namespace
