#include "convert/gguf_pretokenizers.h"

#include <string.h>

/* Pieces that several expressions share. */
#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define SPACES "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define SYMBOLS " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define BEFORE "[^\\r\\n\\p{L}\\p{N}]?"

#define O200K(digits)                                                                              \
  BEFORE UPPER "*" LOWER "+" CONTRACTIONS "?|" BEFORE UPPER "+" LOWER "*" CONTRACTIONS "?|" digits \
               "| "                                                                                \
               "?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES
#define DEEPSEEK(symbols)                                                                              \
  "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|" \
  " ?[\\p{P}\\p{S}]+" symbols
#define HAN_KANA "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)"
#define BLOOM " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"
#define NOT_HAN(letters) "(?:(?!\\p{Han})" letters ")"

/* Letters with case, as DeepSeek LLM's file lists them. */
#define CASED                                                                                                      \
  "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376"  \
  "\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-"  \
  "\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a" \
  "\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4"  \
  "\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc" \
  "\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f"    \
  "\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b"   \
  "\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a"       \
  "\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2"      \
  "\U000118a0-\U000118df\U0001e900-\U0001e943"

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
        .names = "glm4 glm5",
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
        .splits = {O200K("\\p{N}{1,3}")},
    },
    {
        .names = "deepseek-v3 hunyuan-dense joyai-llm hy_v4",
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
    {
        .names = "minicpm5",
        .splits = {"\\p{N}{1,3}", CONTRACTIONS "|" BEFORE "\\p{L}+|\\p{N}+|" SYMBOLS "|" SPACES},
        .ignore_merges = true,
    },
    {
        .names = "jais-2",
        .splits = {CONTRACTIONS "|" BEFORE "\\p{L}+|\\p{N}{1,3}|" SYMBOLS
                                "|\\s*[\\r\\n]+|\\s{512}(?!\\S)|\\s{256}(?!\\S)|\\s{128}(?!\\S)|\\s{64}(?!\\S)|"
                                "\\s{32}(?!\\S)|\\s{16}(?!\\S)|\\s{8}(?!\\S)|\\s{4}(?!\\S)|\\s{1,2}(?!\\S)|\\s{1}"},
    },
    {
        .names = "deepseek-llm",
        .splits = {"[\\r\\n]", "\\s?[" CASED "]+", "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
                   "\\s+$", "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+", "\\p{N}+"},
    },
    {
        .names = "spark2_5",
        .splits = {"\\p{N}{1,3}", HAN_KANA, DEEPSEEK("|[\\r\\n]|\\s+(?!\\S)|\\s+"), "\\p{N}"},
    },
    {
        .names = "youtu",
        .splits = {"[\uac00-\ud7a3\u3131-\u318e]+|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-"
                   "\u303f\ufe30-\ufe4f]+|[\u3105-\u312f]+|" HAN_KANA,
                   O200K("\\p{N}")},
        .ignore_merges = true,
    },
    {
        .names = "jina-v1-en jina-v2-code roberta-bpe",
        .gpt2 = true,
    },
    {
        .names = "poro-chat bloom gpt3-finnish",
        .splits = {BLOOM},
    },
    {
        .names = "viking",
        .splits = {BLOOM, "\\p{N}"},
    },
    {
        .names = "exaone-moe",
        .splits = {CONTRACTIONS "|" BEFORE
                                "(?:\\p{L}\\p{M}*(?: \\p{L}\\p{M}*)*)+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]?|"
                                "\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"},
    },
    {
        .names = "chameleon",
        .splits = {"<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", "([\\t\\n]|    |  )", "\\p{N}",
                   "[\\p{P}!-/:-@\\[-`{-~]", GPT2},
        .add_bos = true,
    },
    {
        .names = "granite-embed-multi-97m",
        .splits = {O200K("\\p{N}{1,3}")},
        .ignore_merges = true,
    },
    {
        .names = "tiny_aya cohere2moe",
        .splits = {"\\d{1,3}(?=(?:\\d{3})*\\b)", O200K("\\p{N}{1,3}")},
    },
    {
        .names = "superbpe",
        .splits = {"\\p{N}+", "(?=(\\d{3})+(?!\\d))"},
    },
    {
        .names = "kimi-k2",
        .splits = {"\\p{Han}+|" BEFORE NOT_HAN(UPPER) "*" NOT_HAN(LOWER) "+" CONTRACTIONS "?|" BEFORE NOT_HAN(
            UPPER) "+" NOT_HAN(LOWER) "*" CONTRACTIONS "?|\\p{N}{1,3}|" SYMBOLS "|" SPACES},
        .ignore_merges = true,
    },
    {
        .names = "bailingmoe bailingmoe2 llada-moe",
        .splits = {"'(?i:[sdmt]|ll|ve|re)|" BEFORE "\\p{L}+|\\p{N}|" SYMBOLS "|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"},
    },
    {
        .names = "ufakzeka",
        .splits = {BEFORE "\\p{L}+|\\p{N}|" SYMBOLS "|" SPACES},
    },
    {
        .names = "afmoe",
        .splits =
            {"\\p{N}{1,3}(?=(?:\\p{N}{3})*(?!\\p{N}))",
             "[\u4e00-\u9fff\u3400-\u4dbf\uf900-\ufaff\u3040-\u309f\u30a0-\u30ff\uff65-\uff9f\u2f00-\u2fdf\u0e40-"
             "\u0e7f\u0e80-\u0eff\u1780-\u17ff\u1000-\u109f\uaa60-\uaa7f\ua9e0-\ua9ff\uac00-\ud7af\u1100-\u11ff]+",
             DEEPSEEK("[\\r\\n]*|" SPACES)},
    },
    {
        .names = "laguna",
        .splits = {"[^\\n]+|[\\n]+", QWEN2},
    },
    {
        .names = "gemma4 granite-embed-multi-311m sarvam-moe",
        .raw = "gemma4",
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
