/* What tests share: temporary folders that go away, the command line run as a user would, the shared data. */
#ifndef NB_TESTS_SUPPORT_H
#define NB_TESTS_SUPPORT_H

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

// Where things are: this repository, the program under test, libraries that refuse memory (cli/fail_alloc.c) and keep
// fsync waiting (cli/slow_sync.c), and CUDA modules of other builds (kernels/cuda/other_module.c).
extern const char *const kSourceDir, *const kBinary, *const kFailAlloc, *const kSlowSync, *const kOtherModule,
                                                                                              *const kOlderModule;

class TempFolder {
 public:
  TempFolder() {
    char path[] = "/tmp/nibble-test-XXXXXX";
    path_ = mkdtemp(path);
  }
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempFolder(const TempFolder &) = delete;
  std::string operator/(const std::string &name) const { return path_ + "/" + name; }
  const std::string &path() const { return path_; }

 private:
  std::string path_;
};

struct CommandResult {
  int code;  // exit code; 128 + signal if it was killed
  std::string out, err;
};

inline std::string ReadFile(const std::string &path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream all;
  all << in.rdbuf();
  return all.str();
}

inline void WriteFile(const std::string &path, const std::string &bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), (std::streamsize)bytes.size());
}

inline bool Exists(const std::string &path) { return std::filesystem::exists(std::filesystem::symlink_status(path)); }

// The names in a folder, sorted.
inline std::vector<std::string> ListFolder(const std::string &path) {
  std::vector<std::string> names;
  for (const auto &entry : std::filesystem::directory_iterator(path)) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

// Runs `nibble ARGS` through the shell; a redirection in ARGS wins over ours.
inline CommandResult Nibble(const std::string &args) {
  TempFolder folder;
  std::string out = folder / "out", err = folder / "err";
  std::string redirected = " >" + out + " 2>" + err + " </dev/null ";
  int status = system((std::string(kBinary) + redirected + args).c_str());
  int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return {code, ReadFile(out), ReadFile(err)};
}

// A file of tests/golden.
inline std::string Golden(const std::string &name) { return std::string(kSourceDir) + "/tests/golden/" + name; }

// A file of the data folder shared beside the repository ($NIBBLE_SHARED, or ../shared); "" if it is not there, in
// which case a test says that it skips.
inline std::string Shared(const std::string &name) {
  const char *set = getenv("NIBBLE_SHARED");
  std::string path = (set ? std::string(set) : std::string(kSourceDir) + "/../shared") + "/" + name;
  return std::filesystem::exists(path) ? path : "";
}

// The real model, where scripts/get-model puts it; "" if it is not there.
inline std::string RealModel() {
  const char *set = getenv("NIBBLE_CACHE"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
  std::string caches = xdg ? xdg : std::string(home ? home : "") + "/.cache";
  std::string path = (set ? set : caches + "/nibble") + "/SmolLM2-135M-Instruct.Q4_1.gguf";
  return std::filesystem::exists(path) ? path : "";
}

// Built with a sanitizer, where a real model's arithmetic takes minutes.
inline bool Sanitized() {
#ifdef __SANITIZE_ADDRESS__
  return true;
#else
  return false;
#endif
}

#endif
