// Inputs that were once taken for something else without a word: packings that nothing here undoes, labels nobody
// knows, tensors and settings that were left out. Each is refused by name, or said to be unread.
#include <gtest/gtest.h>

#include "tests/gguf_files.h"
#include "tests/golden_folder.h"

namespace {

// Says of the zero points what the label says.
void Relabel(GoldenFolder *folder, const std::string &label) {
  const char *const keys[] = {"checkpoint_format", "format"};
  cJSON *all = cJSON_Parse(folder->config.c_str());
  cJSON *quant = cJSON_DetachItemFromObjectCaseSensitive(all, "quantization_config");
  for (const char *key : keys) {
    cJSON_DeleteItemFromObjectCaseSensitive(quant, key);
    if (!label.empty()) cJSON_AddStringToObject(quant, key, label.c_str());
  }
  char *text = cJSON_Print(quant);
  folder->Set("quantization_config", text);
  free(text);
  cJSON_Delete(quant);
  cJSON_Delete(all);
}

struct Packing {
  const char *method, *part;
};

TEST(SilentDamage, OfPackingsThatNothingHereUndoesIsImpossible) {
  const Packing packings[] = {{"fp8", ".weight_scale_inv"}, {"compressed-tensors", ".weight_scale"},
                              {"awq", ".qzeros"},           {"mxfp4", ".weight_blocks"},
                              {"auto-round", ".scales"},    {"GPTQ", ".scales"},
                              {"", ".weight_scale_inv"}};
  for (const Packing &p : packings) {
    TempFolder dir;
    GoldenFolder packed("tiny/llama-f32");
    std::string method = p.method, module = "model.layers.0.self_attn.q_proj", folder = (dir / "in");
    GoldenTensor &weight = packed.file.tensors[module + ".weight"];
    weight.dtype = "F8_E4M3";
    weight.bytes.resize(weight.bytes.size() / 4);
    packed.file.tensors[module + p.part] = {"F32", std::string("\0\0\0\x3a", 4), {1, 1}};
    if (!method.empty()) packed.Set("quantization_config", R"({"quant_method": ")" + method + "\"}");
    packed.Save(folder);
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
  GoldenFolder labelled("gptqmodel-7.7.0/llama-3bit-sym-v2");
  Relabel(&labelled, "gptq_p");
  labelled.Save(dir / "in");
  ExpectRefused("convert " + (dir / "in") + " " + (dir / "out") + " --dequantize", "'gptq_p'");
}

// Symmetric zero points are the middle of the grid, so they tell how they are stored. Files of version 2 without their
// label are published, and kernels that leave such zero points unread run them; the other way round nobody writes them.
TEST(SilentDamage, OfSymmetricZeroPointsUnderTheWrongLabelIsImpossible) {
  TempFolder dir;
  GoldenFolder version2("gptqmodel-7.7.0/llama-3bit-sym-v2");
  const std::string sound = version2.Save(dir / "sound"), to = " --force --dequantize";
  EXPECT_EQ(Findings(sound, "warning").size(), 0u);
  ASSERT_EQ(Nibble("convert " + sound + " " + (dir / "want") + to).code, 0);
  for (const char *label : {"gptq", ""}) {
    Relabel(&version2, label);
    std::string folder = version2.Save(dir / "in");
    ExpectSameLogits(folder, sound);
    EXPECT_NE(LogitsOf(folder).err.find("tell that it is gptq_v2"), std::string::npos) << LogitsOf(folder).err;
    EXPECT_EQ(Nibble("verify " + folder).code, 0);
    EXPECT_EQ(Findings(folder, "warning").size(), 1u);
    CommandResult r = Nibble("convert " + folder + " " + (dir / "plain") + to);
    EXPECT_NE(r.err.find("tell that it is gptq_v2"), std::string::npos) << r.err;
    ExpectSameTensors(dir / "plain", dir / "want");
    ASSERT_EQ(Nibble("convert " + folder + " " + (dir / "mended") + " --force --layout gptq_v2").code, 0);
    ExpectSameTensors(dir / "mended", sound);
    EXPECT_EQ(Findings(dir / "mended", "warning").size(), 0u);
  }
  ASSERT_EQ(Nibble("convert " + sound + " " + (dir / "version1") + " --layout gptq").code, 0);
  GoldenFolder version1("gptqmodel-7.7.0/llama-3bit-sym-v2");  // which says version 2
  version1.file = ReadSafetensors(dir / "version1/model.safetensors");
  std::string folder = version1.Save(dir / "version1");
  ExpectSameLogits(folder, sound);
  EXPECT_NE(LogitsOf(folder).err.find("tell that it is gptq,"), std::string::npos) << LogitsOf(folder).err;
  EXPECT_EQ(Nibble("verify " + folder).code, 1);
  EXPECT_EQ(Findings(folder, "fault").size(), 1u);
}

// bnb_4bit_quant_storage lets FSDP shard packed weights as if they were plain: the same bytes under another dtype.
TEST(SilentDamage, OfCodesUnderAFloatDtypeIsImpossible) {
  const std::pair<const char *, int64_t> dtypes[] = {{"BF16", 2}, {"F16", 2}, {"F32", 4}, {"F64", 8}, {"I8", 1}};
  for (const char *name : {"tiny/llama-nf4", "tiny/llama-nf4-double", "tiny/llama-fp4",
                           "families-bnb/t5-gated-bf16-nf4", "families-bnb/gpt2-switches-bf16-nf4"}) {
    const std::string sound = Golden(name);
    for (const auto &[dtype, size] : dtypes) {
      TempFolder dir;
      GoldenFolder model(name);
      int moved = 0;
      for (auto &[tensor, t] : model.file.tensors) {
        bool is_codes = model.file.tensors.count(tensor + ".absmax");
        if (!is_codes || t.bytes.size() % (size_t)size) continue;
        t.dtype = dtype;
        t.shape = {(int64_t)t.bytes.size() / size, 1};
        moved++;
      }
      ASSERT_GT(moved, 3) << name << dtype;
      const std::string folder = model.Save(dir / "in");
      ExpectSameLogits(folder, sound);
      for (const char *command : {"verify ", "inspect ", "memory "}) {
        CommandResult r = Nibble(command + folder);
        EXPECT_EQ(r.code, 0) << command << name << dtype << r.out << r.err;
      }
      const std::string commands[] = {"convert %s --dequantize", "quantize %s --method int8 --requantize"};
      for (std::string command : commands) {
        size_t at = command.find("%s");
        std::string rest = command.substr(at + 2);
        command.resize(at);
        for (const auto &[from, to] : {std::pair(sound, dir / "a"), std::pair(folder, dir / "b")}) {
          CommandResult r = Nibble(command + from + " " + to + " --force --no-sync --quiet" + rest);
          ASSERT_EQ(r.code, 0) << command << r.err;
        }
        ExpectSameTensors(dir / "b", dir / "a");
      }
    }
  }
}

TEST(SilentDamage, BuffersOfKernelsAndBiasesOfZerosAreNotes) {
  TempFolder dir;
  GoldenFolder folder("gptqmodel-7.7.0/llama-3bit-sym-v2");
  std::string module = "model.layers.0.self_attn.o_proj";
  GoldenFile &file = folder.file;
  int64_t out = file.tensors[module + ".qweight"].shape[1];
  file.tensors[module + ".wf"] = {"I32", std::string(32, '\1'), {1, 8}};
  file.tensors[module + ".workspace"] = {"I32", std::string(64, '\0'), {16}};
  file.tensors[module + ".bias"] = {"F16", std::string((size_t)out * 2, '\0'), {out}};
  folder.Save(dir / "in");
  CommandResult r = Nibble("verify " + (dir / "in"));
  EXPECT_EQ(r.code, 0) << r.out << r.err;
  for (const char *name : {".wf: ", ".workspace: ", ".bias: a bias of zeros"})
    EXPECT_NE(r.out.find("note: " + module + name), std::string::npos) << r.out;
  file.tensors[module + ".bias"].bytes[1] = '\x3c';  // 1.0: it is missed
  folder.Save(dir / "biased");
  EXPECT_EQ(Nibble("verify " + (dir / "biased")).code, 1);
}

TEST(SilentDamage, OfARopeScalingThatIsTextIsImpossible) {
  TempFolder dir;
  GoldenFolder model("tiny/llama-f32");
  model.Set("rope_scaling", R"("linear")");
  model.Save(dir / "in");
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

// The members of rope_parameters that `convert` makes of a file with that metadata.
std::string Rope(const std::vector<std::pair<std::string, std::string>> &metadata) {
  TempFolder dir;
  GgufFile file = TinyLlama();
  for (const auto &[key, value] : metadata) file.Set("llama.rope." + key, value);
  WriteFile(dir / "m.gguf", file.Build());
  CommandResult r = Nibble("convert " + (dir / "m.gguf") + " " + (dir / "out"));
  if (r.code != 0) return r.err;
  cJSON *config = cJSON_Parse(ReadFile(dir / "out/config.json").c_str());
  char *text = cJSON_PrintUnformatted(cJSON_GetObjectItem(config, "rope_parameters"));
  std::string rope = text;
  free(text);
  cJSON_Delete(config);
  return rope;
}

// As llama.cpp takes them: a factor without a type is a linear one, under its old name, too; no factor is no scaling.
TEST(SilentDamage, OfRopeScalingInGgufIsImpossible) {
  const std::string none = R"({"rope_theta":10000,"rope_type":"default"})",
                    linear = R"({"factor":4,"rope_theta":10000,"rope_type":"linear"})",
                    yarn =
                        R"({"factor":4,"original_max_position_embeddings":32,"rope_theta":10000,"rope_type":"yarn"})";
  const auto factor = std::pair("scaling.factor", F32Value(4)),
             context = std::pair("scaling.original_context_length", U32Value(32));
  auto type = [](const char *name) { return std::pair("scaling.type", TextValue(name)); };
  EXPECT_EQ(Rope({}), none);
  EXPECT_EQ(Rope({factor}), linear);
  EXPECT_EQ(Rope({{"scale_linear", F32Value(4)}}), linear);
  EXPECT_EQ(Rope({{"scale_linear", F32Value(8)}, factor}), linear);
  EXPECT_EQ(Rope({type("linear"), factor, context}), linear);
  EXPECT_EQ(Rope({type("none"), factor}), none);
  EXPECT_EQ(Rope({type("linear")}), none);
  EXPECT_EQ(Rope({{"scaling.factor", F32Value(1)}}), none);
  EXPECT_EQ(Rope({type("yarn"), factor, context}), yarn);
  EXPECT_EQ(Rope({type("yarn"), context}), none);
  for (const char *key : {"attn_factor", "yarn_beta_fast", "yarn_beta_slow", "yarn_attn_factor", "yarn_ext_factor",
                          "yarn_log_multiplier"}) {
    for (float value : {16.0f, 0.0f}) {
      std::string name = std::string("scaling.") + key, text = Rope({type("yarn"), factor, {name, F32Value(value)}});
      EXPECT_NE(text.find("metadata 'llama.rope." + name + "' is not understood"), std::string::npos) << text;
    }
  }
}

// Norms of Q and K in a Llama: no config of that family has a place for them, so whoever loads what `convert` or
// `quantize` made of the file would leave them out.
TEST(SilentDamage, OfTensorsThatAGgufFileHasTooManyIsImpossible) {
  TempFolder dir;
  GgufFile file = TinyLlama();
  file.Tensor("blk.0.attn_q_norm.weight") = {"blk.0.attn_q_norm.weight", {4}, 0, std::string(16, '\x3f'), -1};
  WriteFile(dir / "m.gguf", file.Build());
  const std::string model = dir / "m.gguf", name = "'model.layers.0.self_attn.q_norm.weight' is none";
  ExpectRefused("convert " + model + " " + (dir / "out"), name);
  ExpectRefused("quantize " + model + " " + (dir / "out") + " --method nf4", name);
  ExpectRefused("logits " + model + " --ids 1 --out " + (dir / "l"), name);
  EXPECT_EQ(Nibble("inspect " + model).code, 0);
}

// Types of blocks that are not computed here: such a file can be looked at and weighed, and all else names the type.
TEST(SilentDamage, OfBlocksThatAreNotReadIsImpossible) {
  const struct {
    uint32_t type;
    const char *name;
    size_t weights, bytes;
  } types[] = {{15, "Q8_K", 256, 292},   {16, "IQ2_XXS", 256, 66}, {17, "IQ2_XS", 256, 74}, {18, "IQ3_XXS", 256, 98},
               {19, "IQ1_S", 256, 50},   {20, "IQ4_NL", 32, 18},   {21, "IQ3_S", 256, 110}, {22, "IQ2_S", 256, 82},
               {23, "IQ4_XS", 256, 136}, {29, "IQ1_M", 256, 56},   {34, "TQ1_0", 256, 54},  {35, "TQ2_0", 256, 66},
               {39, "MXFP4", 32, 17}};
  for (const auto &[type, name, weights, bytes] : types) {
    TempFolder dir;
    GgufFile file = TinyLlama();
    file.Set("llama.feed_forward_length", U32Value(256));
    for (const char *part : {"gate", "up"})
      file.Tensor(std::string("blk.0.ffn_") + part + ".weight") = {
          std::string("blk.0.ffn_") + part + ".weight", {8, 256}, 0, std::string(8 * 256 * 4, '\0'), -1};
    const std::string down = "blk.0.ffn_down.weight";
    file.Tensor(down) = {down, {256, 8}, type, std::string(8 * 256 / weights * bytes, '\1'), -1};
    WriteFile(dir / "m.gguf", file.Build());
    const std::string model = dir / "m.gguf", quoted = std::string("'") + name + "'";
    CommandResult r = Nibble("inspect " + model);
    EXPECT_EQ(r.code, 0) << name << r.err;
    EXPECT_NE(r.out.find(name), std::string::npos) << r.out;
    EXPECT_EQ(Nibble("memory " + model).code, 0) << name;
    ExpectRefused("convert " + model + " " + (dir / "out"), quoted);
    ExpectRefused("quantize " + model + " " + (dir / "out") + " --method nf4 --requantize", quoted);
    ExpectRefused("logits " + model + " --ids 1 --out " + (dir / "l"), quoted);
    r = Nibble("verify " + model);
    EXPECT_EQ(r.code, 1) << r.out;
    EXPECT_NE(r.out.find(quoted + ", which is not read here"), std::string::npos) << r.out;
    file.Tensor(down).data.resize(8);  // the last tensor but one
    WriteFile(dir / "m.gguf", file.Build());
    EXPECT_EQ(Nibble("inspect " + model).code, 3) << name;
  }
}

}  // namespace
