// The folders' one-way include rule (docs/architecture.md), and kernels/ and base/ on nothing but a C compiler.
#include <gtest/gtest.h>

#include <map>
#include <regex>

#include "tests/support.h"

namespace {

namespace fs = std::filesystem;

const std::map<std::string, int> kLevel = {{"base", 0},      {"kernels", 1},  {"model", 2},
                                           {"tokenizer", 3}, {"convert", 4},  {"runner", 5},
                                           {"quant", 6},     {"validate", 7}, {"cli", 8}};

std::string TopFolder(const std::string &path) { return path.substr(0, path.find('/')); }

TEST(Includes, GoOneWayOnly) {
  std::regex quoted("^\\s*#\\s*include\\s*\"([^\"]+)\"");
  int files = 0;
  for (auto &[folder, level] : kLevel) {
    if (!fs::exists(fs::path(kSourceDir) / folder)) continue;
    for (auto &entry : fs::recursive_directory_iterator(fs::path(kSourceDir) / folder)) {
      std::string ending = entry.path().extension();
      if (ending != ".c" && ending != ".h" && ending != ".cu" && ending != ".cuh") continue;
      files++;
      std::ifstream in(entry.path());
      std::smatch match;
      for (std::string line; std::getline(in, line);) {
        if (!std::regex_search(line, match, quoted) || match[1] == "nibble.h") continue;
        auto target = kLevel.find(TopFolder(match[1]));
        ASSERT_NE(target, kLevel.end()) << entry.path() << ": " << line << ": not written from the root";
        EXPECT_LE(target->second, level) << entry.path() << " may not include " << match[1];
      }
    }
  }
  EXPECT_GT(files, 10);
}

TEST(Includes, CommandLineUsesThePublicHeaderOnly) {
  std::regex quoted("^\\s*#\\s*include\\s*\"([^\"]+)\"");
  for (auto &entry : fs::directory_iterator(fs::path(kSourceDir) / "cli")) {
    std::ifstream in(entry.path());
    std::smatch match;
    for (std::string line; std::getline(in, line);) {
      if (!std::regex_search(line, match, quoted)) continue;
      EXPECT_TRUE(match[1] == "nibble.h" || TopFolder(match[1]) == "cli") << entry.path() << ": " << line;
    }
  }
}

TEST(Includes, BaseAndKernelsNeedNothingButTheStandardLibrary) {
  std::regex angled("^\\s*#\\s*include\\s*<([^>]+)>");
  std::regex ours("(cjson|pcre2|utf8proc|xxhash|openssl|zlib|cblas|lapacke).*");
  for (std::string folder : {"base", "kernels"}) {
    for (auto &entry : fs::recursive_directory_iterator(fs::path(kSourceDir) / folder)) {
      std::ifstream in(entry.path());
      std::smatch match;
      for (std::string line; std::getline(in, line);) {
        if (!std::regex_search(line, match, angled)) continue;
        EXPECT_FALSE(std::regex_match(match[1].str(), ours)) << entry.path() << ": " << line;
      }
    }
  }
}

}  // namespace
