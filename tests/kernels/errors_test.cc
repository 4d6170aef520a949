// Sums of errors: exact to six digits, and the same bits on every instruction set.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

extern "C" {
#include "kernels/cpu/errors.h"
#include "quant/grid.h"
}

namespace {

const int kSizes[] = {1, 3, 7, 8, 15, 16, 17, 63, 64, 65, 127, 257, 1000};

struct Pair {
  std::vector<float> w, a;
  explicit Pair(int n) : w(n), a(n) {
    std::mt19937 random(n);
    std::normal_distribution<float> normal;
    for (int i = 0; i < n; i++) {
      w[i] = normal(random);
      a[i] = w[i] + 0.1f * normal(random);
    }
  }
};

bool SameBits(float a, float b) { return std::memcmp(&a, &b, sizeof a) == 0; }

class ErrorSums : public testing::Test {
 protected:
  ~ErrorSums() override { nb_isa_use(before_); }
  // The functions of every instruction set that is here.
  static std::vector<const nb_cpu_errors *> All() {
    std::vector<const nb_cpu_errors *> all;
    for (int i = 0; i < NB_ISA_COUNT; i++) {
      if (nb_isa_use(static_cast<nb_isa>(i))) all.push_back(nb_cpu_errors_now());
    }
    return all;
  }
  nb_isa before_ = nb_isa_current();
};

TEST_F(ErrorSums, AreThoseOfAPlainLoopOnRaggedShapes) {
  for (int n : kSizes) {
    Pair p(n);
    double error = 0, squares = 0, copies = 0, product = 0, largest = 0;
    for (int i = 0; i < n; i++) {
      double w = p.w[i], a = p.a[i];
      error += (a - w) * (a - w);
      squares += w * w;
      copies += a * a;
      product += a * w;
      largest = std::fmax(largest, std::fabs(p.a[i] - p.w[i]));
    }
    nb_unit_sums unit;
    nb_run_sums run;
    nb_cpu_errors_scalar.units(p.w.data(), p.a.data(), n, n, &unit);
    nb_cpu_errors_scalar.run(p.w.data(), p.a.data(), n, &run);
    EXPECT_NEAR(unit.error, error, 1e-6 * error) << n;
    EXPECT_NEAR(unit.squares, squares, 1e-6 * squares) << n;
    EXPECT_NEAR(run.copies, copies, 1e-6 * copies) << n;
    EXPECT_NEAR(run.product, product, 1e-6 * copies) << n;
    EXPECT_EQ(static_cast<double>(run.largest), largest) << n;
  }
}

TEST_F(ErrorSums, OfUnitsAreThoseOfEachAlone) {
  Pair p(1000);
  for (int unit : {1, 16, 64, 100, 999, 1000}) {
    std::vector<nb_unit_sums> out(1000 / unit + 1);
    nb_cpu_errors_scalar.units(p.w.data(), p.a.data(), 1000, unit, out.data());
    for (int at = 0, u = 0; at < 1000; at += unit, u++) {
      nb_unit_sums alone;
      int n = std::min(unit, 1000 - at);
      nb_cpu_errors_scalar.units(p.w.data() + at, p.a.data() + at, n, n, &alone);
      EXPECT_TRUE(SameBits(out[u].error, alone.error) && SameBits(out[u].squares, alone.squares)) << unit << " " << u;
    }
  }
}

TEST_F(ErrorSums, HaveTheSameBitsOnEveryInstructionSet) {
  for (const nb_cpu_errors *kernels : All()) {
    for (int n : kSizes) {
      Pair p(n);
      const float *w = p.w.data(), *a = p.a.data();
      nb_unit_sums unit, wanted_unit;
      nb_run_sums run, wanted_run;
      float low, high, wanted_low, wanted_high;
      nb_cpu_errors_scalar.units(w, a, n, n, &wanted_unit);
      nb_cpu_errors_scalar.run(w, a, n, &wanted_run);
      nb_cpu_errors_scalar.range(w, n, &wanted_low, &wanted_high);
      kernels->units(w, a, n, n, &unit);
      kernels->run(w, a, n, &run);
      kernels->range(w, n, &low, &high);
      EXPECT_TRUE(SameBits(unit.error, wanted_unit.error) && SameBits(unit.squares, wanted_unit.squares)) << n;
      EXPECT_TRUE(SameBits(run.copies, wanted_run.copies) && SameBits(run.product, wanted_run.product)) << n;
      EXPECT_EQ(run.largest, wanted_run.largest) << n;
      EXPECT_EQ(low, std::fmin(0.0f, *std::min_element(p.w.begin(), p.w.end()))) << n;
      EXPECT_EQ(high, std::fmax(0.0f, *std::max_element(p.w.begin(), p.w.end()))) << n;
      for (const float *importance : {static_cast<const float *>(nullptr), a}) {
        float wanted = nb_cpu_errors_scalar.grid(w, n, 0.13f, -7, 8, importance);
        EXPECT_TRUE(SameBits(kernels->grid(w, n, 0.13f, -7, 8, importance), wanted)) << n;
      }
    }
  }
}

TEST_F(ErrorSums, OfAGridRoundHalfToEvenWithinItsEnds) {
  const std::vector<float> w = {0.5f, 1.5f, 2.5f, -0.5f, 9, -9, 0.25f, 3, 0.5f};
  // Rounded to 0, 2, 2, 0, 3, -4, 0, 3, 0.
  const float errors[] = {0.25f, 0.25f, 0.25f, 0.25f, 36, 25, 0.0625f, 0, 0.25f};
  float sum = 0;
  for (float e : errors) sum += e;
  for (const nb_cpu_errors *kernels : All())
    EXPECT_EQ(kernels->grid(w.data(), static_cast<int64_t>(w.size()), 1, -4, 3, nullptr), sum);
}

// Codes as the plain formula has them, a weight at a time, and sums in one order everywhere.
TEST_F(ErrorSums, OfRoundedWeightsAreThoseOfTheirCodes) {
  const nb_grid_line grids[] = {{0.11f, 8, 15}, {0.5f, 0, 3}, {0.01f, 128, 255}, {3, 5, 7}, {1e-30f, 4, 7}};
  for (const nb_cpu_errors *kernels : All()) {
    for (int n : kSizes) {
      Pair p(n);
      p.w[n / 2] = 0.5f * grids[0].scale;  // a tie
      for (const nb_grid_line &g : grids) {
        std::vector<uint8_t> codes(n + 1, 77), wanted(n + 1, 77);
        nb_unit_sums sums, wanted_sums;
        double error = 0, squares = 0;
        kernels->round(p.w.data(), n, &g, codes.data(), &sums);
        nb_cpu_errors_scalar.round(p.w.data(), n, &g, wanted.data(), &wanted_sums);
        EXPECT_EQ(codes, wanted) << n;
        EXPECT_TRUE(SameBits(sums.error, wanted_sums.error) && SameBits(sums.squares, wanted_sums.squares)) << n;
        for (int i = 0; i < n; i++) {
          float code = nb_grid_code(p.w[i], g.scale, g.zero, g.max_code);
          ASSERT_EQ(static_cast<float>(codes[i]), code) << p.w[i];
          double d = p.w[i] - g.scale * (code - g.zero);
          error += d * d;
          squares += static_cast<double>(p.w[i]) * p.w[i];
        }
        EXPECT_EQ(codes[n], 77);
        EXPECT_NEAR(sums.error, error, 1e-6 * error) << n;
        EXPECT_NEAR(sums.squares, squares, 1e-6 * squares) << n;
      }
      p.w[n - 1] = NAN;
      std::vector<uint8_t> codes(n);
      nb_unit_sums sums;
      kernels->round(p.w.data(), n, &grids[0], codes.data(), &sums);
      EXPECT_FALSE(std::isfinite(sums.squares)) << n;
    }
  }
}

TEST_F(ErrorSums, AreNotFiniteWhereAValueIsNot) {
  for (const nb_cpu_errors *kernels : All()) {
    for (float bad : {NAN, INFINITY}) {
      for (int at : {0, 63, 64}) {
        Pair p(65);
        p.a[at] = bad;
        nb_unit_sums unit;
        nb_run_sums run;
        kernels->units(p.w.data(), p.a.data(), 65, 65, &unit);
        kernels->run(p.w.data(), p.a.data(), 65, &run);
        EXPECT_FALSE(std::isfinite(unit.error)) << at;
        EXPECT_FALSE(std::isfinite(run.copies)) << at;
      }
    }
  }
}

}  // namespace
