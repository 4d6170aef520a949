// Foreign text on its way to a terminal: names, paths, tokens and damaged bytes reach it as text or not at all.
#include <gtest/gtest.h>
#include <pty.h>

#include "tests/checkpoint_files.h"
#include "tests/cli/byte_model.h"
#include "tests/cli/poison.h"

extern "C" {
#include "base/printable.h"
#include "nibble.h"
}

namespace {

std::string Printable(std::string text, const char *keep = "") {
  nibble_printable(text.data(), keep);
  return text.c_str();
}

TEST(Printable, KeepsWhatShowsAndReplacesTheRest) {
  EXPECT_EQ(Printable("model.layers.0"), "model.layers.0");
  EXPECT_EQ(Printable("größe 模型 🦙"), "größe 模型 🦙");
  EXPECT_EQ(Printable("a\x1b[31mb\x7f"), "a?[31mb?");
  EXPECT_EQ(Printable("a\xc2\x9b"
                      "b\xe2\x80\xae"
                      "c"),
            "a?b?c");
  EXPECT_EQ(Printable("a\nb\tc"), "a?b?c");
  EXPECT_EQ(Printable("a\nb\tc\r", "\n\t"), "a\nb\tc?");
  EXPECT_EQ(Printable("\xff"
                      "a\xe6\xa8"),
            "?a??");                                      // the last character is cut
  EXPECT_EQ(Printable("\xed\xa0\x80\xc0\x80"), "?????");  // a surrogate, an overlong NUL
  EXPECT_EQ(Printable(""), "");
  for (const std::string &poison : kPoison) EXPECT_FALSE(nb_is_printable(("a" + poison).c_str())) << poison;
  EXPECT_TRUE(nb_is_printable("größe 模型 🦙"));
}

TEST(Printable, NoCommandPrintsAPathAsItIs) {
  TempFolder folder;
  std::string all;
  for (const std::string &poison : kPoison) all += poison;
  std::string evil = Quoted(folder.path() + "/m`|<b>" + Escaped(all + "\xff"));
  WriteFile(folder / "config.json", kByteConfig);
  auto check = [&](const std::string &args, int code) {
    CommandResult r = Bash(args);
    EXPECT_EQ(r.code, code) << args << "\n" << r.err;
    EXPECT_TRUE(Shows(r.out)) << args;
    EXPECT_TRUE(Shows(r.err)) << args;
    return r;
  };
  std::string q = evil + "q", text = evil + "t", none = evil + "none";
  check("init " + folder.path() + " " + evil, 0);

  std::filesystem::path model;
  for (const auto &entry : std::filesystem::directory_iterator(folder.path()))
    if (entry.is_directory()) model = entry.path();
  WriteFile(model / "tokenizer.json", ByteTokenizer());
  std::string words;
  for (int i = 0; i < 200; i++) words += "word \x1b[31m\xc2\x9b ";
  WriteFile(model.string() + "t", words);
  check("quantize " + evil + " " + q + " --method nf4 --no-sync", 0);
  check("convert " + evil + " " + evil + "c --no-sync", 0);
  check("quantize " + evil + " " + q + " --method nf4 --no-sync", 2);  // it is there
  for (const char *json : {"", " --json"}) {
    check("inspect --tensors " + q + json, 0);
    check("memory " + q + json, 0);
    check("ppl " + q + " --text " + text + " --ctx 64 --chunks 2" + json, 0);
    check("logits " + q + " --ids 1,2 --force --out " + evil + "l" + json, 0);
    check("hidden " + q + " --ids 1,2 --force --hook layers.0.mlp.down_proj.input --out " + evil + "h" + json, 0);
    check("verify " + q + " --against " + evil + " --text " + text +
              " --ctx 64 --max-kl 1000 --max-ppl-increase 99999% --min-top1 1e-9" + json,
          0);
    for (const char *command : {"inspect ", "memory ", "verify ", "tokenize ", "bench "})
      check(command + none + json, 3);
    for (const char *command : {"convert ", "quantize --method nf4 "})
      check(command + none + " " + evil + "x" + json, 3);
  }
  CommandResult card =
      check("verify " + q + " --against " + evil + " --text " + text +
                " --ctx 64 --max-kl 1000 --max-ppl-increase 99999% --min-top1 1e-9 --model-card --report " + evil + "r",
            0);
  EXPECT_EQ(card.out.find("<b>"), std::string::npos) << card.out;
  EXPECT_TRUE(Shows(ReadFile(model.string() + "r")));
  CommandResult generated =
      check("generate " + q + " --prompt a --max-new-tokens 40 --ignore-eos --temperature 2 --json", 0);
  EXPECT_NE(generated.out.find("\"text\""), std::string::npos);
}

// The status of opening a model, whose message must show.
nibble_status Open(const std::string &path) {
  nibble_inspect_options o = {};
  o.size = sizeof o;
  o.model = path.c_str();
  nibble_inspection *in = nullptr;
  nibble_error err = {};
  nibble_status status = nibble_inspect(&o, &in, &err);
  EXPECT_TRUE(Shows(err.message));
  nibble_inspection_free(in);
  return status;
}

// As a JSON string holds it.
std::string InJson(const std::string &text) {
  std::string out;
  for (char c : text) {
    char code[8];
    snprintf(code, sizeof code, "\\u%04x", (unsigned char)c);
    out += (unsigned char)c < 0x20 ? std::string(code) : std::string(1, c);
  }
  return out;
}

TEST(Printable, NamesThatDoNotShowAreRefused) {
  TempFolder folder;
  std::string weights = folder / "model.safetensors", config = folder / "config.json";
  auto write = [&](const std::string &name, std::string field, const std::string &text) {
    WriteFile(weights, Safetensors("{" + Entry(name, "F32", "1", 0, 4) + "}", std::string(4, 0)));
    field.replace(field.find('@'), 1, text);
    WriteFile(config, "{" + field + ", \"hidden_size\": 64}");
    return Open(folder.path());
  };
  std::string kind = R"("model_type": "@")";
  EXPECT_EQ(write("ab", kind, "llxama"), NIBBLE_OK);
  for (const std::string &poison : kPoison) {
    EXPECT_EQ(write("a" + InJson(poison) + "b", kind, "llxama"), NIBBLE_BAD_INPUT) << poison;
    for (const std::string &field :
         {kind, std::string(R"("architectures": ["@"])"),
          std::string(R"("model_type": "llxama", "quantization_config": {"quant_method": "@"})")})
      EXPECT_EQ(write("ab", field, "ll" + InJson(poison) + "ama"), NIBBLE_BAD_INPUT) << field << poison;
  }
}

// What a command prints on a terminal.
std::string OnATerminal(const std::string &args) {
  int terminal;
  pid_t child = forkpty(&terminal, nullptr, nullptr, nullptr);
  if (child == 0) {
    execl("/bin/sh", "sh", "-c", (std::string(kBinary) + " " + args + " 2>/dev/null").c_str(), nullptr);
    _exit(127);
  }
  std::string out;
  char bytes[4096];
  for (ssize_t n; (n = read(terminal, bytes, sizeof bytes)) > 0;) out.append(bytes, (size_t)n);
  close(terminal);
  int status;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0) << args;
  out.erase(std::remove(out.begin(), out.end(), '\r'), out.end());  // the terminal's own, before each newline
  return out;
}

TEST(Printable, WhatAModelSaysIsTextOnATerminalAndRawInAPipe) {
  TempFolder folder;
  WriteFile(folder / "tokenizer.json", ByteTokenizer());
  WriteFile(folder / "ids", "104 105 10 9 27 91 51 49 109 194 155 0 127 195 188"); /* hi, CSI twice, NUL, DEL, ü */
  std::string args = "tokenize --decode " + folder.path() + " --text " + (folder / "ids");
  EXPECT_EQ(OnATerminal(args), "hi\n\t?[31m???ü");
  EXPECT_EQ(Nibble(args).out, std::string("hi\n\t\x1b[31m\xc2\x9b\0\x7fü", 15));
  WriteFile(folder / "config.json", kByteConfig);
  ASSERT_EQ(Nibble("init " + folder.path() + " " + (folder / "m")).code, 0);
  WriteFile(folder / "m/tokenizer.json", ByteTokenizer());
  std::string said = OnATerminal("generate " + (folder / "m") +
                                 " --prompt '\x1b]0;a\a' --max-new-tokens 60 --temperature 3 --ignore-eos");
  EXPECT_TRUE(Shows(said));
  EXPECT_EQ(said.find("?]0;a?"), 0u) << said;
}

}  // namespace
