// The shared kernels on the scalar vocabularies, against the plain functions that specify the formats.
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "tests/random_packed.h"

extern "C" {
#include "kernels/q8.h"
#include "tests/kernels/scalar_target.h"
}

namespace {

const int64_t kRows = 40, kCols = 192;

// A matrix of any format that the table has.
struct Weight {
  nb_packed m = {};
  std::vector<uint32_t> codes;
  std::vector<float> scales;
  std::vector<uint8_t> zeros;

  explicit Weight(nb_format format) {
    std::mt19937 rng(unsigned(format) + 1);
    const nb_format_row *info = nb_format_info(format);
    m = nb_packed_usual(format, kRows, kCols, 64, false);
    m.scale.dtype = NB_F32;
    codes.resize(size_t(kRows * kCols));
    for (uint32_t &c : codes) c = rng();
    std::vector<float> values = RandomFloats(size_t(kRows * kCols), 3);
    if (info->scheme == NB_SCHEME_PLAIN) nb_from_f32(info->plain, values.data(), values.size(), codes.data());
    for (int64_t i = 0; i < kRows * kCols / 16; i++) scales.push_back(0.01f + float(rng() % 1000) / 1000);
    for (int64_t i = 0; i < m.groups * kRows; i++) zeros.push_back(uint8_t(rng() % (1u << info->bits)));
    m.codes = codes.data(), m.zeros = m.groups ? zeros.data() : nullptr;
    m.scale.data = info->scheme == NB_SCHEME_PLAIN ? nullptr : scales.data();
  }
  Weight(const Weight &) = delete;
};

template <typename F>
void OnEveryFormat(F body) {
  for (int f = 0; f < NB_FORMAT_COUNT; f++) {
    if (!nb_kernels_scalar[f].dot) continue;
    SCOPED_TRACE(nb_format_info((nb_format)f)->name);
    body(Weight((nb_format)f).m, nb_kernels_scalar[f]);
  }
}

TEST(ScalarTarget, DequantizesTheSameBits) {
  OnEveryFormat([](const nb_packed &m, const nb_format_kernels &kernels) {
    if (!kernels.dequantize) return;
    for (const nb_tile &t : {nb_tile{&m, 0, kRows, 0, kCols}, nb_tile{&m, 3, 9, 31, 67}, nb_tile{&m, 1, 1, 5, 3}}) {
      std::vector<float> want(size_t(t.rows * (t.cols + 1)), 7), got = want;
      nb_format_info(m.format)->dequantize(t, want.data(), t.cols + 1);
      kernels.dequantize(t, got.data(), t.cols + 1);
      for (size_t i = 0; i < want.size(); i++) ASSERT_EQ(got[i], want[i]) << "from column " << t.col << " at " << i;
    }
    if (!kernels.columns) return;
    std::vector<float> want(size_t(kRows * kCols)), got(want.size());
    nb_format_info(m.format)->dequantize(nb_whole(&m), want.data(), kCols);
    kernels.columns(nb_whole(&m), got.data(), kRows);
    for (int64_t i = 0; i < kRows * kCols; i++) ASSERT_EQ(got[i % kCols * kRows + i / kCols], want[i]) << i;
  });
}

TEST(ScalarTarget, MultipliesAsTheUnpackedWeightsDo) {
  OnEveryFormat([](const nb_packed &m, const nb_format_kernels &kernels) {
    ASSERT_TRUE(!kernels.fits || kernels.fits(&m));
    std::vector<float> w(size_t(kRows * kCols)), x = RandomFloats(4 * kCols, 5), prepared = x;
    nb_format_info(m.format)->dequantize(nb_whole(&m), w.data(), kCols);
    for (int64_t i = 0; kernels.prepare && i < 4; i++) kernels.prepare(&x[i * kCols], kCols, &prepared[i * kCols]);
    for (int64_t n = 1; n <= 4; n++) {
      std::vector<float> y(4 * kRows, 7);
      kernels.dot(&m, 8, kRows, {prepared.data(), kCols, n}, {y.data(), kRows});
      for (int64_t i = 0; i < n; i++) {
        for (int64_t r = 8; r < kRows; r++) {
          double want = 0, size = 0;
          for (int64_t c = 0; c < kCols; c++) {
            want += double(x[i * kCols + c]) * w[r * kCols + c];
            size += std::abs(double(x[i * kCols + c]) * w[r * kCols + c]);
          }
          ASSERT_NEAR(y[i * kRows + r - 8], want, 2e-6 * size) << n << " rows: " << i << ", " << r;
        }
      }
    }
  });
}

TEST(ScalarTarget, MultipliesIntegersAsSpecified) {
  for (nb_format format : {NB_FORMAT_GPTQ2, NB_FORMAT_GPTQ4, NB_FORMAT_GPTQ8}) {
    Weight w(format);
    const nb_q8_kernel &kernel = nb_q8_scalar[format];
    const int64_t blocks = kCols / NB_Q8_BLOCK;
    std::vector<float> x = RandomFloats(4 * kCols, 6), scales(4 * blocks), sums(4 * blocks);
    std::vector<int8_t> codes(4 * kCols), ordered(4 * kCols);
    std::vector<int32_t> totals(4 * blocks);
    for (int64_t i = 0; i < 4; i++) nb_q8_round(&x[i * kCols], kCols, &codes[i * kCols], &scales[i * blocks]);
    for (int64_t i = 0; i < 4 * kCols; i++) {
      int64_t j = i % NB_Q8_BLOCK;
      ordered[i] = codes[i - j + (kernel.order ? kernel.order[j] : j)];
      totals[i / NB_Q8_BLOCK] += codes[i];
    }
    for (size_t b = 0; b < sums.size(); b++) sums[b] = scales[b] * float(totals[b]);
    for (int64_t n = 1; n <= 4; n++) {
      nb_q8_x rounded = {ordered.data(), scales.data(), sums.data(), totals.data(), n, kCols, blocks};
      std::vector<float> y(4 * kRows, 7);
      kernel.dot(&w.m, 4, kRows, &rounded, {y.data(), kRows});
      for (int64_t i = 0; i < n; i++) {
        for (int64_t r = 4; r < kRows; r++) {
          double want = 0, size = 0;
          for (int64_t c = 0; c < kCols; c++) {
            nb_q8_weights block;
            nb_q8_weights_at(&w.m, r, c / NB_Q8_BLOCK, &block);
            double activation = double(scales[i * blocks + c / NB_Q8_BLOCK]) * codes[i * kCols + c];
            double weight = double(block.scales[0]) * block.codes[c % NB_Q8_BLOCK];
            want += (weight - block.minimum) * activation;
            size += (std::abs(weight) + std::abs(block.minimum)) * std::abs(activation);
          }
          ASSERT_NEAR(y[i * kRows + r - 4], want, 2e-6 * size)
              << int(format) << ", " << n << " rows: " << i << ", " << r;
        }
      }
    }
  }
}

TEST(ScalarTarget, MultipliesBlocks) {
  const nb_cpu_gemm &gemm = nb_cpu_gemm_scalar;
  const int64_t rows = 13, k = 19;
  auto w = RandomFloats(rows * k, 1), bias = RandomFloats(rows, 2);
  for (int64_t n : {int64_t(1), gemm.narrow, gemm.lanes - 1, gemm.lanes}) {
    auto x = RandomFloats(n * k, 3), before = RandomFloats(n * rows, 4), y = before;
    int64_t lanes = n <= gemm.narrow ? gemm.narrow : gemm.lanes;
    std::vector<float> packed(k * lanes, 7), sums(rows * lanes, 7);
    gemm.pack(x.data(), k, n, k, lanes, packed.data());
    gemm.multiply({lanes, rows, k}, packed.data(), {w.data(), k, 1}, sums.data(), false);
    gemm.unpack(sums.data(), lanes, n, rows, {y.data(), rows, bias.data(), true});
    for (int64_t i = 0; i < n; i++) {
      for (int64_t r = 0; r < rows; r++) {
        double want = double(bias[r]) + before[i * rows + r];
        for (int64_t c = 0; c < k; c++) want += double(x[i * k + c]) * w[r * k + c];
        ASSERT_NEAR(y[i * rows + r], want, 1e-5) << n << " rows: " << i << ", " << r;
      }
    }
  }
}

}  // namespace
