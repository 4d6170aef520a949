// Products of plain matrices against double precision.
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

extern "C" {
#include "base/parallel.h"
#include "nibble.h"
#include "quant/blas.h"
}

namespace {

std::vector<float> Random(int64_t n, unsigned seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  std::vector<float> out(n);
  for (float &v : out) v = normal(rng);
  return out;
}

// How far a chain of `terms` float32 additions may be off, of the sum of sizes (Higham 2002, section 3.1).
double Bound(int64_t terms) { return (terms + 2) * 0x1p-24; }

class Blas : public testing::Test {
 protected:
  void SetUp() override {
    nibble_error err;
    ASSERT_EQ(nb_blas_load(&err), NIBBLE_OK) << err.message;
  }
};

TEST_F(Blas, AddsProductsOfRaggedShapes) {
  struct Shape {
    int64_t m, n, k;
  };
  for (Shape s : {Shape{1, 1, 1}, Shape{3, 63, 65}, Shape{65, 3, 257}, Shape{96, 448, 128}, Shape{97, 33, 513},
                  Shape{12, 127, 7}}) {
    SCOPED_TRACE(testing::Message() << s.m << " x " << s.n << " x " << s.k);
    int64_t lda = s.k + 3, ldb = s.n + 1, ldc = s.n + 2;
    std::vector<float> a = Random(s.m * lda, 1), b = Random(s.k * ldb, 2), before = Random(s.m * ldc, 3);
    std::vector<float> c = before;
    const nb_dense_sum sum = {s.m, s.n, s.k, {a.data(), lda}, {b.data(), ldb}, c.data(), ldc};
    nb_dense_add(&sum);
    for (int64_t r = 0; r < s.m; r++) {
      for (int64_t j = 0; j < ldc; j++) {
        double want = before[r * ldc + j], size = std::abs(want);
        for (int64_t i = 0; j < s.n && i < s.k; i++) {
          double term = double(a[r * lda + i]) * b[i * ldb + j];
          want += term, size += std::abs(term);
        }
        ASSERT_NEAR(c[r * ldc + j], want, j < s.n ? Bound(s.k) * size : 0) << "row " << r << ", column " << j;
      }
    }
  }
}

TEST_F(Blas, AddsTheUpperTriangleOfAGramMatrix) {
  struct Shape {
    int64_t rows, n;
  };
  for (Shape s : {Shape{1, 1}, Shape{3, 65}, Shape{257, 63}, Shape{513, 127}, Shape{1100, 97}, Shape{100, 576}}) {
    SCOPED_TRACE(testing::Message() << s.rows << " rows of " << s.n);
    int64_t ldx = s.n + 5;
    std::vector<float> x = Random(s.rows * ldx, 4), before = Random(s.n * s.n, 5);
    std::vector<float> sum = before;
    nb_dense_gram(x.data(), s.rows, ldx, s.n, sum.data());
    for (int64_t i = 0; i < s.n; i++) {
      for (int64_t j = i; j < s.n; j++) {
        double want = before[i * s.n + j], size = std::abs(want);
        for (int64_t t = 0; t < s.rows; t++) {
          double term = double(x[t * ldx + i]) * x[t * ldx + j];
          want += term, size += std::abs(term);
        }
        ASSERT_NEAR(sum[i * s.n + j], want, Bound(s.rows) * size) << i << ", " << j;
      }
    }
  }
}

TEST_F(Blas, GivesTheSameBytesWhateverTheThreads) {
  const int64_t rows = 700, n = 200;
  std::vector<float> x = Random(rows * n, 6), first;
  for (int threads : {1, 2, 5}) {
    nb_threads_use(threads);
    std::vector<float> sum(n * n), upper;
    nb_dense_gram(x.data(), rows, n, n, sum.data());
    for (int64_t i = 0; i < n; i++) upper.insert(upper.end(), sum.begin() + i * n + i, sum.begin() + (i + 1) * n);
    if (first.empty()) first = upper;
    EXPECT_EQ(upper, first) << threads << " threads";
  }
  nb_threads_use(0);
}

}  // namespace
