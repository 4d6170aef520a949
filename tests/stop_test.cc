// A caller that wants to stop is heard at every band, wherever a call is at that moment, and finds nothing but what was
// there before. The caller here counts how often it is asked, and says yes from the nth time on, for many n.
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <map>
#include <regex>

#include "tests/checkpoint_files.h"
#include "tests/support.h"

extern "C" {
#include "base/parallel.h"
#include "base/stop.h"
#include "nibble.h"
}

namespace {

const char kConfig[] =
    R"({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32, "vocab_size": 256,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "torch_dtype": "float32", "initializer_range": 0.2})";

struct Caller {
  int64_t patience;  // questions that it answers with no
  std::atomic<int64_t> asked{0};
  static bool Stop(void *ctx) {
    Caller *caller = (Caller *)ctx;
    return ++caller->asked > caller->patience;
  }
};

// Every file below a folder, with its bytes.
std::map<std::string, std::string> Snapshot(const std::string &folder) {
  std::map<std::string, std::string> files;
  for (const auto &entry : std::filesystem::recursive_directory_iterator(folder))
    files[entry.path()] = entry.is_regular_file() ? ReadFile(entry.path()) : "";
  return files;
}

std::string Names(const std::map<std::string, std::string> &files) {
  std::string names;
  for (const auto &file : files) names += file.first + "\n";
  return names;
}

template <typename T>
T Zeroed() {
  T options = {};
  options.size = sizeof options;
  return options;
}

class Stop : public testing::Test {
 protected:
  using Call = std::function<nibble_status(const nibble_context *, nibble_error *)>;

  void SetUp() override {
    WriteFile(In("config.json"), kConfig);
    ASSERT_EQ(Run(Init("src"), INT64_MAX, 0), NIBBLE_OK) << err_.message;
    std::filesystem::copy(Golden("artifacts/bf16/tokenizer.json"), In("src"));
    std::string text;
    for (unsigned i = 1; text.size() < 700; i = i * 1103515245u + 12345u)
      text += "the bit of a weight falls "[i >> 16 & 15];
    WriteFile(In("text"), text);
    ASSERT_EQ(Run(Quantize("q", "nf4"), INT64_MAX, 0), NIBBLE_OK) << err_.message;
  }
  std::string In(const std::string &name) const { return folder_ / name; }

  nibble_status Run(const Call &call, int64_t patience, int threads) {
    nibble_context *context = nullptr;
    Caller caller{patience};
    EXPECT_EQ(nibble_context_create(&context, &err_), NIBBLE_OK);
    nibble_context_set_threads(context, threads, nullptr);
    nibble_context_set_stop(context, Caller::Stop, &caller, nullptr);
    nibble_status status = call(context, &err_);
    nibble_context_free(context);
    asked_ = caller.asked;
    return status;
  }

  // Stops the call at its first questions and at many of the others. In the end it runs through.
  void StopsEverywhere(const char *what, const Call &call, const std::string &output, int64_t least) {
    const auto before = Snapshot(folder_.path());
    for (int64_t patience = 0;; patience += 1 + patience / 4) {
      nibble_status status = Run(call, patience, 1 + patience % 2 * 2);
      if (status == NIBBLE_OK) break;
      ASSERT_EQ(status, NIBBLE_STOPPED) << what << " at " << patience << ": " << err_.message;
      EXPECT_EQ(err_.status, NIBBLE_STOPPED);
      EXPECT_NE(std::string(err_.message).find("stopped"), std::string::npos) << err_.message;
      EXPECT_EQ(Names(Snapshot(folder_.path())), Names(before)) << what << " at " << patience;
      EXPECT_TRUE(Snapshot(folder_.path()) == before) << what << " at " << patience;
      EXPECT_LE(asked_, patience + 3) << what << ": who has said yes is not asked again, but by other threads";
    }
    EXPECT_GE(asked_, least) << what << ": how often a whole run asks";
    EXPECT_TRUE(output.empty() || Exists(output)) << what;
  }

  Call Init(const std::string &dst) const {
    return [this, dst](const nibble_context *context, nibble_error *err) {
      auto o = Zeroed<nibble_init_options>();
      auto r = Zeroed<nibble_init_result>();
      std::string config = In("config.json"), to = In(dst);
      o.context = context, o.config = config.c_str(), o.dst = to.c_str();
      return nibble_init(&o, &r, err);
    };
  }
  Call Convert(const std::string &src, const std::string &dst, bool dequantize, bool force = false) const {
    return [=](const nibble_context *context, nibble_error *err) {
      auto o = Zeroed<nibble_convert_options>();
      auto r = Zeroed<nibble_convert_result>();
      std::string to = In(dst);
      o.context = context, o.src = src.c_str(), o.dst = to.c_str(), o.dequantize = dequantize, o.force = force;
      return nibble_convert(&o, &r, err);
    };
  }
  Call Quantize(const std::string &dst, const char *method, bool resume = false, bool force = false) const {
    return [=](const nibble_context *context, nibble_error *err) {
      auto o = Zeroed<nibble_quantize_options>();
      auto r = Zeroed<nibble_quantize_result>();
      std::string src = In("src"), to = In(dst), text = In("text");
      o.context = context, o.src = src.c_str(), o.dst = to.c_str(), o.method = method;
      o.resume = resume, o.force = force;
      if (std::string(method) == "gptq") o.calib = text.c_str(), o.nsamples = 4, o.seqlen = 32, o.group_size = 32;
      if (std::string(method) == "rtn") o.group_size = 32;
      if (std::string(method) == "nf4") o.double_quant = true;
      return nibble_quantize(&o, &r, err);
    };
  }
  Call Forward(decltype(nibble_logits) *function, const char *hook, const std::string &dst) const {
    return [=](const nibble_context *context, nibble_error *err) {
      auto o = Zeroed<nibble_logits_options>();
      auto r = Zeroed<nibble_logits_result>();
      std::string model = In("q"), to = In(dst);
      const int32_t ids[] = {1, 2, 3, 4, 5};
      o.context = context, o.model = model.c_str(), o.ids = ids, o.id_count = 5, o.hook = hook, o.out = to.c_str();
      return function(&o, &r, err);
    };
  }

  TempFolder folder_;
  nibble_error err_ = {};
  int64_t asked_ = 0;
};

TEST_F(Stop, EveryCallThatWritesLeavesNothingBehind) {
  StopsEverywhere("init", Init("a"), In("a"), 20);
  StopsEverywhere("convert", Convert(In("src"), "b", false), In("b"), 20);
  StopsEverywhere("convert --dequantize", Convert(In("q"), "c", true), In("c"), 20);
  StopsEverywhere("convert of a GGUF file", Convert(Golden("gguf/tiny.gguf"), "d", false), In("d"), 5);
  for (const char *method : {"nf4", "fp4", "int8", "rtn"})
    StopsEverywhere(method, Quantize(std::string("to-") + method, method), In(std::string("to-") + method), 20);
  StopsEverywhere("logits", Forward(nibble_logits, nullptr, "e"), In("e"), 20);
  StopsEverywhere("hidden", Forward(nibble_hidden, "layers.1.mlp.down_proj.input", "f"), In("f"), 20);
}

TEST_F(Stop, EveryCallThatComputesStops) {
  const std::string model = In("q"), text = In("text");
  StopsEverywhere(
      "ppl",
      [&](const nibble_context *context, nibble_error *err) {
        auto o = Zeroed<nibble_ppl_options>();
        auto r = Zeroed<nibble_ppl_result>();
        o.context = context, o.model = model.c_str(), o.text = text.c_str(), o.ctx = 32;
        return nibble_ppl(&o, &r, err);
      },
      "", 50);
  StopsEverywhere(
      "generate",
      [&](const nibble_context *context, nibble_error *err) {
        auto o = Zeroed<nibble_generate_options>();
        auto r = Zeroed<nibble_generate_result>();
        o.context = context, o.model = model.c_str(), o.prompt = "the", o.max_new_tokens = 8;
        o.ignore_eos = true;
        nibble_status status = nibble_generate(&o, &r, err);
        free(r.text);
        return status;
      },
      "", 50);
  StopsEverywhere(
      "bench",
      [&](const nibble_context *context, nibble_error *err) {
        auto o = Zeroed<nibble_bench_options>();
        auto r = Zeroed<nibble_bench_result>();
        o.context = context, o.model = model.c_str(), o.prompt = 16, o.gen = 4, o.repetitions = 1;
        return nibble_bench(&o, &r, err);
      },
      "", 50);
}

TEST_F(Stop, VerifyStopsAndTellsOfTheReportThatStands) {
  const std::string artifact = In("q"), original = In("src"), text = In("text"), page = In("page.html"),
                    certificate = In("certificate.json");
  bool with_page = false;
  Call verify = [&](const nibble_context *context, nibble_error *err) {
    auto o = Zeroed<nibble_verify_options>();
    nibble_verification *out = nullptr;
    o.context = context, o.artifact = artifact.c_str(), o.against = original.c_str(), o.text = text.c_str();
    o.ctx = 32, o.chunks = 2, o.certificate = certificate.c_str(), o.sensitivity = true;
    if (with_page) o.report = page.c_str();
    nibble_status status = nibble_verify(&o, &out, err);
    nibble_verification_free(out);
    return status == NIBBLE_CHECK_FAILED ? NIBBLE_OK : status; /* a random model is no good one */
  };
  StopsEverywhere("verify", verify, certificate, 200);
  std::filesystem::remove(certificate);
  with_page = true;
  int told = 0;
  const int64_t whole = asked_;
  for (int64_t patience = whole; patience > 0 && told == 0; patience--) {
    nibble_status status = Run(verify, patience, 1);
    if (status == NIBBLE_OK) std::filesystem::remove(certificate);
    if (status == NIBBLE_OK || !Exists(page)) continue;
    ASSERT_EQ(status, NIBBLE_STOPPED) << err_.message;
    EXPECT_FALSE(Exists(certificate));
    told += std::string(err_.message) == "stopped; no certificate is written, but the report, " + page;
    std::filesystem::remove(page);
  }
  EXPECT_EQ(told, 1) << err_.message;
}

TEST_F(Stop, AnOlderOutputStaysAsItWas) {
  ASSERT_EQ(Run(Convert(In("src"), "out", false), INT64_MAX, 0), NIBBLE_OK) << err_.message;
  const auto before = Snapshot(In("out"));
  int begun = 0;
  for (int64_t patience = 0;; patience++) {
    nibble_status status = Run(Convert(In("q"), "out", true, true), patience, 1);
    if (status == NIBBLE_OK) break;
    ASSERT_EQ(status, NIBBLE_STOPPED) << err_.message;
    EXPECT_TRUE(Snapshot(In("out")) == before);
    EXPECT_FALSE(Exists(In("out.partial")));
    std::string message = err_.message;
    begun += message == In("out") + ": stopped; what was there stays as it was";
    EXPECT_TRUE(message.find(In("out")) != 0 || message.find("what was there stays") != std::string::npos) << message;
  }
  EXPECT_GT(begun, 5);
  EXPECT_FALSE(Snapshot(In("out")) == before);
}

// Of a stopped calibration the finished layers stay. The message has their number, and --resume begins behind them.
TEST_F(Stop, CalibrationGoesOnFromTheLayerThatItNames) {
  ASSERT_EQ(Run(Quantize("whole", "gptq"), INT64_MAX, 0), NIBBLE_OK) << err_.message;
  const std::string work = In("cut.work");
  const std::regex named("keeps ([0-9]+) of 14 layers: --resume goes on from layer ([0-9]+)$");
  auto layers = [&] {
    std::map<std::string, std::filesystem::file_time_type> times;
    for (const std::string &name : Exists(work) ? ListFolder(work) : std::vector<std::string>()) {
      if (name.find(".layer") != std::string::npos) times[name] = std::filesystem::last_write_time(work + "/" + name);
    }
    return times;
  };
  std::map<std::string, std::filesystem::file_time_type> before;
  int named_layers = 0, all_finished = 0;
  for (int64_t patience = 0;; patience += 1 + patience / 8) {
    nibble_status status = Run(Quantize("cut", "gptq", true), patience, 1 + patience % 2);
    if (status == NIBBLE_OK) break;
    ASSERT_EQ(status, NIBBLE_STOPPED) << patience << ": " << err_.message;
    EXPECT_FALSE(Exists(In("cut")) || Exists(In("cut.partial"))) << patience;
    const auto now = layers();
    for (const auto &layer : before) {
      EXPECT_TRUE(now.count(layer.first) && now.at(layer.first) == layer.second) << layer.first << " was made again";
    }
    before = now;
    std::cmatch match;
    if (std::regex_search((const char *)err_.message, match, named)) {
      named_layers++;
      EXPECT_EQ(std::stoul(match[1]), now.size()) << err_.message;
      EXPECT_EQ(std::stoul(match[2]), now.size() + 1) << err_.message;
    } else if (now.size() == 14) {
      all_finished++;
      EXPECT_NE(std::string(err_.message).find("keeps all 14 layers: --resume goes on with writing"), std::string::npos)
          << err_.message;
    } else {
      EXPECT_EQ(now.size(), 0u) << err_.message;
      EXPECT_FALSE(Exists(work)) << "there is nothing in it to go on from";
    }
  }
  EXPECT_GT(named_layers, 3);
  EXPECT_GT(all_finished, 0);
  EXPECT_FALSE(Exists(work));
  EXPECT_EQ(ReadFile(In("cut/model.safetensors")), ReadFile(In("whole/model.safetensors")));
}

// Hours of work are not thrown away because an option was forgotten.
TEST_F(Stop, AWorkFolderIsNotThrownAwayInSilence) {
  ASSERT_EQ(Run(Quantize("whole", "gptq"), INT64_MAX, 0), NIBBLE_OK) << err_.message;
  ASSERT_EQ(Run(Quantize("cut", "gptq"), asked_ / 2, 1), NIBBLE_STOPPED) << err_.message;
  const auto before = Snapshot(In("cut.work"));
  ASSERT_GT(before.size(), 3u);
  EXPECT_EQ(Run(Quantize("cut", "gptq"), INT64_MAX, 0), NIBBLE_USAGE);
  EXPECT_TRUE(std::regex_search(
      err_.message,
      std::regex("an earlier run has finished [0-9]+ layers; --resume goes on from them, --force throws them away")))
      << err_.message;
  EXPECT_TRUE(Snapshot(In("cut.work")) == before);
  EXPECT_FALSE(Exists(In("cut")) || Exists(In("cut.partial")));

  std::filesystem::rename(In("cut.work/settings.json"), In("settings.json"));
  EXPECT_EQ(Run(Quantize("cut", "gptq", true), INT64_MAX, 0), NIBBLE_USAGE);
  EXPECT_NE(std::string(err_.message).find("no settings.json"), std::string::npos) << err_.message;
  std::filesystem::rename(In("settings.json"), In("cut.work/settings.json"));
  EXPECT_TRUE(Snapshot(In("cut.work")) == before);

  std::string args = "quantize " + In("src") + " " + In("cut") +
                     " --method gptq --group-size 32 --nsamples 4 --seqlen 32 --calib " + In("text") +
                     " --force --no-sync";
  CommandResult r = Nibble(args);
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_NE(r.err.find("finished layers of an earlier run are thrown away"), std::string::npos) << r.err;
  EXPECT_FALSE(Exists(In("cut.work")));
  EXPECT_EQ(ReadFile(In("cut/model.safetensors")), ReadFile(In("whole/model.safetensors")));
}

// Of two tensors that the config ties both may be there, as large as a vocabulary makes them: they are compared before
// anything else, in bands.
TEST_F(Stop, TiedTensorsAreComparedInBands) {
  const uint64_t rows = 81920, bytes = rows * 64 * 4;  // 20 MiB
  std::string shape = std::to_string(rows) + ",64",
              header = "{" + Entry("model.embed_tokens.weight", "F32", shape, 0, bytes) + "," +
                       Entry("lm_head.weight", "F32", shape, bytes, 2 * bytes) + "}",
              config = kConfig, vocabulary = "\"vocab_size\": 256";
  while (header.size() % 8) header += ' ';
  config.replace(config.find(vocabulary), vocabulary.size(),
                 "\"tie_word_embeddings\": true, \"vocab_size\": " + std::to_string(rows));
  const std::string model = In("tied");
  std::filesystem::create_directory(model);
  WriteFile(model + "/config.json", config);
  WriteFile(model + "/model.safetensors", Safetensors(header, std::string(2 * bytes, '\0')));
  Call inspect = [&](const nibble_context *context, nibble_error *err) {
    auto o = Zeroed<nibble_inspect_options>();
    nibble_inspection *out = nullptr;
    o.context = context, o.model = model.c_str();
    nibble_status status = nibble_inspect(&o, &out, err);
    nibble_inspection_free(out);
    return status;
  };
  for (int64_t patience : {0, 1}) EXPECT_EQ(Run(inspect, patience, 1), NIBBLE_STOPPED) << patience;
  EXPECT_EQ(Run(inspect, 2, 1), NIBBLE_OK) << err_.message;
  EXPECT_EQ(asked_, 2);
}

TEST_F(Stop, ASessionIsAsLongAsBefore) {
  const std::string path = In("q");
  Caller caller{INT64_MAX};
  nibble_context *context = nullptr;
  ASSERT_EQ(nibble_context_create(&context, &err_), NIBBLE_OK);
  nibble_context_set_stop(context, Caller::Stop, &caller, nullptr);
  auto of = Zeroed<nibble_model_options>();
  auto room = Zeroed<nibble_session_options>();
  of.context = context, of.model = path.c_str();
  nibble_model *model = nullptr;
  nibble_session *session = nullptr;
  ASSERT_EQ(nibble_model_open(&of, &model, &err_), NIBBLE_OK) << err_.message;
  ASSERT_EQ(nibble_session_open(model, &room, &session, &err_), NIBBLE_OK) << err_.message;
  const int32_t ids[] = {1, 2, 3};
  ASSERT_EQ(nibble_session_feed(session, ids, 2, &err_), NIBBLE_OK);
  ASSERT_EQ(nibble_session_feed(session, ids + 2, 1, &err_), NIBBLE_OK);
  std::vector<float> want(256), have(256);
  ASSERT_EQ(nibble_session_logits(session, 1, want.data(), &err_), NIBBLE_OK);
  ASSERT_EQ(nibble_session_truncate(session, 2, &err_), NIBBLE_OK);
  for (int64_t more : {0, 1, 5, 20}) {
    caller.patience = caller.asked + more;
    EXPECT_EQ(nibble_session_feed(session, ids + 2, 1, &err_), NIBBLE_STOPPED) << more;
    EXPECT_EQ(nibble_session_length(session), 2) << more;
  }
  caller.patience = INT64_MAX;
  ASSERT_EQ(nibble_session_feed(session, ids + 2, 1, &err_), NIBBLE_OK) << err_.message;
  ASSERT_EQ(nibble_session_logits(session, 1, have.data(), &err_), NIBBLE_OK);
  EXPECT_EQ(have, want);
  nibble_session_close(session);
  nibble_model_close(model);
  nibble_context_free(context);
}

TEST(Stoppable, BandsThatAreLeftOutAreTold) {
  for (int threads : {1, 4}) {
    int before = nb_threads_use(threads);
    for (int64_t patience : {0, 1, 10, 63, 64, 100}) {
      Caller caller{patience};
      nb_stop_hook hook = {Caller::Stop, &caller, 0}, *outer = nb_stop_use(&hook);
      std::atomic<int> bands{0};
      nibble_error err = {};
      nibble_status status = nb_parallel_stoppable(
          64, 1, [](void *ctx, int64_t, int64_t, int) { ++*(std::atomic<int> *)ctx; }, &bands, &err);
      EXPECT_EQ(nb_stop_use(outer), &hook) << "it is the calling thread's as before";
      EXPECT_EQ(status, patience < 64 ? NIBBLE_STOPPED : NIBBLE_OK) << patience;
      EXPECT_EQ(bands, std::min<int64_t>(patience, 64)) << threads << " threads, " << patience;
      EXPECT_FALSE(nb_stop_asked());
    }
    nb_threads_use(before);
  }
}

// A caller may change its mind, but what was left out is not there.
TEST(Stoppable, AYesCannotBeTakenBack) {
  bool answer = true;
  nb_stop_hook hook = {[](void *ctx) { return *(bool *)ctx; }, &answer, 0}, *outer = nb_stop_use(&hook);
  EXPECT_EQ(nb_stop_check(nullptr), NIBBLE_STOPPED);
  answer = false;
  EXPECT_EQ(nb_stop_check(nullptr), NIBBLE_STOPPED);
  nb_stop_use(outer);
  EXPECT_EQ(nb_stop_check(nullptr), NIBBLE_OK);
}

}  // namespace
