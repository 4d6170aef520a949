// A model as small as a command will take: a Llama of one layer whose tokens are bytes, and a text for it.
#pragma once

#include "tests/support.h"

// A tokenizer with a token for each byte, and merges for none.
inline std::string ByteTokenizer() {
  std::string vocab;
  int next = 0, extra = 256;
  for (int b = 0; b < 256; b++) {
    bool shown = (b > 32 && b < 127) || (b > 160 && b != 173);
    int code = shown ? b : extra++;
    std::string c =
        code < 0x80 ? std::string(1, (char)code) : std::string{(char)(0xc0 | code >> 6), (char)(0x80 | (code & 63))};
    if (c == "\"" || c == "\\") c = "\\" + c;
    vocab += (b ? ",\"" : "\"") + c + "\":" + std::to_string(next++);
  }
  return R"({"version":"1.0","pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"use_regex":false},
    "decoder":{"type":"ByteLevel"},"model":{"type":"BPE","vocab":{)" +
         vocab + R"(},"merges":[]}})";
}

inline const char kByteConfig[] =
    R"({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 1, "num_attention_heads": 4, "vocab_size": 256, "torch_dtype": "bfloat16"})";

// Makes the model at `path`, which must not be there, and its text at `path`.txt.
inline void MakeByteModel(const std::string &path, int layers = 1) {
  TempFolder folder;
  std::string config = kByteConfig, one = "\"num_hidden_layers\": 1";
  config.replace(config.find(one), one.size(), "\"num_hidden_layers\": " + std::to_string(layers));
  WriteFile(folder / "config.json", config);
  CommandResult r = Nibble("init --quiet --no-sync " + folder.path() + " " + path);
  if (r.code != 0) fprintf(stderr, "init: %s", r.err.c_str());
  WriteFile(path + "/tokenizer.json", ByteTokenizer());
  std::string text;
  for (int i = 0; i < 60; i++) text += "word ";
  WriteFile(path + ".txt", text);
}
