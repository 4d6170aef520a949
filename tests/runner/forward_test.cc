// The forward pass against transformers 5.23 and bitsandbytes 0.50.2, on the tiny models of
// scripts/golden/make_tiny_models.py, and against itself.
#include <gtest/gtest.h>

#include <cmath>
#include <memory>

#include "tests/golden_folder.h"
#include "tests/support.h"

extern "C" {
#include "base/parallel.h"
#include "kernels/cpu/isa.h"
#include "runner/sample.h"
#include "runner/session.h"
}

namespace {

std::string Tiny(const std::string &name) { return Golden("tiny/" + name); }

template <typename T>
std::vector<T> Values(const GoldenTensor &t) {
  std::vector<T> out(t.bytes.size() / sizeof(T));
  memcpy(out.data(), t.bytes.data(), t.bytes.size());
  return out;
}

// A model that goes away.
class Model {
 public:
  explicit Model(const std::string &path, nb_model_options options = {}) {
    nibble_error err = {};
    EXPECT_EQ(nb_model_load(path.c_str(), &options, &model_, &err), NIBBLE_OK) << err.message;
  }
  ~Model() { nb_model_free(&model_); }
  Model(const Model &) = delete;
  const nb_model *get() const { return &model_; }
  int64_t vocab() const { return model_.checkpoint.config.vocab_size; }

 private:
  nb_model model_ = {};
};

// Logits [sequences * tokens, vocab] of ids [sequences, tokens], fed `step` tokens at a time.
std::vector<float> Logits(const Model &model, const std::vector<int32_t> &ids, int64_t sequences, int64_t step) {
  int64_t tokens = (int64_t)ids.size() / sequences, vocab = model.vocab();
  nibble_error err = {};
  nb_session *session = nullptr;
  nb_session_options options = {};
  options.sequences = sequences;
  options.capacity = tokens;
  options.step_tokens = step;
  EXPECT_EQ(nb_session_create(model.get(), &options, &session, &err), NIBBLE_OK) << err.message;
  std::vector<float> out((size_t)(sequences * tokens * vocab));
  for (int64_t at = 0; at < tokens; at += step) {
    int64_t n = std::min(step, tokens - at);
    std::vector<int32_t> part, rows;
    for (int64_t s = 0; s < sequences; s++)
      part.insert(part.end(), ids.begin() + s * tokens + at, ids.begin() + s * tokens + at + n);
    EXPECT_EQ(nb_session_step(session, part.data(), n, &err), NIBBLE_OK) << err.message;
    for (int64_t s = 0; s < sequences; s++) {
      rows.clear();
      for (int64_t t = 0; t < n; t++) rows.push_back((int32_t)(s * n + t));
      EXPECT_EQ(nb_session_logits(session, rows.data(), n, &out[(size_t)((s * tokens + at) * vocab)], &err), NIBBLE_OK)
          << err.message;
    }
  }
  nb_session_free(session);
  return out;
}

// The largest difference, over the largest magnitude of `want`.
double Difference(const std::vector<float> &got, const std::vector<float> &want) {
  EXPECT_EQ(got.size(), want.size());
  double difference = 0, largest = 0;
  for (size_t i = 0; i < std::min(got.size(), want.size()); i++) {
    difference = std::max(difference, std::isnan(got[i]) ? INFINITY : std::fabs((double)got[i] - want[i]));
    largest = std::max(largest, std::fabs((double)want[i]));
  }
  return difference / largest;
}

std::vector<nb_isa> Isas() {
  std::vector<nb_isa> all;
  for (int i = 0; i < NB_ISA_COUNT; i++) {
    if (nb_isa_available((nb_isa)i)) all.push_back((nb_isa)i);
  }
  return all;
}

// Runs `body` with every instruction set that this processor has.
template <typename Body>
void OnEveryIsa(Body body) {
  nb_isa before = nb_isa_current();
  for (nb_isa isa : Isas()) {
    SCOPED_TRACE(nb_isa_name(isa));
    nb_isa_use(isa);
    body();
  }
  nb_isa_use(before);
}

class TinyModel : public testing::TestWithParam<const char *> {};

TEST_P(TinyModel, LogitsAreThoseOfTransformers) {
  GoldenFile golden = ReadSafetensors(Tiny(std::string(GetParam()) + ".safetensors"));
  std::vector<int32_t> ids = Values<int32_t>(golden.tensors["ids"]);
  std::vector<float> want = Values<float>(golden.tensors["logits"]);
  ASSERT_FALSE(ids.empty());
  Model model(Tiny(GetParam()));
  OnEveryIsa([&] { EXPECT_LT(Difference(Logits(model, ids, 1, (int64_t)ids.size()), want), 1e-4); });
}

TEST_P(TinyModel, TokenByTokenGivesTheSameLogits) {
  GoldenFile golden = ReadSafetensors(Tiny(std::string(GetParam()) + ".safetensors"));
  std::vector<int32_t> ids = Values<int32_t>(golden.tensors["ids"]);
  Model model(Tiny(GetParam()));
  std::vector<float> whole = Logits(model, ids, 1, (int64_t)ids.size());
  EXPECT_LT(Difference(Logits(model, ids, 1, 1), whole), 1e-5);
  EXPECT_LT(Difference(Logits(model, ids, 1, 7), whole), 1e-5);
}

TEST_P(TinyModel, ABatchGivesWhatItsSequencesGiveAlone) {
  GoldenFile golden = ReadSafetensors(Tiny(std::string(GetParam()) + ".safetensors"));
  std::vector<int32_t> ids = Values<int32_t>(golden.tensors["ids"]);
  Model model(Tiny(GetParam()));
  int64_t sequences = 4, tokens = (int64_t)ids.size() / sequences;
  std::vector<float> batch = Logits(model, ids, sequences, tokens), alone;
  for (int64_t s = 0; s < sequences; s++) {
    std::vector<int32_t> one(ids.begin() + s * tokens, ids.begin() + (s + 1) * tokens);
    std::vector<float> part = Logits(model, one, 1, tokens);
    alone.insert(alone.end(), part.begin(), part.end());
  }
  EXPECT_LT(Difference(batch, alone), 1e-5);
  EXPECT_LT(Difference(Logits(model, ids, sequences, 3), alone), 1e-5);
}

// Whole artifacts as GPTQModel saves them, against its own dequantized weights in transformers.
TEST(Forward, GptqModelsArtifactsGiveTheLogitsOfTheirDequantizedWeights) {
  for (const char *name : {"llama-4bit-asym-act", "llama-3bit-sym-v2"}) {
    SCOPED_TRACE(name);
    std::string path = Golden(std::string("gptqmodel-7.7.0/") + name);
    GoldenFile golden = ReadSafetensors(path + ".safetensors");
    std::vector<int32_t> ids = Values<int32_t>(golden.tensors["ids"]);
    std::vector<float> want = Values<float>(golden.tensors["logits"]);
    ASSERT_FALSE(ids.empty());
    Model model(path);
    OnEveryIsa([&] {
      EXPECT_LT(Difference(Logits(model, ids, 1, (int64_t)ids.size()), want), 1e-4);
      EXPECT_LT(Difference(Logits(model, ids, 1, 1), want), 1e-4);
    });
  }
}

// A decoder beside an encoder, in one step and token by token, after another text, and for two texts at once.
TEST(Forward, ADecoderGoesOnFromItsEncoder) {
  GoldenFile golden = ReadSafetensors(Tiny("t5-f32.safetensors"));
  std::vector<int32_t> ids = Values<int32_t>(golden.tensors["ids"]),
                       dec = Values<int32_t>(golden.tensors["decoder_ids"]);
  std::vector<float> want = Values<float>(golden.tensors["logits"]);
  Model model(Tiny("t5-f32"));
  int64_t n = (int64_t)dec.size(), tokens = (int64_t)ids.size(), vocab = model.vocab();
  for (int64_t sequences : {1, 2}) {
    nb_session_options options = {};
    options.sequences = sequences;
    options.capacity = n;
    options.encoder_capacity = tokens + 3;
    nb_session *session = nullptr;
    nibble_error err = {};
    ASSERT_EQ(nb_session_create(model.get(), &options, &session, &err), NIBBLE_OK) << err.message;
    EXPECT_EQ(nb_session_step(session, dec.data(), 1, &err), NIBBLE_USAGE) << "without the encoder's tokens";
    std::vector<int32_t> other((size_t)(sequences * (tokens + 3)), 7), both, rows;
    ASSERT_EQ(nb_session_encode(session, other.data(), tokens + 3, &err), NIBBLE_OK) << err.message;
    for (int64_t s = 0; s < sequences; s++) both.insert(both.end(), ids.begin(), ids.end());
    for (int64_t step : {n, (int64_t)1, (int64_t)5}) {
      SCOPED_TRACE(step);
      std::vector<float> got((size_t)(n * vocab));
      ASSERT_EQ(nb_session_encode(session, both.data(), tokens, &err), NIBBLE_OK) << err.message;
      for (int64_t at = 0; at < n; at += step) {
        int64_t k = std::min(step, n - at);
        std::vector<int32_t> part;
        for (int64_t s = 0; s < sequences; s++) part.insert(part.end(), dec.begin() + at, dec.begin() + at + k);
        ASSERT_EQ(nb_session_step(session, part.data(), k, &err), NIBBLE_OK) << err.message;
        rows.clear();
        for (int64_t t = 0; t < k; t++) rows.push_back((int32_t)((sequences - 1) * k + t));
        ASSERT_EQ(nb_session_logits(session, rows.data(), k, &got[(size_t)(at * vocab)], &err), NIBBLE_OK);
      }
      EXPECT_LT(Difference(got, want), 1e-4);
    }
    nb_session_free(session);
  }
}

// An expert sees the rows that have chosen it, cross-attention the encoder's, a hook of no module is told.
TEST(Hidden, SeesTheInputOfAnyModuleOfAnyFamily) {
  TempFolder folder;
  const struct {
    const char *model, *more, *hook;
    int64_t rows, cols;  // rows 0: some
  } cases[] = {{"gpt2-f32", "", "h.1.mlp.c_proj", 12, 144},
               {"bert-mlm-f32", "", "encoder.layer.0.output.dense", 12, 44},
               {"t5-f32", " --decoder-ids 0,3,4", "decoder.block.1.layer.1.EncDecAttention.k", 12, 24},
               {"t5-f32", " --decoder-ids 0,3,4", "decoder.block.1.layer.1.EncDecAttention.o", 3, 18},
               {"mixtral-f32", "", "layers.0.block_sparse_moe.experts.1.w2", 0, 20}};
  for (const auto &c : cases) {
    std::string name = std::string(c.hook) + ".input", out = folder / "x";
    CommandResult r = Nibble("hidden " + Tiny(c.model) + " --force --ids 1,2,3,4,5,6,7,8,9,10,11,12 --hook " + name +
                             c.more + " --out " + out);
    ASSERT_EQ(r.code, 0) << r.err;
    GoldenFile file = ReadSafetensors(out);
    ASSERT_EQ(file.tensors.size(), 1u);
    ASSERT_EQ(file.tensors.begin()->first, name);
    std::vector<int64_t> shape = file.tensors[name].shape;
    EXPECT_EQ(shape[2], c.cols) << name;
    if (c.rows) {
      EXPECT_EQ(shape[1], c.rows) << name;
    }
    EXPECT_EQ(file.tensors[name].bytes.size(), (size_t)(shape[1] * shape[2] * 4));
  }
  EXPECT_EQ(Nibble("hidden " + Tiny("gpt2-f32") + " --ids 1 --hook h.1.mlp.none.input --out " + (folder / "y")).code,
            2);
}

INSTANTIATE_TEST_SUITE_P(Forward, TinyModel,
                         testing::Values("llama-f32", "llama-tied-biases-f16", "llama-head-dim-llama3-bf16",
                                         "llama-old-linear-bf16", "llama-old-llama3-bf16", "llama-mha-gelu-f16",
                                         "mistral-window-bf16", "qwen2-bf16", "qwen2-window-bf16", "qwen3-bf16",
                                         "gpt2-f32", "gpt2-switches-bf16", "mixtral-window-bf16",
                                         "qwen3-moe-sparse-step-bf16", "llama-nf4", "llama-nf4-double", "llama-fp4",
                                         "llama-int8"),
                         [](const auto &info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

nb_model_options LlmInt8() {
  nb_model_options options = {};
  options.llm_int8 = true;
  return options;
}

// The golden model's activations pass the threshold, and no code of it lies so near a rounding boundary that another
// order of float32 additions moves it.
TEST(LlmInt8, LogitsAreThoseOfBitsandbytes) {
  GoldenFile golden = ReadSafetensors(Tiny("llama-int8.safetensors"));
  std::vector<int32_t> ids = Values<int32_t>(golden.tensors["ids"]);
  std::vector<float> want = Values<float>(golden.tensors["logits_llm_int8"]);
  EXPECT_GT(Difference(Values<float>(golden.tensors["logits"]), want), 1e-3) << "the model makes no difference";
  Model model(Tiny("llama-int8"), LlmInt8());
  OnEveryIsa([&] { EXPECT_LT(Difference(Logits(model, ids, 1, (int64_t)ids.size()), want), 1e-4); });
}

TEST(LlmInt8, LooksForOutliersInOneSequenceAtATime) {
  GoldenFile golden = ReadSafetensors(Tiny("llama-int8.safetensors"));
  std::vector<int32_t> ids = Values<int32_t>(golden.tensors["ids"]);
  Model model(Tiny("llama-int8"), LlmInt8());
  int64_t tokens = (int64_t)ids.size() / 2;
  std::vector<float> batch = Logits(model, ids, 2, tokens), alone;
  for (int s = 0; s < 2; s++) {
    std::vector<int32_t> one(ids.begin() + s * tokens, ids.begin() + (s + 1) * tokens);
    std::vector<float> part = Logits(model, one, 1, tokens);
    alone.insert(alone.end(), part.begin(), part.end());
  }
  EXPECT_LT(Difference(batch, alone), 1e-5);
}

TEST(Forward, DoesNotDependOnTheNumberOfThreads) {
  for (const char *name : {"llama-f32", "llama-nf4-double", "llama-int8"}) {
    std::vector<int32_t> ids =
        Values<int32_t>(ReadSafetensors(Tiny(std::string(name) + ".safetensors")).tensors["ids"]);
    Model plain(Tiny(name)), llm(Tiny(name), LlmInt8());
    for (const Model *model : {&plain, &llm}) {
      nb_threads_use(1);
      std::vector<float> one = Logits(*model, ids, 2, 20);
      nb_threads_use(3);
      EXPECT_EQ(Logits(*model, ids, 2, 20), one) << name;
      nb_threads_use(0);
    }
  }
}

TEST(Forward, SpreadsAModelOverTwoBackends) {
  static nb_backend second;
  second = *nb_backend_cpu();
  nb_model_options options = {};
  options.backend_of_layer = [](void *, int64_t layer) { return layer % 2 ? &second : nb_backend_cpu(); };
  std::vector<int32_t> ids = Values<int32_t>(ReadSafetensors(Tiny("llama-f32.safetensors")).tensors["ids"]);
  Model whole(Tiny("llama-f32")), spread(Tiny("llama-f32"), options);
  EXPECT_EQ(Logits(spread, ids, 1, 16), Logits(whole, ids, 1, 16));
}

TEST(Forward, LogProbabilitiesAreThoseOfTheLogits) {
  Model model(Tiny("qwen3-bf16"));
  std::vector<int32_t> ids = Values<int32_t>(ReadSafetensors(Tiny("qwen3-bf16.safetensors")).tensors["ids"]), rows,
                       next;
  int64_t n = (int64_t)ids.size(), vocab = model.vocab();
  std::vector<float> logits = Logits(model, ids, 1, n);
  nb_session *session = nullptr;
  nb_session_options options = {};
  options.capacity = n;
  nibble_error err = {};
  ASSERT_EQ(nb_session_create(model.get(), &options, &session, &err), NIBBLE_OK);
  ASSERT_EQ(nb_session_step(session, ids.data(), n, &err), NIBBLE_OK);
  for (int32_t i = 0; i + 1 < n; i++) {
    rows.push_back(i);
    next.push_back(ids[(size_t)i + 1]);
  }
  std::vector<double> log_prob(rows.size());
  std::vector<int32_t> best(rows.size());
  const nb_predictions predictions = {n - 1, rows.data(), next.data(), log_prob.data(), best.data()};
  ASSERT_EQ(nb_session_log_probs(session, &predictions, &err), NIBBLE_OK);
  for (size_t i = 0; i < rows.size(); i++) {
    const float *row = &logits[i * (size_t)vocab];
    double sum = 0;
    for (int64_t v = 0; v < vocab; v++) sum += std::exp((double)row[v]);
    EXPECT_NEAR(log_prob[i], row[next[i]] - std::log(sum), 1e-5) << "row " << i;
    EXPECT_EQ(best[i], std::max_element(row, row + vocab) - row);
  }
  nb_session_free(session);
}

TEST(Forward, RefusesWhatItHasNoRoomFor) {
  Model model(Tiny("llama-f32"));
  nb_session *session = nullptr;
  nb_session_options options = {};
  options.capacity = 4;
  nibble_error err = {};
  ASSERT_EQ(nb_session_create(model.get(), &options, &session, &err), NIBBLE_OK);
  int32_t ids[5] = {1, 2, 3, 4, 5}, far = 48, negative = -1;
  EXPECT_EQ(nb_session_step(session, ids, 5, &err), NIBBLE_USAGE);
  EXPECT_EQ(nb_session_step(session, &far, 1, &err), NIBBLE_USAGE);
  EXPECT_EQ(nb_session_step(session, &negative, 1, &err), NIBBLE_USAGE);
  EXPECT_EQ(nb_session_length(session), 0);
  EXPECT_EQ(nb_session_step(session, ids, 4, &err), NIBBLE_OK);
  EXPECT_EQ(nb_session_step(session, ids, 1, &err), NIBBLE_USAGE);
  float logits[48];
  int32_t row = 4;
  EXPECT_EQ(nb_session_logits(session, &row, 1, logits, &err), NIBBLE_USAGE);
  nb_session_free(session);
}

// ---- loading

// A copy of a tiny model with one place of its config.json changed.
void CopyChanged(const std::string &name, const std::string &to, const std::string &from_text,
                 const std::string &text) {
  std::filesystem::create_directory(to);
  for (const char *file : {"model.safetensors", "config.json"}) {
    std::string bytes = ReadFile(Tiny(name) + "/" + file);
    size_t at = bytes.find(from_text);
    if (std::string(file) == "config.json") {
      ASSERT_NE(at, std::string::npos) << from_text;
      bytes.replace(at, from_text.size(), text);
    }
    WriteFile(to + "/" + file, bytes);
  }
}

TEST(Model, NamesWhatItCannotRun) {
  const struct {
    const char *model, *from, *to, *says;
  } cases[] = {
      {"llama-f32", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3", "model.layers.2."},
      {"llama-f32", "\"attention_bias\": false", "\"attention_bias\": true", "q_proj.bias"},
      {"llama-f32", "\"intermediate_size\": 40", "\"intermediate_size\": 41", "mlp."},
      {"llama-f32", "\"rope_type\": \"default\"", "\"rope_type\": \"yarn\"", "yarn"},
      {"llama-f32", "\"hidden_act\": \"silu\"", "\"hidden_act\": \"laplace\"", "laplace"},
      {"llama-f32", "\"model_type\": \"llama\"", "\"model_type\": \"unheard_of\"", "unheard_of"},
      {"llama-nf4", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3", "model.layers.2."},
  };
  for (const auto &c : cases) {
    TempFolder folder;
    CopyChanged(c.model, folder / "m", c.from, c.to);
    nb_model model;
    nibble_error err = {};
    nb_model_options options = {};
    EXPECT_EQ(nb_model_load((folder / "m").c_str(), &options, &model, &err), NIBBLE_BAD_INPUT) << c.to;
    EXPECT_NE(std::string(err.message).find(c.says), std::string::npos) << err.message;
  }
}

// ---- the commands

TEST(Ppl, IsThatOfTransformersByEachConvention) {
  cJSON *want = cJSON_Parse(ReadFile(Tiny("llama-f32.json")).c_str());
  ASSERT_NE(want, nullptr);
  const struct {
    const char *key, *options;
  } cases[] = {{"hf", ""}, {"strided", " --stride 12"}, {"llama_cpp", " --convention llama.cpp"}};
  for (const auto &c : cases) {
    CommandResult r =
        Nibble("ppl " + Tiny("llama-f32") + " --text " + Tiny("text.txt") + " --ctx 32 --json" + c.options);
    ASSERT_EQ(r.code, 0) << r.err;
    cJSON *got = cJSON_Parse(r.out.c_str());
    auto number = [](const cJSON *json, const char *key) { return cJSON_GetObjectItem(json, key)->valuedouble; };
    const cJSON *expected = cJSON_GetObjectItem(want, c.key);
    EXPECT_NEAR(number(got, "perplexity") / number(expected, "perplexity"), 1, 1e-5) << c.key;
    EXPECT_NEAR(number(got, "perplexity_stderr") / number(expected, "stderr"), 1, 1e-4) << c.key;
    EXPECT_EQ(number(got, "tokens"), number(expected, "tokens")) << c.key;
    EXPECT_EQ(number(got, "chunks"), number(expected, "chunks")) << c.key;
    cJSON_Delete(got);
  }
  cJSON_Delete(want);
}

// What begins each window is what the tokenizer puts before a text, whatever the config calls it.
TEST(Ppl, BeginsWindowsAsTheTokenizerBeginsTexts) {
  TempFolder folder;
  CopyChanged("llama-f32", folder / "m", "\"bos_token_id\": 0", "\"bos_token_id\": null");
  WriteFile(folder / "m/tokenizer.json", ReadFile(Tiny("llama-f32/tokenizer.json")));
  const std::string options = " --convention llama.cpp --ctx 32 --quiet --text " + Tiny("text.txt");
  auto figure = [&](const std::string &model) {
    std::string out = Nibble("ppl " + model + options).out;
    return out.substr(0, out.find('\n'));
  };
  EXPECT_NE(figure(folder / "m"), "");
  EXPECT_EQ(figure(folder / "m"), figure(Tiny("llama-f32")));
}

// Long windows are run in steps, but for LLM.int8, which changes nothing in a model of float32 weights otherwise. A
// byte of the text is a token: two windows, or four that overlap.
TEST(Ppl, ALongWindowInStepsIsTheWindowAtOnce) {
  TempFolder folder;
  CopyChanged("llama-f32", folder / "m", "\"max_position_embeddings\": 128", "\"max_position_embeddings\": 2048");
  WriteFile(folder / "m/tokenizer.json", ReadFile(Tiny("llama-f32/tokenizer.json")));
  std::string text = ReadFile(Tiny("text.txt")),
              command = "ppl " + (folder / "m") + " --ctx 1201 --json --text " + (folder / "t");
  while (text.size() < 3400) text += text;
  WriteFile(folder / "t", text);
  for (const char *more : {"", " --stride 700", " --convention llama.cpp"}) {
    CommandResult steps = Nibble(command + more), whole = Nibble(command + more + " --int8 llm.int8");
    ASSERT_EQ(steps.code, 0) << steps.err;
    ASSERT_EQ(whole.code, 0) << whole.err;
    cJSON *got = cJSON_Parse(steps.out.c_str()), *want = cJSON_Parse(whole.out.c_str());
    for (const char *key : {"perplexity", "perplexity_stderr", "tokens", "chunks"}) {
      double a = cJSON_GetObjectItem(got, key)->valuedouble, b = cJSON_GetObjectItem(want, key)->valuedouble;
      EXPECT_NEAR(a / b, 1, 1e-6) << key << more;
    }
    cJSON_Delete(got);
    cJSON_Delete(want);
  }
}

TEST(Ppl, RefusesATextShorterThanAWindow) {
  EXPECT_EQ(Nibble("ppl " + Tiny("llama-f32") + " --text /dev/null --ctx 32").code, 3);
  EXPECT_EQ(Nibble("ppl " + Tiny("llama-f32") + " --text " + Tiny("text.txt") + " --activations int4").code, 2);
  EXPECT_EQ(Nibble("ppl " + Tiny("llama-f32") + " --text " + Tiny("text.txt") + " --ctx 32 --stride 33").code, 2);
}

TEST(LogitsCommand, WritesTheLogits) {
  TempFolder folder;
  GoldenFile golden = ReadSafetensors(Tiny("llama-f32.safetensors"));
  std::string list;
  for (int32_t id : Values<int32_t>(golden.tensors["ids"])) list += (list.empty() ? "" : ",") + std::to_string(id);
  std::string command = "logits " + Tiny("llama-f32") + " --ids " + list + " --out " + (folder / "l.safetensors");
  CommandResult r = Nibble(command);
  ASSERT_EQ(r.code, 0) << r.err;
  GoldenFile out = ReadSafetensors(folder / "l.safetensors");
  EXPECT_EQ(out.tensors["logits"].shape, (std::vector<int64_t>{1, 40, 48}));
  EXPECT_LT(Difference(Values<float>(out.tensors["logits"]), Values<float>(golden.tensors["logits"])), 1e-4);
  EXPECT_NE(Nibble(command).code, 0) << "an existing file is replaced with --force only";
  EXPECT_EQ(Nibble(command + " --force").code, 0);
  EXPECT_EQ(Nibble("logits " + Tiny("llama-f32") + " --ids 1,48 --out " + (folder / "n")).code, 2);
  EXPECT_EQ(ListFolder(folder.path()), (std::vector<std::string>{"l.safetensors"}));
}

// The last block's input, normed and multiplied by hand, gives the logits: what a hook shows is what is computed with.
TEST(HiddenCommand, ShowsWhatTheLayersSee) {
  TempFolder folder;
  std::string model = Tiny("llama-f32"), to = folder / "h.safetensors";
  auto shape = [&](const std::string &hook) {
    CommandResult r = Nibble("hidden " + model + " --ids 3,1,4,1,5 --force --out " + to + " --hook " + hook);
    EXPECT_EQ(r.code, 0) << hook << ": " << r.err;
    return ReadSafetensors(to).tensors[hook].shape;
  };
  EXPECT_EQ(shape("layers.1.mlp.down_proj.input"), (std::vector<int64_t>{1, 5, 40}));
  EXPECT_EQ(shape("layers.0.self_attn.o_proj.input"), (std::vector<int64_t>{1, 5, 24}));
  EXPECT_EQ(shape("layers.0.input"), (std::vector<int64_t>{1, 5, 24}));
  std::vector<float> embedded = Values<float>(ReadSafetensors(to).tensors["layers.0.input"]);
  std::vector<float> table =
      Values<float>(ReadSafetensors(model + "/model.safetensors").tensors["model.embed_tokens.weight"]);
  for (int i = 0; i < 24; i++) EXPECT_EQ(embedded[(size_t)i], table[3 * 24 + (size_t)i]);
  EXPECT_EQ(Nibble("hidden " + model + " --ids 3 --hook layers.9.input --out " + (folder / "x")).code, 2);
  EXPECT_FALSE(Exists(folder / "x"));
}

TEST(Generate, IsDeterministicForASeed) {
  std::string command =
      "generate " + Tiny("llama-f32") + " --prompt 'the cat' --max-new-tokens 20 --ignore-eos --quiet";
  std::string sampled = command + " --temperature 1.5 --seed ";
  CommandResult one = Nibble(sampled + "1");
  ASSERT_EQ(one.code, 0) << one.err;
  EXPECT_EQ(Nibble(sampled + "1").out, one.out);
  EXPECT_EQ(Nibble(sampled + "1 --threads 1").out, one.out);
  EXPECT_NE(Nibble(sampled + "2").out, one.out);
  EXPECT_EQ(Nibble(command + " --temperature 1.5 --top-k 1").out, Nibble(command).out) << "top-k 1 is greedy";
}

// As in transformers: the tokens of generation_config.json alone, where it names any, however many.
TEST(Generate, StopsAtTheTokensOfTheGenerationConfig) {
  TempFolder folder;
  const std::string model = folder / "m", beside = model + "/generation_config.json";
  auto stops = [&](const std::string &config, const std::string &generation) {
    CopyChanged("llama-f32", model, "\"eos_token_id\": 1", "\"eos_token_id\": " + config);
    WriteFile(model + "/tokenizer.json", ReadFile(Tiny("llama-f32/tokenizer.json")));
    WriteFile(beside, generation);
    CommandResult r = Nibble("generate " + model + " --prompt 'the cat' --max-new-tokens 1 --quiet --json");
    EXPECT_EQ(r.code, 0) << r.err;
    cJSON *json = cJSON_Parse(r.out.c_str());
    bool stopped = cJSON_IsTrue(cJSON_GetObjectItem(json, "stopped_at_eos"));
    cJSON_Delete(json);
    return stopped;
  };
  std::string all = "[";
  int first = -1, found = 0;
  for (int id = 0; id < 48; id++) {
    all += (id ? "," : "") + std::to_string(id);
    if (!stops("1", "{\"eos_token_id\": " + std::to_string(id) + "}")) continue;
    first = id;
    found++;
  }
  ASSERT_EQ(found, 1);
  const std::string next = std::to_string(first), other = std::to_string((first + 1) % 48);
  EXPECT_TRUE(stops(other, "{\"eos_token_id\": " + all + "]}"));
  EXPECT_FALSE(stops(next, "{\"eos_token_id\": " + other + "}"));
  EXPECT_FALSE(stops(next, "{\"eos_token_id\": [" + other + "]}"));
  EXPECT_TRUE(stops(next, "{\"eos_token_id\": null}"));
  EXPECT_TRUE(stops(next, "{}"));
}

TEST(Generate, AmongNoProbabilityIsTheLikeliest) {
  const std::string command = "generate " + Tiny("llama-f32") + " --prompt 'the cat' --max-new-tokens 12 --quiet";
  const std::string sampled = command + " --temperature 1.5 --seed 3";
  EXPECT_EQ(Nibble(sampled + " --top-p 0").out, Nibble(command).out);
  EXPECT_NE(Nibble(sampled + " --top-p 1").out, Nibble(command).out);
}

TEST(Generate, NamesAModelWhoseOutputIsNotFinite) {
  TempFolder folder;
  GoldenFolder model("tiny/llama-f32");
  for (size_t i = 3; i < 4 * 24; i += 4) model.file.tensors["model.norm.weight"].bytes[i] = '\x7f';
  for (size_t i = 2; i < 4 * 24; i += 4) model.file.tensors["model.norm.weight"].bytes[i] = '\xff';
  model.Save(folder / "m");
  WriteFile(folder / "m/tokenizer.json", ReadFile(Tiny("llama-f32/tokenizer.json")));
  for (const char *how : {"", " --temperature 1"}) {
    CommandResult r = Nibble("generate " + (folder / "m") + " --prompt 'the cat' --max-new-tokens 3 --quiet" + how);
    EXPECT_EQ(r.code, 3) << r.out;
    EXPECT_NE(r.err.find("not finite"), std::string::npos) << r.err;
  }
}

// ---- sampling

std::vector<double> Frequencies(double temperature, int64_t top_k, double top_p) {
  nb_sampler sampler;
  nibble_error err = {};
  const nb_sampling how = {temperature, top_k, top_p, 42};
  EXPECT_EQ(nb_sampler_init(&sampler, &how, 4, &err), NIBBLE_OK);
  const float logits[4] = {std::log(0.1f), std::log(0.4f), std::log(0.2f), std::log(0.3f)};
  std::vector<double> out(4);
  for (int i = 0; i < 100000; i++) out[(size_t)nb_sampler_next(&sampler, logits)] += 1e-5;
  nb_sampler_free(&sampler);
  return out;
}

void ExpectNear(const std::vector<double> &got, const std::vector<double> &want) {
  for (size_t i = 0; i < want.size(); i++) EXPECT_NEAR(got[i], want[i], 0.007) << "token " << i;
}

TEST(Sampler, DrawsByProbability) {
  ExpectNear(Frequencies(0, 0, 0), {0, 1, 0, 0});
  ExpectNear(Frequencies(1, 0, 0), {0.1, 0.4, 0.2, 0.3});
  ExpectNear(Frequencies(0.5, 0, 0), {0.01 / 0.3, 0.16 / 0.3, 0.04 / 0.3, 0.09 / 0.3});
  ExpectNear(Frequencies(1, 2, 0), {0, 4 / 7.0, 0, 3 / 7.0});
  ExpectNear(Frequencies(1, 0, 0.65), {0, 4 / 7.0, 0, 3 / 7.0});
  ExpectNear(Frequencies(1, 0, 0.75), {0, 4 / 9.0, 2 / 9.0, 3 / 9.0});
}

}  // namespace
