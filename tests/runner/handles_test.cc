// nibble.h's handles against transformers' logits: a model that stays open, and sessions that are fed.
#include <gtest/gtest.h>

#include <cmath>
#include <thread>

#include "tests/golden_weights.h"
#include "tests/support.h"

extern "C" {
#include "nibble.h"
}

namespace {

template <typename T>
std::vector<T> Values(const GoldenTensor &t) {
  std::vector<T> out(t.bytes.size() / sizeof(T));
  memcpy(out.data(), t.bytes.data(), t.bytes.size());
  return out;
}

struct Tiny {
  explicit Tiny(const std::string &name) : path(Golden("tiny/" + name)) {
    GoldenFile golden = ReadSafetensors(path + ".safetensors");
    ids = Values<int32_t>(golden.tensors["ids"]);
    if (golden.tensors.count("decoder_ids")) decoder_ids = Values<int32_t>(golden.tensors["decoder_ids"]);
    want = Values<float>(golden.tensors[golden.tensors.count("logits") ? "logits" : "last_hidden_state"]);
    nibble_model_options options = {};
    options.size = sizeof options;
    options.model = path.c_str();
    info.size = sizeof info;
    nibble_error err = {};
    EXPECT_EQ(nibble_model_open(&options, &model, &err), NIBBLE_OK) << err.message;
    EXPECT_EQ(nibble_model_describe(model, &info, &err), NIBBLE_OK) << err.message;
  }
  ~Tiny() { nibble_model_close(model); }

  nibble_session *Open(int64_t capacity = 0, int64_t step = 0) const {
    nibble_session_options options = {};
    options.size = sizeof options;
    options.capacity = capacity;
    options.step = step;
    nibble_session *session = nullptr;
    nibble_error err = {};
    EXPECT_EQ(nibble_session_open(model, &options, &session, &err), NIBBLE_OK) << err.message;
    return session;
  }

  // The last rows, against transformers'.
  void Expect(nibble_session *session, size_t rows) const {
    std::vector<float> got(rows * (size_t)info.output_width);
    nibble_error err = {};
    ASSERT_EQ(nibble_session_logits(session, rows, got.data(), &err), NIBBLE_OK) << err.message;
    double difference = 0, largest = 0;
    for (size_t i = 0; i < got.size(); i++) {
      float expected = want[want.size() - got.size() + i];
      difference = std::max(difference, std::isnan(got[i]) ? INFINITY : std::fabs((double)got[i] - expected));
      largest = std::max(largest, std::fabs((double)expected));
    }
    EXPECT_LT(difference / largest, 1e-4) << path;
  }

  std::string path;
  std::vector<int32_t> ids, decoder_ids;
  std::vector<float> want;
  nibble_model *model = nullptr;
  nibble_model_info info = {};
};

TEST(Handles, GiveWhatTransformersGives) {
  for (const char *name :
       {"llama-f32", "qwen3-bf16", "gpt2-f32", "gpt2-base-f32", "bert-mlm-f32", "bert-classify-bf16", "t5-f32"}) {
    SCOPED_TRACE(name);
    Tiny tiny(name);
    nibble_session *session = tiny.Open();
    nibble_error err = {};
    EXPECT_EQ(tiny.info.has_encoder, !tiny.decoder_ids.empty());
    if (tiny.info.has_encoder) {
      ASSERT_EQ(nibble_session_encode(session, tiny.ids.data(), tiny.ids.size(), &err), NIBBLE_OK) << err.message;
    } else {
      EXPECT_EQ(nibble_session_encode(session, tiny.ids.data(), tiny.ids.size(), &err), NIBBLE_USAGE);
    }
    const std::vector<int32_t> &fed = tiny.info.has_encoder ? tiny.decoder_ids : tiny.ids;
    ASSERT_EQ(nibble_session_feed(session, fed.data(), fed.size(), &err), NIBBLE_OK) << err.message;
    size_t rows = tiny.want.size() / (size_t)tiny.info.output_width;
    EXPECT_EQ(rows, tiny.info.has_one_row ? 1 : fed.size());
    tiny.Expect(session, rows);
    std::vector<float> more((rows + 1) * (size_t)tiny.info.output_width);
    EXPECT_EQ(nibble_session_logits(session, rows + 1, more.data(), &err), NIBBLE_USAGE);
    nibble_session_close(session);
  }
}

TEST(Handles, ALongFeedIsRunInSteps) {
  Tiny tiny("llama-f32");
  nibble_session *session = tiny.Open(0, 7);
  nibble_error err = {};
  ASSERT_EQ(nibble_session_feed(session, tiny.ids.data(), tiny.ids.size(), &err), NIBBLE_OK) << err.message;
  EXPECT_EQ(nibble_session_length(session), (int64_t)tiny.ids.size());
  tiny.Expect(session, 1);
  tiny.Expect(session, 7);
  std::vector<float> logits(8 * (size_t)tiny.info.output_width);
  EXPECT_EQ(nibble_session_logits(session, 8, logits.data(), &err), NIBBLE_USAGE);
  EXPECT_EQ(nibble_session_logits(session, 0, logits.data(), &err), NIBBLE_USAGE);
  nibble_session_close(session);
}

TEST(Handles, AFeedThatFailsLeavesTheSessionAsLongAsItWas) {
  Tiny tiny("llama-f32");
  nibble_session *session = tiny.Open((int64_t)tiny.ids.size(), 4);
  std::vector<int32_t> wrong(tiny.ids.begin() + 10, tiny.ids.begin() + 20);
  wrong.back() = (int32_t)tiny.info.vocab_size;
  nibble_error err = {};
  float logits;
  EXPECT_EQ(nibble_session_logits(session, 1, &logits, &err), NIBBLE_USAGE) << "before anything was fed";
  ASSERT_EQ(nibble_session_feed(session, tiny.ids.data(), 10, &err), NIBBLE_OK) << err.message;
  EXPECT_EQ(nibble_session_feed(session, wrong.data(), wrong.size(), &err), NIBBLE_USAGE);
  EXPECT_EQ(nibble_session_length(session), 10);
  EXPECT_EQ(nibble_session_logits(session, 1, &logits, &err), NIBBLE_USAGE);
  EXPECT_EQ(nibble_session_feed(session, tiny.ids.data(), tiny.ids.size(), &err), NIBBLE_USAGE) << "no room";
  ASSERT_EQ(nibble_session_feed(session, tiny.ids.data() + 10, tiny.ids.size() - 10, &err), NIBBLE_OK) << err.message;
  tiny.Expect(session, 4);
  nibble_session_close(session);
}

TEST(Handles, ATruncatedSessionGoesOnFromThere) {
  Tiny tiny("llama-f32");
  nibble_session *session = tiny.Open();
  nibble_error err = {};
  float logits;
  ASSERT_EQ(nibble_session_feed(session, tiny.ids.data(), 20, &err), NIBBLE_OK) << err.message;
  ASSERT_EQ(nibble_session_feed(session, tiny.ids.data(), 5, &err), NIBBLE_OK) << err.message;
  EXPECT_EQ(nibble_session_truncate(session, 26, &err), NIBBLE_USAGE);
  EXPECT_EQ(nibble_session_truncate(session, -1, &err), NIBBLE_USAGE);
  ASSERT_EQ(nibble_session_truncate(session, 20, &err), NIBBLE_OK) << err.message;
  EXPECT_EQ(nibble_session_logits(session, 1, &logits, &err), NIBBLE_USAGE);
  ASSERT_EQ(nibble_session_feed(session, tiny.ids.data() + 20, tiny.ids.size() - 20, &err), NIBBLE_OK) << err.message;
  tiny.Expect(session, tiny.ids.size() - 20);
  nibble_session_close(session);
}

TEST(Handles, AModelThatIsClosedServesItsSessions) {
  Tiny tiny("qwen2-bf16");
  nibble_session *first = tiny.Open(), *second = tiny.Open();
  nibble_model_close(tiny.model);
  tiny.model = nullptr;
  nibble_error err = {};
  for (nibble_session *session : {first, second}) {
    ASSERT_EQ(nibble_session_feed(session, tiny.ids.data(), tiny.ids.size(), &err), NIBBLE_OK) << err.message;
    tiny.Expect(session, tiny.ids.size());
    nibble_session_close(session);
  }
}

TEST(Handles, ThreadsMayHaveASessionEach) {
  Tiny tiny("llama-nf4");
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; t++) {
    threads.emplace_back([&tiny] {
      nibble_session *session = tiny.Open();
      nibble_error err = {};
      for (size_t i = 0; i < tiny.ids.size(); i++)
        EXPECT_EQ(nibble_session_feed(session, &tiny.ids[i], 1, &err), NIBBLE_OK) << err.message;
      tiny.Expect(session, 1);
      nibble_session_close(session);
    });
  }
  for (std::thread &thread : threads) thread.join();
}

TEST(Handles, RefuseRoomThatMakesNoSense) {
  Tiny tiny("llama-f32");
  nibble_session_options options = {};
  options.size = sizeof options;
  for (int64_t *field : {&options.capacity, &options.encoder_capacity, &options.step}) {
    for (int64_t value : {(int64_t)-1, INT64_MAX}) {
      *field = value;
      nibble_session *session = nullptr;
      nibble_error err = {};
      EXPECT_EQ(nibble_session_open(tiny.model, &options, &session, &err), NIBBLE_USAGE);
      EXPECT_EQ(session, nullptr);
    }
    *field = 0;
  }
}

TEST(Handles, NameTheModelThatCannotBeOpened) {
  nibble_model_options options = {};
  options.size = sizeof options;
  options.model = "/nowhere";
  nibble_model *model = nullptr;
  nibble_error err = {};
  EXPECT_EQ(nibble_model_open(&options, &model, &err), NIBBLE_BAD_INPUT);
  EXPECT_NE(std::string(err.message).find("/nowhere"), std::string::npos) << err.message;
  EXPECT_EQ(model, nullptr);
}

}  // namespace
