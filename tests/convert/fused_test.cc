// Experts that lie in one tensor, as transformers 5 may save them: every command reads each expert's matrices in it.
// What the numbers are is checked where all golden models are (runner/families_test.cc); here, that such a model is in
// everything the one whose experts have tensors of their own.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "tests/checkpoint_files.h"
#include "tests/golden_weights.h"
#include "tests/support.h"

extern "C" {
#include "convert/checkpoint.h"
}

namespace {

using Tensors = std::map<std::string, GoldenTensor>;

const int kExperts = 3, kHidden = 64, kExpert = 32;
const char kConfig[] =
    R"({"model_type": "mixtral", "architectures": ["MixtralForCausalLM"], "hidden_size": 64, "intermediate_size": 32,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 96,
        "num_local_experts": 3, "num_experts_per_tok": 2, "max_position_embeddings": 64, "initializer_range": 0.3,
        "dtype": "float32"})";

std::string Numbers(const std::vector<int64_t> &values) {
  std::string text;
  for (int64_t v : values) text += (text.empty() ? "" : ",") + std::to_string(v);
  return text;
}

void Save(const std::string &folder, const Tensors &tensors) {
  std::string header, data;
  for (const auto &[name, t] : tensors) {
    header += (header.empty() ? "{" : ",") +
              Entry(name, t.dtype, Numbers(t.shape), data.size(), data.size() + t.bytes.size());
    data += t.bytes;
  }
  std::filesystem::create_directories(folder);
  WriteFile(folder + "/model.safetensors", Safetensors(header + "}", data));
  WriteFile(folder + "/config.json", kConfig);
}

std::string Layer(int layer) { return "model.layers." + std::to_string(layer) + "."; }

// Takes the matrix of one expert out of `tensors`.
std::string Take(Tensors *tensors, int layer, int expert, const std::string &part) {
  auto at = tensors->find(Layer(layer) + "block_sparse_moe.experts." + std::to_string(expert) + "." + part + ".weight");
  EXPECT_NE(at, tensors->end());
  std::string bytes = at->second.bytes;
  tensors->erase(at);
  return bytes;
}

Tensors Fused(Tensors tensors) {
  for (int layer = 0; layer < 2; layer++) {
    GoldenTensor up = {"F32", "", {kExperts, 2 * kExpert, kHidden}}, down = {"F32", "", {kExperts, kHidden, kExpert}};
    for (int e = 0; e < kExperts; e++) {
      up.bytes += Take(&tensors, layer, e, "w1");
      up.bytes += Take(&tensors, layer, e, "w3");
      down.bytes += Take(&tensors, layer, e, "w2");
    }
    tensors[Layer(layer) + "mlp.experts.gate_up_proj"] = up;
    tensors[Layer(layer) + "mlp.experts.down_proj"] = down;
  }
  return tensors;
}

class FusedExperts : public testing::Test {
 protected:
  void SetUp() override {
    WriteFile(dir_ / "config.json", kConfig);
    ASSERT_EQ(Nibble("init " + (dir_ / "config.json") + " " + apart_).code, 0);
    tensors_ = ReadSafetensors(apart_ + "/model.safetensors").tensors;
    fused_tensors_ = Fused(tensors_);
    Save(fused_, fused_tensors_);
  }

  std::string Run(const std::string &command, int code = 0) {
    CommandResult result = Nibble(command);
    EXPECT_EQ(result.code, code) << command << "\n" << result.out << result.err;
    return result.out + result.err;
  }

  Tensors Logits(const std::string &model) {
    Run("logits " + model + " --ids 1,5,9,70,33 --force --out " + (dir_ / "logits.safetensors"));
    return ReadSafetensors(dir_ / "logits.safetensors").tensors;
  }

  // Saves the fused model with one tensor changed.
  std::string With(const std::string &name, const GoldenTensor &tensor) {
    Tensors changed = fused_tensors_;
    changed[name] = tensor;
    Save(dir_ / "changed", changed);
    return dir_ / "changed";
  }

  TempFolder dir_;
  std::string apart_ = dir_ / "apart", fused_ = dir_ / "fused";
  std::string gate_up_ = Layer(1) + "mlp.experts.gate_up_proj", down_ = Layer(0) + "mlp.experts.down_proj";
  Tensors tensors_, fused_tensors_;
};

void ExpectSame(const Tensors &a, const Tensors &b) {
  EXPECT_EQ(a.size(), b.size());
  for (const auto &[name, t] : a) {
    ASSERT_TRUE(b.count(name)) << name;
    EXPECT_EQ(t.shape, b.at(name).shape) << name;
    EXPECT_EQ(t.bytes, b.at(name).bytes) << name;
  }
}

TEST_F(FusedExperts, GiveTheLogitsOfExpertsThatLieApart) { ExpectSame(Logits(fused_), Logits(apart_)); }

TEST_F(FusedExperts, AreCountedByInspectAndMemory) {
  std::string text = Run("inspect " + fused_);
  EXPECT_EQ(text.find("missing"), std::string::npos) << text;
  EXPECT_EQ(text.find("no place"), std::string::npos) << text;
  EXPECT_EQ(Run("memory " + fused_), Run("memory " + apart_));
}

TEST_F(FusedExperts, AreVerifiedAgainstExpertsThatLieApartAndBack) {
  for (auto [artifact, original] : {std::pair(fused_, apart_), std::pair(apart_, fused_)}) {
    std::string text = Run("verify " + artifact + " --against " + original);
    EXPECT_NE(text.find(std::to_string(tensors_.size()) + " compared"), std::string::npos) << text;
  }
  GoldenTensor damaged = fused_tensors_[gate_up_];
  float large = 5;
  for (int row = 0; row < kExpert; row++)  // of the second expert's up
    memcpy(&damaged.bytes[(size_t)((2 * kExpert * 1 + kExpert + row) * kHidden + 7) * sizeof large], &large,
           sizeof large);
  std::string text = Run("verify " + With(gate_up_, damaged) + " --against " + apart_, 1);
  EXPECT_NE(text.find("model.layers.1.block_sparse_moe.experts.1.w3.weight"), std::string::npos) << text;
  EXPECT_EQ(text.find("experts.1.w1.weight"), std::string::npos) << text;
}

TEST_F(FusedExperts, StayInOneTensorWhereTheLayoutHasNoPlaceForThem) {
  std::string text = Run("quantize " + fused_ + " " + (dir_ / "nf4") + " --method nf4");
  EXPECT_NE(text.find("18 matrices of experts"), std::string::npos) << text;
  Tensors packed = ReadSafetensors(dir_ / "nf4/model.safetensors").tensors;
  EXPECT_EQ(packed[gate_up_].bytes, fused_tensors_[gate_up_].bytes);
  EXPECT_EQ(packed[down_].bytes, fused_tensors_[down_].bytes);
  EXPECT_EQ(packed.count("model.layers.0.block_sparse_moe.experts.0.w1.weight"), 0u);
  Run("quantize " + apart_ + " " + (dir_ / "nf4-apart") + " --method nf4");
  ExpectSame(Logits(dir_ / "nf4"), Logits(dir_ / "nf4-apart"));
  Run("verify " + (dir_ / "nf4") + " --against " + apart_);
}

TEST_F(FusedExperts, ArePackedOneByOneWhereTheLayoutHasAPlaceForEach) {
  const std::string method = " --method rtn --group-size 32 --exclude experts.2";
  Run("quantize " + fused_ + " " + (dir_ / "rtn") + method);
  Run("quantize " + apart_ + " " + (dir_ / "rtn-apart") + method);
  Tensors packed = ReadSafetensors(dir_ / "rtn/model.safetensors").tensors;
  EXPECT_EQ(packed.count(gate_up_), 0u);
  EXPECT_EQ(packed.count("model.layers.1.mlp.experts.1.up_proj.qweight"), 1u);
  EXPECT_EQ(packed.count("model.layers.1.mlp.experts.2.up_proj.weight"), 1u);
  ExpectSame(packed, ReadSafetensors(dir_ / "rtn-apart/model.safetensors").tensors);
  Run("verify " + (dir_ / "rtn") + " --against " + fused_);
}

// GPTQModel looks for modules, which transformers calls otherwise than Mixtral's files do.
TEST_F(FusedExperts, AreNamedAsModulesInGptqsLayoutAndAsInFilesWhenUnpacked) {
  Run("quantize " + apart_ + " " + (dir_ / "rtn") + " --method rtn --group-size 32 --exclude experts.2");
  Tensors packed = ReadSafetensors(dir_ / "rtn/model.safetensors").tensors;
  EXPECT_EQ(packed.count("model.layers.0.mlp.gate.weight"), 1u);
  EXPECT_EQ(packed.count("model.layers.0.mlp.experts.0.gate_proj.g_idx"), 1u);
  for (const auto &[name, t] : packed) EXPECT_EQ(name.find("block_sparse_moe"), std::string::npos) << name;
  std::string config = ReadFile(dir_ / "rtn/quantize_config.json");
  EXPECT_NE(config.find(R"("-:^model\\.layers\\.1\\.mlp\\.experts\\.2\\.down_proj$")"), std::string::npos) << config;
  Run("verify " + (dir_ / "rtn") + " --against " + apart_);
  Run("convert " + (dir_ / "rtn") + " " + (dir_ / "plain") + " --dequantize");
  Tensors plain = ReadSafetensors(dir_ / "plain/model.safetensors").tensors;
  EXPECT_EQ(plain.size(), tensors_.size());
  for (const auto &[name, t] : tensors_) EXPECT_EQ(plain.count(name), 1u) << name;
  const std::string kept = "model.layers.1.block_sparse_moe.experts.2.w3.weight";
  EXPECT_EQ(plain[kept].bytes, tensors_[kept].bytes);
  // The kernels of packed weights sum in another order.
  Tensors one = Logits(dir_ / "plain"), other = Logits(dir_ / "rtn");
  std::vector<float> a(one["logits"].bytes.size() / sizeof(float)), b(a.size());
  ASSERT_EQ(one["logits"].bytes.size(), other["logits"].bytes.size());
  memcpy(a.data(), one["logits"].bytes.data(), a.size() * sizeof(float));
  memcpy(b.data(), other["logits"].bytes.data(), b.size() * sizeof(float));
  float largest = 0;
  for (float v : a) largest = std::max(largest, std::fabs(v));
  for (size_t i = 0; i < a.size(); i++) ASSERT_NEAR(a[i], b[i], 1e-5f * largest) << i;
}

TEST_F(FusedExperts, OfAnotherShapeAreRefusedInOneLine) {
  GoldenTensor turned = fused_tensors_[gate_up_];
  turned.shape = {kExperts, kHidden + 32, 2 * kExpert - 32 + 10};
  turned.bytes.resize((size_t)(turned.shape[0] * turned.shape[1] * turned.shape[2]) * sizeof(float));
  std::string model = With(gate_up_, turned);
  std::string want =
      "model.safetensors: tensor '" + gate_up_ + "': its shape is [3, 96, 42], the config makes it [3, 64, 64]";
  for (std::string command : {"inspect " + model, "logits " + model + " --ids 1 --out " + (dir_ / "x"),
                              "quantize " + model + " " + (dir_ / "x") + " --method nf4"}) {
    std::string text = Run(command, 3);
    EXPECT_NE(text.find(want), std::string::npos) << text;
  }
  std::string text = Run("verify " + model, 1);
  EXPECT_NE(text.find("fault: " + gate_up_ + ": its shape is [3, 96, 42], the config makes it [3, 64, 64]"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("FAILED: 1 fault"), std::string::npos) << text;
}

TEST_F(FusedExperts, ThatArePackedAreRefusedInOneLine) {
  GoldenTensor packed = {
      "U8", std::string((size_t)kExperts * kExpert * kHidden, '\x77'), {kExperts * kExpert * kHidden, 1}};
  std::string text = Run("logits " + With(gate_up_, packed) + " --ids 1 --out " + (dir_ / "x"), 3);
  EXPECT_NE(text.find("tensor '" + gate_up_ +
                      "': experts in one tensor can be read where they are not packed, but its "
                      "dtype is U8"),
            std::string::npos)
      << text;
}

TEST_F(FusedExperts, BesideOneThatLiesApartAreComparedWithIt) {
  const std::string name = "model.layers.1.block_sparse_moe.experts.1.w3.weight";
  std::string text = Run("verify " + With(name, tensors_[name]));
  EXPECT_NE(text.find("a copy of '" + name + "'"), std::string::npos) << text;
  GoldenTensor other = tensors_[name];
  other.bytes[5] ^= 1;
  text = Run("verify " + With(name, other), 1);
  EXPECT_NE(text.find("it stands for the same as '" + name + "', but its bytes are others"), std::string::npos) << text;
}

// A torch file may have the tensor turned, so that no matrix in it lies as it reads.
TEST_F(FusedExperts, AreFoundInATensorThatIsNotContiguous) {
  std::vector<float> turned;  // [rows, experts, columns] in memory
  const float *values = (const float *)(const void *)fused_tensors_[down_].bytes.data();
  for (int row = 0; row < kHidden; row++) {
    for (int e = 0; e < kExperts; e++)
      turned.insert(turned.end(), values + (e * kHidden + row) * kExpert, values + (e * kHidden + row + 1) * kExpert);
  }
  std::string storage = pickle::Storage("0", (int64_t)turned.size());
  std::string body = pickle::Dict(
      {{down_, pickle::Tensor(storage, 0, {kExperts, kHidden, kExpert}, {kExpert, kExperts * kExpert, 1})}});
  std::filesystem::create_directories(dir_ / "torch");
  WriteFile(dir_ / "torch/config.json", kConfig);
  WriteFile(dir_ / "torch/pytorch_model.bin", Zip()
                                                  .Add({"m/data.pkl", pickle::Pickle(body)})
                                                  .Add({"m/byteorder", "little"})
                                                  .Add({"m/data/0", Bytes(turned)})
                                                  .Build());
  nb_checkpoint c;
  nibble_error err;
  ASSERT_EQ(nb_checkpoint_open((dir_ / "torch").c_str(), &c, &err), NIBBLE_OK) << err.message;
  for (int e = 0; e < kExperts; e++) {
    const std::string name = "model.layers.0.block_sparse_moe.experts." + std::to_string(e) + ".w2.weight";
    const nb_tensor *view = nb_checkpoint_find_weight(&c, name.c_str());
    ASSERT_NE(view, nullptr) << name;
    std::string bytes((size_t)view->count * sizeof(float), '\0');
    ASSERT_EQ(nb_tensor_read(&c, view, nb_span{0, view->count}, NB_F32, &bytes[0], &err), NIBBLE_OK) << err.message;
    EXPECT_EQ(bytes, tensors_[name].bytes) << name;
    EXPECT_LE(view->offset + view->bytes, view->whole->offset + view->whole->bytes) << name;
  }
  nb_checkpoint_close(&c);
}

}  // namespace
