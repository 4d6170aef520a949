// nibble quantize, end to end on small checkpoints.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "tests/checkpoint_files.h"
#include "tests/golden_weights.h"
#include "tests/support.h"

extern "C" {
#include "convert/layouts.h"
#include "convert/manifest.h"
#include "kernels/quantize.h"
}

namespace {

const char kConfig[] =
    R"({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 66, "intermediate_size": 131,
        "num_hidden_layers": 2, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 22, "vocab_size": 301,
        "tie_word_embeddings": false, "torch_dtype": "bfloat16"})";

class Checkpoint {
 public:
  explicit Checkpoint(const std::string &path) {
    nibble_error err = {};
    EXPECT_EQ(nb_checkpoint_open(path.c_str(), &c, &err), NIBBLE_OK) << err.message;
  }
  ~Checkpoint() { nb_checkpoint_close(&c); }
  nb_checkpoint c = {};
};

class QuantizeCommand : public ::testing::Test {
 protected:
  void SetUp() override {
    WriteFile(folder_ / "config.json", kConfig);
    Make("bf16", "bfloat16");
  }
  void Make(const std::string &name, const std::string &dtype) {
    CommandResult r = Nibble("init " + (folder_ / "config.json") + " " + (folder_ / name) + " --dtype " + dtype);
    ASSERT_EQ(r.code, 0) << r.err;
  }
  CommandResult Run(const std::string &src, const std::string &dst, const std::string &options) {
    return Nibble("quantize " + (folder_ / src) + " " + (folder_ / dst) + " " + options);
  }
  std::string Read(const std::string &name) { return ReadFile(folder_ / name); }
  cJSON *Json(const std::string &name) { return cJSON_Parse(Read(name).c_str()); }
  bool Exists(const std::string &name) { return std::filesystem::exists(folder_ / name); }
  TempFolder folder_;
};

std::vector<float> Values(const nb_checkpoint &c, const std::string &name) {
  const nb_tensor *t = nb_checkpoint_find(&c, name.c_str());
  std::vector<float> out((size_t)t->count);
  nibble_error err;
  EXPECT_EQ(nb_tensor_read(&c, t, nb_span{0, t->count}, NB_F32, out.data(), &err), NIBBLE_OK) << err.message;
  return out;
}

double RelativeError(const std::vector<float> &want, const nb_packed &m) {
  std::vector<float> got(want.size());
  nb_format_info(m.format)->dequantize(nb_whole(&m), got.data(), m.cols);
  double error = 0, squares = 0;
  for (size_t i = 0; i < want.size(); i++) {
    error += ((double)want[i] - got[i]) * ((double)want[i] - got[i]);
    squares += (double)want[i] * want[i];
  }
  return std::sqrt(error / squares);
}

TEST_F(QuantizeCommand, WritesWhatIsReadBackWithTheErrorItTells) {
  const struct {
    const char *options, *format;
    double error;
  } methods[] = {{"--method nf4", "nf4", 0.10},
                 {"--method nf4 --double-quant", "nf4", 0.10},
                 {"--method fp4 --block-size 128", "fp4", 0.14},
                 {"--method int8", "int8", 0.01}};
  for (const char *dtype : {"bfloat16", "float16", "float32"}) {
    Make(dtype, dtype);
    for (const auto &m : methods) {
      SCOPED_TRACE(std::string(dtype) + " " + m.options);
      CommandResult r = Run(dtype, "q", std::string(m.options) + " --force");
      ASSERT_EQ(r.code, 0) << r.err;
      Checkpoint source(folder_ / dtype), packed(folder_ / "q");
      cJSON *manifest = Json("q/nibble.json");
      const cJSON *tensors = cJSON_GetObjectItem(manifest, "tensors");
      int quantized = 0;
      for (size_t i = 0; i < source.c.tensor_count; i++) {
        const nb_tensor *t = &source.c.tensors[i];
        SCOPED_TRACE(t->name);
        const cJSON *entry = cJSON_GetObjectItem(tensors, t->name);
        char hash[NB_HASH_CHARS];
        nb_tensor_hash(&source.c, t, hash, nullptr);
        EXPECT_STREQ(cJSON_GetStringValue(cJSON_GetObjectItem(entry, "source_xxh3_128")), hash);
        const nb_tensor *out = nb_checkpoint_find(&packed.c, t->name);
        ASSERT_NE(out, nullptr);
        if (!out->layout) {
          EXPECT_EQ(out->dtype, t->dtype);
          EXPECT_EQ(memcmp(nb_tensor_raw(&packed.c, out), nb_tensor_raw(&source.c, t), t->bytes), 0);
          continue;
        }
        nb_weight w;
        nibble_error err;
        ASSERT_EQ(nb_weight_load(&packed.c, t->name, t->shape[0], t->shape[1], &w, &err), NIBBLE_OK) << err.message;
        EXPECT_STREQ(nb_format_info(w.packed.format)->name, m.format);
        double error = RelativeError(Values(source.c, t->name), w.packed);
        EXPECT_LT(error, m.error);
        EXPECT_NEAR(cJSON_GetObjectItem(entry, "relative_error")->valuedouble / error, 1, 1e-4);
        nb_weight_free(&w);
        quantized++;
      }
      EXPECT_EQ(quantized, 14);
      cJSON_Delete(manifest);
    }
  }
}

// Matrices of 1.3 million weights, so that each is several slices of several bands.
TEST_F(QuantizeCommand, GivesTheSameFilesWhateverTheThreads) {
  WriteFile(folder_ / "config.json",
            R"({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 514,
                "intermediate_size": 2501, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
                "vocab_size": 9, "head_dim": 50, "torch_dtype": "bfloat16"})");
  Make("large", "bfloat16");
  Checkpoint source(folder_ / "large");
  for (const char *options : {"--method nf4", "--method fp4 --double-quant", "--method int8"}) {
    ASSERT_EQ(Run("large", "one", std::string(options) + " --force --threads 1").code, 0);
    cJSON *manifest = Json("one/nibble.json");
    for (size_t i = 0; i < source.c.tensor_count; i++) {
      const nb_tensor *t = &source.c.tensors[i];
      const cJSON *entry = cJSON_GetObjectItem(cJSON_GetObjectItem(manifest, "tensors"), t->name);
      char hash[NB_HASH_CHARS];
      nb_tensor_hash(&source.c, t, hash, nullptr);
      EXPECT_STREQ(cJSON_GetStringValue(cJSON_GetObjectItem(entry, "source_xxh3_128")), hash) << t->name;
    }
    cJSON_Delete(manifest);
    for (const char *threads : {"2", "3", "5"}) {
      ASSERT_EQ(Run("large", "more", std::string(options) + " --force --threads " + threads).code, 0);
      for (const char *file : {"model.safetensors", "config.json", "nibble.json"})
        EXPECT_TRUE(Read(std::string("one/") + file) == Read(std::string("more/") + file)) << file << " " << threads;
    }
  }
}

TEST_F(QuantizeCommand, GivesTheSameTensorsInShards) {
  ASSERT_EQ(Run("bf16", "one", "--method nf4 --double-quant").code, 0);
  ASSERT_EQ(Run("bf16", "many", "--method nf4 --double-quant --max-shard-size 20kB").code, 0);
  EXPECT_TRUE(Exists("many/model.safetensors.index.json"));
  Checkpoint one(folder_ / "one"), many(folder_ / "many");
  EXPECT_GT(many.c.file_count, 2);
  ASSERT_EQ(one.c.tensor_count, many.c.tensor_count);
  for (size_t i = 0; i < one.c.tensor_count; i++) {
    const nb_tensor *t = &one.c.tensors[i], *other = nb_checkpoint_find(&many.c, t->name);
    ASSERT_NE(other, nullptr) << t->name;
    ASSERT_EQ(t->bytes, other->bytes) << t->name;
    EXPECT_EQ(memcmp(nb_tensor_raw(&one.c, t), nb_tensor_raw(&many.c, other), t->bytes), 0) << t->name;
  }
}

TEST_F(QuantizeCommand, NamesTheWeightThatIsNotFinite) {
  std::string path = folder_ / "bf16/model.safetensors", bytes = ReadFile(path);
  uint64_t at;
  {
    Checkpoint c(folder_ / "bf16");
    at = nb_checkpoint_find(&c.c, "model.layers.1.mlp.up_proj.weight")->offset;
  }
  for (const char *method : {"nf4", "fp4", "int8"}) {
    for (const char *bad : {"\xc0\x7f", "\x80\x7f", "\x80\xff"}) { /* NaN and both infinities in bfloat16 */
      std::string damaged = bytes;
      damaged.replace(at + 2 * (66 * 130 + 65), 2, bad, 2);
      WriteFile(path, damaged);
      CommandResult r = Run("bf16", "q", std::string("--method ") + method);
      EXPECT_EQ(r.code, 3);
      EXPECT_NE(r.err.find("model.safetensors: tensor 'model.layers.1.mlp.up_proj.weight': the weight at [130, 65] is"),
                std::string::npos)
          << r.err;
      EXPECT_FALSE(Exists("q"));
      EXPECT_FALSE(Exists("q.partial"));
    }
  }
  std::string damaged = bytes;
  damaged.replace(at, 2, "\x80\x47", 2); /* 65536 */
  WriteFile(path, damaged);
  EXPECT_EQ(Run("bf16", "q4", "--method nf4").code, 0);
  CommandResult r = Run("bf16", "q8", "--method int8");
  EXPECT_EQ(r.code, 3);
  EXPECT_NE(r.err.find("at [0, 0] is 65536, beyond float16"), std::string::npos) << r.err;
}

TEST_F(QuantizeCommand, RefusesAPackedSourceUnlessTold) {
  ASSERT_EQ(Run("bf16", "q8", "--method int8").code, 0);
  CommandResult r = Run("q8", "q4", "--method nf4");
  EXPECT_EQ(r.code, 3);
  EXPECT_NE(r.err.find("--requantize"), std::string::npos) << r.err;
  EXPECT_FALSE(Exists("q4"));
  ASSERT_EQ(Run("q8", "q4", "--method nf4 --requantize").code, 0);
  ASSERT_EQ(Run("bf16", "direct", "--method nf4").code, 0);
  Checkpoint twice(folder_ / "q4"), once(folder_ / "direct");
  EXPECT_EQ(twice.c.tensor_count, once.c.tensor_count);
  Checkpoint source(folder_ / "bf16");
  const char *name = "model.layers.0.mlp.down_proj.weight";
  nb_weight w;
  nibble_error err;
  ASSERT_EQ(nb_weight_load(&twice.c, name, 66, 131, &w, &err), NIBBLE_OK) << err.message;
  EXPECT_EQ(w.source_dtype, NB_BF16);
  EXPECT_LT(RelativeError(Values(source.c, name), w.packed), 0.11);
  nb_weight_free(&w);
}

std::vector<std::string> SkipModules(cJSON *config) {
  std::vector<std::string> out;
  const cJSON *list = cJSON_GetObjectItem(cJSON_GetObjectItem(config, "quantization_config"), "llm_int8_skip_modules");
  const cJSON *item;
  if (cJSON_IsNull(list)) out.push_back("null");
  cJSON_ArrayForEach(item, list) out.push_back(item->valuestring);
  cJSON_Delete(config);
  std::sort(out.begin(), out.end());
  return out;
}

TEST_F(QuantizeCommand, MirrorsItsSelectionInTheConfig) {
  using Names = std::vector<std::string>;
  ASSERT_EQ(Run("bf16", "a", "--method nf4").code, 0);
  EXPECT_EQ(SkipModules(Json("a/config.json")), Names{"null"});
  ASSERT_EQ(Run("bf16", "b", "--method nf4 --include lm_head").code, 0);
  EXPECT_EQ(SkipModules(Json("b/config.json")), Names{});
  ASSERT_EQ(Run("bf16", "c", "--method int8 --exclude 'layers\\.1\\.mlp|k_proj'").code, 0);
  EXPECT_EQ(SkipModules(Json("c/config.json")),
            (Names{"lm_head", "model.layers.0.self_attn.k_proj", "model.layers.1.mlp.down_proj",
                   "model.layers.1.mlp.gate_proj", "model.layers.1.mlp.up_proj", "model.layers.1.self_attn.k_proj"}));
  Checkpoint c(folder_ / "c");
  EXPECT_EQ(nb_checkpoint_find(&c.c, "model.layers.1.mlp.up_proj.weight")->dtype, NB_BF16);
  EXPECT_EQ(nb_checkpoint_find(&c.c, "model.layers.0.mlp.up_proj.weight")->dtype, NB_I8);
}

TEST_F(QuantizeCommand, WritesTheConfigThatTransformersWrites) {
  ASSERT_EQ(Run("bf16", "q", "--method nf4 --double-quant").code, 0);
  std::string want = kConfig;
  want.insert(want.rfind('}'), R"(, "quantization_config": {"_load_in_4bit": true, "_load_in_8bit": false, )"
                               R"("bnb_4bit_compute_dtype": "float32", "bnb_4bit_quant_storage": "uint8", )"
                               R"("bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": true, )"
                               R"("llm_int8_enable_fp32_cpu_offload": false, "llm_int8_has_fp16_weight": false, )"
                               R"("llm_int8_skip_modules": null, "llm_int8_threshold": 6.0, "load_in_4bit": true, )"
                               R"("load_in_8bit": false, "quant_method": "bitsandbytes"})");
  EXPECT_EQ(Read("q/config.json"), want);
}

TEST_F(QuantizeCommand, SaysWhatIsWrongWithItsOptions) {
  const struct {
    const char *options;
    int code;
    const char *message;
  } cases[] = {
      {"--method q4", 2, "nf4, fp4, int8, gptq or rtn"},
      {"", 2, "--method"},
      {"--method int8 --double-quant", 2, "--double-quant"},
      {"--method int8 --block-size 64", 2, "--block-size"},
      {"--method nf4 --block-size 96", 2, "power of two"},
      {"--method nf4 --block-size 16", 2, "--block-size"},
      {"--method nf4 --include '('", 2, "--include '('"},
      {"--method nf4 --exclude nothing_of_the_kind", 2, "matches no weight"},
      {"--method nf4 --include embed_tokens", 2, "matches no weight"},
      {"--method nf4 --exclude .", 3, "no linear layer's weight is left"},
  };
  for (const auto &c : cases) {
    CommandResult r = Run("bf16", "q", c.options);
    EXPECT_EQ(r.code, c.code) << c.options;
    EXPECT_NE(r.err.find(c.message), std::string::npos) << c.options << ": " << r.err;
    EXPECT_FALSE(Exists("q")) << c.options;
  }
}

TEST_F(QuantizeCommand, WantsTheWholeModelAndItsConfig) {
  std::filesystem::remove(folder_ / "bf16/config.json");
  CommandResult r = Run("bf16", "q", "--method nf4");
  EXPECT_EQ(r.code, 3);
  EXPECT_NE(r.err.find("config.json"), std::string::npos) << r.err;
  std::string config = kConfig;
  config.replace(config.find("\"num_hidden_layers\": 2"), 22, "\"num_hidden_layers\": 3");
  WriteFile(folder_ / "bf16/config.json", config);
  r = Run("bf16", "q", "--method nf4");
  EXPECT_EQ(r.code, 3);
  EXPECT_NE(r.err.find("model.layers.2."), std::string::npos) << r.err;
  EXPECT_FALSE(Exists("q"));
}

TEST_F(QuantizeCommand, TakesAnUnknownFamilyOnlyWhenToldSo) {
  std::string config = kConfig;
  config.replace(config.find("\"llama\""), 7, "\"mystery\"");
  WriteFile(folder_ / "bf16/config.json", config);
  CommandResult refused = Run("bf16", "q", "--method nf4");
  EXPECT_EQ(refused.code, 3);
  EXPECT_NE(refused.err.find("mystery"), std::string::npos) << refused.err;
  EXPECT_FALSE(Exists("q"));
  CommandResult r = Run("bf16", "q", "--method nf4 --unknown-family");
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_NE(r.err.find("mystery"), std::string::npos) << r.err;
  Checkpoint c(folder_ / "q");
  EXPECT_EQ(nb_checkpoint_find(&c.c, "model.layers.1.mlp.up_proj.weight")->dtype, NB_U8);
  for (const char *kept : {"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"})
    EXPECT_EQ(nb_checkpoint_find(&c.c, kept)->dtype, NB_BF16) << kept;
}

TEST_F(QuantizeCommand, PrintsItsFiguresAsJson) {
  CommandResult r = Run("bf16", "q", "--method nf4 --json");
  ASSERT_EQ(r.code, 0) << r.err;
  cJSON *json = cJSON_Parse(r.out.c_str());
  ASSERT_NE(json, nullptr) << r.out;
  EXPECT_EQ(cJSON_GetObjectItem(json, "quantized_tensors")->valueint, 14);
  EXPECT_EQ((uint64_t)cJSON_GetObjectItem(json, "file_bytes")->valuedouble,
            std::filesystem::file_size(folder_ / "q/model.safetensors"));
  EXPECT_EQ((uint64_t)cJSON_GetObjectItem(json, "source_bytes")->valuedouble,
            std::filesystem::file_size(folder_ / "bf16/model.safetensors"));
  EXPECT_NEAR(cJSON_GetObjectItem(json, "relative_error")->valuedouble, 0.091, 0.005);
  EXPECT_GT(cJSON_GetObjectItem(json, "peak_rss_bytes")->valuedouble, 1e5);
  cJSON_Delete(json);
}

// Values that double quantization cannot average: bitsandbytes writes infinities there.
TEST_F(QuantizeCommand, RefusesScalesWhoseMeanOverflows) {
  Make("f32", "float32");
  std::string path = folder_ / "f32/model.safetensors", bytes = ReadFile(path);
  {
    Checkpoint c(folder_ / "f32");
    const nb_tensor *t = nb_checkpoint_find(&c.c, "model.layers.0.self_attn.q_proj.weight");
    for (uint64_t i = 0; i < t->bytes; i += 4) bytes.replace(t->offset + i, 4, "\xff\xff\x7f\x7f", 4);
  }
  WriteFile(path, bytes);
  EXPECT_EQ(Run("f32", "plain", "--method nf4").code, 0);
  CommandResult r = Run("f32", "q", "--method nf4 --double-quant");
  EXPECT_EQ(r.code, 3);
  EXPECT_NE(r.err.find("q_proj.weight': the sum of its blocks' maxima"), std::string::npos) << r.err;
}

}  // namespace
