#include <gtest/gtest.h>

#include "tests/support.h"

extern "C" {
#include "kernels/cpu/isa.h"
}

namespace {

const char kConfig[] =
    R"({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 256, "intermediate_size": 512,
        "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 1000, "tie_word_embeddings": true})";

TEST(Cli, SaysWhatItCanDo) {
  CommandResult help = Nibble("--help");
  EXPECT_EQ(help.code, 0);
  EXPECT_NE(help.out.find("memory"), std::string::npos);
  EXPECT_EQ(Nibble("--version").code, 0);
  EXPECT_EQ(Nibble("memory --help").code, 0);
  EXPECT_NE(Nibble("memory --help").out.find("Example:"), std::string::npos);
}

TEST(Cli, WrongUsageExitsWith2) {
  EXPECT_EQ(Nibble("").code, 2);
  EXPECT_EQ(Nibble("frobnicate").code, 2);
  EXPECT_EQ(Nibble("memory").code, 2);
  EXPECT_EQ(Nibble("memory --no-such-option x").code, 2);
  EXPECT_EQ(Nibble("memory --ctx -5 x").code, 2);
  EXPECT_EQ(Nibble("memory --device cuda x").code, 2);
}

TEST(Cli, RefusesAnInstructionSetThatIsNotHere) {
  TempFolder folder;
  WriteFile(folder / "config.json", kConfig);
  auto with = [&](const std::string &isa) {
    setenv("NIBBLE_ISA", isa.c_str(), 1);
    CommandResult r = Nibble("memory " + folder.path());
    unsetenv("NIBBLE_ISA");
    return r;
  };
  EXPECT_EQ(with("").code, 0);
  CommandResult unknown = with("avx3");
  EXPECT_EQ(unknown.code, 2);
  EXPECT_EQ(unknown.err, "nibble: NIBBLE_ISA: no instruction set is named 'avx3'\n");
  for (int i = 0; i < NB_ISA_COUNT; i++) {
    const std::string name = nb_isa_name(nb_isa(i));
    CommandResult r = with(name);
    EXPECT_EQ(r.code, nb_isa_available(nb_isa(i)) ? 0 : 2) << name;
    EXPECT_EQ(r.err, r.code ? "nibble: NIBBLE_ISA: this processor or its system has no " + name + "\n" : "");
  }
}

TEST(Cli, ClosedStdoutExitsWith4) {
  TempFolder folder;
  WriteFile(folder / "config.json", kConfig);
  EXPECT_EQ(Nibble("memory " + folder.path() + " >/dev/full").code, 4);
}

TEST(Memory, CountsWeightsByHand) {
  TempFolder folder;
  WriteFile(folder / "config.json", kConfig);
  CommandResult r = Nibble("memory " + folder.path() + " --json --ctx 10");
  ASSERT_EQ(r.code, 0) << r.err;
  // embedding + 2 * (4 * 256*256 + 3 * 256*512 + 2 norms) + norm
  int64_t linear = 2 * (4 * 256 * 256 + 3 * 256 * 512), rest = 1000 * 256 + 5 * 256;
  auto has = [&](const std::string &key, int64_t value) {
    return r.out.find("\"" + key + "\":\t" + std::to_string(value)) != std::string::npos;
  };
  EXPECT_TRUE(has("parameters", linear + rest)) << r.out;
  EXPECT_TRUE(has("weight_bytes", 4 * (linear + rest))) << r.out;
  EXPECT_TRUE(has("weight_bytes", linear / 2 + linear / 64 * 4 + 14 * 64 + 2 * rest)) << r.out;
  EXPECT_TRUE(has("kv_cache_bytes", 2 * 2 * 256 * 10 * 2)) << r.out;
}

TEST(Memory, RefusesWhatIsNoConfig) {
  TempFolder folder;
  WriteFile(folder / "config.json", "{}");
  EXPECT_EQ(Nibble("memory " + folder.path()).code, 3);
  EXPECT_EQ(Nibble("memory " + (folder / "nothing")).code, 3);
}

// What people really have in the place of a model: nothing, an empty folder, a pointer that git-lfs left, a page that
// says 404, half a download. Every command says what is wrong in one line.
TEST(Commands, SayInOneLineWhyThereIsNoModel) {
  TempFolder folder;
  const std::string config = ReadFile(Golden("artifacts/bf16/config.json"));
  const std::string whole = ReadFile(Golden("artifacts/bf16/model.safetensors"));
  const std::pair<const char *, std::string> contents[] = {
      {"pointer", "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 269060552\n"},
      {"page", "<!DOCTYPE html><html><body>404 Not Found</body></html>\n"},
      {"half", whole.substr(0, whole.size() / 2)},
      {"header", whole.substr(0, 100)},
      {"zeros", std::string(1000, '\0')},
      {"nothing", ""},
  };
  std::vector<std::string> models = {folder / "missing", folder / "empty"};
  std::filesystem::create_directory(folder / "empty");
  for (const auto &[name, bytes] : contents) {
    std::filesystem::create_directory(folder / name);
    WriteFile(folder / (name + std::string("/config.json")), config);
    WriteFile(folder / (name + std::string("/model.safetensors")), bytes);
    WriteFile(folder / (name + std::string(".gguf")), bytes);
    models.push_back(folder / name);
    models.push_back(folder / (name + std::string(".gguf")));
  }
  const std::string text = folder / "text.txt", out = folder / "out";
  WriteFile(text, "some text");
  for (const std::string &model : models) {
    for (const std::string &command :
         {"inspect " + model, "convert " + model + " " + out, "quantize " + model + " " + out + " --method nf4",
          "ppl " + model + " --text " + text, "generate " + model + " --prompt hi", "verify " + model,
          "verify " + model + " --against " + Golden("artifacts/bf16"), "bench " + model,
          "verify " + Golden("artifacts/nf4") + " --no-certificate --against " + model,
          "logits " + model + " --ids 1 --out " + out}) {
      CommandResult r = Nibble(command);
      EXPECT_EQ(r.code, 3) << command << "\n" << r.err;
      EXPECT_EQ(std::count(r.err.begin(), r.err.end(), '\n'), 1) << command << "\n" << r.err;
      EXPECT_EQ(r.err.compare(0, 8, "nibble: "), 0) << command << "\n" << r.err;
      EXPECT_FALSE(Exists(out)) << command;
    }
  }
}

// Whoever reads the text of `generate` from a pipe gets all of it or nothing.
TEST(Generate, PrintsNothingBeforeTheFirstTokenIsThere) {
  const std::string model = Golden("tiny/llama-f32");
  std::string longer;
  for (int i = 0; i < 300; i++) longer += "the cat ";
  const std::pair<std::string, int> failing[] = {{(Golden("tiny/no-such-model") + " --prompt hi"), 3},
                                                 {Golden("tiny/bert-mlm-f32") + " --prompt hi", 3},
                                                 {model + " --prompt '" + longer + "'", 2}};
  for (const auto &[arguments, code] : failing) {
    CommandResult r = Nibble("generate " + arguments);
    EXPECT_EQ(r.code, code) << arguments << "\n" << r.err;
    EXPECT_EQ(r.out, "") << arguments;
    EXPECT_EQ(Nibble("generate " + arguments + " --json").out, "") << arguments;
  }
  CommandResult r = Nibble("generate " + model + " --prompt 'the cat' --max-new-tokens 3 --ignore-eos");
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_EQ(r.out.compare(0, 7, "the cat"), 0) << r.out;
  EXPECT_GT(r.out.size(), 8u) << r.out;
  EXPECT_EQ(r.out.back(), '\n') << r.out;
}

// A file is what it holds, whatever its name: its tokenizer too.
TEST(Commands, FindTheTokenizerOfAGgufFileOfAnyName) {
  TempFolder folder;
  const std::string named = Golden("gguf/tiny.gguf"), other = folder / "model", text = folder / "text.txt";
  std::filesystem::copy_file(named, other);
  std::string words;
  for (int i = 0; i < 40; i++) words += "the cat ";
  WriteFile(text, words);
  for (const std::string &options :
       {std::string("generate %s --prompt 'the cat' --max-new-tokens 4 --quiet"), "ppl %s --ctx 16 --text " + text,
        "verify %s --against %s --ctx 16 --text " + text}) {
    std::string out[2];
    for (int i = 0; i < 2; i++) {
      std::string command = options;
      for (size_t at; (at = command.find("%s")) != std::string::npos;) command.replace(at, 2, i ? other : named);
      CommandResult r = Nibble(command);
      EXPECT_EQ(r.code, 0) << command << "\n" << r.err;
      out[i] = r.out.substr(0, r.out.find('\n'));
    }
    EXPECT_NE(out[0], "") << options;
    if (options[0] != 'v') {
      EXPECT_EQ(out[0], out[1]) << options;
    }
  }
}

// An empty line is a line, and no ids are a list; a NUL is a character.
TEST(Commands, TokenizeListsWhatHasNoIds) {
  TempFolder folder;
  const std::string text = folder / "text.txt", tokenizer = Golden("tokenizer/bytes.json");
  WriteFile(text, std::string("a\n\nb\0c\n", 7));
  CommandResult lines = Nibble("tokenize --lines --json --text " + text + " " + tokenizer);
  EXPECT_EQ(lines.code, 0) << lines.err;
  std::string flat;
  for (char c : lines.out) flat += std::string(" \n\t").find(c) == std::string::npos ? std::string(1, c) : "";
  EXPECT_EQ(flat, R"({"tokens":4,"lines":[[69],[],[70,193,71]]})");
  WriteFile(text, "");
  CommandResult empty = Nibble("tokenize --json --text " + text + " " + tokenizer);
  EXPECT_EQ(empty.code, 0) << empty.err;
  EXPECT_NE(empty.out.find("\"ids\""), std::string::npos) << empty.out;
}

}  // namespace
