// GGUF files that are damaged or hostile: each is refused with one line that names the fault.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "tests/gguf_files.h"
#include "tests/support.h"

extern "C" {
#include "convert/checkpoint.h"
#include "convert/gguf.h"
}

namespace {

nibble_status Open(const std::string &bytes, std::string *message) {
  TempFolder dir;
  WriteFile(dir / "m.gguf", bytes);
  nb_checkpoint c;
  nibble_error err{};
  nibble_status status = nb_checkpoint_open((dir / "m.gguf").c_str(), &c, &err);
  *message = status == NIBBLE_OK ? "" : err.message;
  if (status == NIBBLE_OK) nb_checkpoint_close(&c);
  return status;
}

void ExpectRefused(const std::string &bytes, const std::string &fault) {
  std::string message;
  EXPECT_EQ(Open(bytes, &message), NIBBLE_BAD_INPUT) << "not refused; expected: " << fault;
  EXPECT_NE(message.find(fault), std::string::npos) << message << "\nexpected: " << fault;
  EXPECT_NE(message.find("m.gguf"), std::string::npos) << message;
}

TEST(GgufDamage, TheUndamagedFileOpens) {
  std::string message;
  EXPECT_EQ(Open(TinyLlama().Build(), &message), NIBBLE_OK) << message;
  GgufFile v2 = TinyLlama();
  v2.version = 2;
  EXPECT_EQ(Open(v2.Build(), &message), NIBBLE_OK) << message;
}

TEST(GgufDamage, EveryTruncationIsRefused) {
  for (const std::string &file : {TinyLlama().Build(), ReadFile(Golden("gguf/tiny.gguf"))}) {
    nibble_error err;
    nb_mapfile whole = {(const uint8_t *)file.data(), file.size()};
    nb_gguf *gguf;
    ASSERT_EQ(nb_gguf_parse("m.gguf", &whole, &gguf, &err), NIBBLE_OK) << err.message;
    size_t data_at = gguf->data_at;
    nb_gguf_free(gguf);
    for (size_t n = 0; n < data_at; n++) {
      std::vector<uint8_t> part(file.begin(), file.begin() + (long)n);  // its end is where a sanitizer looks
      nb_mapfile map = {part.data(), n};
      ASSERT_EQ(nb_gguf_parse("m.gguf", &map, &gguf, &err), NIBBLE_BAD_INPUT) << "cut to " << n << " bytes";
    }
    std::string message;
    for (size_t n = data_at; n < file.size() - 32; n += file.size() / 20)
      ASSERT_EQ(Open(file.substr(0, n), &message), NIBBLE_BAD_INPUT) << "cut to " << n << " bytes";
  }
}

TEST(GgufDamage, WrongHeaders) {
  GgufFile f = TinyLlama();
  f.version = 1;
  ExpectRefused(f.Build(), "GGUF version 1");
  f.version = 4;
  ExpectRefused(f.Build(), "GGUF version 4");
  f.version = 0x03000000;
  ExpectRefused(f.Build(), "big-endian");
  f = TinyLlama();
  f.claimed_tensors = INT64_MAX;
  ExpectRefused(f.Build(), "9223372036854775807 tensors");
  f = TinyLlama();
  f.claimed_entries = 1 << 20;
  ExpectRefused(f.Build(), "1048576 metadata entries");
}

TEST(GgufDamage, WrongMetadata) {
  struct Case {
    const char *key;
    std::string value, fault;
  };
  std::string nested = Raw<uint32_t>(0) + Raw<uint64_t>(0);
  for (int i = 0; i < 6; i++) nested = Raw<uint32_t>(9) + Raw<uint64_t>(1) + nested;
  const Case cases[] = {
      {"x", Raw<uint32_t>(13), "value type 13"},
      {"x", ArrayValue(77, 1, ""), "value type 77"},
      {"x", ArrayValue(10, 1ull << 61, ""), "truncated"},
      {"x", ArrayValue(8, 1ull << 61, ""), "truncated"},
      {"x", ArrayValue(9, 1ull << 61, ""), "metadata 'x'"},
      {"x", Raw<uint32_t>(8) + Raw<uint64_t>(UINT64_MAX), "truncated"},
      {"x", Raw<uint32_t>(9) + nested, "nested more than"},
      {"", U32Value(1), "metadata key"},
      {"general.alignment", U32Value(0), "general.alignment"},
      {"general.alignment", U32Value(48), "no power of two"},
      {"general.alignment", TextValue("32"), "whole number"},
      {"general.architecture", U32Value(1), "general.architecture"},
      {"general.architecture", TextValue(""), "general.architecture"},
      {"split.count", U32Value(3), "split into 3 files"},
      {"llama.block_count", TextValue("1"), "llama.block_count"},
      {"llama.embedding_length", U32Value(16), "shape"},
      {"llama.attention.head_count", U32Value(0), "num_attention_heads"},
      {"llama.attention.head_count", NumbersValue<uint32_t>(4, {2, 2}), "whole number"},
      {"llama.attention.layer_norm_rms_epsilon", F32Value(NAN), "finite"},
      {"llama.rope.freq_base", F32Value(INFINITY), "finite"},
      {"llama.attention.key_length", U32Value(8), "rotary"},
      {"llama.rope.scaling.type", TextValue("longrope"), "longrope"},
  };
  for (const Case &c : cases) ExpectRefused(TinyLlama().Set(c.key, c.value).Build(), c.fault);
  GgufFile twice = TinyLlama();
  twice.metadata.push_back(twice.metadata[1]);
  ExpectRefused(twice.Build(), "is there twice");
  GgufFile missing = TinyLlama();
  missing.metadata.erase(missing.metadata.begin() + 3);
  ExpectRefused(missing.Build(), "hidden_size");
}

TEST(GgufDamage, WrongTensors) {
  struct Case {
    std::function<void(GgufFile &)> damage;
    std::string fault;
  };
  const std::string q = "blk.0.attn_q.weight", norm = "output_norm.weight";
  const Case cases[] = {
      {[&](GgufFile &f) { f.Tensor(q).extents = {}; }, "0 dimensions"},
      {[&](GgufFile &f) {
         f.Tensor(q).extents = {8, 8, 1, 1, 1};
       },
       "5 dimensions"},
      {[&](GgufFile &f) {
         f.Tensor(q).extents = {8, 0};
       },
       "extent of 0"},
      {[&](GgufFile &f) {
         f.Tensor(q).extents = {1ull << 40, 1ull << 40};
       },
       "too large"},
      {[&](GgufFile &f) {
         f.Tensor(q).extents = {1ull << 61, 2};
       },
       "too large"},
      {[&](GgufFile &f) {
         f.Tensor(q).extents = {8, 1ull << 40};
       },
       "past the end"},
      {[&](GgufFile &f) {
         f.Tensor(q).extents = {4, 16};
       },
       "shape"},
      {[&](GgufFile &f) { f.Tensor(q).type = 99; }, "element type 99"},
      {[&](GgufFile &f) { f.Tensor(q).type = 5; }, "element type 5"},
      {[&](GgufFile &f) { f.Tensor(q).type = 20; }, "IQ4_NL"},
      {[&](GgufFile &f) { f.Tensor(q).type = 3; }, "no whole blocks of Q4_1"},
      {[&](GgufFile &f) { f.Tensor(q).offset = 8; }, "no multiple of the alignment"},
      {[&](GgufFile &f) { f.Tensor(q).offset = 0; }, "overlaps"},
      {[&](GgufFile &f) { f.Tensor(q).offset = INT64_MAX - 31; }, "past the end"},
      {[&](GgufFile &f) { f.Tensor(norm).offset = 1 << 20; }, "past the end"},
      {[&](GgufFile &f) { f.Tensor(norm).name = "blk.0.attn_sinks.weight"; }, "attn_sinks"},
      {[&](GgufFile &f) { f.Tensor(norm).name = std::string("a\0b", 3); }, "name"},
      {[&](GgufFile &f) { f.Tensor(norm).name = "../../etc"; }, "../../etc"},
      {[&](GgufFile &f) { f.Tensor(norm).name = q; }, "is there twice"},
      {[&](GgufFile &f) {
         f.Set("llama.attention.head_count", U32Value(8)).Set("llama.rope.dimension_count", U32Value(1));
       },
       "heads"},
  };
  for (const Case &c : cases) {
    GgufFile f = TinyLlama();
    c.damage(f);
    ExpectRefused(f.Build(), c.fault);
  }
}

}  // namespace
