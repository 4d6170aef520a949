// The only file of the tests that is compiled with absolute paths, so that a compiler cache serves every checkout.
#include "tests/support.h"

const char *const kSourceDir = NIBBLE_SOURCE_DIR;
const char *const kBinary = NIBBLE_BINARY;
const char *const kFailAlloc = NIBBLE_FAIL_ALLOC;
const char *const kSlowSync = NIBBLE_SLOW_SYNC;
const char *const kOtherModule = NIBBLE_OTHER_MODULE;
const char *const kOlderModule = NIBBLE_OLDER_MODULE;

TempFolder::TempFolder() {
  char path[] = "/tmp/nibble-test-XXXXXX";
  path_ = mkdtemp(path);
}

TempFolder::~TempFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string ReadFile(const std::string &path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream all;
  all << in.rdbuf();
  return all.str();
}

void WriteFile(const std::string &path, const std::string &bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), (std::streamsize)bytes.size());
}

bool Exists(const std::string &path) { return std::filesystem::exists(std::filesystem::symlink_status(path)); }

std::vector<std::string> ListFolder(const std::string &path) {
  std::vector<std::string> names;
  for (const auto &entry : std::filesystem::directory_iterator(path)) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

CommandResult Nibble(const std::string &args) {
  TempFolder folder;
  std::string out = folder / "out", err = folder / "err";
  std::string redirected = " >" + out + " 2>" + err + " </dev/null ";
  int status = system((std::string(kBinary) + redirected + args).c_str());
  int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return {code, ReadFile(out), ReadFile(err)};
}

std::string Golden(const std::string &name) { return std::string(kSourceDir) + "/tests/golden/" + name; }

std::string Shared(const std::string &name) {
  const char *set = getenv("NIBBLE_SHARED");
  std::string path = (set ? std::string(set) : std::string(kSourceDir) + "/../shared") + "/" + name;
  return std::filesystem::exists(path) ? path : "";
}

std::string RealModel() {
  const char *set = getenv("NIBBLE_CACHE"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
  std::string caches = xdg ? xdg : std::string(home ? home : "") + "/.cache";
  std::string path = (set ? set : caches + "/nibble") + "/SmolLM2-135M-Instruct.Q4_1.gguf";
  return std::filesystem::exists(path) ? path : "";
}

namespace testing {
template std::string PrintToString<int>(const int &);
template std::string PrintToString<unsigned>(const unsigned &);
template std::string PrintToString<long>(const long &);
template std::string PrintToString<unsigned long>(const unsigned long &);
template std::string PrintToString<float>(const float &);
template std::string PrintToString<double>(const double &);
template std::string PrintToString<bool>(const bool &);
template std::string PrintToString<std::string>(const std::string &);
template std::string PrintToString<const char *>(const char *const &);
template std::string PrintToString<nibble_status>(const nibble_status &);
template AssertionResult internal::CmpHelperOpFailure<int, int>(const char *, const char *, const int &, const int &,
                                                                const char *);
template AssertionResult internal::CmpHelperOpFailure<unsigned, unsigned>(const char *, const char *, const unsigned &,
                                                                          const unsigned &, const char *);
template AssertionResult internal::CmpHelperOpFailure<long, long>(const char *, const char *, const long &,
                                                                  const long &, const char *);
template AssertionResult internal::CmpHelperOpFailure<unsigned long, unsigned long>(const char *, const char *,
                                                                                    const unsigned long &,
                                                                                    const unsigned long &,
                                                                                    const char *);
template AssertionResult internal::CmpHelperOpFailure<double, double>(const char *, const char *, const double &,
                                                                      const double &, const char *);
template AssertionResult internal::CmpHelperOpFailure<unsigned long, unsigned>(const char *, const char *,
                                                                               const unsigned long &, const unsigned &,
                                                                               const char *);
}  // namespace testing
