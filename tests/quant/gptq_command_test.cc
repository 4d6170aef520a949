// nibble quantize --method gptq and rtn, as a user runs them, on a small random model.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <cmath>

#include "tests/open_folder.h"
#include "tests/support.h"

extern "C" {
#include "convert/layouts.h"
}

namespace {

// Every byte is a token: the tokenizer of GPT-2 without merges.
std::string ByteTokenizer() {
  std::string vocab;
  int extra = 256;
  for (int b = 0; b < 256; b++) {
    bool printable = (b > 32 && b < 127) || (b > 160 && b != 173);
    int code = printable ? b : extra++;
    std::string symbol;
    if (code < 128) {
      symbol = (code == '"' || code == '\\') ? std::string("\\") + (char)code : std::string(1, (char)code);
    } else {
      symbol = {(char)(0xc0 | code >> 6), (char)(0x80 | (code & 63))};
    }
    vocab += (b ? ",\"" : "\"") + symbol + "\":" + std::to_string(b);
  }
  return R"({"version":"1.0","added_tokens":[],"normalizer":null,"pre_tokenizer":{"type":"ByteLevel",)"
         R"("add_prefix_space":false,"trim_offsets":true,"use_regex":true},"post_processor":null,)"
         R"("decoder":{"type":"ByteLevel"},"model":{"type":"BPE","vocab":{)" +
         vocab + R"(},"merges":[]}})";
}

std::string Text(int tokens) {
  static const char *const words[] = {"the ", "bit ", "of ", "a ", "weight ", "falls ", "where ", "it ", "must.\n"};
  std::string text;
  for (unsigned i = 1; (int)text.size() < tokens; i = i * 1103515245u + 12345u) text += words[(i >> 16) % 9];
  return text.substr(0, tokens);
}

class GptqCommand : public testing::Test {
 protected:
  void SetUp() override {
    WriteFile(folder_ / "config.json", R"({"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_size":64,
      "intermediate_size":96,"num_hidden_layers":3,"num_attention_heads":2,"num_key_value_heads":1,"head_dim":32,
      "vocab_size":256,"max_position_embeddings":64,"rms_norm_eps":1e-5,"tie_word_embeddings":true,
      "hidden_act":"silu","torch_dtype":"float32","initializer_range":0.2})");
    CommandResult made = Nibble("init --seed 3 --no-sync --quiet " + (folder_ / "config.json") + " " + Model());
    ASSERT_EQ(made.code, 0) << made.err;
    WriteFile(Model() + "/tokenizer.json", ByteTokenizer());
    WriteFile(folder_ / "text", Text(1000));
  }
  // Gives all elements of a tensor the same value.
  void Fill(const std::string &tensor, float value) {
    nb_checkpoint c;
    nibble_error err;
    ASSERT_EQ(nb_checkpoint_open(Model().c_str(), &c, &err), NIBBLE_OK) << err.message;
    const nb_tensor *t = nb_checkpoint_find(&c, tensor.c_str());
    ASSERT_NE(t, nullptr) << tensor;
    size_t at = (const char *)nb_tensor_raw(&c, t) - (const char *)c.files[t->file].map.data;
    std::string path = c.files[t->file].path, bytes = ReadFile(path);
    for (int64_t i = 0; i < t->count; i++) memcpy(&bytes[at + i * sizeof value], &value, sizeof value);
    nb_checkpoint_close(&c);
    WriteFile(path, bytes);
  }
  // Runs until the layer's file is in the work folder, then kills. False if the run was over before.
  bool KillAfter(const std::string &layer, const std::string &more = "") {
    pid_t pid = fork();
    if (pid == 0) {
      std::string command = std::string("exec ") + kBinary + " " + Args("cut", more);
      execl("/bin/sh", "sh", "-c", (command + " >/dev/null 2>&1").c_str(), nullptr);
      _exit(127);
    }
    int status = 0;
    std::string file = folder_ / ("cut.work/" + layer + ".weight.layer");
    while (!Exists(file) && waitpid(pid, &status, WNOHANG) == 0) usleep(100);
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    return Exists(folder_ / "cut.work");
  }
  std::string Model() const { return folder_ / "model"; }
  std::string Args(const std::string &dst, const std::string &more = "") const {
    return "quantize --quiet --no-sync --method gptq --group-size 32 --nsamples 8 --seqlen 64 --calib " +
           (folder_ / "text") + " " + Model() + " " + (folder_ / dst) + " " + more;
  }
  std::string Weights(const std::string &dst) const { return ReadFile((folder_ / dst) + "/model.safetensors"); }

  TempFolder folder_;
};

TEST_F(GptqCommand, WritesWhatTheLayoutAsksForAndTheErrorsItMade) {
  CommandResult r = Nibble(Args("out"));
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_FALSE(Exists(folder_ / "out.work"));
  for (const char *name : {"quantize_config.json", "tokenizer.json", "nibble.json"}) {
    EXPECT_TRUE(Exists((folder_ / "out/") + name)) << name;
  }
  nb_checkpoint c;
  nibble_error err;
  ASSERT_EQ(nb_checkpoint_open((folder_ / "out").c_str(), &c, &err), NIBBLE_OK) << err.message;
  EXPECT_STREQ(c.config.quant.method, "gptq");
  EXPECT_EQ(c.config.quant.bits, 4);
  EXPECT_EQ(c.config.quant.group_size, 32);
  nb_weight weight;
  ASSERT_EQ(nb_weight_load(&c, "model.layers.2.mlp.down_proj.weight", 64, 96, &weight, &err), NIBBLE_OK) << err.message;
  EXPECT_EQ(weight.packed.format, NB_FORMAT_GPTQ4);
  EXPECT_EQ(weight.packed.groups, 3);
  nb_weight_free(&weight);
  nb_checkpoint_close(&c);

  cJSON *json;
  ASSERT_EQ(nb_json_load((folder_ / "out/nibble.json").c_str(), &json, &err), NIBBLE_OK) << err.message;
  int layers = 0;
  const cJSON *entry;
  cJSON_ArrayForEach(entry, cJSON_GetObjectItem(json, "tensors")) {
    const cJSON *error = cJSON_GetObjectItem(entry, "output_error");
    if (!error) continue;
    layers++;
    EXPECT_LT(error->valuedouble, cJSON_GetObjectItem(entry, "output_error_rtn")->valuedouble) << entry->string;
  }
  EXPECT_EQ(layers, 21);
  const cJSON *calibration = cJSON_GetObjectItem(cJSON_GetObjectItem(json, "settings"), "calibration");
  EXPECT_STREQ(cJSON_GetObjectItem(calibration, "sampling")->valuestring, "first");
  EXPECT_EQ(cJSON_GetObjectItem(calibration, "text_tokens")->valueint, 1000);
  cJSON_Delete(json);
}

TEST_F(GptqCommand, EndsWithTheLayersOfTheLargestErrors) {
  CommandResult r = Nibble(Args("out", "--json"));
  ASSERT_EQ(r.code, 0) << r.err;
  cJSON *json = cJSON_Parse(r.out.c_str()), *manifest;
  nibble_error err;
  ASSERT_EQ(nb_json_load((folder_ / "out/nibble.json").c_str(), &manifest, &err), NIBBLE_OK) << err.message;
  std::vector<double> all, worst;
  const cJSON *entry;
  cJSON_ArrayForEach(entry, cJSON_GetObjectItem(manifest, "tensors")) {
    const cJSON *error = cJSON_GetObjectItem(entry, "output_error");
    if (error) all.push_back(error->valuedouble);
  }
  std::sort(all.rbegin(), all.rend());
  cJSON_ArrayForEach(entry, cJSON_GetObjectItem(json, "worst_layers")) {
    const char *tensor = cJSON_GetObjectItem(entry, "tensor")->valuestring;
    const cJSON *recorded = cJSON_GetObjectItem(cJSON_GetObjectItem(manifest, "tensors"), tensor);
    ASSERT_NE(recorded, nullptr) << tensor;
    worst.push_back(cJSON_GetObjectItem(entry, "output_error")->valuedouble);
    EXPECT_DOUBLE_EQ(worst.back(), cJSON_GetObjectItem(recorded, "output_error")->valuedouble) << tensor;
  }
  ASSERT_EQ(worst.size(), (size_t)NIBBLE_WORST_LAYERS);
  for (size_t i = 0; i < worst.size(); i++) EXPECT_DOUBLE_EQ(worst[i], all[i]);
  cJSON_Delete(json);
  cJSON_Delete(manifest);
  EXPECT_NE(Nibble(Args("out", "--force")).out.find("layers with the largest"), std::string::npos);
}

TEST_F(GptqCommand, GivesTheSameBytesWhateverTheThreadsAndTheMemory) {
  ASSERT_EQ(Nibble(Args("one", "--threads 1")).code, 0);
  ASSERT_EQ(Nibble(Args("three", "--threads 3")).code, 0);
  ASSERT_EQ(Nibble(Args("spilled", "--max-memory 1KB")).code, 0);
  EXPECT_EQ(Weights("one"), Weights("three"));
  EXPECT_EQ(Weights("one"), Weights("spilled"));
  ASSERT_EQ(Nibble(Args("random", "--sampling random --seed 5")).code, 0);
  ASSERT_EQ(Nibble(Args("again", "--sampling random --seed 5")).code, 0);
  EXPECT_NE(Weights("one"), Weights("random"));
  EXPECT_EQ(Weights("random"), Weights("again"));
}

TEST_F(GptqCommand, EverySettingMakesAnArtifactThatCanBeRead) {
  int number = 0;
  for (const char *more :
       {"--bits 2", "--bits 3 --asym", "--bits 8 --desc-act", "--bits 4 --no-mse --group-size -1",
        "--layout gptq_v2 --asym --desc-act --bits 3", "--damp 0.2 --group-size 64", "--exclude o_proj"}) {
    std::string dst = "out" + std::to_string(number++);
    CommandResult r = Nibble(Args(dst, more));
    ASSERT_EQ(r.code, 0) << more << ": " << r.err;
    nb_checkpoint c;
    nibble_error err;
    ASSERT_EQ(nb_checkpoint_open((folder_ / dst).c_str(), &c, &err), NIBBLE_OK) << err.message;
    for (const char *layer : {"self_attn.q_proj", "self_attn.o_proj"}) {
      std::string name = std::string("model.layers.1.") + layer + ".weight";
      nb_weight weight;
      ASSERT_EQ(nb_weight_load(&c, name.c_str(), 64, 64, &weight, &err), NIBBLE_OK) << more << ": " << err.message;
      bool kept = strstr(more, "exclude") && strstr(layer, "o_proj");
      EXPECT_EQ(nb_format_info(weight.packed.format)->scheme != NB_SCHEME_PLAIN, !kept) << more << " " << name;
      EXPECT_EQ(weight.packed.g_idx != nullptr, strstr(more, "desc-act") != nullptr) << more;
      nb_weight_free(&weight);
    }
    nb_checkpoint_close(&c);
  }
}

TEST_F(GptqCommand, SearchesForScalesUnlessToldNotTo) {
  std::string rtn = "quantize --quiet --no-sync --method rtn --group-size 32 " + Model() + " ";
  ASSERT_EQ(Nibble(Args("gptq")).code, 0);
  ASSERT_EQ(Nibble(Args("gptq-mse", "--mse")).code, 0);
  ASSERT_EQ(Nibble(Args("gptq-no-mse", "--no-mse")).code, 0);
  ASSERT_EQ(Nibble(rtn + (folder_ / "rtn")).code, 0);
  ASSERT_EQ(Nibble(rtn + (folder_ / "rtn-mse") + " --mse").code, 0);
  ASSERT_EQ(Nibble(rtn + (folder_ / "rtn-no-mse") + " --no-mse").code, 0);
  EXPECT_EQ(Weights("gptq"), Weights("gptq-mse"));
  EXPECT_NE(Weights("gptq"), Weights("gptq-no-mse"));
  EXPECT_EQ(Weights("rtn"), Weights("rtn-no-mse"));
  EXPECT_NE(Weights("rtn"), Weights("rtn-mse"));
  for (const char *name : {"gptq", "gptq-no-mse", "rtn", "rtn-mse"}) {
    cJSON *json;
    nibble_error err;
    ASSERT_EQ(nb_json_load(((folder_ / name) + "/nibble.json").c_str(), &json, &err), NIBBLE_OK) << err.message;
    bool is_searched = strcmp(name, "gptq") == 0 || strcmp(name, "rtn-mse") == 0;
    EXPECT_EQ(cJSON_IsTrue(cJSON_GetObjectItem(cJSON_GetObjectItem(json, "settings"), "mse")), is_searched) << name;
    cJSON_Delete(json);
  }
}

TEST_F(GptqCommand, WritesScalesInTheDtypeAskedFor) {
  for (const char *dtype : {"float16", "bfloat16"}) {
    ASSERT_EQ(Nibble(Args(dtype, std::string("--asym --scale-dtype ") + dtype)).code, 0);
    nb_checkpoint c;
    nibble_error err;
    ASSERT_EQ(nb_checkpoint_open((folder_ / dtype).c_str(), &c, &err), NIBBLE_OK) << err.message;
    const nb_tensor *scales = nb_checkpoint_find(&c, "model.layers.1.mlp.up_proj.scales");
    ASSERT_NE(scales, nullptr);
    EXPECT_EQ(scales->dtype, strcmp(dtype, "float16") == 0 ? NB_F16 : NB_BF16);
    // The codes are fitted to the scales as they are stored.
    cJSON *json;
    ASSERT_EQ(nb_json_load(((folder_ / dtype) + "/nibble.json").c_str(), &json, &err), NIBBLE_OK) << err.message;
    const cJSON *entry = cJSON_GetObjectItem(cJSON_GetObjectItem(json, "tensors"), "model.layers.1.mlp.up_proj.weight");
    double recorded = cJSON_GetObjectItem(entry, "relative_error")->valuedouble, errors = 0, squares = 0;
    nb_checkpoint source;
    ASSERT_EQ(nb_checkpoint_open(Model().c_str(), &source, &err), NIBBLE_OK) << err.message;
    const nb_tensor *t = nb_checkpoint_find(&source, "model.layers.1.mlp.up_proj.weight");
    std::vector<float> w(t->count), q(t->count);
    ASSERT_EQ(nb_tensor_read(&source, t, nb_span{0, t->count}, NB_F32, w.data(), &err), NIBBLE_OK) << err.message;
    nb_weight weight;
    ASSERT_EQ(nb_weight_load(&c, t->name, 96, 64, &weight, &err), NIBBLE_OK) << err.message;
    nb_format_info(weight.packed.format)->dequantize({&weight.packed, 0, 96, 0, 64}, q.data(), 64);
    for (size_t i = 0; i < w.size(); i++) {
      errors += double(w[i] - q[i]) * (w[i] - q[i]);
      squares += double(w[i]) * w[i];
    }
    EXPECT_NEAR(recorded, std::sqrt(errors / squares), 1e-5) << dtype;
    nb_weight_free(&weight);
    nb_checkpoint_close(&source);
    nb_checkpoint_close(&c);
    cJSON_Delete(json);
  }
  CommandResult r = Nibble("quantize --method rtn --scale-dtype int8 " + Model() + " " + (folder_ / "bad"));
  EXPECT_EQ(r.code, 2);
  EXPECT_NE(r.err.find("--scale-dtype int8"), std::string::npos) << r.err;
}

TEST_F(GptqCommand, RtnNeedsNoTextAndMakesTheLargerError) {
  CommandResult r =
      Nibble("quantize --quiet --no-sync --method rtn --bits 3 --group-size 32 " + Model() + " " + (folder_ / "out"));
  ASSERT_EQ(r.code, 0) << r.err;
  r = Nibble("quantize --quiet --no-sync --method rtn --calib " + (folder_ / "text") + " " + Model() + " " +
             (folder_ / "b"));
  EXPECT_EQ(r.code, 2);
  EXPECT_FALSE(Exists(folder_ / "b"));
}

TEST_F(GptqCommand, GoesOnAfterAKillAndEndsWithTheSameBytes) {
  ASSERT_EQ(Nibble(Args("whole")).code, 0);
  for (const char *until : {"model.layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj"}) {
    if (KillAfter(until, "--force --max-memory 1KB")) {
      CommandResult other = Nibble(Args("cut", "--force --resume --bits 3"));
      EXPECT_EQ(other.code, 3);
      EXPECT_NE(other.err.find("--resume with another bits: 3 now, 4 then"), std::string::npos) << other.err;
      EXPECT_TRUE(Exists(folder_ / "cut.work")) << "a refused run must leave the work of the other";
    }
    CommandResult r = Nibble(Args("cut", "--force --resume"));
    ASSERT_EQ(r.code, 0) << r.err;
    EXPECT_EQ(Weights("cut"), Weights("whole")) << until;
    EXPECT_FALSE(Exists(folder_ / "cut.work"));
  }
}

TEST_F(GptqCommand, ADamagedLayerInTheWorkFolderIsSolvedAgain) {
  ASSERT_EQ(Nibble(Args("whole")).code, 0);
  if (!KillAfter("model.layers.1.self_attn.o_proj"))
    GTEST_SKIP() << "skipped: the run was over before it could be killed";
  for (const std::string &name : ListFolder(folder_ / "cut.work")) {
    if (name.find(".layer") == std::string::npos) continue;
    std::string path = folder_ / ("cut.work/" + name), bytes = ReadFile(path);
    if (bytes.size() > 200) bytes[bytes.size() / 2] ^= 1;
    WriteFile(path, bytes);
  }
  ASSERT_EQ(Nibble(Args("cut", "--resume --force")).code, 0);
  EXPECT_EQ(Weights("cut"), Weights("whole"));
}

// Layers that only an XXH3 vouches for, which anybody can compute: each file is forged in one of several ways.
TEST_F(GptqCommand, AForgedLayerInTheWorkFolderIsSolvedAgain) {
  ASSERT_EQ(Nibble(Args("whole")).code, 0);
  if (!KillAfter("model.layers.1.mlp.up_proj")) GTEST_SKIP() << "skipped: the run was over before it could be killed";
  const int32_t outside[] = {1000000, -1000000, INT32_MAX, 64, -1};  // g_idx, of which the last is the file's end
  const int64_t groups[] = {1, 0, int64_t(1) << 62};
  size_t n = 0;
  for (const std::string &name : ListFolder(folder_ / "cut.work")) {
    std::string path = folder_ / ("cut.work/" + name), bytes = ReadFile(path);
    if (name.find(".layer") == std::string::npos || bytes.size() < 200) continue;
    size_t kind = n++ % 8;
    if (kind < 5) {
      memcpy(&bytes[bytes.size() - 4], &outside[kind], 4);
    } else {
      memcpy(&bytes[32], &groups[kind - 5], 8);
    }
    uint64_t hash = XXH3_64bits(bytes.data() + 16, bytes.size() - 16);
    memcpy(&bytes[8], &hash, sizeof hash);
    WriteFile(path, bytes);
  }
  EXPECT_GE(n, 8u);
  CommandResult r = Nibble(Args("cut", "--resume --force"));
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_EQ(Weights("cut"), Weights("whole"));
}

TEST_F(GptqCommand, RefusesToGoOnWithAnotherSourceOrText) {
  if (!KillAfter("model.layers.1.self_attn.o_proj"))
    GTEST_SKIP() << "skipped: the run was over before it could be killed";
  std::string text = ReadFile(folder_ / "text");
  WriteFile(folder_ / "text", text.substr(1) + "x");
  CommandResult r = Nibble(Args("cut", "--resume"));
  EXPECT_EQ(r.code, 3);
  EXPECT_NE(r.err.find("--resume with another calibration"), std::string::npos) << r.err;
  WriteFile(folder_ / "text", text);
  std::string config = ReadFile(Model() + "/config.json"), other = config;
  other.replace(other.find("1e-5"), 4, "2e-5");
  WriteFile(Model() + "/config.json", other);
  r = Nibble(Args("cut", "--resume"));
  EXPECT_EQ(r.code, 3);
  EXPECT_NE(r.err.find("--resume with another source"), std::string::npos) << r.err;
  WriteFile(Model() + "/config.json", config);
  Fill("model.layers.2.mlp.up_proj.weight", 0.25f);
  r = Nibble(Args("cut", "--resume"));
  EXPECT_EQ(r.code, 3);
  EXPECT_NE(r.err.find("--resume with another source"), std::string::npos) << r.err;
  EXPECT_TRUE(Exists(folder_ / "cut.work") && !Exists(folder_ / "cut") && !Exists(folder_ / "cut.partial"));
}

TEST_F(GptqCommand, RefusesToGoOnWithWhatAGpuBegan) {
  if (!KillAfter("model.layers.1.self_attn.o_proj"))
    GTEST_SKIP() << "skipped: the run was over before it could be killed";
  std::string path = folder_ / "cut.work/settings.json", settings = ReadFile(path);
  ASSERT_NE(settings.find("\"cpu\""), std::string::npos) << settings;
  WriteFile(path, settings.replace(settings.find("\"cpu\""), 5, "\"cuda\""));
  CommandResult r = Nibble(Args("cut", "--resume"));
  EXPECT_EQ(r.code, 3);
  EXPECT_NE(r.err.find("--resume with another device: \"cpu\" now, \"cuda\" then"), std::string::npos) << r.err;
}

TEST_F(GptqCommand, RefusesToGoOnWithWhatAnotherVersionBegan) {
  if (!KillAfter("model.layers.1.self_attn.o_proj"))
    GTEST_SKIP() << "skipped: the run was over before it could be killed";
  std::string path = folder_ / "cut.work/settings.json", settings = ReadFile(path);
  size_t at = settings.find("\"rules_version\":"), end = settings.find(',', at);
  ASSERT_NE(at, std::string::npos) << settings;
  WriteFile(path, std::string(settings).replace(at, end - at, "\"rules_version\": 1"));
  CommandResult r = Nibble(Args("cut", "--resume"));
  EXPECT_EQ(r.code, 3);
  EXPECT_NE(r.err.find("--resume with another rules_version: 2 now, 1 then"), std::string::npos) << r.err;
  WriteFile(path, settings.erase(at, end + 1 - at));  // before there were any
  r = Nibble(Args("cut", "--resume"));
  EXPECT_EQ(r.code, 3);
  EXPECT_NE(r.err.find("--resume with another rules_version: 2 now, none then"), std::string::npos) << r.err;
}

TEST_F(GptqCommand, RefusesTextThatIsTooShortEmptyOrNotUtf8) {
  struct {
    std::string text;
    const char *message;
  } cases[] = {
      {Text(300), "has 300 tokens; 8 samples of 64 need 512"},
      {" \n", "the calibration text is empty"},
      {"", "the calibration text is empty"},
      {"fine\xff then not", "not UTF-8 at byte 4"},
      {"{\"text\": \"short\"}\n{\"text\": 5}\n", "line 2 has no string called \"text\""},
      {"{\"text\": \"short\"}\n{\"text\": \"er\"}\n", "has 9 tokens"},
  };
  for (const auto &c : cases) {
    WriteFile(folder_ / "text", c.text);
    CommandResult r = Nibble(Args("out"));
    EXPECT_EQ(r.code, 3) << r.err;
    EXPECT_NE(r.err.find(c.message), std::string::npos) << r.err;
    EXPECT_FALSE(Exists(folder_ / "out") || Exists(folder_ / "out.partial") || Exists(folder_ / "out.work"));
  }
}

TEST_F(GptqCommand, AnIndefiniteHessianIsMarkedAndWarnedOf) {
  Fill("model.layers.1.post_attention_layernorm.weight", 1e20f);  // the squares of what enters gate_proj overflow
  std::string args = Args("out", "--damp 0.01");
  args.erase(args.find(" --quiet"), strlen(" --quiet"));
  CommandResult r = Nibble(args);
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_NE(
      r.err.find("model.layers.1.mlp.gate_proj.weight: no damping makes its Hessian positive definite; rounded to "
                 "the nearest"),
      std::string::npos)
      << r.err;
  cJSON *json;
  nibble_error err;
  ASSERT_EQ(nb_json_load((folder_ / "out/nibble.json").c_str(), &json, &err), NIBBLE_OK) << err.message;
  const cJSON *tensors = cJSON_GetObjectItem(json, "tensors");
  const cJSON *marked = cJSON_GetObjectItem(tensors, "model.layers.1.mlp.gate_proj.weight");
  EXPECT_TRUE(cJSON_IsTrue(cJSON_GetObjectItem(marked, "rounded_to_nearest")));
  const cJSON *fine = cJSON_GetObjectItem(tensors, "model.layers.0.self_attn.q_proj.weight");
  EXPECT_EQ(cJSON_GetObjectItem(fine, "rounded_to_nearest"), nullptr);
  cJSON_Delete(json);
}

TEST_F(GptqCommand, WarnsOfAGroupSizeThatDoesNotDivide) {
  std::string args = Args("out", "--group-size 64");
  args.erase(args.find(" --quiet"), strlen(" --quiet"));
  CommandResult r = Nibble(args);
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_NE(r.err.find("the last group of 3 weights is shorter than 64"), std::string::npos) << r.err;
  EXPECT_NE(r.err.find("model.layers.0.mlp.down_proj.weight: 96"), std::string::npos) << r.err;
}

TEST_F(GptqCommand, AGroupOf128IsOneGroupOfASmallerLayerAndCutsALargerOne) {
  WriteFile(folder_ / "config.json", R"({"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_size":128,
      "intermediate_size":256,"num_hidden_layers":1,"num_attention_heads":2,"num_key_value_heads":1,"head_dim":32,
      "vocab_size":256,"max_position_embeddings":64,"torch_dtype":"float32","initializer_range":0.2})");
  CommandResult made = Nibble("init --no-sync --quiet --force " + (folder_ / "config.json") + " " + Model());
  ASSERT_EQ(made.code, 0) << made.err;
  WriteFile(Model() + "/tokenizer.json", ByteTokenizer());
  CommandResult r = Nibble(Args("out", "--group-size 128"));
  ASSERT_EQ(r.code, 0) << r.err;
  nb_checkpoint c;
  nibble_error err;
  ASSERT_EQ(nb_checkpoint_open((folder_ / "out").c_str(), &c, &err), NIBBLE_OK) << err.message;
  struct {
    const char *layer;
    int64_t rows, cols, groups;
  } const layers[] = {{"self_attn.o_proj", 128, 64, 1}, {"mlp.up_proj", 256, 128, 1}, {"mlp.down_proj", 128, 256, 2}};
  for (const auto &l : layers) {
    std::string base = std::string("model.layers.0.") + l.layer;
    const nb_tensor *qweight = nb_checkpoint_find(&c, (base + ".qweight").c_str());
    const nb_tensor *qzeros = nb_checkpoint_find(&c, (base + ".qzeros").c_str());
    ASSERT_TRUE(qweight && qzeros) << base;
    EXPECT_EQ(qweight->shape[0], l.cols / 8) << base;
    EXPECT_EQ(qweight->shape[1], l.rows) << base;
    EXPECT_EQ(qzeros->shape[0], l.groups) << base;
    EXPECT_EQ(qzeros->shape[1], l.rows / 8) << base;
    nb_weight weight;
    ASSERT_EQ(nb_weight_load(&c, (base + ".weight").c_str(), l.rows, l.cols, &weight, &err), NIBBLE_OK) << err.message;
    EXPECT_EQ(weight.packed.groups, l.groups) << base;
    nb_weight_free(&weight);
  }
  nb_checkpoint_close(&c);
}

TEST_F(GptqCommand, RefusesOptionsThatMakeNoSense) {
  for (const char *more : {"--bits 5", "--group-size 48", "--group-size 0", "--seed 3", "--layout awq", "--damp 2",
                           "--double-quant", "--sampling last"}) {
    CommandResult r = Nibble(Args("out", more));
    EXPECT_EQ(r.code, 2) << more << ": " << r.err;
    EXPECT_FALSE(Exists(folder_ / "out") || Exists(folder_ / "out.partial") || Exists(folder_ / "out.work")) << more;
  }
  CommandResult r = Nibble("quantize --method gptq " + Model() + " " + (folder_ / "out"));
  EXPECT_EQ(r.code, 2);
  EXPECT_NE(r.err.find("--calib"), std::string::npos) << r.err;
}

TEST_F(GptqCommand, ConvertsBetweenTheVersionsOfZeroPoints) {
  for (const char *more : {"--asym --bits 2", "--asym --bits 3", "--asym --bits 4 --desc-act", "--asym --bits 8"}) {
    for (const char *layout : {"gptq", "gptq_v2"}) {
      ASSERT_EQ(Nibble(Args(layout, std::string("--force ") + more + " --layout " + layout)).code, 0);
    }
    EXPECT_NE(Weights("gptq"), Weights("gptq_v2"));
    for (const char *layout : {"gptq", "gptq_v2"}) {
      std::string other = strcmp(layout, "gptq") == 0 ? "gptq_v2" : "gptq";
      CommandResult r = Nibble("convert --quiet --force --no-sync --layout " + other + " " + (folder_ / layout) + " " +
                               (folder_ / "made"));
      ASSERT_EQ(r.code, 0) << r.err;
      EXPECT_EQ(Weights("made"), Weights(other)) << more << " to " << other;
      for (const char *name : {"/config.json", "/quantize_config.json"}) {
        cJSON *json;
        nibble_error err;
        ASSERT_EQ(nb_json_load(((folder_ / "made") + name).c_str(), &json, &err), NIBBLE_OK) << err.message;
        const cJSON *quant = cJSON_GetObjectItem(json, "quantization_config");
        if (!quant) quant = json;
        EXPECT_EQ(cJSON_GetObjectItem(quant, "checkpoint_format")->valuestring, other) << name;
        EXPECT_EQ(cJSON_GetObjectItem(quant, "format")->valuestring, other) << name;
        cJSON_Delete(json);
      }
    }
  }
  std::string to = " " + (folder_ / "bad");
  EXPECT_EQ(Nibble("convert --layout gptq_v2 " + Model() + to).code, 3);
  EXPECT_EQ(Nibble("convert --layout awq " + (folder_ / "gptq") + to).code, 2);
  EXPECT_EQ(Nibble("convert --layout gptq --dequantize " + (folder_ / "gptq") + to).code, 2);
  EXPECT_FALSE(Exists(folder_ / "bad") || Exists(folder_ / "bad.partial"));
}

TEST_F(GptqCommand, DequantizedItIsAnOrdinaryModel) {
  ASSERT_EQ(Nibble(Args("out", "--asym --bits 3 --desc-act")).code, 0);
  CommandResult r = Nibble("convert --quiet --no-sync --dequantize " + (folder_ / "out") + " " + (folder_ / "plain"));
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_FALSE(Exists(folder_ / "plain/quantize_config.json"));
  nb_checkpoint packed, plain, source;
  nibble_error err;
  ASSERT_EQ(nb_checkpoint_open((folder_ / "out").c_str(), &packed, &err), NIBBLE_OK) << err.message;
  ASSERT_EQ(nb_checkpoint_open((folder_ / "plain").c_str(), &plain, &err), NIBBLE_OK) << err.message;
  ASSERT_EQ(nb_checkpoint_open(Model().c_str(), &source, &err), NIBBLE_OK) << err.message;
  EXPECT_FALSE(plain.config.quant.present);
  ASSERT_EQ(plain.tensor_count, source.tensor_count);
  for (size_t i = 0; i < source.tensor_count; i++) {
    const char *name = source.tensors[i].name;
    const nb_tensor *t = nb_checkpoint_find(&plain, name);
    ASSERT_NE(t, nullptr) << name;
    if (!strstr(name, "_proj")) continue;
    nb_weight weight;
    ASSERT_EQ(nb_weight_load(&packed, name, t->shape[0], t->shape[1], &weight, &err), NIBBLE_OK) << err.message;
    std::vector<float> want(t->count), have(t->count);
    const nb_packed *m = &weight.packed;
    nb_format_info(m->format)->dequantize(nb_whole(m), want.data(), m->cols);
    ASSERT_EQ(nb_tensor_read(&plain, t, nb_span{0, t->count}, NB_F32, have.data(), &err), NIBBLE_OK) << err.message;
    EXPECT_EQ(have, want) << name;
    nb_weight_free(&weight);
  }
  nb_checkpoint_close(&packed);
  nb_checkpoint_close(&plain);
  nb_checkpoint_close(&source);
}

TEST_F(GptqCommand, ReadsModelsThatOnlyHaveQuantizeConfig) {
  ASSERT_EQ(Nibble(Args("out", "--asym --layout gptq_v2")).code, 0);
  std::string logits = "logits --quiet --ids 1,2,3,4 --out ";
  ASSERT_EQ(Nibble(logits + (folder_ / "want.safetensors") + " " + (folder_ / "out")).code, 0);
  std::filesystem::copy(folder_ / "out", folder_ / "old");
  cJSON *json;
  nibble_error err;
  ASSERT_EQ(nb_json_load((folder_ / "old/config.json").c_str(), &json, &err), NIBBLE_OK) << err.message;
  cJSON_DeleteItemFromObject(json, "quantization_config");
  ASSERT_EQ(nb_json_save_in(OpenFolder(folder_ / "old").get(), "config.json", json, &err), NIBBLE_OK) << err.message;
  cJSON_Delete(json);
  CommandResult r = Nibble(logits + (folder_ / "have.safetensors") + " " + (folder_ / "old"));
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_EQ(ReadFile(folder_ / "have.safetensors"), ReadFile(folder_ / "want.safetensors"));
  WriteFile(folder_ / "old/quantize_config.json", "[1]");
  r = Nibble(logits + (folder_ / "none.safetensors") + " " + (folder_ / "old"));
  EXPECT_EQ(r.code, 3);
  EXPECT_NE(r.err.find("quantize_config.json is not a JSON object"), std::string::npos) << r.err;
}

// transformers and GPTQModel put their packed layers into blocks: a packed pooler would not be found, and replaced by
// random weights.
TEST_F(GptqCommand, LeavesLinearLayersOutsideOfBlocksAsTheyAre) {
  WriteFile(folder_ / "bert.json",
            R"({"architectures":["BertForSequenceClassification"],"model_type":"bert","hidden_size":64,"num_labels":3,
      "intermediate_size":96,"num_hidden_layers":2,"num_attention_heads":2,"vocab_size":256,"dtype":"float32",
      "max_position_embeddings":64})");
  std::string bert = folder_ / "bert", out = folder_ / "out";
  ASSERT_EQ(Nibble("init --no-sync --quiet " + (folder_ / "bert.json") + " " + bert).code, 0);
  CommandResult r = Nibble("quantize --no-sync --method rtn --group-size 32 " + bert + " " + out);
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_NE(r.err.find("2 weights of linear layers stay as they are, '"), std::string::npos) << r.err;
  nb_checkpoint c;
  nibble_error err;
  ASSERT_EQ(nb_checkpoint_open(out.c_str(), &c, &err), NIBBLE_OK) << err.message;
  for (const char *name : {"bert.pooler.dense.weight", "classifier.weight"}) {
    const nb_tensor *t = nb_checkpoint_find_weight(&c, name);
    ASSERT_NE(t, nullptr) << name;
    EXPECT_EQ(t->layout, nullptr) << name;
  }
  EXPECT_NE(nb_checkpoint_find(&c, "bert.encoder.layer.1.attention.output.dense.qweight"), nullptr);
  nb_checkpoint_close(&c);
  r = Nibble("verify " + out + " --against " + bert);
  EXPECT_EQ(r.code, 0) << r.out << r.err;
  r = Nibble("quantize --no-sync --method nf4 " + bert + " " + (folder_ / "nf4"));
  EXPECT_EQ(r.err.find("stay as they are"), std::string::npos) << r.err;
}

// GPTQModel's table of Qwen3-MoE knows experts in the place of an MLP, and no other.
TEST_F(GptqCommand, LeavesTheDenseLayersOfQwen3MoeAsTheyAre) {
  WriteFile(
      folder_ / "moe.json",
      R"({"architectures":["Qwen3MoeForCausalLM"],"model_type":"qwen3_moe","hidden_size":64,"intermediate_size":96,
      "num_hidden_layers":2,"num_attention_heads":2,"num_key_value_heads":1,"head_dim":32,"vocab_size":256,
      "num_experts":2,"num_experts_per_tok":1,"moe_intermediate_size":32,"mlp_only_layers":[1],"dtype":"float32",
      "max_position_embeddings":64})");
  std::string moe = folder_ / "moe", out = folder_ / "out";
  ASSERT_EQ(Nibble("init --no-sync --quiet " + (folder_ / "moe.json") + " " + moe).code, 0);
  CommandResult r = Nibble("quantize --no-sync --method rtn --group-size 32 " + moe + " " + out);
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_NE(r.err.find("3 weights of linear layers stay as they are"), std::string::npos) << r.err;
  nb_checkpoint c;
  nibble_error err;
  ASSERT_EQ(nb_checkpoint_open(out.c_str(), &c, &err), NIBBLE_OK) << err.message;
  EXPECT_NE(nb_checkpoint_find(&c, "model.layers.0.mlp.experts.1.up_proj.qweight"), nullptr);
  EXPECT_NE(nb_checkpoint_find(&c, "model.layers.1.self_attn.o_proj.qweight"), nullptr);
  EXPECT_NE(nb_checkpoint_find(&c, "model.layers.1.mlp.up_proj.weight"), nullptr);
  nb_checkpoint_close(&c);
  r = Nibble("verify " + out + " --against " + moe);
  EXPECT_EQ(r.code, 0) << r.out << r.err;
}

TEST_F(GptqCommand, APackedWeightOutsideOfBlocksIsAFault) {
  WriteFile(folder_ / "bert.json",
            R"({"architectures":["BertModel"],"model_type":"bert","hidden_size":64,"intermediate_size":96,
      "num_hidden_layers":1,"num_attention_heads":2,"vocab_size":256,"dtype":"float32","max_position_embeddings":64})");
  std::string bert = folder_ / "bert", out = folder_ / "out";
  ASSERT_EQ(Nibble("init --no-sync --quiet " + (folder_ / "bert.json") + " " + bert).code, 0);
  ASSERT_EQ(Nibble("quantize --no-sync --method rtn --group-size 32 " + bert + " " + out).code, 0);
  // The tensors of a query under the pooler's name: it has the same shape.
  std::string file = ReadFile(out + "/model.safetensors");
  const std::string former = "\"pooler.dense.weight\"";
  file.replace(file.find(former), former.size(), "\"pooler.dense.former\"");
  for (const char *part : {"qweight\"", "qzeros\"", "scales\"", "g_idx\""}) {
    const std::string from = std::string("\"encoder.layer.0.attention.self.query.") + part,
                      to = std::string("\"pooler.dense.") + part;
    ASSERT_NE(file.find(from), std::string::npos) << from;
    file.replace(file.find(from), from.size(), std::string(from.size() - to.size(), ' ') + to);
  }
  WriteFile(out + "/model.safetensors", file);
  CommandResult r = Nibble("verify " + out);
  EXPECT_EQ(r.code, 1);
  EXPECT_NE(r.out.find("pooler.dense.qweight: it is packed, but no linear layer's weight of a block"),
            std::string::npos)
      << r.out << r.err;
}

TEST_F(GptqCommand, SaysWhetherTheHeadIsPacked) {
  std::string config = ReadFile(folder_ / "config.json"), untied = folder_ / "untied";
  const std::string tied = "\"tie_word_embeddings\":true";
  config.replace(config.find(tied), tied.size(), "\"tie_word_embeddings\":false");
  WriteFile(folder_ / "untied.json", config);
  ASSERT_EQ(Nibble("init --no-sync --quiet " + (folder_ / "untied.json") + " " + untied).code, 0);
  const std::string rtn = "quantize --quiet --no-sync --method rtn --group-size 32 " + untied + " ";
  ASSERT_EQ(Nibble(rtn + (folder_ / "plain")).code, 0);
  ASSERT_EQ(Nibble(rtn + (folder_ / "packed") + " --include lm_head").code, 0);
  EXPECT_NE(ReadFile(folder_ / "plain/quantize_config.json").find("\"lm_head\": false"), std::string::npos);
  EXPECT_NE(ReadFile(folder_ / "packed/quantize_config.json").find("\"lm_head\": true"), std::string::npos)
      << ReadFile(folder_ / "packed/quantize_config.json");
}

TEST_F(GptqCommand, NamesAWorkFolderThatIsNotItsOwn) {
  std::filesystem::create_directory(folder_ / "mine");
  WriteFile(folder_ / "mine/letter.txt", "dear");
  CommandResult r = Nibble(Args("out", "--work-dir " + (folder_ / "mine")));
  EXPECT_EQ(r.code, 2);
  EXPECT_NE(r.err.find("letter.txt"), std::string::npos) << r.err;
  EXPECT_EQ(ReadFile(folder_ / "mine/letter.txt"), "dear");
}

// Nothing of a folder that no calibration made is removed, also where its files have a calibration's names.
TEST_F(GptqCommand, TakesNoWorkFolderThatItDidNotMake) {
  const std::string mine = folder_ / "mine", victim = folder_ / "victim";
  std::filesystem::create_directory(mine);
  WriteFile(victim, "text");
  for (const char *name : {"settings.json", "x.layer", "activations-1"}) WriteFile(mine + "/" + name, "{}");
  symlink(mine.c_str(), (folder_ / "link").c_str());
  for (const std::string &to : {mine, folder_ / "link", folder_ / "link/", victim}) {
    for (const char *more : {"", " --resume"}) {
      CommandResult r = Nibble(Args("out", "--work-dir " + to + more));
      EXPECT_EQ(r.code, 2) << to << more << r.err;
      EXPECT_NE(r.err.find("in the way"), std::string::npos) << r.err;
    }
  }
  EXPECT_EQ(ListFolder(mine).size(), 3u);
  EXPECT_EQ(ReadFile(victim), "text");
  std::filesystem::create_directory(folder_ / "empty");
  EXPECT_EQ(Nibble(Args("out", "--work-dir " + (folder_ / "empty"))).code, 0);
}

TEST_F(GptqCommand, WritesThroughNoLinkInItsWorkFolder) {
  if (!KillAfter("model.layers.1.self_attn.o_proj"))
    GTEST_SKIP() << "skipped: the run was over before it could be killed";
  const std::string victim = folder_ / "victim",
                    planted = folder_ / "cut.work/model.layers.2.mlp.up_proj.weight.layer.new";
  WriteFile(victim, "text");
  for (bool hard : {false, true}) {
    std::filesystem::remove(planted);
    ASSERT_EQ(hard ? link(victim.c_str(), planted.c_str()) : symlink(victim.c_str(), planted.c_str()), 0);
    CommandResult r = Nibble(Args("cut", "--resume"));
    EXPECT_EQ(r.code, 2) << r.err;
    EXPECT_EQ(ReadFile(victim), "text");
  }
  std::filesystem::remove(planted);
  EXPECT_EQ(Nibble(Args("cut", "--resume")).code, 0);
}

}  // namespace
