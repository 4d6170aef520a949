// The quantizers' vector versions against the scalar one, and what all of them promise.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "tests/made_weights.h"
#include "tests/quantize_case.h"
#include "tests/random_packed.h"

namespace {

// Blocks of v whose absmax is 1 and whose values stand on and beside every threshold.
std::vector<float> Adversarial(nb_format format, int64_t n, int64_t block, uint32_t seed) {
  std::mt19937 random(seed);
  const float *map = format == NB_FORMAT_NF4 ? nb_nf4_map : nb_fp4_map;
  std::vector<float> sorted(map, map + 16), edges = {0.0f, -0.0f, 1.0f, -1.0f, 1e-38f, 1e-45f, -1e-45f, 0x1p-126f};
  std::sort(sorted.begin(), sorted.end());
  for (int i = 0; i < 15; i++) {
    float t = (sorted[(size_t)i] + sorted[(size_t)i + 1]) / 2;
    for (float e : {t, std::nextafter(t, 2.0f), std::nextafter(t, -2.0f)}) edges.push_back(e);
  }
  std::vector<float> out((size_t)n);
  for (int64_t i = 0; i < n; i++) {
    float scale = std::ldexp(1.0f, (int)(i / block % 5) * 20 - 60); /* powers of two keep the ties exact */
    out[(size_t)i] = edges[random() % edges.size()] * scale;
    if (i % block == 3) out[(size_t)i] = i / block % 2 ? -scale : scale;
  }
  return out;
}

void ExpectSimdEqualsScalar(nb_format format, const Case &c) {
  for (bool nested : {false, true}) {
    ASSERT_TRUE(nb_isa_use(NB_ISA_SCALAR));
    Packed want = Quantize(format, c, nested);
    for (int i = NB_ISA_SCALAR + 1; i < NB_ISA_COUNT; i++) {
      nb_isa isa = static_cast<nb_isa>(i);
      if (!nb_isa_use(isa)) continue;
      SCOPED_TRACE(std::string(nb_isa_name(isa)) + " " + nb_format_info(format)->name + " " + nb_dtype_name(c.dtype) +
                   " [" + std::to_string(c.rows) + ", " + std::to_string(c.cols) + "] blocks of " +
                   std::to_string(c.block));
      Packed got = Quantize(format, c, nested);
      ASSERT_EQ(got.bad, want.bad);
      if (got.bad >= 0) continue;
      ExpectSame(got.codes, want.codes, "codes");
      ExpectSame(Bytes(got.scales), Bytes(want.scales), "scales");
      ExpectSame(Bytes(got.sums), Bytes(want.sums), "sums");
    }
  }
}

TEST(QuantizeSimd, EqualsScalarBitForBit) {
  nb_isa before = nb_isa_current();
  const int64_t sizes[] = {1, 3, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 257, 1000, 4095, 4096, 4097, 9001};
  std::mt19937 random(1);
  for (nb_dtype dtype : {NB_F32, NB_F16, NB_BF16}) {
    for (int64_t n : sizes) {
      for (int64_t block : {32, 64, 256, 4096}) {
        for (nb_format format : {NB_FORMAT_NF4, NB_FORMAT_FP4, NB_FORMAT_INT8}) {
          Case c = {"", "", 1, n, block, dtype, ""};
          if (format == NB_FORMAT_INT8) c.rows = 3, c.cols = (n + 2) / 3;
          int64_t count = c.rows * c.cols;
          c.source =
              ToBytes(Adversarial(format == NB_FORMAT_FP4 ? format : NB_FORMAT_NF4, count, block, random()), dtype);
          ExpectSimdEqualsScalar(format, c);
          for (char &byte : c.source) byte = (char)random(); /* every bit pattern, NaN and infinity too */
          ExpectSimdEqualsScalar(format, c);
          std::vector<float> halves((size_t)count); /* ties of int8's rounding */
          for (float &h : halves) h = (float)((int)(random() % 509) - 254) / 2;
          halves[0] = 127;
          c.source = ToBytes(halves, dtype);
          ExpectSimdEqualsScalar(format, c);
        }
      }
      if (HasFailure()) break;
    }
  }
  nb_isa_use(before);
}

TEST(Quantize, ReadsUnalignedSources) {
  std::vector<float> x = MakeWeights("normal", 7, 1000, 64);
  ForEachIsa([&] {
    for (nb_dtype dtype : {NB_F32, NB_F16, NB_BF16}) {
      Case c = {"", "", 10, 100, 64, dtype, ToBytes(x, dtype)};
      Packed want = Quantize(NB_FORMAT_NF4, c);
      std::string shifted = "x" + c.source;
      std::vector<uint8_t> codes(500);
      std::vector<float> absmax(16);
      std::vector<nb_block_sums> sums(16);
      nb_packed m = nb_packed_usual(NB_FORMAT_NF4, 10, 100, 64, false);
      nb_quantize_run run = {dtype, shifted.data() + 1, 1000, false, codes.data(), absmax.data(), sums.data()};
      ASSERT_EQ(nb_quantize(&m, &run), -1);
      ExpectSame(Bytes(codes), want.codes, "codes");
    }
  });
}

TEST(Quantize, NamesTheFirstValueThatIsNotFinite) {
  ForEachIsa([] {
    for (nb_dtype dtype : {NB_F32, NB_F16, NB_BF16}) {
      for (int64_t at : {0, 63, 64, 500, 959, 960, 999}) {
        for (float bad : {NAN, INFINITY, -INFINITY}) {
          std::vector<float> x = MakeWeights("normal", 7, 1000, 64);
          x[(size_t)at] = bad;
          x[999] = at == 999 ? bad : NAN;
          Case c = {"", "", 10, 100, 64, dtype, ToBytes(x, dtype)};
          EXPECT_EQ(Quantize(NB_FORMAT_NF4, c).bad, at);
          EXPECT_EQ(Quantize(NB_FORMAT_INT8, c).bad, at);
        }
      }
    }
    std::vector<float> x(100, 1.0f);
    x[42] = 65520; /* the least that float16 rounds to infinity */
    EXPECT_EQ(Quantize(NB_FORMAT_INT8, {"", "", 10, 10, 64, NB_F32, ToBytes(x, NB_F32)}).bad, 42);
    x[42] = 65519.996f;
    EXPECT_EQ(Quantize(NB_FORMAT_INT8, {"", "", 10, 10, 64, NB_F32, ToBytes(x, NB_F32)}).bad, -1);
  });
}

// The sums give the error that dequantizing and comparing would give.
TEST(Quantize, TellsItsError) {
  for (bool nested : {false, true}) {
    Case c = {"", "", 33, 127, 64, NB_BF16, ""};
    std::vector<float> x = MakeWeights("normal", 11, 33 * 127, 64);
    c.source = ToBytes(x, c.dtype);
    nb_to_f32(c.dtype, c.source.data(), x.size(), x.data());
    Packed p = Quantize(NB_FORMAT_NF4, c, nested);
    double error = 0, squares = 0, want_error = 0, want_squares = 0;
    for (size_t b = 0; b < p.scales.size(); b++) {
      float scale = nested ? p.scales[b] * 1.01f : p.scales[b];
      double e, s;
      nb_block_error(&p.sums[b], p.scales[b], scale, &e, &s);
      error += e;
      squares += s;
      for (size_t i = b * 64; i < std::min(x.size(), (b + 1) * 64); i++) {
        int code = i % 2 ? p.codes[i / 2] & 15 : (uint8_t)p.codes[i / 2] >> 4;
        double miss = (double)x[i] - (double)scale * nb_nf4_map[code];
        want_error += miss * miss;
        want_squares += (double)x[i] * x[i];
      }
    }
    EXPECT_NEAR(error / want_error, 1, 1e-5) << nested;
    EXPECT_NEAR(squares / want_squares, 1, 1e-5) << nested;
  }
}

}  // namespace
