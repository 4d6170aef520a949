// Work grows with the input, not with its square: a job of twice the size may take 2.5 times the instructions, counted
// by cachegrind, since seconds depend on what else a machine does. Each case lays out an input of some kind of size n.
#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "tests/checkpoint_files.h"
#include "tests/cli/byte_model.h"
#include "tests/gguf_files.h"
#include "tests/support.h"

namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

std::string Times(int n, const std::function<std::string(int)> &item, const char *between = "") {
  std::string all;
  for (int i = 0; i < n; i++) all += (i ? between : "") + item(i);
  return all;
}

std::string Number(int i) { return std::to_string(i); }

using Job = std::function<std::string(int n)>;  // lays out an input of size n and gives the command's arguments

class Growth : public testing::Test {
 protected:
  void SetUp() override {
    if (kSanitized) GTEST_SKIP() << "skipped: valgrind cannot run what a sanitizer watches";
    if (system("command -v valgrind >/dev/null") != 0) GTEST_SKIP() << "skipped: valgrind is not installed";
  }
  // Runs `nibble ARGS` and counts its instructions.
  double Count(const std::string &args) {
    std::string counts = folder_ / "counts", log = folder_ / "log";
    std::string command = "OMP_WAIT_POLICY=passive valgrind -q --tool=cachegrind --cache-sim=no " +
                          ("--cachegrind-out-file=" + counts) + " " + kBinary + " " + args + " --quiet --threads 1 >" +
                          log + " 2>&1 </dev/null";
    int status = system(command.c_str()); /* 1: a check that failed */
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) <= 1) << args << "\n" << ReadFile(log).substr(0, 2000);
    std::string text = ReadFile(counts);
    size_t at = text.find("\nsummary: ");
    EXPECT_NE(at, std::string::npos) << args;
    return at == std::string::npos ? 0 : std::stod(text.substr(at + 10));
  }
  // Twice the size, less than 2.5 times the instructions; those of an eighth, most of which any size takes, left out.
  void Expect(int n, const Job &make) {
    double begin = Count(make(n / 8)), once = Count(make(n)) - begin, twice = Count(make(2 * n)) - begin;
    EXPECT_GT(once, begin / 20) << "too small to tell";
    EXPECT_LT(twice / once, 2.5) << once << " and " << twice << " instructions";
    RecordProperty("ratio", std::to_string(twice / once));
  }
  std::string Out() {
    std::filesystem::remove_all(folder_ / "out");
    return folder_ / "out";
  }
  // A folder that is not there yet.
  std::string Fresh(const std::string &name) {
    std::filesystem::remove_all(folder_ / name);
    std::filesystem::create_directory(folder_ / name);
    return folder_ / name;
  }
  // A model of n tensors, each of `elements` numbers.
  std::string Tensors(int n, int elements = 0) {
    std::string model = Fresh("model"), shape = Number(elements);
    std::string header = "{" +
                         Times(
                             n,
                             [&](int i) {
                               return Entry("layer." + Number(i) + ".weight", "F32", shape, 4ull * i * elements,
                                            4ull * (i + 1) * elements);
                             },
                             ",") +
                         "}";
    while (header.size() % 8) header += ' ';
    WriteFile(model + "/model.safetensors", Safetensors(header, std::string(4ull * n * elements, '\xff')));
    WriteFile(model + "/config.json", R"({"model_type":"unknown"})");
    return model;
  }
  // A model of n files of one tensor each, with their index.
  std::string Shards(int n) {
    std::string model = Fresh("model");
    for (int i = 0; i < n; i++) {
      std::string header = "{" + Entry("t" + Number(i), "F32", "1", 0, 4) + "}";
      while (header.size() % 8) header += ' ';
      WriteFile(model + "/s" + Number(i) + ".safetensors", Safetensors(header, "\1\2\3\4"));
    }
    WriteFile(model + "/model.safetensors.index.json",
              R"({"metadata":{"total_size":)" + Number(4 * n) + R"(},"weight_map":{)" +
                  Times(
                      n, [](int i) { return "\"t" + Number(i) + "\":\"s" + Number(i) + ".safetensors\""; }, ",") +
                  "}}");
    WriteFile(model + "/config.json", R"({"model_type":"unknown"})");
    return model;
  }
  // A llama of n layers whose tokens are bytes, and its text.
  std::string Llama(int n) {
    std::filesystem::remove_all(folder_ / "llama");
    MakeByteModel(folder_ / "llama", n);
    return folder_ / "llama";
  }
  std::string Config(const std::string &more) {
    std::string model = Tensors(1);
    WriteFile(model + "/config.json", R"({"model_type":"unknown",)" + more + "}");
    return model;
  }
  // A llama of n tokens, which llama.cpp's tokenizer makes by merges or by scores.
  std::string GgufVocabulary(int n, bool scores) {
    GgufFile f = TinyLlama();
    std::vector<std::string> tokens = {"<unk>", "a"}, merges;
    for (int i = 2; i < n; i++) {
      tokens.push_back(std::string(scores ? "\xe2\x96\x81" : "a") + Number(i));
      merges.push_back("a " + Number(i));
    }
    f.Set("llama.vocab_size", U32Value((uint32_t)n))
        .Set("tokenizer.ggml.model", TextValue(scores ? "llama" : "gpt2"))
        .Set("tokenizer.ggml.pre", TextValue("llama-bpe"))
        .Set("tokenizer.ggml.tokens", TextsValue(tokens))
        .Set("tokenizer.ggml.token_type", NumbersValue<int32_t>(5, std::vector<int32_t>(n, 1)))
        .Set("tokenizer.ggml.bos_token_id", U32Value(0))
        .Set("tokenizer.ggml.eos_token_id", U32Value(1));
    if (scores)
      f.Set("tokenizer.ggml.scores", NumbersValue<float>(6, std::vector<float>(n, -1)));
    else
      f.Set("tokenizer.ggml.merges", TextsValue(merges));
    f.tensors[0].extents[1] = (uint64_t)n;
    f.tensors[0].data = std::string(32ull * n, '\0');
    WriteFile(folder_ / "model.gguf", f.Build());
    return folder_ / "model.gguf";
  }
  // A pytorch_model.bin with `body` as its pickle, and `storages` of four floats.
  std::string Torch(const std::string &body, int storages) {
    std::string model = Fresh("model");
    Zip zip;
    zip.Add({"m/data.pkl", pickle::Pickle(body)}).Add({"m/byteorder", "little"});
    for (int i = 0; i < storages; i++) zip.Add({"m/data/" + Number(i), Bytes<float>({1, 2, 3, 4})});
    WriteFile(model + "/pytorch_model.bin", zip.Build());
    WriteFile(model + "/config.json", R"({"model_type":"unknown"})");
    return model;
  }
  // A tokenizer of `parts`, and a text; gives the arguments that encode it.
  std::string Tokenize(const std::string &parts, const std::string &text) {
    std::string vocab =
        "\"a\":0,\"b\":1,\"ab\":2,\"aa\":3,\"abab\":4,\"\xc3\xa9\":5,\"<\":6,\"\xc4\xa0\":7,\"\xc4\x8a\":8";
    WriteFile(folder_ / "tokenizer.json", R"({"version":"1.0",)" + parts + R"("model":{"type":"BPE","vocab":{)" +
                                              vocab + R"(},"merges":["a b","a a","ab ab"]}})");
    WriteFile(folder_ / "text", text);
    return "tokenize --text " + (folder_ / "text") + " " + (folder_ / "tokenizer.json");
  }
  // An artifact with its certificate, which is checked.
  std::string Certified(const std::string &model) {
    CommandResult r = Nibble("verify --quiet --against " + model + " " + model);
    EXPECT_TRUE(Exists(model + "/nibble.json")) << r.err;
    return "verify --check-only " + model;
  }

  TempFolder folder_;
};

const char kByteLevel[] = R"("pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"use_regex":true},)";

// ---- checkpoints ----------------------------------------------------------------------------------------------------

TEST_F(Growth, OfInspectByTensors) {
  Expect(2000, [&](int n) { return "inspect --tensors " + Tensors(n); });
}

TEST_F(Growth, OfConvertByTensors) {
  Expect(2000, [&](int n) { return "convert --no-sync " + Tensors(n) + " " + Out(); });
}

TEST_F(Growth, OfCheckOnlyByTensors) {
  Expect(3000, [&](int n) { return Certified(Tensors(n)); });
}

TEST_F(Growth, OfVerifyByTensors) {
  Expect(2000, [&](int n) {
    std::string model = Tensors(n);
    return "verify --no-certificate --against " + model + " " + model;
  });
}

// All of them NaN.
TEST_F(Growth, OfVerifyByFaults) {
  Expect(1000, [&](int n) { return "verify --json --force --report " + (folder_ / "r.html") + " " + Tensors(n, 2); });
}

TEST_F(Growth, OfConvertByShards) {
  Expect(400, [&](int n) { return "convert --no-sync " + Shards(n) + " " + Out(); });
}

TEST_F(Growth, OfCheckOnlyByShards) {
  Expect(400, [&](int n) { return Certified(Shards(n)); });
}

TEST_F(Growth, OfConvertBySideFiles) {
  Expect(200, [&](int n) {
    std::string model = Tensors(1);
    for (int i = 0; i < n; i++) WriteFile(model + "/notes" + Number(i) + ".txt", "x");
    return "convert --no-sync " + model + " " + Out();
  });
}

TEST_F(Growth, OfInspectByGgufTensors) {
  Expect(200, [&](int n) {
    GgufFile f = TinyLlama();
    std::vector<GgufTensor> block(f.tensors.begin() + 1, f.tensors.end() - 1);
    for (int i = 1; i < n; i++) {
      for (GgufTensor t : block) {
        t.name.replace(4, 1, Number(i));
        f.tensors.push_back(t);
      }
    }
    f.Set("llama.block_count", U32Value((uint32_t)n));
    WriteFile(folder_ / "model.gguf", f.Build());
    return "inspect --tensors " + (folder_ / "model.gguf");
  });
}

TEST_F(Growth, OfInspectByGgufKeys) {
  Expect(4000, [&](int n) {
    GgufFile f = TinyLlama();
    for (int i = 0; i < n; i++) f.metadata.emplace_back("more." + Number(i), U32Value(7));
    WriteFile(folder_ / "model.gguf", f.Build());
    return "inspect " + (folder_ / "model.gguf");
  });
}

TEST_F(Growth, OfConvertByAGgufsMerges) {
  Expect(2000, [&](int n) { return "convert --no-sync " + GgufVocabulary(n, false) + " " + Out(); });
}

TEST_F(Growth, OfConvertByAGgufsScores) {
  Expect(2000, [&](int n) { return "convert --no-sync " + GgufVocabulary(n, true) + " " + Out(); });
}

TEST_F(Growth, OfInspectByTorchStorages) {
  Expect(1000, [&](int n) {
    std::vector<std::pair<std::string, std::string>> items;
    for (int i = 0; i < n; i++)
      items.push_back({"t" + Number(i), pickle::Tensor(pickle::Storage(Number(i), 4), 0, {4}, {1})});
    return "inspect " + Torch(pickle::Dict(items), n);
  });
}

TEST_F(Growth, OfInspectByOpcodesOfAPickle) {
  Expect(4000, [&](int n) {
    std::string put;
    for (int i = 0; i < n; i++) put += pickle::Str("k" + Number(i)) + "r" + Little((uint64_t)i, 4) + "0";
    return "inspect " + Torch(put + pickle::Dict({{"t", pickle::Tensor(pickle::Storage("0", 4), 0, {4}, {1})}}), 1);
  });
}

// ---- families -------------------------------------------------------------------------------------------------------

TEST_F(Growth, OfInspectByLayers) {
  Expect(160, [&](int n) { return "inspect --tensors " + Llama(n); });
}

TEST_F(Growth, OfQuantizeByLayers) {
  Expect(16, [&](int n) { return "quantize --method nf4 --no-sync " + Llama(n) + " " + Out(); });
}

TEST_F(Growth, OfVerifyByLayers) {
  Expect(16, [&](int n) {
    std::string model = Llama(n);
    CommandResult r = Nibble("quantize --quiet --method nf4 --no-sync " + model + " " + Out());
    EXPECT_EQ(r.code, 0) << r.err;
    return "verify --no-certificate --layers --against " + model + " " + (folder_ / "out");
  });
}

// ---- JSON -----------------------------------------------------------------------------------------------------------

TEST_F(Growth, OfConvertByMembersOfAConfig) {
  Expect(4000, [&](int n) {
    return "convert --no-sync " +
           Config(Times(
               n, [n](int i) { return "\"k" + Number(i % (n / 2)) + "\":1e" + Number(i % 300); }, ",")) +
           " " + Out();
  });
}

TEST_F(Growth, OfInspectByTheWidthOfAList) {
  Expect(20000, [&](int n) { return "inspect " + Config("\"list\":[" + Times(n, Number, ",") + "]"); });
}

TEST_F(Growth, OfInspectByListsInsideEachOther) {
  Expect(100, [&](int n) {
    std::string deep = std::string(n / 2, '[') + std::string(n / 2, ']');
    return "inspect " + Config("\"list\":[" +
                               Times(
                                   400, [&](int) { return deep; }, ",") +
                               "]");
  });
}

// ---- tokenizers -----------------------------------------------------------------------------------------------------

TEST_F(Growth, OfATokenizersVocabularyMergesAndAddedTokens) {
  Expect(4000, [&](int n) {
    std::string vocab = Times(
        n, [](int i) { return "\"v" + Number(i) + "\":" + Number(i + 2); }, ",");
    std::string added = Times(
        n, [](int i) { return R"({"content":"<)" + Number(i) + R"(>","special":true})"; }, ",");
    std::string merges = Times(
        n, [](int i) { return "\"v " + Number(i) + "\""; }, ",");
    std::string digits = Times(
        n, [n](int i) { return "\"" + Number(i) + "\":" + Number(n + 2 + i); }, ",");
    WriteFile(folder_ / "tokenizer.json", R"({"version":"1.0","added_tokens":[)" + added +
                                              R"(],"model":{"type":"BPE","vocab":{"v":0,"x":1,)" + vocab + "," +
                                              digits + R"(},"merges":[)" + merges + "]}}");
    WriteFile(folder_ / "text", "x");
    return "tokenize --text " + (folder_ / "text") + " " + (folder_ / "tokenizer.json");
  });
}

TEST_F(Growth, OfTextByBytes) {
  const std::function<std::string(int)> texts[] = {
      [](int n) { return std::string(n, 'a'); },
      [](int n) { return std::string(n, ' '); },
      [](int n) { return Times(n / 2, [](int) { return "\xc3\xa9"; }); },
  };
  for (const auto &text : texts) {
    SCOPED_TRACE("'" + text(8) + "'");
    Expect(10000, [&](int n) { return Tokenize(kByteLevel, text(n)); });
  }
}

TEST_F(Growth, OfTextThroughNormalizersAndAddedTokens) {
  const std::string normalizers =
      R"("normalizer":{"type":"Sequence","normalizers":[{"type":"NFKC"},{"type":"Lowercase"},)"
      R"({"type":"Replace","pattern":{"Regex":" {2,}"},"content":" "},{"type":"Strip"},)"
      R"({"type":"Replace","pattern":{"String":" "},"content":"b"}]},)";
  const std::string added = R"("added_tokens":[{"content":"<s>","special":true,"lstrip":true,"rstrip":true},)"
                            R"({"content":"aaaaaaaaaaaaaaaaab","special":true,"single_word":true}],)";
  const std::function<std::string(int)> texts[] = {
      [](int n) { return Times(n / 8, [](int) { return "A\xcc\x81\xcc\xa3  a"; }); },
      [](int n) { return "a" + Times(n / 4, [](int) { return "\xcc\x81\xcc\xa3"; }); },
      [](int n) { return std::string(n, ' ') + "<s>" + std::string(n / 2, ' '); },
  };
  for (const auto &text : texts) {
    SCOPED_TRACE("'" + text(8) + "'");
    Expect(10000, [&](int n) { return Tokenize(normalizers + added + kByteLevel, text(n)); });
  }
}

// As SentencePiece's models are laid out: a text is one word.
TEST_F(Growth, OfTextThatIsOneWord) {
  const std::string metaspace = R"("normalizer":{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},)"
                                R"({"type":"Replace","pattern":{"String":" "},"content":"▁"}]},)";
  const std::function<std::string(int)> texts[] = {
      [](int n) { return std::string(n, 'a'); },
      [](int n) { return Times(n / 2, [](int i) { return i * i % 7 % 2 ? "ab" : "aa"; }); },
  };
  for (const auto &text : texts) {
    SCOPED_TRACE("'" + text(8) + "'");
    Expect(8000, [&](int n) { return Tokenize(metaspace, text(n)); });
  }
}

// Patterns that look ahead or back, each at every place.
TEST_F(Growth, OfTextSplitByAPattern) {
  for (const char *pattern : {R"((?=a)|b)", R"(a{1,3}(?=(?:a{3})*(?!a)))", R"(.{0,20}?b|(?<=a)a)"}) {
    SCOPED_TRACE(pattern);
    Expect(4000, [&](int n) {
      return Tokenize(R"("pre_tokenizer":{"type":"Split","pattern":{"Regex":")" + std::string(pattern) +
                          R"("},"behavior":"Isolated","invert":false},)",
                      Times(n / 25, [](int i) { return std::string(i % 49, 'a') + " "; }));
    });
  }
}

TEST_F(Growth, OfDecodedIds) {
  const std::string decoder = R"("decoder":{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"a"},)"
                              R"("content":"b"},{"type":"ByteFallback"},{"type":"Fuse"},)"
                              R"({"type":"Replace","pattern":{"Regex":"b+"},"content":"a"}]},)";
  Expect(20000, [&](int n) {
    std::string args = Tokenize(decoder, Times(
                                             n, [](int i) { return Number(i % 8); }, " "));
    return args + " --decode";
  });
}

}  // namespace
