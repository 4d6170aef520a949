#include <gtest/gtest.h>

#include <cmath>
#include <vector>

extern "C" {
#include "kernels/quantize.h"
#include "validate/scan.h"
}

namespace {

TEST(Scan, FindsTheFirstOfThoseThatAreNotFiniteInEveryDtype) {
  // Longer than a band, so that several threads look.
  const int64_t n = (1 << 20) + 77, at[] = {5, (1 << 20) - 1, (1 << 20) + 76};
  for (nb_dtype dtype : {NB_F64, NB_F32, NB_F16, NB_BF16}) {
    std::vector<float> values((size_t)n);
    for (size_t i = 0; i < values.size(); i++) values[i] = (float)(i % 100);
    std::vector<uint8_t> raw((size_t)n * nb_dtype_size(dtype));
    for (int64_t bad : at) {
      for (float v : {NAN, INFINITY, -INFINITY}) {
        std::vector<float> damaged = values;
        damaged[(size_t)bad] = v;
        if (dtype == NB_F64) {
          for (size_t i = 0; i < damaged.size(); i++) ((double *)raw.data())[i] = damaged[i];
        } else {
          ASSERT_TRUE(nb_from_f32(dtype, damaged.data(), (size_t)n, raw.data()));
        }
        nb_plain_scan scan;
        nb_scan_plain(dtype, raw.data(), n, &scan);
        EXPECT_EQ(scan.not_finite.count, 1) << nb_dtype_name(dtype);
        EXPECT_EQ(scan.not_finite.first, bad) << nb_dtype_name(dtype);
        EXPECT_FALSE(scan.all_equal);
      }
    }
  }
}

TEST(Scan, TellsConstantFromZeroTensors) {
  std::vector<float> values(1000, -0.0f);
  nb_plain_scan scan;
  nb_scan_plain(NB_F32, values.data(), 1000, &scan);
  EXPECT_TRUE(scan.all_zero && scan.all_equal);
  values[999] = 0.0f;
  nb_scan_plain(NB_F32, values.data(), 1000, &scan);
  EXPECT_TRUE(scan.all_zero);
  values.assign(1000, 3.0f);
  nb_scan_plain(NB_F32, values.data(), 1000, &scan);
  EXPECT_TRUE(scan.all_equal && !scan.all_zero);
}

struct Matrix {
  std::vector<uint8_t> codes;
  std::vector<float> absmax;
  nb_packed m = {};
};

Matrix Quantized(nb_format format, int64_t rows, int64_t cols, int64_t block) {
  Matrix q;
  std::vector<float> w((size_t)(rows * cols));
  for (size_t i = 0; i < w.size(); i++) w[i] = std::sin((float)i * 1.7f) * (1 + (float)(i % 7));
  q.codes.resize((w.size() + 1) / 2);
  q.absmax.resize((w.size() + (size_t)block - 1) / (size_t)block);
  std::vector<nb_block_sums> sums(q.absmax.size());
  q.m = nb_packed_usual(format, rows, cols, block, false);
  nb_quantize_run run = {NB_F32, w.data(), (int64_t)w.size(), false, q.codes.data(), q.absmax.data(), sums.data()};
  EXPECT_EQ(nb_quantize(&q.m, &run), -1);
  q.m.codes = q.codes.data();
  q.m.scale.data = q.absmax.data();
  return q;
}

TEST(Scan, EveryBlockThatWasRoundedToNearestHasAPeak) {
  for (nb_format format : {NB_FORMAT_NF4, NB_FORMAT_FP4}) {
    for (int64_t block : {32, 64, 256}) {
      for (int64_t cols : {1, 31, 64, 257, 40000}) {
        Matrix q = Quantized(format, 33, cols, block);
        nb_codes_scan scan;
        nb_scan_codes4(&q.m, &scan);
        EXPECT_EQ(scan.blocks, (int64_t)q.absmax.size());
        EXPECT_EQ(scan.without_peak.count, 0) << format << " " << block << " " << cols;
        EXPECT_EQ(scan.unscaled.count, 0);
        EXPECT_EQ(scan.constant.count, 0);
        EXPECT_FALSE(scan.all_equal);
      }
    }
  }
}

TEST(Scan, PlacesTheBlockThatIsWrong) {
  Matrix q = Quantized(NB_FORMAT_NF4, 4096, 1024, 64);  // more blocks than one band holds
  const size_t block = 40000;
  for (size_t i = 0; i < 32; i++) q.codes[block * 32 + i] = 0x55;
  nb_codes_scan scan;
  nb_scan_codes4(&q.m, &scan);
  EXPECT_EQ(scan.constant.count, 1);
  EXPECT_EQ(scan.constant.first, (int64_t)block);
  EXPECT_EQ(scan.without_peak.first, (int64_t)block);
  q.absmax[block] = 0;
  nb_scan_codes4(&q.m, &scan);
  EXPECT_EQ(scan.unscaled.count, 1);
  EXPECT_EQ(scan.unscaled.first, (int64_t)block);
  EXPECT_EQ(scan.without_peak.count, 0);
}

TEST(Scan, LooksAtTheUsedHalfOfTheLastByteOnly) {
  Matrix q = Quantized(NB_FORMAT_NF4, 1, 65, 64);
  q.codes[32] = 0xf0 | (q.codes[32] & 15);
  nb_codes_scan a, b;
  nb_scan_codes4(&q.m, &a);
  q.codes[32] = 0xff;
  nb_scan_codes4(&q.m, &b);
  EXPECT_EQ(a.saturated.count, b.saturated.count);
  EXPECT_EQ(a.without_peak.count, 0);
  EXPECT_EQ(b.without_peak.count, 0);
}

}  // namespace
