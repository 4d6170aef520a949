// Every function of nibble.h with what no caller should give it: NULL, zeros, a size and nothing else, structs of other
// versions. None may crash, and each says what it requires.
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <memory>
#include <regex>
#include <set>
#include <thread>
#include <type_traits>

#include "tests/support.h"

extern "C" {
#include "base/context.h"
#include "base/parallel.h"
}

namespace {

// A function with an options struct.
struct WithOptions {
  const char *name;
  size_t size;           // of the struct
  size_t result_size;    // of the one that it fills; 0: the result is a pointer
  const char *required;  // what is missing where only the size is set; NULL: nothing
  std::function<nibble_status(const void *options, void *out, nibble_error *err)> call;
};

template <typename Options, typename Result>
WithOptions Row(const char *name, nibble_status (*f)(const Options *, Result *, nibble_error *), const char *required) {
  return {name, sizeof(Options), std::is_pointer_v<Result> ? 0 : sizeof(Result), required,
          [f](const void *options, void *out, nibble_error *err) {
            return f((const Options *)options, (Result *)out, err);
          }};
}

std::vector<WithOptions> AllWithOptions() {
  return {Row("nibble_inspect", nibble_inspect, "model"),
          Row("nibble_memory", nibble_memory, "model"),
          Row("nibble_init", nibble_init, "config"),
          Row("nibble_convert", nibble_convert, "src"),
          Row("nibble_ppl", nibble_ppl, "model"),
          Row("nibble_logits", nibble_logits, "model"),
          Row("nibble_hidden", nibble_hidden, "model"),
          Row("nibble_generate", nibble_generate, "model"),
          Row("nibble_bench", nibble_bench, "model"),
          Row("nibble_quantize", nibble_quantize, "src"),
          Row("nibble_bench_kernels", nibble_bench_kernels, nullptr),
          Row("nibble_verify", nibble_verify, "artifact"),
          Row("nibble_model_open", nibble_model_open, "model"),
          Row("nibble_chat_open", nibble_chat_open, "model"),
          {"nibble_session_open", sizeof(nibble_session_options), 0, "model",
           [](const void *options, void *out, nibble_error *err) {
             return nibble_session_open(nullptr, (const nibble_session_options *)options, (nibble_session **)out, err);
           }}};
}

// Room for a result, with its size.
std::vector<size_t> Out(const WithOptions &f) {
  std::vector<size_t> out(f.result_size / sizeof(size_t) + 1, 0);
  out[0] = f.result_size;
  return out;
}

void ExpectUsageWith(const WithOptions &f, const void *options, void *out, const std::string &message) {
  nibble_error err = {};
  EXPECT_EQ(f.call(options, out, &err), NIBBLE_USAGE) << f.name;
  EXPECT_EQ(err.status, NIBBLE_USAGE) << f.name;
  EXPECT_NE(std::string(err.message).find(f.name + (": " + message)), std::string::npos) << err.message;
  EXPECT_EQ(f.call(options, out, nullptr), NIBBLE_USAGE) << f.name << " without an error to fill";
}

void ExpectUsage(const WithOptions &f, const void *options, bool has_out, const std::string &message) {
  std::vector<size_t> out = Out(f);
  ExpectUsageWith(f, options, has_out ? out.data() : nullptr, message);
}

TEST(Api, OptionsThatAreNotThereAreWrongUsage) {
  for (const WithOptions &f : AllWithOptions()) {
    std::vector<size_t> options(f.size / sizeof(size_t) + 2, 0);
    size_t &size = options[0];
    ExpectUsage(f, nullptr, true, "options is required");
    ExpectUsage(f, options.data(), true, "options.size is 0");
    ExpectUsage(f, nullptr, false, "out is required");
    size = sizeof(size_t);
    ExpectUsage(f, options.data(), true, "options.size is 8");
    if (!f.required) continue;
    size = f.size;
    ExpectUsage(f, options.data(), true, f.required + std::string(" is required"));
    ExpectUsage(f, options.data(), false, "out is required");
  }
}

TEST(Api, OptionsOfALaterVersionAreTakenIfTheySayNothingNew) {
  for (const WithOptions &f : AllWithOptions()) {
    std::vector<size_t> options(f.size / sizeof(size_t) + 2, 0);
    options[0] = options.size() * sizeof(size_t);
    if (f.required) ExpectUsage(f, options.data(), true, f.required + std::string(" is required"));
    options.back() = 1;
    ExpectUsage(f, options.data(), true, "options of ");
  }
}

TEST(Api, ResultsWithoutTheirSizeAreWrongUsage) {
  size_t tried = 0;
  for (const WithOptions &f : AllWithOptions()) {
    if (f.result_size == 0) continue;
    tried++;
    std::vector<size_t> options(f.size / sizeof(size_t) + 1, 0), out = Out(f);
    options[0] = f.size;
    out[0] = 0;
    ExpectUsageWith(f, options.data(), out.data(), "out.size is 0");
    out[0] = sizeof(size_t);
    ExpectUsageWith(f, options.data(), out.data(), "out.size is 8");
  }
  EXPECT_EQ(tried, 10u);
}

// What takes no options: pointers one after the other, and what is said of the first that is NULL.
struct WithArguments {
  const char *name, *message;
  std::function<nibble_status(nibble_error *err)> call;
};

nibble_status OnSession(const std::function<nibble_status(nibble_session *)> &call) {
  std::string path = Golden("tiny/llama-f32");
  nibble_model_options options = {};
  options.size = sizeof options, options.model = path.c_str();
  nibble_session_options room = {};
  room.size = sizeof room;
  nibble_model *model = nullptr;
  nibble_session *session = nullptr;
  nibble_status status = nibble_model_open(&options, &model, nullptr);
  if (status == NIBBLE_OK) status = nibble_session_open(model, &room, &session, nullptr);
  if (status == NIBBLE_OK) status = call(session);
  nibble_session_close(session);
  nibble_model_close(model);
  return status;
}

nibble_status OnTokenizer(const nibble_text_pair *texts, size_t count, nibble_error *err) {
  nibble_tokenizer *tokenizer = nullptr;
  nibble_encodings encodings;
  nibble_encode_options options = {};
  options.size = sizeof options;
  nibble_status status = nibble_tokenizer_open(Golden("tokenizer/llama3.json").c_str(), &tokenizer, nullptr);
  if (status == NIBBLE_OK) status = nibble_tokenizer_encode_batch(tokenizer, texts, count, &options, &encodings, err);
  nibble_tokenizer_close(tokenizer);
  return status;
}

std::vector<WithArguments> AllWithArguments() {
  static nibble_context *context;
  static nibble_tokenizer *tokenizer;
  static nibble_ids ids;
  static nibble_text text;
  static nibble_encodings encodings;
  static nibble_encode_options encode;
  static nibble_model_info info;
  static const int32_t id = 1;
  static float logits;
  return {
      {"nibble_model_describe", "model is required",
       [](nibble_error *e) {
         info.size = sizeof info;
         return nibble_model_describe(nullptr, &info, e);
       }},
      {"nibble_model_describe", "out.size is 0",
       [](nibble_error *e) {
         info.size = 0;
         return nibble_model_describe(nullptr, &info, e);
       }},
      {"nibble_model_describe", "out is required",
       [](nibble_error *e) { return nibble_model_describe(nullptr, nullptr, e); }},
      {"nibble_session_encode", "session is required",
       [](nibble_error *e) { return nibble_session_encode(nullptr, &id, 1, e); }},
      {"nibble_session_feed", "session is required",
       [](nibble_error *e) { return nibble_session_feed(nullptr, &id, 1, e); }},
      {"nibble_session_feed", "ids is required",
       [](nibble_error *e) {
         return OnSession([=](nibble_session *s) { return nibble_session_feed(s, nullptr, 1, e); });
       }},
      {"nibble_session_encode", "ids is required",
       [](nibble_error *e) {
         return OnSession([=](nibble_session *s) { return nibble_session_encode(s, nullptr, 1, e); });
       }},
      {"nibble_session_feed", "count is 0",
       [](nibble_error *e) { return OnSession([=](nibble_session *s) { return nibble_session_feed(s, &id, 0, e); }); }},
      {"nibble_session_logits", "session is required",
       [](nibble_error *e) { return nibble_session_logits(nullptr, 1, &logits, e); }},
      {"nibble_session_logits", "out is required",
       [](nibble_error *e) {
         return OnSession([=](nibble_session *s) { return nibble_session_logits(s, 1, nullptr, e); });
       }},
      {"nibble_session_truncate", "session is required",
       [](nibble_error *e) { return nibble_session_truncate(nullptr, 0, e); }},
      {"nibble_context_create", "out is required", [](nibble_error *e) { return nibble_context_create(nullptr, e); }},
      {"nibble_context_set_threads", "context is required",
       [](nibble_error *e) { return nibble_context_set_threads(nullptr, 1, e); }},
      {"nibble_context_set_threads", "threads is -1",
       [](nibble_error *e) {
         nibble_context_create(&context, e);
         nibble_status status = nibble_context_set_threads(context, -1, e);
         nibble_context_free(context);
         return status;
       }},
      {"nibble_context_set_stop", "context is required",
       [](nibble_error *e) { return nibble_context_set_stop(nullptr, nullptr, nullptr, e); }},
      {"nibble_context_set_device", "context is required",
       [](nibble_error *e) { return nibble_context_set_device(nullptr, NIBBLE_DEVICE_CPU, 0, e); }},
      {"nibble_context_set_device", "device is 3",
       [](nibble_error *e) {
         nibble_context_create(&context, e);
         nibble_status status = nibble_context_set_device(context, (nibble_device)3, 0, e);
         nibble_context_free(context);
         return status;
       }},
      {"nibble_tokenizer_open", "out is required",
       [](nibble_error *e) { return nibble_tokenizer_open("/nowhere", nullptr, e); }},
      {"nibble_tokenizer_open", "model is required",
       [](nibble_error *e) { return nibble_tokenizer_open(nullptr, &tokenizer, e); }},
      {"nibble_tokenizer_encode", "tokenizer is required",
       [](nibble_error *e) { return nibble_tokenizer_encode(nullptr, "a", 1, true, &ids, e); }},
      {"nibble_tokenizer_encode", "out is required",
       [](nibble_error *e) { return nibble_tokenizer_encode(nullptr, "a", 1, true, nullptr, e); }},
      {"nibble_tokenizer_encode", "text is required",
       [](nibble_error *e) {
         std::string model = Golden("tokenizer/llama3.json");
         if (nibble_tokenizer_open(model.c_str(), &tokenizer, e) != NIBBLE_OK) return NIBBLE_SYSTEM;
         nibble_status status = nibble_tokenizer_encode(tokenizer, nullptr, 1, true, &ids, e);
         nibble_tokenizer_close(tokenizer);
         return status;
       }},
      {"nibble_tokenizer_encode_batch", "options is required",
       [](nibble_error *e) { return nibble_tokenizer_encode_batch(nullptr, nullptr, 0, nullptr, &encodings, e); }},
      {"nibble_tokenizer_encode_batch", "options.size is 0",
       [](nibble_error *e) {
         encode = {};
         return nibble_tokenizer_encode_batch(nullptr, nullptr, 0, &encode, &encodings, e);
       }},
      {"nibble_tokenizer_encode_batch", "out is required",
       [](nibble_error *e) {
         encode.size = sizeof encode;
         return nibble_tokenizer_encode_batch(nullptr, nullptr, 0, &encode, nullptr, e);
       }},
      {"nibble_tokenizer_encode_batch", "tokenizer is required",
       [](nibble_error *e) {
         encode.size = sizeof encode;
         return nibble_tokenizer_encode_batch(nullptr, nullptr, 0, &encode, &encodings, e);
       }},
      {"nibble_tokenizer_encode_batch", "texts is required",
       [](nibble_error *e) { return OnTokenizer(nullptr, 1, e); }},
      {"nibble_tokenizer_encode_batch", "text is required",
       [](nibble_error *e) {
         static const nibble_text_pair no_text = {nullptr, 1, nullptr, 0};
         return OnTokenizer(&no_text, 1, e);
       }},
      {"nibble_tokenizer_limits", "out is required",
       [](nibble_error *e) { return nibble_tokenizer_limits(nullptr, nullptr, e); }},
      {"nibble_tokenizer_limits", "tokenizer is required",
       [](nibble_error *e) {
         encode.size = sizeof encode;
         return nibble_tokenizer_limits(nullptr, &encode, e);
       }},
      {"nibble_tokenizers_compare", "out is required",
       [](nibble_error *e) { return nibble_tokenizers_compare(nullptr, 0, "a", 1, nullptr, e); }},
      {"nibble_token_comparison_draw", "comparison is required",
       [](nibble_error *e) { return nibble_token_comparison_draw(nullptr, nullptr, "a.svg", e); }},
      {"nibble_tokenizer_decode", "tokenizer is required",
       [](nibble_error *e) { return nibble_tokenizer_decode(nullptr, nullptr, 0, true, &text, e); }},
      {"nibble_tokenizer_decode", "out is required",
       [](nibble_error *e) { return nibble_tokenizer_decode(nullptr, nullptr, 0, true, nullptr, e); }},
      {"nibble_chat_say", "out is required",
       [](nibble_error *e) { return nibble_chat_say(nullptr, "a", nullptr, nullptr, nullptr, e); }},
      {"nibble_chat_say", "chat is required",
       [](nibble_error *e) {
         nibble_chat_answer answer = {};
         answer.size = sizeof answer;
         return nibble_chat_say(nullptr, "a", nullptr, nullptr, &answer, e);
       }},
      {"nibble_chat_reset", "chat is required", [](nibble_error *e) { return nibble_chat_reset(nullptr, nullptr, e); }},
      {"nibble_text_read", "path is required", [](nibble_error *e) { return nibble_text_read(nullptr, &text, e); }},
      {"nibble_text_read", "out is required", [](nibble_error *e) { return nibble_text_read("/nowhere", nullptr, e); }},
  };
}

TEST(Api, ArgumentsThatAreNullAreWrongUsage) {
  for (const WithArguments &f : AllWithArguments()) {
    nibble_error err = {};
    EXPECT_EQ(f.call(&err), NIBBLE_USAGE) << f.name << ": " << f.message;
    EXPECT_NE(std::string(err.message).find(std::string(f.name) + ": " + f.message), std::string::npos) << err.message;
    EXPECT_EQ(f.call(nullptr), NIBBLE_USAGE) << f.name << ": " << f.message;
  }
}

TEST(Api, WhatFreesTakesNull) {
  nibble_encodings_free(nullptr);
  nibble_token_comparison_free(nullptr);
  nibble_context_free(nullptr);
  nibble_inspection_free(nullptr);
  nibble_tokenizer_close(nullptr);
  nibble_kernel_bench_free(nullptr);
  nibble_verification_free(nullptr);
  nibble_model_close(nullptr);
  nibble_session_close(nullptr);
  nibble_chat_close(nullptr);
  EXPECT_EQ(nibble_session_length(nullptr), 0);
  nibble_device_check(nullptr);
  nibble_isa_check(nullptr);
  nibble_printable(nullptr, nullptr);
  char text[] = "a\nb";
  nibble_printable(text, nullptr);
  EXPECT_STREQ(text, "a?b");
  EXPECT_STREQ(nibble_status_name((nibble_status)77), "unknown");
}

// A function that is new in nibble.h belongs into one of the lists above.
TEST(Api, EveryFunctionOfTheHeaderIsTried) {
  std::set<std::string> tried = {"nibble_version",           "nibble_status_name",     "nibble_device_check",
                                 "nibble_peak_rss",          "nibble_input_changed",   "nibble_context_free",
                                 "nibble_inspection_free",   "nibble_tokenizer_close", "nibble_kernel_bench_free",
                                 "nibble_verification_free", "nibble_model_close",     "nibble_session_close",
                                 "nibble_chat_close",        "nibble_session_length",  "nibble_printable",
                                 "nibble_isa_check",         "nibble_encodings_free",  "nibble_token_comparison_free"};
  for (const WithOptions &f : AllWithOptions()) tried.insert(f.name);
  for (const WithArguments &f : AllWithArguments()) tried.insert(f.name);
  std::string header = ReadFile(std::string(kSourceDir) + "/nibble.h");
  std::regex declaration("\n[a-z][a-z0-9_ ]*[ *](nibble_[a-z0-9_]+)\\(");
  std::set<std::string> declared;
  for (std::sregex_iterator it(header.begin(), header.end(), declaration), end; it != end; ++it)
    declared.insert((*it)[1]);
  EXPECT_GT(declared.size(), 20u);
  for (const std::string &name : declared) EXPECT_TRUE(tried.count(name)) << name;
}

TEST(Api, EveryStructOfOptionsOrResultsBeginsWithItsSize) {
  std::string header = ReadFile(std::string(kSourceDir) + "/nibble.h");
  std::regex begins("\ntypedef struct (nibble_[a-z0-9_]+_(options|result|info|bench)) \\{\n +([^;]*;)");
  std::set<std::string> seen;
  for (std::sregex_iterator it(header.begin(), header.end(), begins), end; it != end; ++it) {
    if ((*it)[1] == "nibble_tensor_info") continue;  // of a list that the library makes
    seen.insert((*it)[1]);
    EXPECT_EQ((*it)[3], "size_t size;") << (*it)[1];
  }
  EXPECT_GE(seen.size(), 22u);
}

// ---- contexts ----

struct Grown {
  size_t size;
  const nibble_context *context;
  const char *model;
  int64_t added;  // in the second version
};

struct GrownResult {
  size_t size;
  int64_t figure;
  int64_t added;  // in the second version
};

const nb_call_rules kGrown = {"f", NB_SIZES(Grown, model), NB_SIZES(GrownResult, figure), {NB_REQUIRED(Grown, model)}};

// A call from its begin to its end.
struct Call {
  Call() {
    call.options = &options;
    call.result = &result;
  }
  nibble_status Begin(const Grown &given, void *out) { return nb_call_begin(&call, &kGrown, &given, out, nullptr); }
  ~Call() { nb_call_end(&call, NIBBLE_OK); }
  Grown options = {};
  GrownResult result = {};
  nb_call call = {};
};

TEST(Context, OptionsOfAnEarlierVersionEndInZeros) {
  Grown given = {NB_UPTO(Grown, model), nullptr, "m", 77};
  GrownResult out = {sizeof out, 5, 5};
  {
    Call call;
    ASSERT_EQ(call.Begin(given, &out), NIBBLE_OK);
    EXPECT_STREQ(call.options.model, "m");
    EXPECT_EQ(call.options.added, 0);
    EXPECT_EQ(out.figure, 0);
  }
  {
    Call call;
    given.size = sizeof given;
    ASSERT_EQ(call.Begin(given, &out), NIBBLE_OK);
    EXPECT_EQ(call.options.added, 77);
  }
  Call call;
  given.size = NB_UPTO(Grown, model) - 1;
  EXPECT_EQ(call.Begin(given, &out), NIBBLE_USAGE);
}

TEST(Context, AResultHasAsMuchAsTheCallerHasRoomFor) {
  const Grown given = {sizeof given, nullptr, "m", 0};
  struct Later {
    GrownResult now;
    int64_t unknown;
  };
  const size_t earlier = NB_UPTO(GrownResult, figure);
  for (size_t size : {earlier, sizeof(GrownResult), sizeof(Later)}) {
    Later out = {{size, 5, 5}, 5};
    {
      Call call;
      ASSERT_EQ(call.Begin(given, &out), NIBBLE_OK);
      EXPECT_EQ(out.now.figure, 0);
      call.result.figure = 7, call.result.added = 8;
    }
    EXPECT_EQ(out.now.size, size);
    EXPECT_EQ(out.now.figure, 7);
    EXPECT_EQ(out.now.added, size == earlier ? 5 : 8) << size;
    EXPECT_EQ(out.unknown, size == sizeof(Later) ? 0 : 5) << size;
  }
  GrownResult out = {earlier - 1, 5, 5};
  Call call;
  EXPECT_EQ(call.Begin(given, &out), NIBBLE_USAGE);
  EXPECT_EQ(out.figure, 5);
}

TEST(Context, ACallHasItsThreadsAndLeavesTheCallersAsTheyWere) {
  const nibble_context five = {5, NIBBLE_DEVICE_CPU, 0, nullptr, nullptr};
  Grown given = {sizeof given, &five, "m", 0};
  GrownResult out = {sizeof out, 0, 0};
  int before = nb_threads_use(3);
  auto call = std::make_unique<Call>();
  ASSERT_EQ(call->Begin(given, &out), NIBBLE_OK);
  EXPECT_EQ(nb_threads(), 5);
  int other = 0;
  std::thread([&] {
    const nibble_context two = {2, NIBBLE_DEVICE_CPU, 0, nullptr, nullptr};
    Grown given = {sizeof given, &two, "m", 0};
    GrownResult out = {sizeof out, 0, 0};
    Call call;
    call.Begin(given, &out);
    other = nb_threads();
  }).join();
  EXPECT_EQ(other, 2);
  EXPECT_EQ(nb_threads(), 5);
  call.reset();
  EXPECT_EQ(nb_threads(), 3);
  nb_threads_use(before);
}

// The threads of a team are other threads, and more than processors are fine.
TEST(Context, ABandSeesTheThreadsOfTheCallAroundIt) {
  int before = nb_threads_use(7);
  std::vector<int> seen(64, 0), number(64, 0);
  struct Job {
    std::vector<int> *seen, *number;
  } job = {&seen, &number};
  nb_parallel(
      64, 1,
      [](void *ctx, int64_t begin, int64_t, int thread) {
        (*((Job *)ctx)->seen)[(size_t)begin] = nb_threads();
        (*((Job *)ctx)->number)[(size_t)begin] = thread;
      },
      &job);
  for (size_t i = 0; i < seen.size(); i++) {
    EXPECT_EQ(seen[i], 7);
    EXPECT_LT(number[i], 7);
  }
  nb_threads_use(before);
}

TEST(Context, AContextMayBeNamedByManyCalls) {
  nibble_context *context = nullptr;
  nibble_error err = {};
  ASSERT_EQ(nibble_context_create(&context, &err), NIBBLE_OK);
  ASSERT_EQ(nibble_context_set_threads(context, 2, &err), NIBBLE_OK);
  ASSERT_EQ(nibble_context_set_device(context, NIBBLE_DEVICE_CPU, 0, &err), NIBBLE_OK);
  std::string model = Golden("tiny/llama-f32");
  nibble_memory_options options = {};
  options.size = sizeof options, options.context = context, options.model = model.c_str();
  nibble_memory_result result = {};
  result.size = sizeof result;
  for (int i = 0; i < 2; i++) EXPECT_EQ(nibble_memory(&options, &result, &err), NIBBLE_OK) << err.message;
  EXPECT_GT(result.parameters, 0);
  nibble_context_free(context);
}

}  // namespace
