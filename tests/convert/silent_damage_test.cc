// Inputs that were once taken for something else without a word: packings that nothing here undoes, labels nobody
// knows, tensors and settings that were left out. Each is refused by name, or said to be unread.
#include <gtest/gtest.h>

#include "tests/checkpoint_files.h"
#include "tests/gguf_files.h"
#include "tests/golden_weights.h"
#include "tests/support.h"

namespace {

// A folder with the tensors and the config of `file`.
void Save(const GoldenFile &file, const std::string &config, const std::string &folder) {
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
}

std::string With(std::string text, const std::string &member) { return text.insert(text.find('{') + 1, member + ","); }

void ExpectRefused(const std::string &command, const std::string &name) {
  CommandResult r = Nibble(command);
  EXPECT_EQ(r.code, 3) << command << r.err;
  EXPECT_NE(r.err.find(name), std::string::npos) << command << r.err;
}

struct Packing {
  const char *method, *part;
};

TEST(SilentDamage, OfPackingsThatNothingHereUndoesIsImpossible) {
  const Packing packings[] = {{"fp8", ".weight_scale_inv"}, {"compressed-tensors", ".weight_scale"},
                              {"awq", ".qzeros"},           {"mxfp4", ".weight_blocks"},
                              {"auto-round", ".scales"},    {"GPTQ", ".scales"},
                              {"", ".weight_scale_inv"}};
  GoldenFile plain = ReadSafetensors(Golden("tiny/llama-f32/model.safetensors"));
  std::string config = ReadFile(Golden("tiny/llama-f32/config.json"));
  for (const Packing &p : packings) {
    TempFolder dir;
    GoldenFile packed = plain;
    std::string method = p.method, module = "model.layers.0.self_attn.q_proj", folder = (dir / "in");
    GoldenTensor &weight = packed.tensors[module + ".weight"];
    weight.dtype = "F8_E4M3";
    weight.bytes.resize(weight.bytes.size() / 4);
    packed.tensors[module + p.part] = {"F32", std::string("\0\0\0\x3a", 4), {1, 1}};
    std::string quant = R"("quantization_config": {"quant_method": ")" + method + "\"}";
    Save(packed, method.empty() ? config : With(config, quant), folder);
    std::string name = method.empty() ? module + p.part : method;
    for (const char *option : {" --dequantize", " --dtype bfloat16"})
      ExpectRefused("convert " + folder + " " + (dir / "out") + option, name);
    ExpectRefused("logits " + folder + " --ids 1,2 --out " + (dir / "l.safetensors"), name);
    EXPECT_FALSE(Exists(dir / "out"));
    CommandResult verified = Nibble("verify " + folder);
    EXPECT_EQ(verified.code, 1) << verified.out;  // what cannot be checked is not sound
    EXPECT_NE(verified.out.find("'" + name + "', which is not read here"), std::string::npos) << verified.out;
  }
}

TEST(SilentDamage, OfGptqUnderALabelNobodyKnowsIsImpossible) {
  TempFolder dir;
  std::string from = Golden("gptqmodel-7.7.0/llama-3bit-sym-v2"), config = ReadFile(from + "/config.json");
  for (size_t at; (at = config.find("\"gptq_v2\"")) != std::string::npos;) config.replace(at, 9, "\"gptq_p\"");
  Save(ReadSafetensors(from + "/model.safetensors"), config, dir / "in");
  ExpectRefused("convert " + (dir / "in") + " " + (dir / "out") + " --dequantize", "'gptq_p'");
}

TEST(SilentDamage, BuffersOfKernelsAndBiasesOfZerosAreNotes) {
  TempFolder dir;
  std::string from = Golden("gptqmodel-7.7.0/llama-3bit-sym-v2"), module = "model.layers.0.self_attn.o_proj";
  GoldenFile file = ReadSafetensors(from + "/model.safetensors");
  int64_t out = file.tensors[module + ".qweight"].shape[1];
  file.tensors[module + ".wf"] = {"I32", std::string(32, '\1'), {1, 8}};
  file.tensors[module + ".workspace"] = {"I32", std::string(64, '\0'), {16}};
  file.tensors[module + ".bias"] = {"F16", std::string((size_t)out * 2, '\0'), {out}};
  Save(file, ReadFile(from + "/config.json"), dir / "in");
  CommandResult r = Nibble("verify " + (dir / "in"));
  EXPECT_EQ(r.code, 0) << r.out << r.err;
  for (const char *name : {".wf: ", ".workspace: ", ".bias: a bias of zeros"})
    EXPECT_NE(r.out.find("note: " + module + name), std::string::npos) << r.out;
  file.tensors[module + ".bias"].bytes[1] = '\x3c';  // 1.0: it is missed
  Save(file, ReadFile(from + "/config.json"), dir / "biased");
  EXPECT_EQ(Nibble("verify " + (dir / "biased")).code, 1);
}

TEST(SilentDamage, OfARopeScalingThatIsTextIsImpossible) {
  TempFolder dir;
  std::string config = With(ReadFile(Golden("tiny/llama-f32/config.json")), R"("rope_scaling": "linear")");
  Save(ReadSafetensors(Golden("tiny/llama-f32/model.safetensors")), config, dir / "in");
  ExpectRefused("logits " + (dir / "in") + " --ids 1,2 --out " + (dir / "l.safetensors"), "\"rope_scaling\"");
}

TEST(SilentDamage, OfGgufFilesThatAreNoModelIsImpossible) {
  TempFolder dir;
  for (const char *type : {"adapter", "mmproj"}) {
    WriteFile(dir / "m.gguf", TinyLlama().Set("general.type", TextValue(type)).Build());
    ExpectRefused("inspect " + (dir / "m.gguf"), type);
  }
  WriteFile(dir / "m.gguf", TinyLlama().Set("general.type", TextValue("model")).Build());
  EXPECT_EQ(Nibble("inspect " + (dir / "m.gguf")).code, 0);
}

}  // namespace
