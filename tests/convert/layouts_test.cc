#include <gtest/gtest.h>

#include <string>

extern "C" {
#include "convert/layouts.h"
#include "convert/layouts/bnb.h"
}

namespace {

std::string State(const nb_packed &m, nb_dtype dtype) {
  nb_buf buf = {};
  nb_layout_state_json(&m, dtype, &buf);
  std::string text(buf.data, buf.length);
  nb_buf_free(&buf);
  return text;
}

nb_packed Packed(nb_format format, int64_t rows, int64_t cols, int64_t nested = 0, float offset = 0) {
  nb_packed m = {};
  m.format = format;
  m.rows = rows;
  m.cols = cols;
  m.scale.block_cols = 64;
  m.second.block_cols = nested;
  m.scale.offset = offset;
  return m;
}

TEST(QuantState, IsSpelledAsJsonDumpsSpellsIt) {
  EXPECT_EQ(State(Packed(NB_FORMAT_NF4, 64, 100), NB_BF16),
            R"({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [64, 100]})");
  EXPECT_EQ(State(Packed(NB_FORMAT_FP4, 1, 3), NB_F32),
            R"({"quant_type": "fp4", "blocksize": 64, "dtype": "float32", "shape": [1, 3]})");
}

TEST(QuantState, SpellsTheOffsetAsPythonsRepr) {
  const struct {
    float offset;
    const char *text;
  } cases[] = {
      {0.051459960639476776f, "0.051459960639476776"},
      {0.05278778076171875f, "0.05278778076171875"},
      {1.0f, "1.0"},
      {0.0f, "0.0"},
      {12345.0f, "12345.0"},
      {0.0001f, "9.999999747378752e-05"},
      {1e-5f, "9.999999747378752e-06"},
      {1e16f, "1.0000000272564224e+16"},
      {0x1p100f, "1.2676506002282294e+30"},
      {0x1p-149f, "1.401298464324817e-45"},
      {3.4028234663852886e38f, "3.4028234663852886e+38"},
      {0.5f, "0.5"},
      {0x1p50f, "1125899906842624.0"},
      {0x1p-13f, "0.0001220703125"},
  };
  for (const auto &c : cases) {
    std::string text = State(Packed(NB_FORMAT_NF4, 2, 2, 256, c.offset), NB_F32);
    std::string want = std::string("\"nested_dtype\": \"float32\", \"nested_offset\": ") + c.text + "}";
    EXPECT_NE(text.find(want), std::string::npos) << text << " lacks " << want;
  }
}

nibble_status Parse(const std::string &text, nb_packed *out, nibble_error *err) {
  nb_dtype dtype;
  return nb_bnb_state_parse("f: tensor 't'", nb_str{text.data(), text.size()}, NB_FORMAT_NF4, out, &dtype, err);
}

TEST(QuantState, ComesBackFromItsText) {
  nb_packed m = Packed(NB_FORMAT_NF4, 257, 31, 256, 0.0375f), back;
  nibble_error err;
  nb_dtype dtype;
  std::string text = State(m, NB_F16);
  ASSERT_EQ(nb_bnb_state_parse("f", nb_str{text.data(), text.size()}, NB_FORMAT_NF4, &back, &dtype, &err), NIBBLE_OK)
      << err.message;
  EXPECT_EQ(dtype, NB_F16);
  EXPECT_EQ(back.rows, 257);
  EXPECT_EQ(back.cols, 31);
  EXPECT_EQ(back.scale.block_cols, 64);
  EXPECT_EQ(back.second.block_cols, 256);
  EXPECT_EQ(back.scale.offset, 0.0375f);
}

TEST(QuantState, RefusesWhatBitsandbytesCannotHaveWritten) {
  const char *bad[] = {
      "",
      "[]",
      "null",
      "{",
      R"({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16"})",
      R"({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [64]})",
      R"({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [64, 0]})",
      R"({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [64, -1]})",
      R"({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [64, 1.5]})",
      R"({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [64, "1"]})",
      R"({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [8000000000000000, 8000000000000000]})",
      R"({"quant_type": "fp4", "blocksize": 64, "dtype": "bfloat16", "shape": [2, 2]})",
      R"({"quant_type": 4, "blocksize": 64, "dtype": "bfloat16", "shape": [2, 2]})",
      R"({"quant_type": "nf4", "blocksize": 0, "dtype": "bfloat16", "shape": [2, 2]})",
      R"({"quant_type": "nf4", "blocksize": 65, "dtype": "bfloat16", "shape": [2, 2]})",
      R"({"quant_type": "nf4", "blocksize": 8192, "dtype": "bfloat16", "shape": [2, 2]})",
      R"({"quant_type": "nf4", "dtype": "bfloat16", "shape": [2, 2]})",
      R"({"quant_type": "nf4", "blocksize": 64, "dtype": "int64", "shape": [2, 2]})",
      R"({"quant_type": "nf4", "blocksize": 64, "shape": [2, 2]})",
      R"({"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [2, 2], "nested_offset": 1})",
      R"({"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [2, 2], "nested_offset": 1e300,
          "nested_blocksize": 256})",
      R"({"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [2, 2], "nested_offset": NaN,
          "nested_blocksize": 256})",
      R"({"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [2, 2], "nested_offset": 1,
          "nested_blocksize": 256, "nested_dtype": "float16"})",
  };
  for (const char *text : bad) {
    nb_packed m;
    nibble_error err = {};
    EXPECT_EQ(Parse(text, &m, &err), NIBBLE_BAD_INPUT) << text;
    EXPECT_EQ(std::string(err.message).rfind("f: tensor 't'", 0), 0u) << err.message;
  }
  nb_packed m;
  nibble_error err;
  EXPECT_EQ(Parse(std::string(100000, ' '), &m, &err), NIBBLE_BAD_INPUT);
}

TEST(Layout, NamesThePartsOfAPackedWeight) {
  nb_part parts[NB_MAX_PARTS];
  nb_packed m = Packed(NB_FORMAT_NF4, 257, 31, 256);
  int n = nb_layout_parts(&m, NB_BF16, "a.weight", parts);
  ASSERT_EQ(n, 6);
  const char *names[] = {"a.weight",
                         "a.weight.absmax",
                         "a.weight.nested_absmax",
                         "a.weight.nested_quant_map",
                         "a.weight.quant_map",
                         "a.weight.quant_state.bitsandbytes__nf4"};
  const int64_t rows[] = {(257 * 31 + 1) / 2, 125, 1, 256, 16};
  for (int i = 0; i < n; i++) EXPECT_STREQ(parts[i].name, names[i]);
  for (int i = 0; i < 5; i++) EXPECT_EQ(parts[i].shape[0], rows[i]) << names[i];
  m.scale.offset = -0x1.234567p-120f;
  EXPECT_LE((int64_t)State(m, NB_BF16).size(), parts[5].shape[0]);
  nb_layout_parts_free(parts, n);

  m = Packed(NB_FORMAT_INT8, 5, 7);
  n = nb_layout_parts(&m, NB_BF16, "b.c.weight", parts);
  ASSERT_EQ(n, 3);
  EXPECT_STREQ(parts[1].name, "b.c.SCB");
  EXPECT_STREQ(parts[2].name, "b.c.weight_format");
  EXPECT_EQ(parts[2].ndim, 0);
  nb_layout_parts_free(parts, n);
}

}  // namespace
