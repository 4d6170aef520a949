// Products with activations rounded to eight bits: kernels against the integers that q8.h specifies, and those against
// the weights themselves.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "tests/random_packed.h"

extern "C" {
#include "base/parallel.h"
#include "kernels/gptq.h"
#include "kernels/q8.h"
#include "nibble.h"
#include "tests/kernels/exact.h"
}

namespace {

// A packed matrix of any format with an integer kernel.
struct Weight {
  nb_packed m = {};
  std::vector<uint8_t> codes, zeros;
  std::vector<float> absmax, scales;

  Weight(nb_format format, int64_t rows, int64_t cols) {
    std::mt19937 rng(unsigned(format * 977 + rows * 31 + cols));
    std::uniform_real_distribution<float> positive(0.01f, 1);
    const nb_format_row *info = nb_format_info(format);
    m = nb_packed_usual(format, rows, cols, 64, false);
    m.scale.dtype = NB_F32;
    int bits = nb_gptq_bits(format);
    codes.resize(nb_packed_bytes(&m) + 64);
    for (uint8_t &c : codes) c = uint8_t(rng());
    for (size_t b = 0; info->block.bytes && b < codes.size() / info->block.bytes; b++) SetScales(b * info->block.bytes);
    for (int64_t i = 0; i < rows * (cols / 32 + 1); i++) absmax.push_back(positive(rng));
    for (int64_t i = 0; i < m.groups * rows; i++) {
      scales.push_back(positive(rng));
      zeros.push_back(uint8_t(rng() % (1u << bits)));
    }
    m.codes = codes.data(), m.scale.data = bits ? scales.data() : absmax.data(), m.zeros = zeros.data();
  }
  Weight(const Weight &) = delete;

  // Random halves may be infinite: scales of about 1 instead.
  void SetScales(size_t block) {
    auto put = [&](size_t at, float v) {
      uint16_t half = nb_f32_to_f16(v);
      memcpy(&codes[block + at], &half, 2);
    };
    if (m.format == NB_FORMAT_Q6_K) return put(208, 0.01f + float(codes[block]) / 2048);
    put(0, 0.01f + float(codes[block + 2]) / 256);
    if (m.format == NB_FORMAT_Q4_K) put(2, 0.01f + float(codes[block + 3]) / 256);
  }
};

const nb_format kFormats[] = {NB_FORMAT_NF4,  NB_FORMAT_FP4,  NB_FORMAT_INT8,  NB_FORMAT_Q4_0,  NB_FORMAT_Q8_0,
                              NB_FORMAT_Q4_K, NB_FORMAT_Q6_K, NB_FORMAT_GPTQ2, NB_FORMAT_GPTQ4, NB_FORMAT_GPTQ8};

// x W^T by the specification, in double arithmetic after the integers; and the size that errors are measured against.
class Specification {
 public:
  explicit Specification(const nb_packed &w) : rows_(w.rows), cols_(w.cols) {
    for (int64_t r = 0; r < rows_; r++) {
      for (int64_t b = 0; b < cols_ / 32; b++) {
        nb_q8_weights block;
        nb_q8_weights_at(&w, r, b, &block);
        for (int j = 0; j < 32; j++) {
          double weight = double(block.scales[j / 16]) * block.codes[j] - block.minimum;
          weights_.push_back(weight);
          bounds_.push_back(std::abs(weight) + std::abs(block.minimum));
        }
      }
    }
  }
  void Multiply(const float *x, double *y, double *size) const {
    std::vector<int8_t> codes(cols_);
    std::vector<float> scales(cols_ / 32);
    nb_q8_round(x, cols_, codes.data(), scales.data());
    std::vector<double> activations;
    for (int64_t c = 0; c < cols_; c++) activations.push_back(double(scales[c / 32]) * codes[c]);
    for (int64_t r = 0; r < rows_; r++) {
      nb_exact dot = nb_exact_dot_within(activations.data(), &weights_[r * cols_], &bounds_[r * cols_], cols_);
      y[r] = dot.sum, size[r] = 1e-30 + dot.size;
    }
  }

 private:
  int64_t rows_, cols_;
  std::vector<double> weights_, bounds_;
};

TEST(Q8, KernelsComputeWhatTheSpecificationSays) {
  for (nb_format format : kFormats) {
    int64_t super = nb_format_info(format)->block.weights == 256 ? 256 : 64;
    for (int64_t rows : {16, 48, 112, 33, 5, 1}) {
      for (int64_t cols : {super, 3 * super, 9 * super, 17 * super}) {
        if (cols == 17 * super && rows != 48) continue;
        Weight w(format, rows, cols);
        bool fits = nb_q8_fits(&w.m);
        EXPECT_EQ(fits, !nb_gptq_bits(format) || rows % 16 == 0) << nb_format_info(format)->name;
        if (!fits) continue;
        const Specification specification(w.m);
        for (int64_t n : {1, 2, 3, 4, 7, 21, 32, 34, 100}) {
          if ((n > 30 && rows < 33) || (n == 100 && cols > super)) continue;
          auto x = RandomFloats(n * cols, unsigned(n));
          for (int64_t c = 0; c < cols; c++) x[c] *= c % 64 < 32 ? 1 : 30;  // blocks of unlike scale
          std::vector<double> want(n * rows), size(n * rows);
          std::vector<float> bias = RandomFloats(rows, 3), y;
          for (int64_t i = 0; i < n; i++) specification.Multiply(&x[i * cols], &want[i * rows], &size[i * rows]);
          ForEachIsa([&] {
            y = std::vector<float>(n * rows, 2);
            nb_product p = {};
            p.w = &w.m, p.x = x.data(), p.ldx = cols, p.y = y.data(), p.ldy = rows, p.bias = bias.data();
            p.accumulate = true;
            ASSERT_TRUE(nb_q8_matmul(&p, 1, n));
            for (int64_t i = 0; i < n * rows; i++) {
              double expected = want[i] + bias[i % rows] + 2;
              ASSERT_LE(std::abs(y[i] - expected), 1e-5 * (size[i] + 3))
                  << nb_format_info(format)->name << " [" << rows << ", " << cols << "] n " << n << " row " << i / rows
                  << " feature " << i % rows << ": " << y[i] << ", should be " << expected;
            }
          });
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

// As a model has them once it is loaded.
TEST(Q8, GptqInBandsIsMultipliedAlike) {
  for (nb_format format : {NB_FORMAT_GPTQ2, NB_FORMAT_GPTQ4, NB_FORMAT_GPTQ8}) {
    for (int64_t rows : {16, 112, 192}) {
      const int64_t cols = 384;
      Weight w(format, rows, cols);
      std::vector<int32_t> g_idx;
      for (int64_t c = 0; c < cols; c++) g_idx.push_back(int32_t(c * 5 % cols / 64));
      for (bool shuffled : {false, true}) {
        w.m.g_idx = shuffled ? g_idx.data() : nullptr;
        nb_packed repacked;
        void *memory;
        ASSERT_TRUE(nb_gptq_repack(&w.m, &repacked, &memory));
        EXPECT_TRUE(nb_q8_fits(&repacked));
        const Specification specification(repacked);
        for (int64_t n : {1, 3, 34, 50}) {
          auto x = RandomFloats(n * cols, unsigned(n));
          std::vector<float> ordered(x);
          for (int64_t i = 0; shuffled && i < n * cols; i++) ordered[i] = x[i / cols * cols + repacked.order[i % cols]];
          std::vector<double> want(n * rows), size(n * rows);
          for (int64_t i = 0; i < n; i++) specification.Multiply(&ordered[i * cols], &want[i * rows], &size[i * rows]);
          ForEachIsa([&] {
            std::vector<float> y(n * rows);
            nb_product p = {};
            p.w = &repacked, p.x = x.data(), p.ldx = cols, p.y = y.data(), p.ldy = rows;
            ASSERT_TRUE(nb_q8_matmul(&p, 1, n));
            for (int64_t i = 0; i < n * rows; i++) {
              ASSERT_LE(std::abs(y[i] - want[i]), 1e-5 * size[i])
                  << nb_format_info(format)->name << " row " << i / rows << " feature " << i % rows;
            }
          });
        }
        free(memory);
      }
    }
  }
}

// Integers and scales stand for the weights: exactly, or within half a step for a table of 16 values.
TEST(Q8, WeightsAreThoseOfTheFormat) {
  for (nb_format format : kFormats) {
    Weight w(format, 16, 512);
    std::vector<float> dense(16 * 512);
    nb_format_info(format)->dequantize({&w.m, 0, 16, 0, 512}, dense.data(), 512);
    for (int64_t r = 0; r < 16; r++) {
      for (int64_t c = 0; c < 512; c++) {
        nb_q8_weights block;
        nb_q8_weights_at(&w.m, r, c / 32, &block);
        double got = double(block.scales[c % 32 / 16]) * block.codes[c % 32] - block.minimum, want = dense[r * 512 + c];
        double off = w.m.codebook ? 0.5001 * block.scales[0] : 1e-5 * (std::abs(want) + block.minimum);
        ASSERT_LE(std::abs(got - want), off) << nb_format_info(format)->name << " row " << r << " column " << c;
      }
    }
  }
}

TEST(GgufKernels, MultiplyAsTheUnpackedWeightsDo) {
  for (nb_format format : {NB_FORMAT_Q4_0, NB_FORMAT_Q8_0, NB_FORMAT_Q4_K, NB_FORMAT_Q6_K}) {
    int64_t block = nb_format_info(format)->block.weights;
    for (int64_t rows : {1, 2, 3, 63, 65, 127}) {
      for (int64_t cols : {block, 3 * block, 5 * block}) {
        Weight w(format, rows, cols);
        std::vector<float> dense(rows * cols), y;
        nb_format_info(format)->dequantize({&w.m, 0, rows, 0, cols}, dense.data(), cols);
        for (int64_t n : {1, 2, 3, 4, 5, 9, 17}) {
          auto x = RandomFloats(n * cols, unsigned(n));
          ForEachIsa([&] {
            y.assign(n * rows, 0);
            nb_matmul(&w.m, x.data(), cols, n, y.data(), rows);
            for (int64_t i = 0; i < n * rows; i++) {
              auto [want, size] = nb_exact_dot(&x[i / rows * cols], &dense[i % rows * cols], cols);
              ASSERT_LE(std::abs(y[i] - want), 1e-5 * (size + 1e-30))
                  << nb_format_info(format)->name << " [" << rows << ", " << cols << "] n " << n << " row " << i / rows
                  << " feature " << i % rows << ": " << y[i] << ", should be " << want;
            }
          });
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

TEST(Q8, RoundsAlikeOnEveryInstructionSet) {
  auto x = RandomFloats(333, 5);
  x[40] = 0, x[70] = 1e-35f;
  for (int i = 96; i < 128; i++) x[i] = 0;
  for (int i = 128; i < 160; i++) x[i] = 1e-36f;
  x[170] = 1e38f, x[200] = INFINITY, x[230] = NAN, x[300] = -127, x[301] = 0.5f, x[302] = 1.5f, x[303] = 126.5f;
  for (int i = 304; i < 320; i++) x[i] = float(i % 5);
  std::vector<int8_t> first;
  std::vector<float> first_scales;
  ForEachIsa([&] {
    std::vector<int8_t> codes(333);
    std::vector<float> scales(11);
    nb_q8_round(x.data(), 333, codes.data(), scales.data());
    if (first.empty()) first = codes, first_scales = scales;
    EXPECT_EQ(codes, first);
    EXPECT_EQ(0, memcmp(scales.data(), first_scales.data(), 11 * sizeof(float)));
    EXPECT_EQ(scales[3], 0);
    EXPECT_TRUE(std::isnan(scales[6]) && std::isnan(scales[7]));
    EXPECT_EQ(codes[300], -127);
    for (int i = 0; i < 333; i++) {
      if (!(scales[i / 32] > 0)) continue;
      EXPECT_LE(std::abs(x[i] - scales[i / 32] * codes[i]), 0.50001f * scales[i / 32]) << i;
    }
  });
}

TEST(Q8, DoesNotDependOnThreadsOrCompany) {
  Weight q(NB_FORMAT_NF4, 160, 256), k(NB_FORMAT_Q8_0, 96, 256), v(NB_FORMAT_INT8, 64, 256);
  RandomPacked plain(NB_FORMAT_BF16, 40, 256), ragged(NB_FORMAT_NF4, 24, 70);
  const nb_packed *weights[] = {&q.m, &k.m, &v.m, &plain.m, &ragged.m, &q.m};
  ForEachIsa([&] {
    for (int64_t n : {1, 5, 40, 65}) {
      auto x = RandomFloats(n * 256, 1);
      std::vector<std::vector<float>> results[3];
      for (int threads = 1; threads <= 3; threads++) {
        nb_threads_use(threads);
        std::vector<nb_product> products;
        auto &y = results[threads - 1];
        for (const nb_packed *w : weights) {
          y.emplace_back(n * w->rows);
          nb_product p = {};
          p.w = w, p.x = x.data(), p.ldx = w->cols, p.y = y.back().data(), p.ldy = w->rows;
          products.push_back(p);
          if (threads == 3) nb_q8_matmul(&p, 1, n);
        }
        if (threads < 3) nb_q8_matmul(products.data(), int(products.size()), n);
      }
      nb_threads_use(0);
      EXPECT_EQ(results[0], results[1]) << n;
      EXPECT_EQ(results[0], results[2]) << n;
    }
  });
}

}  // namespace
