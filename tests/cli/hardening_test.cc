// What a hostile or broken surrounding does to a run: files that change, no memory, no disk, no place to write, nobody
// who reads. Every case ends with the exit code of its kind and leaves nothing behind. docs/security.md lists them.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <chrono>
#include <thread>

#include "tests/support.h"

extern "C" {
#include "base/mapfile.h"
#include "base/mapguard.h"
}

namespace {

// AddressSanitizer keeps SIGBUS for itself unless it is told not to, and reserves terabytes of addresses.
#if defined(__SANITIZE_ADDRESS__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

const char kConfig[] =
    R"({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 500, "torch_dtype": "bfloat16"})";

class HardeningTest : public testing::Test {
 protected:
  void SetUp() override {
    WriteFile(folder_ / "config.json", kConfig);
    ASSERT_EQ(Nibble("init " + folder_.path() + " " + (folder_ / "src") + " --quiet").code, 0);
  }
  std::string Quantize(const std::string &dst) const {
    return "quantize " + (folder_ / "src") + " " + dst + " --method nf4 --quiet --no-sync";
  }
  TempFolder folder_;
};

// Runs a shell line with $NIBBLE set; the exit code.
CommandResult Shell(const std::string &line) {
  TempFolder folder;
  std::string command = "NIBBLE=" + std::string(kBinary) + "; { " + line + "; } >" + (folder / "out") + " 2>" +
                        (folder / "err") + " </dev/null";
  int status = system(("bash -c '" + command + "'").c_str());
  int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return {code, ReadFile(folder / "out"), ReadFile(folder / "err")};
}

TEST(MapGuard, ReadsZerosWhereATruncatedFileWasAndRemembers) {
  if (kSanitized) GTEST_SKIP() << "skipped: the sanitizer handles SIGBUS";
  TempFolder folder;
  const size_t page = (size_t)sysconf(_SC_PAGESIZE);
  WriteFile(folder / "f", std::string(4 * page, 'x'));
  nb_mapguard_forget();
  nb_mapfile map;
  nibble_error err;
  ASSERT_EQ(nb_mapfile_open((folder / "f").c_str(), &map, &err), NIBBLE_OK);
  EXPECT_EQ(map.data[3 * page], 'x');
  EXPECT_FALSE(nb_mapguard_lost());
  ASSERT_EQ(truncate((folder / "f").c_str(), (off_t)page), 0);
  EXPECT_EQ(map.data[0], 'x');
  EXPECT_EQ(map.data[2 * page], 0);
  EXPECT_EQ(map.data[4 * page - 1], 0);
  EXPECT_TRUE(nb_mapguard_lost());
  EXPECT_EQ(nb_mapguard_check(&err), NIBBLE_BAD_INPUT);
  nb_mapfile_close(&map);
  nb_mapguard_forget();
  EXPECT_FALSE(nb_mapguard_lost());
}

TEST(MapGuard, NoticesAFileThatWasWrittenTo) {
  TempFolder folder;
  WriteFile(folder / "f", std::string(100, 'x'));
  nb_mapguard_forget();
  nb_mapfile map;
  nibble_error err;
  ASSERT_EQ(nb_mapfile_open((folder / "f").c_str(), &map, &err), NIBBLE_OK);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));  // file systems count time in ticks
  WriteFile(folder / "f", std::string(100, 'y'));
  nb_mapfile_close(&map);
  EXPECT_TRUE(nb_mapguard_lost());
  nb_mapguard_forget();
}

TEST(MapGuard, MindsNotAFileThatWasReplacedByAnother) {
  TempFolder folder;
  WriteFile(folder / "f", std::string(100, 'x'));
  WriteFile(folder / "g", std::string(50, 'y'));
  nb_mapguard_forget();
  nb_mapfile map;
  nibble_error err;
  ASSERT_EQ(nb_mapfile_open((folder / "f").c_str(), &map, &err), NIBBLE_OK);
  ASSERT_EQ(rename((folder / "g").c_str(), (folder / "f").c_str()), 0);
  EXPECT_EQ(map.data[99], 'x');
  nb_mapfile_close(&map);
  EXPECT_FALSE(nb_mapguard_lost());
}

TEST_F(HardeningTest, AFullDiskLeavesNothingBehind) {
  std::string disk = folder_ / "disk";
  std::filesystem::create_directory(disk);
  if (mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=64k") != 0) GTEST_SKIP() << "skipped: a tmpfs cannot be mounted";
  CommandResult r = Nibble(Quantize(disk + "/out"));
  EXPECT_EQ(r.code, 4) << r.err;
  EXPECT_NE(r.err.find("No space left"), std::string::npos) << r.err;
  EXPECT_TRUE(ListFolder(disk).empty());
  r = Nibble("convert " + (folder_ / "src") + " " + disk + "/out --dtype float32 --quiet");
  EXPECT_EQ(r.code, 4) << r.err;
  EXPECT_TRUE(ListFolder(disk).empty());
  umount(disk.c_str());
}

TEST_F(HardeningTest, AFolderThatCannotBeWrittenToIsTheSystemsNo) {
  std::string disk = folder_ / "disk";
  std::filesystem::create_directory(disk);
  if (geteuid() == 0) {  // whom permissions do not stop
    if (mount("tmpfs", disk.c_str(), "tmpfs", MS_RDONLY, "size=64k") != 0)
      GTEST_SKIP() << "skipped: a read-only tmpfs cannot be mounted";
  } else {
    std::filesystem::permissions(disk, std::filesystem::perms::owner_read | std::filesystem::perms::owner_exec);
  }
  CommandResult r = Nibble(Quantize(disk + "/out"));
  EXPECT_EQ(r.code, 4) << r.err;
  EXPECT_NE(r.err.find(disk), std::string::npos) << r.err;
  if (geteuid() == 0) umount(disk.c_str());
}

// What a destination holds is looked at: only a model gives way to a folder, only a file to a file.
TEST_F(HardeningTest, ForceReplacesNothingThatIsNoModel) {
  const std::string src = folder_ / "src", home = folder_ / "home", device = folder_ / "device";
  std::filesystem::create_directories(home + "/.ssh");
  WriteFile(home + "/.ssh/id", "secret");
  std::vector<std::string> places = {home, home + "/.ssh/id"};
  mkfifo((folder_ / "fifo").c_str(), 0600);
  places.push_back(folder_ / "fifo");
  if (geteuid() == 0 && mknod(device.c_str(), S_IFCHR | 0600, makedev(1, 3)) == 0) places.push_back(device);
  for (const std::string &to : places) {
    for (const std::string &command : {"convert " + src + " " + to, Quantize(to), "init " + src + " " + to}) {
      CommandResult r = Nibble(command + " --force");
      EXPECT_EQ(r.code, 2) << command << r.err;
      EXPECT_EQ(std::count(r.err.begin(), r.err.end(), '\n'), 1) << r.err;
      EXPECT_TRUE(Exists(to) && !Exists(to + ".partial")) << command;
    }
    if (to == home + "/.ssh/id") continue;
    EXPECT_EQ(Nibble("logits " + src + " --ids 1 --force --out " + to).code, 2) << to;
    EXPECT_EQ(Nibble("verify " + src + " --force --report " + to).code, 2) << to;
    EXPECT_EQ(Nibble("verify " + src + " --force --certificate " + to).code, 2) << to;
  }
  EXPECT_EQ(ReadFile(home + "/.ssh/id"), "secret");
  std::filesystem::create_directory(folder_ / "empty");
  EXPECT_EQ(Nibble(Quantize(folder_ / "empty")).code, 0);
  EXPECT_EQ(Nibble(Quantize(folder_ / "empty")).code, 2);
  EXPECT_EQ(Nibble(Quantize(folder_ / "empty") + " --force").code, 0);
}

TEST_F(HardeningTest, NoOutputTakesThePlaceOfAnInput) {
  const std::string src = folder_ / "src", weights = src + "/model.safetensors", config = src + "/config.json";
  const std::string want_weights = ReadFile(weights), want_config = ReadFile(config);
  symlink(src.c_str(), (folder_ / "alias").c_str());
  for (const std::string &to : {src, weights, config, folder_.path(), folder_ / "alias/config.json"}) {
    for (const std::string &command :
         {"convert " + src + " " + to, Quantize(to), "init " + src + " " + to, "logits " + src + " --ids 1 --out " + to,
          "verify " + src + " --report " + to, "verify " + src + " --certificate " + to}) {
      CommandResult r = Nibble(command + " --force");
      EXPECT_EQ(r.code, 2) << command << r.err;
    }
  }
  EXPECT_TRUE(ReadFile(weights) == want_weights && ReadFile(config) == want_config);
  EXPECT_EQ(ListFolder(src).size(), 2u);
}

TEST_F(HardeningTest, ReportsAndCertificatesReplaceWhatNibbleWrote) {
  const std::string verify = "verify " + (folder_ / "src") + " --against " + (folder_ / "src") + " --no-certificate ";
  for (const char *option : {"--report ", "--certificate "}) {
    const std::string notes = folder_ / "notes", command = verify + option + notes;
    for (const char *text : {"notes", "{\"name\": \"package\"}", "<!DOCTYPE html>\n<p>mine"}) {
      WriteFile(notes, text);
      CommandResult r = Nibble(command);
      EXPECT_TRUE(r.code == 2 || r.code == 3) << command << r.code << r.err;
      EXPECT_EQ(ReadFile(notes), text);
    }
    chmod(notes.c_str(), 0600);
    EXPECT_EQ(Nibble(command + " --force").code, 0);
    EXPECT_NE(ReadFile(notes).find("nibble"), std::string::npos);
    CommandResult r = Nibble(command);
    EXPECT_EQ(r.code, 0) << r.err;
    struct stat info = {};
    EXPECT_EQ(stat(notes.c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0600u) << "the mode of what was replaced";
  }
}

// Each of these opened it and waited for a writer.
TEST_F(HardeningTest, AFifoInTheModelIsRefusedAtOnce) {
  const std::string src = folder_ / "src";
  for (const char *name : {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}) {
    const std::string path = src + "/" + name, bytes = ReadFile(path);
    std::filesystem::remove(path);
    ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
    for (const std::string &command :
         {"inspect " + src, "verify " + src, "convert " + src + " " + (folder_ / "out") + " --force",
          "logits " + src + " --ids 1 --force --out " + (folder_ / "l"), "tokenize " + src}) {
      CommandResult r = Shell("timeout 60 $NIBBLE " + command + " --quiet");
      EXPECT_NE(r.code, 124) << name << ": " << command;
      EXPECT_TRUE(r.code >= 0 && r.code <= 3) << name << ": " << command << r.err;
    }
    std::filesystem::remove(path);
    if (!bytes.empty()) WriteFile(path, bytes);
  }
  mkfifo((folder_ / "text").c_str(), 0600);
  CommandResult r = Shell("timeout 60 $NIBBLE ppl " + (folder_ / "src") + " --text " + (folder_ / "text"));
  EXPECT_EQ(r.code, 3) << r.err;
}

TEST_F(HardeningTest, ALimitOnTheSizeOfFilesIsTheSystemsNo) {
  for (const std::string &command :
       {Quantize(folder_ / "out"), "convert " + (folder_ / "src") + " " + (folder_ / "out"),
        "logits " + (folder_ / "src") + " --ids 1,2,3,4,5,6,7,8 --out " + (folder_ / "out")}) {
    CommandResult r = Shell("ulimit -f 2; $NIBBLE " + command);
    EXPECT_EQ(r.code, 4) << command << r.err;
    EXPECT_EQ(ListFolder(folder_.path()), (std::vector<std::string>{"config.json", "src"})) << command;
  }
}

TEST_F(HardeningTest, ClosedDescriptorsAreNotTakenForTheOutput) {
  ASSERT_EQ(Nibble(Quantize(folder_ / "wanted")).code, 0);
  for (const char *closed : {"<&-", "2>&-", "<&- 2>&-"}) {
    CommandResult r = Shell("$NIBBLE " + Quantize(folder_ / "out") + " --force " + closed);
    EXPECT_EQ(r.code, 0) << closed;
    EXPECT_EQ(ReadFile(folder_ / "out/model.safetensors"), ReadFile(folder_ / "wanted/model.safetensors")) << closed;
  }
  CommandResult r =
      Shell("$NIBBLE logits " + (folder_ / "src") + " --ids 1 --out " + (folder_ / "l") + " <&- >&- 2>&-");
  EXPECT_EQ(r.code, 4) << "what it has to say cannot be said";
}

TEST_F(HardeningTest, AnAddressSpaceTooSmallIsReportedNotCrashedInto) {
  if (kSanitized) GTEST_SKIP() << "skipped: the sanitizer reserves terabytes";
  const std::string out = folder_ / "out";
  int refused = 0;
  const std::string no_room = "libgomp: Out of memory";  // before our own code runs
  for (const std::string &options : {Quantize(out) + " --threads 1", Quantize(out) + " --threads 8",
                                     Quantize(out) + " --threads 8 --method rtn --group-size 32"}) {
    int works = 0;
    for (int kib = 12 << 10; kib <= 400 << 10; kib += kib / 16) {
      std::filesystem::remove_all(out);
      CommandResult r = Shell("ulimit -v " + std::to_string(kib) + "; $NIBBLE " + options);
      // Below some size not even the loader finds room: the shell says 127, or 126.
      EXPECT_TRUE(r.code == 0 || r.code == 4 || r.code == 127 || r.code == 126 ||
                  r.err.find(no_room) != std::string::npos)
          << kib << " KiB: " << r.code << r.err;
      refused += r.code == 4;
      if (r.code == 0 && !works) works = kib;
      EXPECT_EQ(Exists(out), r.code == 0) << kib;
      EXPECT_FALSE(Exists(out + ".partial")) << kib;
    }
    // The room for the libraries and the room that is enough lie a few hundred KiB apart.
    for (int kib = works - 32; kib > 0; kib -= 32) {
      std::filesystem::remove_all(out);
      CommandResult r = Shell("ulimit -v " + std::to_string(kib) + "; $NIBBLE " + options);
      if (r.code != 0 && r.code != 4) break;
      refused += r.code == 4;
      EXPECT_EQ(Exists(out), r.code == 0) << kib;
      EXPECT_FALSE(Exists(out + ".partial")) << kib;
    }
  }
  EXPECT_GT(refused, 0);
}

TEST_F(HardeningTest, AClosedStandardOutputIsTheSystemsNo) {
  for (const char *command : {"inspect ", "verify "}) {
    CommandResult r = Shell("$NIBBLE " + (command + (folder_ / "src")) + " >&-");
    EXPECT_EQ(r.code, 4) << command << r.err;
    r = Shell("$NIBBLE " + (command + (folder_ / "src")) + " >/dev/full");
    EXPECT_EQ(r.code, 4) << command << r.err;
  }
}

TEST_F(HardeningTest, AHundredRunsOnOneDestinationMakeOneWholeOutput) {
  std::string out = folder_ / "out";
  ASSERT_EQ(Nibble(Quantize(folder_ / "wanted")).code, 0);
  std::string line;
  for (int i = 0; i < 100; i++)
    line += "$NIBBLE " + Quantize(out) + " --threads 1 2>" + (folder_ / ("err" + std::to_string(i))) + "; echo $? >" +
            (folder_ / ("code" + std::to_string(i))) + " & ";
  Shell(line + "wait");
  int done = 0;
  for (int i = 0; i < 100; i++) {
    int code = atoi(ReadFile(folder_ / ("code" + std::to_string(i))).c_str());
    done += code == 0;
    // The others find the lock taken, or the output there already.
    EXPECT_TRUE(code == 0 || code == 2 || code == 4) << code << ReadFile(folder_ / ("err" + std::to_string(i)));
  }
  EXPECT_EQ(done, 1);
  EXPECT_FALSE(Exists(out + ".partial"));
  EXPECT_EQ(ReadFile(out + "/model.safetensors"), ReadFile(folder_ / "wanted/model.safetensors"));
}

TEST_F(HardeningTest, AnInputTruncatedWhileItIsReadGivesNoOutput) {
  // Truncated at many points of the run: the run is whole, or refuses, and never dies or writes half.
  std::string src = folder_ / "src/model.safetensors", whole = ReadFile(src);
  ASSERT_EQ(Nibble(Quantize(folder_ / "wanted")).code, 0);
  std::string wanted = ReadFile(folder_ / "wanted/model.safetensors");
  int refused = 0;
  for (int i = 0; i < 30; i++) {
    WriteFile(src, whole);
    std::string out = folder_ / "out";
    std::thread cutter([&] {
      std::this_thread::sleep_for(std::chrono::microseconds(400 * i));
      if (truncate(src.c_str(), 4096) != 0) ADD_FAILURE();
    });
    CommandResult r = Shell("ASAN_OPTIONS=handle_sigbus=0 $NIBBLE " + Quantize(out) + " --threads 1");
    cutter.join();
    if (r.code == 0) {
      EXPECT_EQ(ReadFile(out + "/model.safetensors"), wanted) << i;
    } else {
      EXPECT_EQ(r.code, 3) << i << ": " << r.err;
      EXPECT_FALSE(Exists(out)) << i;
      refused++;
    }
    EXPECT_FALSE(Exists(out + ".partial")) << i;
    std::filesystem::remove_all(out);
  }
  EXPECT_GT(refused, 0);
}

// Memory refused at many points of a run, one at a time (fail_alloc.c). Hashing is left out: libcrypto itself, where
// its own start finds no memory, follows a NULL.
TEST_F(HardeningTest, MemoryRefusedAnywhereIsReportedNotCrashedInto) {
  if (kSanitized) GTEST_SKIP() << "skipped: the sanitizer has an allocator of its own";
  constexpr int kPoints = 40;
  const std::string dst = folder_ / "dst", packed = Golden("artifacts/nf4"), original = Golden("artifacts/bf16");
  const std::string commands[] = {
      "quantize " + original + " " + dst + " --method nf4 --double-quant --no-sync",
      "quantize " + original + " " + dst + " --method rtn --bits 4 --group-size 32 --no-sync",
      "convert " + Golden("gguf/tiny.gguf") + " " + dst + " --no-sync",
      "verify " + packed + " --against " + original + " --no-certificate",
      "generate " + packed + " --prompt hi --max-new-tokens 2",
      "inspect " + packed,
      "memory " + packed,
  };
  for (const std::string &command : commands) {
    const std::string run = "$NIBBLE " + command + " --quiet --threads 1";
    const std::string preload = "LD_PRELOAD=" + std::string(kFailAlloc) + " ";
    std::filesystem::remove_all(dst);
    ASSERT_EQ(Shell(preload + "NIBBLE_COUNT_ALLOCS=" + (folder_ / "count") + " " + run).code, 0) << command;
    const long total = std::stol(ReadFile(folder_ / "count"));
    int refused = 0;
    for (int i = 0; i < kPoints; i++) {
      const long at = 1 + (total * i + total / 2) / kPoints;
      std::filesystem::remove_all(dst);
      const std::string rest = i % 2 ? "NIBBLE_FAIL_ALL=1 " : "";  // and every later one, too
      CommandResult r = Shell(preload + rest + "NIBBLE_FAIL_ALLOC=" + std::to_string(at) + " " + run);
      EXPECT_TRUE(r.code == 0 || r.code == 4) << command << ", allocation " << at << ": " << r.code << " " << r.err;
      if (r.code != 4) continue;
      refused++;
      EXPECT_EQ(std::count(r.err.begin(), r.err.end(), '\n'), 1) << command << ", allocation " << at << ": " << r.err;
      EXPECT_FALSE(Exists(dst + ".partial")) << command << ", allocation " << at;
      EXPECT_TRUE(!Exists(dst) || Exists(dst + "/nibble.json")) << command << ", allocation " << at;
    }
    EXPECT_GT(refused, 0) << command;
  }
}

// Leaks, uninitialized values, stray reads. OMP_WAIT_POLICY keeps nibble from starting itself anew with a setting for
// OpenMP, which valgrind cannot follow.
TEST_F(HardeningTest, TheMainJobsAreCleanUnderValgrind) {
  if (kSanitized) GTEST_SKIP() << "skipped: the sanitizers look for the same";
  if (system("command -v valgrind >/dev/null") != 0) GTEST_SKIP() << "skipped: valgrind is not installed";
  const std::string original = Golden("artifacts/bf16"), out = folder_ / "out", text = folder_ / "text.txt";
  WriteFile(text, std::string(150, 'x'));
  const std::string valgrind =
      "OMP_WAIT_POLICY=passive valgrind -q --leak-check=full --errors-for-leak-kinds=definite,indirect "
      "--show-leak-kinds=definite,indirect --error-exitcode=99 $NIBBLE ";
  for (const std::string &command :
       {"quantize " + original + " " + out + " --method nf4 --double-quant",
        "verify " + out + " --against " + original + " --text " + text + " --ctx 64 --profile loose",
        "verify " + out + " --check-only", "convert " + Golden("gguf/tiny.gguf") + " " + (folder_ / "hf"),
        "quantize /missing " + (folder_ / "none") + " --method nf4 || [ $? = 3 ]"}) {
    const bool fails = command.find("||") != std::string::npos;
    const std::string line = fails ? valgrind + command : valgrind + command + " --quiet --threads 2";
    CommandResult r = Shell(line);
    EXPECT_EQ(r.code, 0) << command << "\n" << r.err;
  }
}

}  // namespace
