// Every kind of attack against every command that can meet it: what stands where an output would go, what is planted
// where one is built, inputs that never end, files that are none. What a single command makes of a single case is in
// hardening_test.cc; here the table of commands is what counts, and a new command is a line of it.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

#include <chrono>
#include <map>

#include "tests/cli/byte_model.h"
#include "tests/cli/poison.h"

extern "C" {
#include <cjson/cJSON.h>
}

namespace {

enum Output { kNothing, kFile, kFolder };

// SRC, TEXT and DST stand for the model, the text and the output.
struct Command {
  const char *name;
  Output output;
  const char *args;
};

const Command kCommands[] = {
    {"inspect", kNothing, "inspect --tensors SRC"},
    {"memory", kNothing, "memory SRC"},
    {"verify", kNothing, "verify SRC --against SRC --text TEXT --ctx 64 --chunks 1 --no-certificate"},
    {"verify --check-only", kNothing, "verify SRC --check-only"},
    {"verify --model-card", kNothing, "verify SRC --model-card --no-certificate"},
    {"ppl", kNothing, "ppl SRC --text TEXT --ctx 64 --chunks 1"},
    {"generate", kNothing, "generate SRC --prompt word --max-new-tokens 2"},
    {"generate --chat", kNothing, "generate SRC --chat --prompt word --max-new-tokens 2"},
    {"chat", kNothing, "chat SRC --max-new-tokens 2"},
    {"tokenize", kNothing, "tokenize SRC --text TEXT"},
    {"bench", kNothing, "bench SRC --prompt 2 --gen 1 --repetitions 1"},
    {"convert", kFolder, "convert SRC DST --no-sync"},
    {"init", kFolder, "init SRC DST --no-sync"},
    {"nf4", kFolder, "quantize SRC DST --method nf4 --no-sync"},
    {"int8", kFolder, "quantize SRC DST --method int8 --no-sync"},
    {"rtn", kFolder, "quantize SRC DST --method rtn --group-size 32 --no-sync"},
    {"gptq", kFolder,
     "quantize SRC DST --method gptq --group-size 32 --calib TEXT --seqlen 32 --nsamples 2 --sampling first --no-sync"},
    {"logits", kFile, "logits SRC --ids 1,2 --out DST"},
    {"hidden", kFile, "hidden SRC --ids 1,2 --hook layers.0.mlp.down_proj.input --out DST"},
    {"--report", kFile, "verify SRC --no-certificate --report DST"},
    {"--certificate", kFile, "verify SRC --against SRC --certificate DST"},
};

std::string Replaced(std::string args, const std::string &from, const std::string &to) {
  for (size_t at = 0; (at = args.find(from, at)) != std::string::npos; at += to.size())
    args.replace(at, from.size(), to);
  return args;
}

// A folder as it is: what each name in it is, its mode and owner, and what it holds.
std::map<std::string, std::string> Picture(const std::string &path) {
  std::map<std::string, std::string> picture;
  for (const auto &entry : std::filesystem::recursive_directory_iterator(path)) {
    struct stat info = {};
    lstat(entry.path().c_str(), &info);
    std::string what = std::to_string(info.st_mode) + " " + std::to_string(info.st_uid) + " ";
    if (S_ISREG(info.st_mode)) what += ReadFile(entry.path());
    if (S_ISLNK(info.st_mode)) what += std::filesystem::read_symlink(entry.path()).string();
    picture[entry.path()] = what;
  }
  return picture;
}

class AttackTest : public testing::Test {
 protected:
  void SetUp() override {
    MakeByteModel(src_);
    WriteFile(src_ + "/chat_template.jinja", "{% for m in messages %}{{ m.content }}\n{% endfor %}");
    std::filesystem::create_directories(victim_ + "/.ssh/deep");
    WriteFile(victim_ + "/thesis.tex", "years of work");
    WriteFile(victim_ + "/.ssh/deep/id", "secret");
    std::filesystem::create_directory(out_);
  }

  // The command, its output at `dst`; what it leaves in the time a refusal may take.
  CommandResult Run(const Command &c, const std::string &dst, const std::string &options = "") {
    std::string args = Replaced(Replaced(Replaced(c.args, "SRC", src_), "TEXT", text_), "DST", dst);
    auto start = std::chrono::steady_clock::now();
    CommandResult r = Nibble(args + " --threads 1 " + options);
    seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return r;
  }

  TempFolder folder_;
  std::string src_ = folder_ / "src", text_ = folder_ / "src.txt", victim_ = folder_ / "victim", out_ = folder_ / "out";
  double seconds_ = 0;
};

// A socket that stands in a folder.
void MakeSocket(const std::string &path) {
  struct sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  ASSERT_LT(path.size(), sizeof address.sun_path);
  path.copy(address.sun_path, path.size());
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  EXPECT_EQ(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
  close(fd);
}

// A process takes long to begin under the sanitizers, and memory is handled alike whatever goes with what: one in so
// many of a table's cells there, every row and column of it.
enum { kThinned = 5 };

// What may stand where an output or an input should be, and is none. A device of our own: the system's stay out of it.
struct Thing {
  const char *name;
  bool is_no_file;  // and whoever reads it may wait for good
  void (*make)(const std::string &path, const std::string &victim);
};

const Thing kThings[] = {
    {"a folder of the user's", true,
     [](const std::string &path, const std::string &victim) {
       std::filesystem::copy(victim, path, std::filesystem::copy_options::recursive);
     }},
    {"a file of the user's", false, [](const std::string &path, const std::string &) { WriteFile(path, "notes"); }},
    {"a FIFO", true, [](const std::string &path, const std::string &) { mkfifo(path.c_str(), 0600); }},
    {"a socket", true, [](const std::string &path, const std::string &) { MakeSocket(path); }},
    {"a device", true,
     [](const std::string &path, const std::string &) { mknod(path.c_str(), S_IFCHR | 0600, makedev(1, 5)); }},
    {"a link to a folder", false,
     [](const std::string &path, const std::string &victim) { symlink(victim.c_str(), path.c_str()); }},
    {"a link to a file", false,
     [](const std::string &path, const std::string &victim) {
       symlink((victim + "/thesis.tex").c_str(), path.c_str());
     }},
    {"a link to nothing", false,
     [](const std::string &path, const std::string &victim) { symlink((victim + "/new").c_str(), path.c_str()); }},
    {"a link to itself", true,
     [](const std::string &path, const std::string &) { symlink(path.c_str(), path.c_str()); }},
    {"a hard link", false,
     [](const std::string &path, const std::string &victim) { link((victim + "/thesis.tex").c_str(), path.c_str()); }},
};

// Nobody's files are lost: neither what stands at the output, nor what stands beside it under a name that is ours.
TEST_F(AttackTest, NoCommandLosesAFile) {
  const auto victim = Picture(victim_);
  int runs = 0, at = 0;
  for (const Command &c : kCommands) {
    if (c.output == kNothing) continue;
    for (const Thing &thing : kThings) {
      at++;
      for (const char *suffix : {"", ".partial", ".work"}) {
        if (!strcmp(suffix, ".work") && strcmp(c.name, "gptq") != 0) continue;
        for (const char *force : {"", "--force"}) {
          at++;
          if (Sanitized() && at % kThinned != 0) continue;
          SCOPED_TRACE(std::string(c.name) + " " + force + ": " + thing.name + " at DST" + suffix);
          std::filesystem::remove_all(out_);
          std::filesystem::create_directory(out_);
          thing.make(out_ + "/dst" + suffix, victim_);
          const auto before = Picture(out_);
          const auto links = Picture(victim_);
          CommandResult r = Run(c, out_ + "/dst", force);
          runs++;
          EXPECT_TRUE(r.code == 0 || r.code == 2 || r.code == 3 || r.code == 4) << r.code << r.err;
          EXPECT_LT(seconds_, 20);
          EXPECT_EQ(Picture(victim_), links);
          auto after = Picture(out_);
          // Under --force a file gives way to a file, and so does a link (not what it names).
          bool gives_way = !*suffix && *force && c.output == kFile && !thing.is_no_file;
          for (const auto &[path, what] : before)
            EXPECT_TRUE(gives_way || (after.count(path) && after[path] == what)) << path << " is another now\n"
                                                                                 << r.err;
          if (r.code != 0) {
            EXPECT_EQ(after, before) << r.err;
          }
        }
      }
    }
  }
  EXPECT_EQ(Picture(victim_), victim);
  EXPECT_GT(runs, Sanitized() ? 400 / kThinned : 400);
}

// A folder that bears our marker and is ours is emptied; links that somebody put into it lead nowhere. One that is
// another user's is not entered.
TEST_F(AttackTest, NoCommandWritesThroughWhatIsPlanted) {
  const auto victim = Picture(victim_);
  const std::string partial = out_ + "/dst.partial";
  for (const Command &c : kCommands) {
    if (c.output == kNothing) continue;
    for (bool foreign : {false, true}) {
      SCOPED_TRACE(c.name);
      std::filesystem::remove_all(out_);
      std::filesystem::create_directories(partial + "/output");
      chmod(partial.c_str(), 0700);
      WriteFile(partial + "/.nibble-stage", "");
      for (const char *name : {"config.json", "model.safetensors", "nibble.json", "tokenizer.json"}) {
        symlink((victim_ + "/thesis.tex").c_str(), (partial + "/" + name).c_str());
        symlink((victim_ + "/thesis.tex").c_str(), (partial + "/output/" + name).c_str());
      }
      symlink(victim_.c_str(), (partial + "/output/deep").c_str());
      if (foreign && (geteuid() != 0 || chown(partial.c_str(), 65534, 65534) != 0)) continue;
      const auto before = Picture(out_);
      CommandResult r = Run(c, out_ + "/dst");
      EXPECT_EQ(Picture(victim_), victim);
      if (foreign || r.code != 0) {
        EXPECT_TRUE(r.code == 2 || r.code == 4) << r.code << r.err;
        EXPECT_EQ(Picture(out_), before);
      } else {
        EXPECT_FALSE(Exists(partial));
      }
    }
  }
}

// No input makes a command wait, whatever stands in its place.
TEST_F(AttackTest, NoInputHangsACommand) {
  const auto victim = Picture(victim_);
  std::vector<std::string> inputs = {text_};
  for (const char *name :
       {"config.json", "model.safetensors", "tokenizer.json", "generation_config.json", "model.safetensors.index.json",
        "nibble.json", "chat_template.jinja", "tokenizer_config.json", "additional_chat_templates"})
    inputs.push_back(src_ + "/" + name);
  int refused = 0, at = 0;
  for (const std::string &input : inputs) {
    const bool is_there = Exists(input);
    const std::string bytes = is_there ? ReadFile(input) : "";
    for (const Thing &thing : kThings) {
      if (!thing.is_no_file) continue;
      std::filesystem::remove(input);
      thing.make(input, victim_);
      at++;
      for (const Command &c : kCommands) {
        at++;
        if (Sanitized() && at % kThinned != 0) continue;
        SCOPED_TRACE(std::string(c.name) + ": " + thing.name + " at " + input);
        std::filesystem::remove_all(out_);
        std::filesystem::create_directory(out_);
        CommandResult r = Run(c, out_ + "/dst", "--quiet");
        EXPECT_TRUE(r.code >= 0 && r.code <= 3) << r.code << r.err;
        EXPECT_LT(seconds_, 20);
        EXPECT_TRUE(r.code == 0 || r.code == 1 || ListFolder(out_).empty()) << r.err;
        refused += r.code == 3;
      }
      std::filesystem::remove_all(input);
      if (is_there) WriteFile(input, bytes);
    }
  }
  EXPECT_EQ(Picture(victim_), victim);
  EXPECT_GT(refused, Sanitized() ? 100 / kThinned : 100);
}

// One JSON value and the end of a line, in ASCII, so that whatever reads it need not know of encodings.
testing::AssertionResult IsJson(const std::string &text) {
  for (unsigned char c : text)
    if (c >= 0x7f) return testing::AssertionFailure() << "byte " << (int)c << " in: " << text;
  const char *end = nullptr;
  cJSON *json = cJSON_ParseWithOpts(text.c_str(), &end, false);
  if (!json) return testing::AssertionFailure() << "no JSON: " << text;
  cJSON_Delete(json);
  if (strcmp(end, "\n") != 0) return testing::AssertionFailure() << "more behind it: " << end;
  return testing::AssertionSuccess();
}

// A model whose path, tokens and text are what no terminal should get: each command says what it has to say as text,
// and as JSON, and what it writes as JSON is that.
TEST_F(AttackTest, NoCommandSaysForeignBytesOrBrokenJson) {
  std::string all;
  for (const std::string &poison : kPoison) all += poison;
  const std::string evil = folder_.path() + "/e" + all + "\xff\"\\";
  std::filesystem::create_directory(evil);
  std::filesystem::rename(src_, evil + "/src");
  std::string words;
  for (int i = 0; i < 100; i++) words += "word \x1b[31m\xc2\x9b ";
  WriteFile(evil + "/text", words);
  const std::string quoted = Quoted(Escaped(evil));
  for (const Command &c : kCommands) {
    for (const char *json : {"", " --json"}) {
      SCOPED_TRACE(std::string(c.name) + json);
      std::string args = Replaced(Replaced(c.args, "SRC", quoted + "/src"), "TEXT", quoted + "/text");
      args = Replaced(args, "DST", quoted + "/dst");
      const bool is_chat = std::string(c.name).find("chat") != std::string::npos;
      const bool is_raw =
          is_chat || std::string(c.name) == "generate" || std::string(c.name) == "tokenize";  // in a pipe
      const std::string line = std::string(c.name) == "chat" ? " <<<$'word \\x1b[31m'" : "";
      CommandResult r = Bash(args + json + line);
      EXPECT_TRUE(r.code == 0 || r.code == 1 || !strcmp(c.name, "verify --check-only")) << r.code << r.err;
      if (*json && r.code <= 1) {
        EXPECT_TRUE(IsJson(r.out));
      } else if (!is_raw) {
        EXPECT_TRUE(Shows(r.out));
      }
      EXPECT_TRUE(Shows(r.err)) << r.err;
      std::error_code none;
      for (const auto &entry : std::filesystem::directory_iterator(evil + "/dst", none)) {
        cJSON *written = entry.path().extension() == ".json" ? cJSON_Parse(ReadFile(entry.path()).c_str()) : nullptr;
        EXPECT_TRUE(entry.path().extension() != ".json" || written) << entry.path();
        cJSON_Delete(written);
      }
      std::filesystem::remove_all(evil + "/dst");
      // What is not there, and what may not be written.
      r = Bash(Replaced(args, "/src", "/none") + json);
      EXPECT_EQ(r.code, 3) << r.err;
      EXPECT_TRUE(Shows(r.out) && Shows(r.err)) << r.err;
    }
  }
}

}  // namespace
