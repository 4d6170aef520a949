#include "convert/gguf_pretokenizers.h"

#include <string.h>

/* Pieces that several expressions share. */
#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define SPACES "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define SYMBOLS " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define BEFORE "[^\\r\\n\\p{L}\\p{N}]?"

#define LLAMA3 CONTRACTIONS "|" BEFORE "\\p{L}+|\\p{N}{1,3}|" SYMBOLS "|" SPACES
#define QWEN2 CONTRACTIONS "|" BEFORE "\\p{L}+|\\p{N}|" SYMBOLS "|" SPACES

static const nb_pretokenizer pretokenizers[] = {
    {
        .names = "default",
        .splits = {"[\\p{P}\\$\\+<=>\\^~\\|]+",
                   "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)", "\\p{N}+",
                   "[0-9][0-9][0-9]"},
    },
    {
        .names = "gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert mpt olmo jais "
                 "trillion granite-docling exaone4",
        .gpt2 = true,
    },
    {
        .names = "smollm starcoder refact codeshell exaone minerva-7b mellum2",
        .digits = true,
        .gpt2 = true,
    },
    {
        .names = "command-r",
        .digits = true,
        .gpt2 = true,
        .nfc = true,
    },
    {
        .names = "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
        .splits = {LLAMA3},
        .ignore_merges = true,
        .add_bos = true,
    },
    {
        .names = "dbrx smaug-bpe chatglm-bpe",
        .splits = {LLAMA3},
    },
    {
        .names = "glm4",
        .splits = {LLAMA3},
        .ignore_merges = true,
    },
    {
        .names = "qwen2",
        .splits = {QWEN2},
        .nfc = true,
    },
    {
        .names = "deepseek-r1-qwen kormo f2llmv2 stablelm2 hunyuan megrez solar-open grok-2",
        .splits = {QWEN2},
    },
    {
        .names = "qwen35",
        .splits = {CONTRACTIONS "|" BEFORE "[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" SPACES},
        .nfc = true,
    },
    {
        .names = "tekken",
        .splits = {BEFORE UPPER "*" LOWER "+|" BEFORE UPPER "+" LOWER
                                "*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES},
        .ignore_merges = true,
        .add_bos = true,
    },
    {
        .names = "gpt-4o llama4 kanana2 talkie minimax-m2",
        .splits = {BEFORE UPPER "*" LOWER "+" CONTRACTIONS "?|" BEFORE UPPER "+" LOWER "*" CONTRACTIONS
                                "?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES},
    },
    {
        .names = "deepseek-v3 hunyuan-dense joyai-llm",
        .splits = {"\\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
                   "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|"
                   " ?[\\p{P}\\p{S}]+[\\r\\n]*|" SPACES},
    },
    {
        .names = "deepseek-coder",
        .splits = {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+", "\\p{N}"},
    },
    {
        .names = "falcon",
        .splits = {"[\\p{P}\\$\\+<=>\\^~\\|`]+",
                   "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)", "[0-9][0-9][0-9]"},
    },
    {
        .names = "seed-coder",
        .splits = {CONTRACTIONS "|" BEFORE "\\p{L}+|\\p{N}{1}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|" SPACES},
    },
};

const nb_pretokenizer *nb_pretokenizer_find(nb_str name) {
  if (!name.data) name = (nb_str){"default", 7};
  for (size_t i = 0; i < sizeof pretokenizers / sizeof *pretokenizers; i++) {
    for (const char *at = pretokenizers[i].names; *at;) {
      size_t n = strcspn(at, " ");
      if (n == name.length && memcmp(at, name.data, n) == 0) return &pretokenizers[i];
      at += n + (at[n] == ' ');
    }
  }
  return NULL;
}
