/* What tests share: temporary folders that go away, the command line run as a user would, the shared data. */
#ifndef NB_TESTS_SUPPORT_H
#define NB_TESTS_SUPPORT_H

#include <gtest/gtest.h>
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

#include "nibble.h"

// Where things are: this repository, the program under test, libraries that refuse memory (cli/fail_alloc.c) and keep
// fsync waiting (cli/slow_sync.c), and CUDA modules of other builds (kernels/cuda/other_module.c).
extern const char *const kSourceDir, *const kBinary, *const kFailAlloc, *const kSlowSync, *const kOtherModule,
                                                                                              *const kOlderModule;

class TempFolder {
 public:
  TempFolder();
  ~TempFolder();
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

std::string ReadFile(const std::string &path);
void WriteFile(const std::string &path, const std::string &bytes);
bool Exists(const std::string &path);

// The names in a folder, sorted.
std::vector<std::string> ListFolder(const std::string &path);

// Runs `nibble ARGS` through the shell; a redirection in ARGS wins over ours.
CommandResult Nibble(const std::string &args);

// A file of tests/golden.
std::string Golden(const std::string &name);

// A file of the data folder shared beside the repository ($NIBBLE_SHARED, or ../shared); "" if it is not there, in
// which case a test says that it skips.
std::string Shared(const std::string &name);

// The real model, where scripts/get-model puts it; "" if it is not there.
std::string RealModel();

// Built with a sanitizer, where a real model's arithmetic takes minutes.
inline bool Sanitized() {
#ifdef __SANITIZE_ADDRESS__
  return true;
#else
  return false;
#endif
}

// What a comparison says when it fails: compiled once, in support.cc, where each file of tests would compile it again.
namespace testing {
extern template std::string PrintToString<int>(const int &);
extern template std::string PrintToString<unsigned>(const unsigned &);
extern template std::string PrintToString<long>(const long &);
extern template std::string PrintToString<unsigned long>(const unsigned long &);
extern template std::string PrintToString<float>(const float &);
extern template std::string PrintToString<double>(const double &);
extern template std::string PrintToString<bool>(const bool &);
extern template std::string PrintToString<std::string>(const std::string &);
extern template std::string PrintToString<const char *>(const char *const &);
extern template std::string PrintToString<nibble_status>(const nibble_status &);
extern template AssertionResult internal::CmpHelperOpFailure<int, int>(const char *, const char *, const int &,
                                                                       const int &, const char *);
extern template AssertionResult internal::CmpHelperOpFailure<unsigned, unsigned>(const char *, const char *,
                                                                                 const unsigned &, const unsigned &,
                                                                                 const char *);
extern template AssertionResult internal::CmpHelperOpFailure<long, long>(const char *, const char *, const long &,
                                                                         const long &, const char *);
extern template AssertionResult internal::CmpHelperOpFailure<unsigned long, unsigned long>(const char *, const char *,
                                                                                           const unsigned long &,
                                                                                           const unsigned long &,
                                                                                           const char *);
extern template AssertionResult internal::CmpHelperOpFailure<double, double>(const char *, const char *, const double &,
                                                                             const double &, const char *);
extern template AssertionResult internal::CmpHelperOpFailure<unsigned long, unsigned>(const char *, const char *,
                                                                                      const unsigned long &,
                                                                                      const unsigned &, const char *);
}  // namespace testing

#endif
