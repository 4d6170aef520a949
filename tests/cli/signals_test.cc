// Signals, and output that nobody takes. scripts/kill-test does at length, with KILL and at random moments, what is
// done here in some seconds.
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <regex>
#include <thread>

#include "tests/support.h"

namespace {

const char kConfig[] =
    R"({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 3, "num_attention_heads": 2, "vocab_size": 300, "max_position_embeddings": 4096,
        "torch_dtype": "float32", "initializer_range": 0.2})";

using Clock = std::chrono::steady_clock;

double Seconds(Clock::time_point since) { return std::chrono::duration<double>(Clock::now() - since).count(); }

void Sleep(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

class Signals : public testing::Test {
 protected:
  void SetUp() override {
    WriteFile(In("config.json"), kConfig);
    CommandResult r = Nibble("init " + In("config.json") + " " + In("src") + " --quiet --no-sync");
    ASSERT_EQ(r.code, 0) << r.err;
    std::filesystem::copy(Golden("artifacts/bf16/tokenizer.json"), In("src"));
    std::string text;
    for (int i = 0; i < 400; i++) text += "the bit of a weight falls where it must ";
    WriteFile(In("text"), text);
    for (const std::string &name : ListFolder(folder_.path())) before_.push_back(name);
  }
  std::string In(const std::string &name) const { return folder_ / name; }

  // Starts the program; its output goes to In("stdout") and In("stderr").
  pid_t Start(const std::string &args, const std::string &prefix = "", int ignored = 0) {
    pid_t pid = fork();
    if (pid == 0) {
      if (ignored) signal(ignored, SIG_IGN);
      std::string line =
          prefix + " exec " + kBinary + " " + args + " </dev/null >" + In("stdout") + " 2>" + In("stderr");
      execl("/bin/sh", "sh", "-c", line.c_str(), nullptr);
      _exit(127);
    }
    return pid;
  }
  // The exit code; 128 + signal if it was killed before it could take signals.
  int Wait(pid_t pid) {
    int status = 0;
    waitpid(pid, &status, 0);
    was_killed_ = WIFSIGNALED(status);
    return was_killed_ ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  }
  void ExpectNothingLeft(const std::string &what) {
    for (const std::string &name : ListFolder(folder_.path())) {
      if (name == "stdout" || name == "stderr" || std::count(before_.begin(), before_.end(), name)) continue;
      ADD_FAILURE() << what << " left " << name;
      std::filesystem::remove_all(In(name));
    }
  }

  TempFolder folder_;
  std::vector<std::string> before_;
  bool was_killed_ = false;
};

TEST_F(Signals, EveryWritingCommandClearsUpWhateverTheMoment) {
  const std::string src = In("src"), out = In("out"), text = In("text"),
                    quantize = "quantize " + src + " " + out + " --method ";
  std::string ids = "1";
  for (int i = 0; i < 3000; i++) ids += ",7";
  const std::string commands[] = {
      "init " + In("config.json") + " " + out,
      "convert " + src + " " + out + " --dtype float16",
      "convert " + src + "/model.safetensors " + out,
      quantize + "nf4 --double-quant",
      quantize + "int8",
      quantize + "rtn --group-size 32",
      quantize + "gptq --group-size 32 --nsamples 16 --seqlen 256 --calib " + text,
      "logits " + src + " --out " + out + " --ids " + ids,
      "hidden " + src + " --out " + out + " --hook norm.input --ids " + ids,
      "verify " + src + " --against " + src + " --ctx 64 --chunks 20 --text " + text + " --certificate " + out +
          " --report " + In("page"),
  };
  const struct {
    int number;
    const char *name;
  } signals[] = {{SIGINT, "SIGINT"}, {SIGTERM, "SIGTERM"}, {SIGHUP, "SIGHUP"}};
  int stopped = 0, moment = 0;
  for (const std::string &command : commands) {
    const std::string what = command.substr(0, 60);
    auto start = Clock::now();
    CommandResult whole = Nibble(command + " --quiet");
    ASSERT_EQ(whole.code, 0) << what << whole.err;
    const double seconds = Seconds(start);
    std::filesystem::remove_all(out);
    std::filesystem::remove_all(In("page"));
    for (const auto &signal : signals) {
      pid_t pid = Start(command + " --quiet");
      Sleep(seconds * (0.15 + 0.07 * (moment++ % 10)));
      kill(pid, signal.number);
      const int code = Wait(pid);
      const std::string said = ReadFile(In("stderr"));
      if (code == 0) {  // it was faster
        EXPECT_TRUE(Exists(out)) << what;
        std::filesystem::remove_all(out);
      } else if (!was_killed_) {
        stopped++;
        EXPECT_EQ(code, 128 + signal.number) << what << said;
        EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
        EXPECT_NE(said.find(std::string(signal.name) + ": "), std::string::npos) << said;
        EXPECT_NE(said.find("stopped"), std::string::npos) << said;
      }
      if (said.find("out.work keeps") != std::string::npos) std::filesystem::remove_all(In("out.work"));
      if (said.find("but the report") != std::string::npos || code == 0) std::filesystem::remove_all(In("page"));
      ExpectNothingLeft(what + " " + signal.name);
    }
  }
  EXPECT_GT(stopped, 10) << "of 30 most are to be hit while they work";
}

TEST_F(Signals, CommandsThatWriteNothingEndAtOnce) {
  const std::string src = In("src"), text = In("text");
  for (const std::string &command :
       {"ppl " + src + " --text " + text + " --ctx 2048 --stride 16", "bench " + src + " --gen 2000 --repetitions 100",
        "generate " + src + " --prompt a --ignore-eos --max-new-tokens 4000 --quiet", std::string("bench --kernels")}) {
    for (int number : {SIGINT, SIGTERM, SIGHUP}) {
      pid_t pid = Start(command);
      Sleep(0.3);
      kill(pid, number);
      EXPECT_EQ(Wait(pid), 128 + number) << command;
      const std::string said = ReadFile(In("stderr"));
      EXPECT_TRUE(was_killed_ || said.find("stopped; nothing is left behind\n") != std::string::npos)
          << command << said;
      ExpectNothingLeft(command);
    }
  }
}

// The input never comes.
TEST_F(Signals, WhoWaitsForInputStops) {
  for (const std::string &command : {"tokenize " + In("src"), "ppl " + In("src") + " --text -",
                                     "quantize " + In("src") + " " + In("out") + " --method gptq --calib /dev/fd/3"}) {
    int pipes[2];
    ASSERT_EQ(pipe(pipes), 0);
    pid_t pid = fork();
    if (pid == 0) {
      dup2(pipes[0], 0);
      dup2(pipes[0], 3);
      close(pipes[1]);
      std::string line =
          std::string("exec ") + kBinary + " " + command + " --quiet >" + In("stdout") + " 2>" + In("stderr");
      execl("/bin/sh", "sh", "-c", line.c_str(), nullptr);
      _exit(127);
    }
    close(pipes[0]);
    Sleep(0.3);
    kill(pid, SIGTERM);
    EXPECT_EQ(Wait(pid), 143) << command << ReadFile(In("stderr"));
    close(pipes[1]);
    ExpectNothingLeft(command);
  }
}

// The first signal comes while the disk is waited for, which nothing interrupts. timeout(1) sends one twice in a row:
// that is no second one.
TEST_F(Signals, ASecondOneEndsTheProcessAtOnce) {
  const std::string command = "convert " + In("src") + " " + In("out");
  const std::string slow =
      std::string("LD_PRELOAD=") + kSlowSync + " NIBBLE_SLOW_SYNC=3000 ASAN_OPTIONS=verify_asan_link_order=0";
  for (bool again : {false, true}) {
    pid_t pid = Start(command, slow);
    while (!Exists(In("out.partial/output/nibble.json"))) Sleep(0.005);
    Sleep(0.1);
    auto start = Clock::now();
    kill(pid, SIGINT);
    if (again) Sleep(0.3);
    kill(pid, SIGINT);
    EXPECT_EQ(Wait(pid), 130) << ReadFile(In("stderr"));
    EXPECT_EQ(Seconds(start) < 2, again) << Seconds(start);
    EXPECT_EQ(Exists(In("out.partial")), again) << "what is cleared up";
    EXPECT_FALSE(Exists(In("out")));
  }
  EXPECT_EQ(Nibble(command + " --quiet").code, 0);
  EXPECT_FALSE(Exists(In("out.partial")));
}

TEST_F(Signals, IgnoredOnesStayIgnored) {
  for (int number : {SIGINT, SIGHUP}) {
    pid_t pid = Start(
        "convert " + In("src") + " " + In("out") + " --quiet",
        std::string("LD_PRELOAD=") + kSlowSync + " NIBBLE_SLOW_SYNC=200 ASAN_OPTIONS=verify_asan_link_order=0", number);
    while (!Exists(In("out.partial"))) Sleep(0.005);
    kill(pid, number);
    EXPECT_EQ(Wait(pid), 0) << ReadFile(In("stderr"));
    EXPECT_TRUE(Exists(In("out/model.safetensors")));
    std::filesystem::remove_all(In("out"));
  }
}

// ---- output ----

// The exit code of the first command of a pipe, and what stderr got.
CommandResult Piped(const TempFolder &folder, const std::string &args, const std::string &reader) {
  std::string line = std::string("timeout 60 ") + kBinary + " " + args + " 2>" + (folder / "err") + " </dev/null | " +
                     reader + " >/dev/null; exit ${PIPESTATUS[0]}";
  WriteFile(folder / "line", line);
  int status = system(("bash " + (folder / "line")).c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, "", ReadFile(folder / "err")};
}

// Each of these would go on for minutes.
TEST_F(Signals, NobodyWhoReadsEndsItQuietly) {
  WriteFile(In("lines"), [] {
    std::string lines;
    for (int i = 0; i < 2000000; i++) lines += "the bit of a weight\n";
    return lines;
  }());
  for (const std::string &args :
       {"generate " + In("src") + " --prompt " + std::string(100, 'a') + " --ignore-eos --max-new-tokens 3900",
        "tokenize " + In("src") + " --lines --text " + In("lines")}) {
    auto start = Clock::now();
    CommandResult r = Piped(folder_, args, "head -c 5");
    EXPECT_EQ(r.code, 141) << args << r.err;
    EXPECT_EQ(r.err, "") << args;
    EXPECT_LT(Seconds(start), 30) << args;
  }
  for (const std::string &args : {std::string("--help"), std::string("quantize --help"),
                                  "inspect --tensors " + In("src"), "inspect --json " + In("src")}) {
    CommandResult r = Piped(folder_, args, "sleep 0.3 <&-");
    EXPECT_TRUE(r.code == 141 || r.code == 0) << args << r.code << r.err;
    EXPECT_EQ(r.err, "") << args;
  }
}

TEST_F(Signals, AFullOutputIsTheSystemsNoInEveryCommand) {
  const std::string src = In("src"), out = In("out"), text = In("text");
  CommandResult help = Nibble("--help");
  std::regex row("\n  ([a-z]+) +");
  std::vector<std::string> commands = {"--help", "--version", "help"};
  for (std::sregex_iterator it(help.out.begin(), help.out.end(), row), end; it != end; ++it) {
    for (const char *more : {" --help", " --usage", " -?"}) commands.push_back(std::string((*it)[1]) + more);
  }
  ASSERT_GE(commands.size(), 3u + 3 * 12);
  for (const std::string &command :
       {"inspect " + src, "inspect --tensors " + src, "memory " + src,
        "init " + In("config.json") + " " + out + " --force", "convert " + src + " " + out + " --force",
        "quantize " + src + " " + out + " --method nf4 --force", "ppl " + src + " --ctx 64 --chunks 1 --text " + text,
        "logits " + src + " --ids 1 --force --out " + In("l"),
        "hidden " + src + " --ids 1 --hook norm.input --force --out " + In("l"), "verify " + src,
        "generate " + src + " --prompt a --max-new-tokens 4", "bench " + src + " --prompt 4 --gen 2 --repetitions 1",
        "tokenize " + src + " --text " + text}) {
    commands.push_back(command);
    commands.push_back(command + " --json");
  }
  for (const std::string &command :
       {"tokenize --lines " + src + " --text " + text, "tokenize --decode " + src + " --text " + In("ids")})
    commands.push_back(command);
  WriteFile(In("ids"), "40 41 42");
  for (const std::string &command : commands) {
    CommandResult r = Nibble(command + " >/dev/full");
    EXPECT_EQ(r.code, 4) << command << r.err;
    EXPECT_NE(r.err.find("cannot write to standard output"), std::string::npos) << command << r.err;
  }
}

}  // namespace
