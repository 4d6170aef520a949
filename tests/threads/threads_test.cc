// What several threads share, each piece used by all of them at once. Only ThreadSanitizer sees most of what could be
// wrong here (scripts/test-threads); the suite runs these too, for what shows by itself.
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <thread>

#include "tests/support.h"

extern "C" {
#include "base/mapfile.h"
#include "base/mapguard.h"
#include "base/parallel.h"
#include "base/stage.h"
#include "kernels/cpu/isa.h"
#include "nibble.h"
}

namespace {

constexpr int kThreads = 4, kTimes = 20;

// Calls work(t) in kThreads threads that begin together.
void Together(const std::function<void(int)> &work) {
  std::atomic<int> ready = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; t++) {
    threads.emplace_back([&ready, &work, t] {
      ready++;
      while (ready < kThreads) std::this_thread::yield();
      work(t);
    });
  }
  for (std::thread &thread : threads) thread.join();
}

// The first test of the program: nobody has asked yet.
TEST(Threads, AgreeOnTheInstructionSetThatNobodyHasChosenYet) {
  nb_isa isas[kThreads];
  Together([&isas](int t) { isas[t] = nb_isa_current(); });
  for (nb_isa isa : isas) EXPECT_EQ(isa, nb_isa_current());
}

// Plain memory on purpose: what bands write must have happened before nb_parallel returns, and what the caller wrote
// before a band reads it.
TEST(Threads, EachRunsItsOwnBands) {
  Together([](int t) {
    int before = nb_threads_use(2);
    for (int time = 0; time < kTimes; time++) {
      struct job {
        std::vector<int64_t> in, out;
      } j;
      for (int64_t i = 0; i < 1000; i++) j.in.push_back(i * t + time);
      j.out.resize(1000);
      nb_parallel(
          1000, 64,
          [](void *ctx, int64_t begin, int64_t end, int) {
            job *j = static_cast<job *>(ctx);
            EXPECT_EQ(nb_threads(), 2);
            for (int64_t i = begin; i < end; i++) j->out[i] = 2 * j->in[i];
          },
          &j);
      for (int64_t i = 0; i < 1000; i++) ASSERT_EQ(j.out[i], 2 * (i * t + time));
    }
    nb_threads_use(before);
  });
}

TEST(Threads, MapFilesWhileOthersAskWhetherOneChanged) {
  TempFolder dir;
  for (int t = 0; t < kThreads; t++) WriteFile(dir / std::to_string(t), std::string(5000, (char)('a' + t)));
  Together([&dir](int t) {
    for (int time = 0; time < kTimes; time++) {
      nb_mapfile map = {};
      nibble_error err = {};
      ASSERT_EQ(nb_mapfile_open((dir / std::to_string(t)).c_str(), &map, &err), NIBBLE_OK) << err.message;
      EXPECT_EQ(map.data[4999], 'a' + t);
      EXPECT_EQ(nb_mapguard_check(&err), NIBBLE_OK) << err.message;
      if (time % 4 == 0) nb_mapguard_settle();
      nb_mapfile_close(&map);
    }
  });
}

TEST(Threads, MakeOneOutputInTurns) {
  TempFolder dir;
  std::string dst = dir / "out";
  std::atomic<int> made = 0;
  Together([&dst, &made](int t) {
    for (int time = 0; time < kTimes; time++) {
      nb_stage stage;
      nibble_error err = {};
      nb_replace replace = {};
      replace.force = true;
      std::string text(100, (char)('a' + t));
      nibble_status status = nb_stage_begin_file(&stage, dst.c_str(), &replace, &err);
      if (status == NIBBLE_OK) {
        ASSERT_EQ(nb_pwrite_all(stage.fd, stage.path, text.data(), text.size(), 0, &err), NIBBLE_OK) << err.message;
        status = nb_stage_commit(&stage, false, &err);
      }
      // Another thread's at work there: a refusal, and nothing else.
      if (status == NIBBLE_OK)
        made++;
      else
        EXPECT_EQ(status, NIBBLE_SYSTEM) << err.message;
    }
  });
  EXPECT_GE(made, 1);
  std::string text = ReadFile(dst);
  EXPECT_EQ(text, std::string(100, text.empty() ? '?' : text[0]));
  EXPECT_EQ(ListFolder(dir.path()), std::vector<std::string>{"out"});
}

TEST(Threads, ShareAContextAndAModel) {
  nibble_context *context = nullptr;
  nibble_error err = {};
  ASSERT_EQ(nibble_context_create(&context, &err), NIBBLE_OK) << err.message;
  ASSERT_EQ(nibble_context_set_threads(context, 2, &err), NIBBLE_OK) << err.message;
  std::string path = Golden("tiny/llama-nf4");
  nibble_model_options options = {};
  options.size = sizeof options;
  options.context = context;
  options.model = path.c_str();
  nibble_model *model = nullptr;
  ASSERT_EQ(nibble_model_open(&options, &model, &err), NIBBLE_OK) << err.message;
  nibble_model_info info = {};
  info.size = sizeof info;
  ASSERT_EQ(nibble_model_describe(model, &info, &err), NIBBLE_OK) << err.message;
  std::vector<float> logits[kThreads];
  Together([&](int t) {
    nibble_session_options session_options = {};
    session_options.size = sizeof session_options;
    nibble_session *session = nullptr;
    nibble_error err = {};
    ASSERT_EQ(nibble_session_open(model, &session_options, &session, &err), NIBBLE_OK) << err.message;
    const int32_t ids[] = {1, 2, 3, 4, 5};
    ASSERT_EQ(nibble_session_feed(session, ids, 5, &err), NIBBLE_OK) << err.message;
    logits[t].resize((size_t)info.output_width);
    ASSERT_EQ(nibble_session_logits(session, 1, logits[t].data(), &err), NIBBLE_OK) << err.message;
    nibble_session_close(session);
  });
  for (const std::vector<float> &other : logits) EXPECT_EQ(other, logits[0]);
  nibble_model_close(model);
  nibble_context_free(context);
}

}  // namespace
