// Foreign text that must not reach a terminal as it is, and commands run through bash, which can say any byte.
#pragma once

#include <gtest/gtest.h>

#include "tests/support.h"

extern "C" {
#include "base/printable.h"
}

// What must not come out: a control character in one byte or two, the end of a line within a name, a change of
// direction, a byte that is no UTF-8.
inline const std::vector<std::string> kPoison = {"\x1b[31m", "\a", "\r",           "\x7f",         "\xc2\x9b",
                                                 "\xc2\x85", "\n", "\xe2\x80\xae", "\xe2\x81\xa6", "\xd8\x9c"};

// Everything in `text` but line ends and tabs shows.
inline testing::AssertionResult Shows(const std::string &text) {
  for (size_t i = 0; i < text.size();) {
    int n = text[i] == '\n' || text[i] == '\t' ? 1 : nb_printable_character(text.data() + i, text.size() - i);
    if (n < 0)
      return testing::AssertionFailure() << "byte " << (int)(unsigned char)text[i] << " at " << i << " of: " << text;
    i += (size_t)n;
  }
  return testing::AssertionSuccess();
}

inline std::string Quoted(const std::string &text) { return "$'" + text + "'"; }

// In $'…' of the shell.
inline std::string Escaped(const std::string &bytes) {
  std::string out;
  for (unsigned char c : bytes) {
    char code[8];
    snprintf(code, sizeof code, "\\x%02x", c);
    out += code;
  }
  return out;
}

inline CommandResult Bash(const std::string &args) {
  TempFolder folder;
  WriteFile(folder / "line", std::string(kBinary) + " " + args + "\n");
  int status = system(
      ("bash " + (folder / "line") + " >" + (folder / "out") + " 2>" + (folder / "err") + " </dev/null").c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), ReadFile(folder / "out"),
          ReadFile(folder / "err")};
}
