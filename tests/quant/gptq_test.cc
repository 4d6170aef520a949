// The GPTQ solver against the algorithm as the paper states it, in double precision and without any of the solver's
// shortcuts: no Cholesky factor, no blocks, no bands.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

extern "C" {
#include "base/dtype.h"
#include "base/parallel.h"
#include "kernels/cpu/errors.h"
#include "quant/gptq.h"
#include "quant/grid.h"
#include "quant/rtn.h"
}

namespace {

struct Layer {
  int64_t rows, cols, tokens;
  std::vector<float> w, x;
  mutable nb_dense_layer dense;
  mutable std::vector<double> squares;  // once asked for

  const nb_dense_layer *Dense() const {
    dense = {w.data(), rows, cols};
    return &dense;
  }

  // Inputs that hang together, with columns of very different size.
  Layer(int64_t rows, int64_t cols, int64_t tokens, unsigned seed = 1) : rows(rows), cols(cols), tokens(tokens) {
    std::mt19937 rng(seed);
    std::normal_distribution<float> normal(0, 1);
    std::vector<float> mix(cols * cols), scale(cols);
    for (float &v : mix) v = normal(rng) / std::sqrt((float)cols);
    for (float &v : scale) v = std::exp(normal(rng));
    for (int64_t i = 0; i < rows * cols; i++) w.push_back(normal(rng) * 0.05f);
    for (int64_t t = 0; t < tokens; t++) {
      std::vector<float> z(cols);
      for (float &v : z) v = normal(rng);
      for (int64_t j = 0; j < cols; j++) {
        float sum = z[j];
        for (int64_t k = 0; k < cols; k++) sum += mix[j * cols + k] * z[k] * 2;
        x.push_back(sum * scale[j]);
      }
    }
  }

  nb_hessian Hessian() const {
    nb_hessian h;
    EXPECT_EQ(nb_hessian_create(nullptr, cols, &h, nullptr), NIBBLE_OK);
    for (int64_t at = 0; at < tokens; at += 100) {
      nb_hessian_add(&h, x.data() + at * cols, std::min<int64_t>(100, tokens - at), cols);
    }
    return h;
  }

  // x^T x in double precision.
  const std::vector<double> &Squares() const {
    if (!squares.empty()) return squares;
    squares.resize(cols * cols);
    for (int64_t t = 0; t < tokens; t++) {
      const float *v = x.data() + t * cols;
      for (int64_t i = 0; i < cols; i++) {
        for (int64_t j = 0; j < cols; j++) squares[i * cols + j] += (double)v[i] * v[j];
      }
    }
    return squares;
  }

  // |x (W - Q)^T|^2 / |x W^T|^2.
  double Error(const nb_rounded &q) const {
    double error = 0, outputs = 0;
    for (int64_t t = 0; t < tokens; t++) {
      for (int64_t r = 0; r < rows; r++) {
        double d = 0, y = 0;
        for (int64_t c = 0; c < cols; c++) {
          int64_t at = q.g_idx[c] * rows + r;
          double value = nb_f16_to_f32(q.scales[at]) * (q.codes[r * cols + c] - q.zeros[at]);
          d += x[t * cols + c] * (w[r * cols + c] - value);
          y += x[t * cols + c] * w[r * cols + c];
        }
        error += d * d;
        outputs += y * y;
      }
    }
    return error / outputs;
  }
};

std::vector<double> Inverse(std::vector<double> a, int64_t n) {
  std::vector<double> b(n * n);
  for (int64_t i = 0; i < n; i++) b[i * n + i] = 1;
  for (int64_t p = 0; p < n; p++) {  // positive definite: no pivots needed
    double d = a[p * n + p];
    for (int64_t j = 0; j < n; j++) a[p * n + j] /= d, b[p * n + j] /= d;
    for (int64_t i = 0; i < n; i++) {
      double f = a[i * n + p];
      if (i == p || f == 0) continue;
      for (int64_t j = 0; j < n; j++) a[i * n + j] -= f * a[p * n + j], b[i * n + j] -= f * b[p * n + j];
    }
  }
  return b;
}

// Optimal brain quantization in a fixed order (arXiv:2210.17323, equations 2 and 3): round a column, spread its error
// over the columns not yet rounded, eliminate it from the inverse. Grids are fitted as IST-DASLab/gptq does: to the
// weights that the last 128 columns' updates have reached, and none of those after them.
std::vector<uint8_t> Reference(const Layer &layer, const nb_grid &grid, const nb_factor &f) {
  int64_t n = layer.cols;
  std::vector<double> h(n * n);
  for (int64_t i = 0; i < n; i++) {
    for (int64_t j = 0; j < n; j++) h[i * n + j] = layer.Squares()[f.column[i] * n + f.column[j]];
  }
  double mean = 0;
  for (int64_t i = 0; i < n; i++) {
    if (h[i * n + i] == 0) h[i * n + i] = 1;
    mean += h[i * n + i] / n;
  }
  for (int64_t i = 0; i < n; i++) h[i * n + i] += f.damp * mean;
  std::vector<double> inverse = Inverse(h, n), w(layer.rows * n);
  for (int64_t r = 0; r < layer.rows; r++) {
    for (int64_t j = 0; j < n; j++) w[r * n + j] = f.dead[f.column[j]] ? 0 : layer.w[r * n + f.column[j]];
  }
  std::vector<uint8_t> codes(layer.rows * n);
  std::vector<nb_group_grid> params(layer.rows);
  std::vector<double> before;
  for (int64_t j = 0; j < n; j++) {
    int64_t stop = j + 1;
    if (j % 128 == 0) before = w;
    while (stop < n && f.group[stop] == f.group[j]) stop++;
    for (int64_t r = 0; r < layer.rows; r++) {
      if (j == 0 || f.group[j] != f.group[j - 1]) {
        std::vector<float> group(before.begin() + r * n + j, before.begin() + r * n + stop);
        params[r] = nb_group_grid_fit(&grid, group.data(), stop - j, nullptr);
      }
      uint8_t code = nb_group_grid_round(&params[r], (float)w[r * n + j]);
      codes[r * n + f.column[j]] = code;
      double error = w[r * n + j] - nb_group_grid_value(&params[r], code);
      for (int64_t k = j + 1; k < n; k++) w[r * n + k] -= error * inverse[j * n + k] / inverse[j * n + j];
    }
    for (int64_t a = j + 1; a < n; a++) {
      for (int64_t b = j + 1; b < n; b++) {
        inverse[a * n + b] -= inverse[a * n + j] * inverse[j * n + b] / inverse[j * n + j];
      }
    }
  }
  return codes;
}

struct Case {
  int bits;
  int64_t group_size;
  bool sym;
  nb_column_order order;
};

TEST(Gptq, FollowsThePaperInDoublePrecision) {
  const Layer layer(40, 200, 500);
  for (Case c : {Case{4, 64, true, NB_ORDER_NATURAL}, Case{4, 32, false, NB_ORDER_GROUPS},
                 Case{3, -1, true, NB_ORDER_ACTIVATION}, Case{2, 64, false, NB_ORDER_NATURAL},
                 Case{8, 128, true, NB_ORDER_NATURAL}, Case{4, 32, true, NB_ORDER_ACTIVATION}}) {
    SCOPED_TRACE(testing::Message() << c.bits << " bits, groups of " << c.group_size << ", order " << c.order);
    nb_hessian h = layer.Hessian();
    nb_grid grid = {c.bits, c.group_size, c.sym, false, false};
    nb_factor_options options = {c.group_size, c.order, 0.05};
    nb_factor factor;
    ASSERT_EQ(nb_hessian_factorize(&h, &options, &factor, nullptr), NIBBLE_OK);
    EXPECT_EQ(factor.damp, 0.05);
    nb_rounded q;
    ASSERT_EQ(nb_gptq_solve(layer.Dense(), &grid, &h, &factor, &q, nullptr), NIBBLE_OK);
    std::vector<uint8_t> want = Reference(layer, grid, factor);
    int64_t differ = 0;
    for (size_t i = 0; i < want.size(); i++) differ += want[i] != q.codes[i];
    // A weight between two codes may fall either way in float32, and takes later ones of its row with it.
    EXPECT_LE(differ, (int64_t)want.size() / 200);
    EXPECT_NEAR(q.error, layer.Error(q), 1e-3 * q.error);
    EXPECT_LT(q.error, 0.8 * q.rtn_error);
    nb_rounded_free(&q);
    nb_factor_free(&factor);
    nb_hessian_free(&h);
  }
}

TEST(Gptq, TakesColumnsInTheOrderOfTheirActivations) {
  Layer layer(1, 100, 300);
  for (nb_column_order order : {NB_ORDER_NATURAL, NB_ORDER_GROUPS, NB_ORDER_ACTIVATION}) {
    nb_hessian h = layer.Hessian();
    nb_factor_options options = {32, order, 0.01};
    nb_factor f;
    ASSERT_EQ(nb_hessian_factorize(&h, &options, &f, nullptr), NIBBLE_OK);
    EXPECT_EQ(f.groups, 4);
    std::vector<int> seen(100);
    auto size = [&](int64_t place) { return h.sum[f.column[place] * 101]; };
    for (int64_t i = 0; i < 100; i++) {
      seen[f.column[i]]++;
      bool same = i > 0 && f.group[i] == f.group[i - 1];
      if (order == NB_ORDER_NATURAL) {
        EXPECT_EQ(f.column[i], i);
      }
      if (order == NB_ORDER_ACTIVATION) {
        EXPECT_EQ(f.group[i], i / 32);
        if (i > 0) {
          EXPECT_GE(size(i - 1), size(i));
        }
      } else {
        EXPECT_EQ(f.group[i], f.column[i] / 32);
      }
      if (order == NB_ORDER_GROUPS && same) {
        EXPECT_GE(size(i - 1), size(i));
      }
      if (order == NB_ORDER_GROUPS && i > 0 && !same && i < 96) {
        EXPECT_GE(size(i - 32), size(i));
      }
    }
    if (order == NB_ORDER_GROUPS) {
      EXPECT_EQ(f.group[99], 3) << "the short group comes last";
    }
    for (int s : seen) EXPECT_EQ(s, 1);
    nb_factor_free(&f);
    nb_hessian_free(&h);
  }
}

TEST(Gptq, GivesTheSameBytesWhateverTheThreads) {
  const Layer layer(100, 160, 300);
  std::vector<nb_rounded> results;
  for (int threads : {1, 2, 5}) {
    nb_threads_use(threads);
    nb_hessian h = layer.Hessian();
    nb_grid grid = {4, 64, true, true, false};
    nb_factor_options options = {64, NB_ORDER_GROUPS, 0.01};
    nb_factor f;
    nb_rounded q;
    ASSERT_EQ(nb_hessian_factorize(&h, &options, &f, nullptr), NIBBLE_OK);
    ASSERT_EQ(nb_gptq_solve(layer.Dense(), &grid, &h, &f, &q, nullptr), NIBBLE_OK);
    nb_factor_free(&f);
    nb_hessian_free(&h);
    results.push_back(q);
  }
  nb_threads_use(0);
  for (nb_rounded &q : results) {
    EXPECT_TRUE(std::equal(q.codes, q.codes + 100 * 160, results[0].codes));
    EXPECT_TRUE(std::equal(q.scales, q.scales + 3 * 100, results[0].scales));
    EXPECT_EQ(q.error, results[0].error);
  }
  for (nb_rounded &q : results) nb_rounded_free(&q);
}

TEST(Gptq, SearchedScalesMakeTheErrorSmaller) {
  const Layer layer(64, 128, 400);
  double error[2];
  for (bool mse : {false, true}) {
    nb_hessian h = layer.Hessian();
    nb_grid grid = {3, 64, true, mse, false};
    nb_factor_options options = {64, NB_ORDER_NATURAL, 0.05};
    nb_factor f;
    nb_rounded q;
    ASSERT_EQ(nb_hessian_factorize(&h, &options, &f, nullptr), NIBBLE_OK);
    ASSERT_EQ(nb_gptq_solve(layer.Dense(), &grid, &h, &f, &q, nullptr), NIBBLE_OK);
    error[mse] = q.error;
    nb_rounded_free(&q);
    nb_factor_free(&f);
    nb_hessian_free(&h);
  }
  EXPECT_LT(error[1], 0.9 * error[0]);
}

TEST(Gptq, DeadInputsBecomeZeroAndSpoilNothing) {
  Layer layer(8, 64, 200);
  for (int64_t t = 0; t < layer.tokens; t++) layer.x[t * 64 + 5] = layer.x[t * 64 + 40] = 0;
  layer.w[5] = 1e6f;
  nb_hessian h = layer.Hessian();
  nb_grid grid = {4, 32, true, false, false};
  nb_factor_options options = {32, NB_ORDER_NATURAL, 0.01};
  nb_factor f;
  nb_rounded q;
  ASSERT_EQ(nb_hessian_factorize(&h, &options, &f, nullptr), NIBBLE_OK);
  EXPECT_TRUE(f.dead[5] && f.dead[40] && !f.dead[6]);
  ASSERT_EQ(nb_gptq_solve(layer.Dense(), &grid, &h, &f, &q, nullptr), NIBBLE_OK);
  for (int64_t r = 0; r < 8; r++) EXPECT_EQ(q.codes[r * 64 + 5], 8);
  EXPECT_LT(nb_f16_to_f32(q.scales[0]), 0.1f);
  nb_rounded_free(&q);
  nb_factor_free(&f);
  nb_hessian_free(&h);
}

TEST(Gptq, DampsMoreUntilTheHessianIsPositiveDefinite) {
  nb_hessian h;
  ASSERT_EQ(nb_hessian_create(nullptr, 3, &h, nullptr), NIBBLE_OK);
  // Eigenvalues 1.2, 0.9 and 0.9, and of the second -0.1.
  const float good[] = {1, 0.1f, 0.1f, 0, 1, 0.1f, 0, 0, 1}, bad[] = {1, 1.1f, 0, 0, 1, 0, 0, 0, 1};
  nb_factor_options options = {-1, NB_ORDER_NATURAL, 0.01};
  nb_factor f;
  std::copy(good, good + 9, h.sum);
  ASSERT_EQ(nb_hessian_factorize(&h, &options, &f, nullptr), NIBBLE_OK);
  EXPECT_EQ(f.damp, 0.01);
  nb_factor_free(&f);
  std::copy(bad, bad + 9, h.sum);
  ASSERT_EQ(nb_hessian_factorize(&h, &options, &f, nullptr), NIBBLE_OK);
  EXPECT_FALSE(f.is_indefinite);
  EXPECT_NEAR(f.damp, 0.16, 1e-9);
  nb_factor_free(&f);
  h.sum[1] = h.sum[3] = NAN;
  ASSERT_EQ(nb_hessian_factorize(&h, &options, &f, nullptr), NIBBLE_OK);
  EXPECT_TRUE(f.is_indefinite);
  nb_factor_free(&f);
  nb_hessian_free(&h);
}

TEST(Gptq, AnIndefiniteHessianMeansRoundingToTheNearest) {
  const Layer layer(8, 64, 100);
  nb_hessian h = layer.Hessian();
  h.sum[3] = INFINITY;
  nb_grid grid = {4, 32, true, false, false};
  nb_factor_options options = {32, NB_ORDER_GROUPS, 0.01};
  nb_factor f;
  nb_rounded q, rtn;
  ASSERT_EQ(nb_hessian_factorize(&h, &options, &f, nullptr), NIBBLE_OK);
  ASSERT_TRUE(f.is_indefinite);
  ASSERT_EQ(nb_gptq_solve(layer.Dense(), &grid, &h, &f, &q, nullptr), NIBBLE_OK);
  ASSERT_EQ(nb_rtn_solve(layer.Dense(), &grid, &rtn, nullptr), NIBBLE_OK);
  EXPECT_TRUE(std::equal(q.codes, q.codes + 8 * 64, rtn.codes));
  EXPECT_TRUE(std::equal(q.scales, q.scales + 16, rtn.scales));
  nb_rounded_free(&q);
  nb_rounded_free(&rtn);
  nb_factor_free(&f);
  nb_hessian_free(&h);
}

TEST(Grid, ScalesAreAlwaysPositiveAndFiniteFloat16) {
  for (int bits : {2, 3, 4, 8}) {
    for (bool sym : {false, true}) {
      for (bool mse : {false, true}) {
        for (float size : {0.0f, 1e-38f, 1e-7f, 1e-3f, 1.0f, 7e4f, 1e30f, 3e38f}) {
          for (float sign : {-1.0f, 1.0f}) {
            float w[] = {size * sign, 0, size * sign / 2, size * sign / 3};
            nb_grid grid = {bits, -1, sym, mse, false};
            nb_group_grid g = nb_group_grid_fit(&grid, w, 4, nullptr);
            EXPECT_TRUE(std::isfinite(g.scale) && g.scale >= 6e-5f) << size << " at " << bits << " bits";
            EXPECT_EQ(g.scale, nb_f16_to_f32(g.scale_bits));
            EXPECT_LE(g.zero, g.max_code);
            for (float v : w) EXPECT_LE(nb_group_grid_round(&g, v), g.max_code);
            if (size >= 1e-3f && size <= 1.0f && !mse && bits > 2) {
              for (float v : w) {
                float value = nb_group_grid_value(&g, nb_group_grid_round(&g, v));
                EXPECT_NEAR(value, v, g.scale * (sym ? 1.01f : 0.51f));
              }
            }
          }
        }
      }
    }
  }
}

// Eight groups, of sizes from nothing to what overflows, one of them all zeros.
std::vector<std::vector<float>> MakeGroups(int64_t n, float size) {
  std::mt19937 random(n);
  std::normal_distribution<float> normal;
  std::vector<std::vector<float>> groups(NB_SEARCH_ROWS, std::vector<float>(n));
  for (int r = 1; r < NB_SEARCH_ROWS; r++) {
    for (float &v : groups[r]) v = std::fmin(std::fmax(normal(random) * size * r, -3e38f), 3e38f) + (r == 2 ? size : 0);
  }
  return groups;
}

void ExpectEightLikeOne(const nb_grid &grid, int64_t n, float size, bool weighed) {
  std::vector<std::vector<float>> groups = MakeGroups(n, size);
  std::vector<float> turned(n * NB_SEARCH_ROWS), importance(n);
  for (int64_t k = 0; k < n; k++) {
    importance[k] = 1 / (1.0f + k % 5);
    for (int r = 0; r < NB_SEARCH_ROWS; r++) turned[k * NB_SEARCH_ROWS + r] = groups[r][k];
  }
  const float *weights = weighed ? importance.data() : nullptr;
  for (int count : {3, (int)NB_SEARCH_ROWS}) {
    nb_group_grid out[NB_SEARCH_ROWS];
    nb_group_grids_fit(&grid, turned.data(), n, weights, count, out);
    for (int r = 0; r < count; r++) {
      nb_group_grid one = nb_group_grid_fit(&grid, groups[r].data(), n, weights);
      EXPECT_EQ(out[r].scale, one.scale) << "group " << r;
      EXPECT_EQ(out[r].scale_bits, one.scale_bits) << "group " << r;
      EXPECT_EQ(out[r].zero, one.zero) << "group " << r;
      EXPECT_EQ(out[r].was_mended, one.was_mended) << "group " << r;
    }
  }
}

TEST(Grid, FitsEightGroupsAsItFitsOneOnEveryInstructionSet) {
  nb_isa before = nb_isa_current();
  for (int isa = 0; isa < NB_ISA_COUNT; isa++) {
    if (!nb_isa_use(static_cast<nb_isa>(isa))) continue;
    for (int kind = 0; kind < 16; kind++) {
      bool sym = kind & 1, mse = kind & 2, bf16 = kind & 4, weighed = kind & 8;
      for (int bits : {2, 3, 4, 8}) {
        for (int64_t n : {1, 7, 8, 31, 64, 100}) {
          for (float size : {1e-38f, 1e-5f, 0.05f, 3e4f, 1e38f}) {
            SCOPED_TRACE(testing::Message()
                         << "instruction set " << isa << ", " << bits << " bits, sym " << sym << ", mse " << mse
                         << ", bf16 " << bf16 << ", n " << n << ", size " << size);
            ExpectEightLikeOne({bits, n, sym, mse, bf16}, n, size, weighed);
          }
        }
      }
    }
  }
  nb_isa_use(before);
}

}  // namespace
