#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "tests/random_packed.h"

extern "C" {
#include "base/parallel.h"
#include "kernels/cpu/kernels.h"
#include "kernels/matmul.h"
#include "nibble.h"
#include "tests/kernels/exact.h"
}

namespace {

struct Shape {
  int64_t rows, cols, block_size;
};

const Shape kShapes[] = {{1, 1, 64},      {3, 1, 64},      {1, 3, 64},    {3, 63, 64},   {63, 65, 64},   {65, 127, 64},
                         {7, 257, 64},    {127, 64, 64},   {50, 128, 64}, {49, 576, 64}, {192, 576, 64}, {33, 1536, 64},
                         {97, 384, 128},  {16, 2048, 256}, {11, 96, 32},  {5, 1000, 64}, {130, 641, 64}, {9, 64, 4096},
                         {2, 4096, 4096}, {13, 320, 64},   {21, 321, 128}};

struct Weight {
  nb_format format;
  bool double_quant;
};

const Weight kWeights[] = {{NB_FORMAT_F32, false},  {NB_FORMAT_F16, false}, {NB_FORMAT_BF16, false},
                           {NB_FORMAT_INT8, false}, {NB_FORMAT_NF4, false}, {NB_FORMAT_NF4, true},
                           {NB_FORMAT_FP4, false},  {NB_FORMAT_FP4, true}};

std::vector<float> Dequantized(const nb_packed &m) {
  std::vector<float> out(m.rows * m.cols);
  nb_format_info(m.format)->dequantize(nb_whole(&m), out.data(), m.cols);
  return out;
}

// y = x W^T + bias + before in double arithmetic, and the sum of |x||w| that errors are measured against.
struct Reference {
  std::vector<double> y, size;

  Reference(const std::vector<float> &w, const nb_product &p, int64_t n, const std::vector<float> &before)
      : y(n * p.w->rows), size(n * p.w->rows) {
    int64_t rows = p.w->rows, cols = p.w->cols;
    for (int64_t i = 0; i < n; i++) {
      for (int64_t r = 0; r < rows; r++) {
        const float *xs = p.x + i * p.ldx, *ws = w.data() + r * cols;
        auto [sum, total] = nb_exact_dot(xs, ws, cols);
        total += 1e-30;
        if (p.bias) sum += p.bias[r], total += std::abs(p.bias[r]);
        if (p.accumulate) sum += before[i * p.ldy + r], total += std::abs(before[i * p.ldy + r]);
        y[i * rows + r] = sum, size[i * rows + r] = total;
      }
    }
  }

  void Check(const nb_product &p, int64_t n) const {
    int64_t rows = p.w->rows;
    for (int64_t i = 0; i < n; i++) {
      for (int64_t r = 0; r < rows; r++) {
        double got = p.y[i * p.ldy + r], want = y[i * rows + r];
        if (std::abs(got - want) <= 1e-5 * size[i * rows + r]) continue;
        FAIL() << nb_format_info(p.w->format)->name << " [" << rows << ", " << p.w->cols << "] n " << n << " block "
               << p.w->scale.block_cols << ": row " << i << ", feature " << r << ": " << got << ", should be " << want;
      }
    }
  }
};

TEST(Matmul, AgreesWithDoubleArithmeticOnRaggedShapes) {
  for (const Weight &kind : kWeights) {
    for (const Shape &s : kShapes) {
      RandomPacked w(kind.format, s.rows, s.cols, s.block_size, kind.double_quant);
      auto dense = Dequantized(w.m);
      for (int64_t n : {1, 2, 3, 4, 5, 8, 9, 16, 17, 33, 49, 64}) {
        if (n * s.rows * s.cols > 400000 && n != 4 && n != 17) continue;
        int64_t ldx = s.cols + n % 3, ldy = s.rows + n % 2;
        auto x = RandomFloats(n * ldx, unsigned(n)), bias = RandomFloats(s.rows, 9), before = RandomFloats(n * ldy, 8);
        std::vector<float> y;
        nb_product p = {};
        p.w = &w.m, p.x = x.data(), p.ldx = ldx, p.ldy = ldy;
        p.bias = n % 4 < 2 ? bias.data() : nullptr, p.accumulate = n % 2;
        Reference reference(dense, p, n, before);
        ForEachIsa([&] {
          y = before, p.y = y.data();
          nb_matmul_many(&p, 1, n);
          reference.Check(p, n);
          if (ldy == s.rows) return;
          for (int64_t i = 0; i < n; i++) EXPECT_EQ(y[i * ldy + s.rows], before[i * ldy + s.rows]) << "row " << i;
        });
        if (HasFailure()) return;
      }
    }
  }
}

TEST(Matmul, HandlesMoreRowsThanItPacksAtOnce) {
  for (int64_t n : {255, 256, 257, 1024, 1100}) {
    RandomPacked w(NB_FORMAT_NF4, 53, 128);
    auto dense = Dequantized(w.m), x = RandomFloats(n * 128, 3);
    std::vector<float> y(n * 53);
    nb_product p = {};
    p.w = &w.m, p.x = x.data(), p.ldx = 128, p.y = y.data(), p.ldy = 53;
    Reference reference(dense, p, n, y);
    ForEachIsa([&] {
      nb_matmul_many(&p, 1, n);
      reference.Check(p, n);
    });
    if (HasFailure()) return;
  }
}

TEST(Matmul, ManyProductsEqualSingleOnes) {
  RandomPacked q(NB_FORMAT_NF4, 96, 128), k(NB_FORMAT_BF16, 33, 128), v(NB_FORMAT_INT8, 40, 128),
      other(NB_FORMAT_NF4, 65, 64);
  const nb_packed *weights[] = {&q.m, &k.m, &v.m, &other.m, &q.m, &k.m, &v.m, &other.m, &q.m, &k.m, &v.m};
  ForEachIsa([&] {
    for (int64_t n : {1, 3, 6, 40, 300}) {
      auto x = RandomFloats(n * 128, 1), x2 = RandomFloats(n * 128, 2);
      std::vector<std::vector<float>> together, alone;
      std::vector<nb_product> products;
      for (const nb_packed *w : weights) {
        together.emplace_back(n * w->rows), alone.emplace_back(n * w->rows);
        nb_product p = {};
        p.w = w, p.x = products.size() % 3 == 2 ? x2.data() : x.data(), p.ldx = 128, p.ldy = w->rows;
        p.y = alone.back().data();
        nb_matmul_many(&p, 1, n);
        p.y = together.back().data();
        products.push_back(p);
      }
      nb_matmul_many(products.data(), int(products.size()), n);
      for (size_t i = 0; i < products.size(); i++) ASSERT_EQ(together[i], alone[i]) << "product " << i << " n " << n;
    }
  });
}

TEST(Matmul, DoesNotDependOnTheNumberOfThreads) {
  ForEachIsa([&] {
    for (const Weight &kind : kWeights) {
      for (int64_t n : {1, 3, 7, 70, 300}) {
        RandomPacked w(kind.format, 101, 192, 64, kind.double_quant);
        auto x = RandomFloats(n * 192, 4);
        std::vector<float> y[3];
        for (int threads = 1; threads <= 3; threads++) {
          y[threads - 1].resize(n * 101);
          nb_threads_use(threads);
          nb_matmul(&w.m, x.data(), 192, n, y[threads - 1].data(), 101);
        }
        nb_threads_use(0);
        ASSERT_EQ(y[0], y[1]) << nb_format_info(kind.format)->name << " n " << n;
        ASSERT_EQ(y[0], y[2]) << nb_format_info(kind.format)->name << " n " << n;
      }
    }
  });
}

// Unpacking to memory is exact in every instruction set: the same bits as plain C.
TEST(Matmul, DequantizesTheSameBitsAsPlainC) {
  ForEachIsa([&] {
    for (const Weight &kind : kWeights) {
      for (const Shape &s : kShapes) {
        RandomPacked w(kind.format, s.rows, s.cols, s.block_size, kind.double_quant);
        for (int64_t col : {int64_t(0), s.cols / 3, s.cols - 1}) {
          int64_t row = s.rows / 2, rows = s.rows - row, cols = s.cols - col, stride = cols + 1;
          std::vector<float> want(rows * stride, 7), got = want;
          nb_format_info(kind.format)->dequantize({&w.m, row, rows, col, cols}, want.data(), stride);
          nb_dequantizer(kind.format)({&w.m, row, rows, col, cols}, got.data(), stride);
          for (size_t i = 0; i < want.size(); i++) {
            ASSERT_EQ(nb_f32_to_bits(want[i]), nb_f32_to_bits(got[i]))
                << nb_format_info(kind.format)->name << " [" << s.rows << ", " << s.cols << "] from column " << col
                << ": " << i << ", " << want[i] << " and " << got[i];
          }
        }
      }
    }
  });
}

}  // namespace
