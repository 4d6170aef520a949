// LLM.int8's product against its definition, computed step by step in the order of bitsandbytes 0.50.2
// (backends/default/ops.py), on ragged shapes and with every instruction set.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

extern "C" {
#include "base/dtype.h"
#include "kernels/cpu/isa.h"
#include "kernels/int8.h"
}

namespace {

struct Problem {
  int64_t rows, cols, n;
  std::vector<int8_t> codes;
  std::vector<float> scb, x, bias;
};

// `outlier_every`: one activation in so many is 6 or more; 0: none.
Problem Make(int64_t rows, int64_t cols, int64_t n, int outlier_every) {
  Problem p = {rows, cols, n, {}, {}, {}, {}};
  uint32_t state = (uint32_t)(rows * 131 + cols * 17 + n);
  auto next = [&] { return (state = state * 1664525u + 1013904223u) >> 8; };
  auto uniform = [&] { return (float)next() / (float)(1 << 24) * 2 - 1; };
  for (int64_t i = 0; i < rows * cols; i++) p.codes.push_back((int8_t)(next() % 256)); /* -128 too */
  for (int64_t i = 0; i < rows; i++) p.scb.push_back(std::fabs(uniform()));
  for (int64_t i = 0; i < n * cols; i++) {
    bool outlier = outlier_every && next() % (uint32_t)outlier_every == 0;
    p.x.push_back(outlier ? 20 * uniform() + (next() % 2 ? 6.0f : -6.0f) : 3 * uniform());
  }
  for (int64_t i = 0; i < rows; i++) p.bias.push_back(uniform());
  return p;
}

std::vector<float> Reference(const Problem &p, float threshold) {
  std::vector<float> half, y((size_t)(p.n * p.rows));
  for (float v : p.x) half.push_back(nb_f16_to_f32(nb_f32_to_f16(v)));
  std::vector<bool> outlier((size_t)p.cols);
  for (size_t i = 0; i < half.size(); i++) {
    if (std::fabs(half[i]) >= threshold) outlier[i % (size_t)p.cols] = true;
  }
  for (int64_t i = 0; i < p.n; i++) {
    float absmax = 0;
    const float *h = &half[(size_t)(i * p.cols)], *x = &p.x[(size_t)(i * p.cols)];
    for (int64_t c = 0; c < p.cols; c++) {
      if (std::fabs(h[c]) < threshold) absmax = std::max(absmax, std::fabs(h[c]));
    }
    for (int64_t r = 0; r < p.rows; r++) {
      const int8_t *w = &p.codes[(size_t)(r * p.cols)];
      int64_t sum = 0;
      double apart = 0;
      for (int64_t c = 0; c < p.cols; c++) {
        if (outlier[(size_t)c]) {
          apart += (double)x[c] * ((float)w[c] * p.scb[(size_t)r] * 7.874015718698502e-3f);
        } else if (absmax > 0) {
          sum += w[c] * (int64_t)std::nearbyint(h[c] * (1.0f / absmax * 127.0f));
        }
      }
      float scaled = (float)sum * (absmax * p.scb[(size_t)r]) * 6.200124e-05f + p.bias[(size_t)r];
      y[(size_t)(i * p.rows + r)] = (float)(scaled + apart);
    }
  }
  return y;
}

TEST(Int8, MultipliesAsBitsandbytesDefinesIt) {
  nb_isa before = nb_isa_current();
  const int64_t shapes[][3] = {{1, 1, 1},    {3, 63, 2},    {7, 33, 5},  {5, 127, 1},
                               {65, 257, 9}, {2, 17000, 3}, {64, 64, 37}};
  for (int isa = 0; isa < NB_ISA_COUNT; isa++) {
    if (!nb_isa_use((nb_isa)isa)) continue;
    for (const auto &s : shapes) {
      for (int outlier_every : {0, 40, 1}) {
        SCOPED_TRACE(std::string(nb_isa_name((nb_isa)isa)) + ", outliers " + std::to_string(outlier_every));
        Problem p = Make(s[0], s[1], s[2], outlier_every);
        nb_packed w = nb_packed_usual(NB_FORMAT_INT8, p.rows, p.cols, 0, false);
        w.codes = p.codes.data();
        w.scale.data = p.scb.data();
        std::vector<float> want = Reference(p, 6), got((size_t)(p.n * p.rows), 1.0f);
        nb_product product = {&w, p.x.data(), p.cols, got.data(), p.rows, p.bias.data(), true};
        ASSERT_TRUE(nb_int8_matmul(&product, p.n, 6));
        float largest = 1;
        for (float v : want) largest = std::max(largest, std::fabs(v));
        for (size_t i = 0; i < want.size(); i++)
          ASSERT_NEAR(got[i], want[i] + 1, 1e-5 * largest) << p.rows << "x" << p.cols << " x " << p.n << " at " << i;
      }
    }
  }
  nb_isa_use(before);
}

TEST(Int8, AThresholdOfInfinityLeavesNoOutliers) {
  Problem p = Make(4, 50, 3, 5);
  nb_packed w = nb_packed_usual(NB_FORMAT_INT8, 4, 50, 0, false);
  w.codes = p.codes.data();
  w.scale.data = p.scb.data();
  std::vector<float> want = Reference(p, INFINITY), got(12);
  nb_product product = {&w, p.x.data(), 50, got.data(), 4, p.bias.data(), false};
  ASSERT_TRUE(nb_int8_matmul(&product, 3, INFINITY));
  for (size_t i = 0; i < 12; i++) EXPECT_NEAR(got[i], want[i], 1e-4) << i;
}

}  // namespace
