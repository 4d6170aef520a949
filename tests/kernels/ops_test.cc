#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "tests/random_packed.h"

extern "C" {
#include "base/parallel.h"
#include "kernels/ops.h"
#include "nibble.h"
}

namespace {

const int64_t kRagged[] = {1, 3, 7, 8, 9, 16, 31, 63, 64, 65, 127, 257, 576};

TEST(Ops, RmsnormMatchesDoubleArithmetic) {
  ForEachIsa([] {
    for (int64_t cols : kRagged) {
      auto x = RandomFloats(3 * cols, 1), w = RandomFloats(cols, 2);
      std::vector<float> y(3 * cols);
      const nb_row_norm norm = {w.data(), nullptr, cols, 1e-5f};
      nb_rmsnorm(x.data(), &norm, 3, y.data());
      for (int64_t r = 0; r < 3; r++) {
        double squares = 0;
        for (int64_t i = 0; i < cols; i++) squares += double(x[r * cols + i]) * x[r * cols + i];
        for (int64_t i = 0; i < cols; i++) {
          double want = x[r * cols + i] / std::sqrt(squares / cols + 1e-5) * w[i];
          ASSERT_NEAR(y[r * cols + i], want, 2e-6 * std::abs(want) + 1e-30) << cols << ": " << r << ", " << i;
        }
      }
    }
  });
}

TEST(Ops, LayernormMatchesDoubleArithmetic) {
  ForEachIsa([] {
    for (int64_t cols : kRagged) {
      auto x = RandomFloats(3 * cols, 1), w = RandomFloats(cols, 2), b = RandomFloats(cols, 3);
      std::vector<float> y(3 * cols), no_bias(3 * cols);
      nb_row_norm norm = {w.data(), b.data(), cols, 1e-5f};
      nb_layernorm(x.data(), &norm, 3, y.data());
      norm.bias = nullptr;
      nb_layernorm(x.data(), &norm, 3, no_bias.data());
      for (int64_t r = 0; r < 3; r++) {
        double mean = 0, squares = 0;
        for (int64_t i = 0; i < cols; i++) mean += double(x[r * cols + i]) / cols;
        for (int64_t i = 0; i < cols; i++) squares += std::pow(x[r * cols + i] - mean, 2);
        for (int64_t i = 0; i < cols; i++) {
          double want = (x[r * cols + i] - mean) / std::sqrt(squares / cols + 1e-5) * w[i];
          ASSERT_NEAR(no_bias[r * cols + i], want, 1e-5) << cols << ": " << r << ", " << i;
          ASSERT_NEAR(y[r * cols + i], want + b[i], 1e-5) << cols << ": " << r << ", " << i;
        }
      }
    }
  });
}

TEST(Ops, SiluMulMatchesDoubleArithmetic) {
  ForEachIsa([] {
    for (int64_t n : {int64_t(1), int64_t(7), int64_t(9), int64_t(33), int64_t(40000)}) {
      auto gate = RandomFloats(n, 1, 6), up = RandomFloats(n, 2);
      if (n > 20) {
        gate[0] = -200, gate[1] = 200, gate[2] = -88, gate[3] = -87, gate[4] = 88.5f, gate[5] = 0, gate[6] = -1e30f;
        gate[7] = 1e30f, gate[8] = 1e-30f, gate[9] = -104;
      }
      std::vector<float> y(n), alone(n);
      nb_silu_mul(gate.data(), up.data(), n, y.data());
      nb_silu_mul(gate.data(), nullptr, n, alone.data());
      for (int64_t i = 0; i < n; i++) {
        double silu = gate[i] / (1 + std::exp(-double(gate[i]))), want = silu * up[i];
        ASSERT_NEAR(y[i], want, 1e-6 * std::abs(want) + 1e-35) << n << ": " << i << " gate " << gate[i];
        ASSERT_NEAR(alone[i], silu, 1e-6 * std::abs(silu) + 1e-35) << n << ": " << i << " gate " << gate[i];
      }
    }
  });
}

TEST(Ops, SumsAndMultiplesOfElements) {
  for (int64_t n : {1, 7, 40000}) {
    auto x = RandomFloats(n, 1), y = RandomFloats(n, 2), sum = y, scaled = x;
    nb_add(x.data(), n, sum.data());
    nb_scale(-1.7f, n, scaled.data());
    for (int64_t i = 0; i < n; i++) {
      ASSERT_EQ(sum[i], y[i] + x[i]) << n << ": " << i;
      ASSERT_EQ(scaled[i], x[i] * -1.7f) << n << ": " << i;
    }
  }
}

// Bit by bit, whatever the threads: with one row that comes three times, the order of the additions shows.
TEST(Ops, ScatteredRowsAreAddedInOrder) {
  const int64_t n = 5, cols = 1301, rows = 4;
  const int32_t to[n] = {2, 0, 2, 3, 2};
  const float weights[n] = {1e4f, 0.3f, -1e4f, 2, 0.7f};
  auto x = RandomFloats(n * cols, 1), before = RandomFloats(rows * cols, 2), want = before;
  for (int64_t i = 0; i < n; i++) {
    for (int64_t c = 0; c < cols; c++) {
      volatile float product = weights[i] * x[i * cols + c];  // rounded by itself
      want[to[i] * cols + c] += product;
    }
  }
  for (int threads : {1, 3}) {
    nb_threads_use(threads);
    auto y = before;
    nb_scatter_add(x.data(), to, weights, n, cols, y.data());
    for (int64_t i = 0; i < rows * cols; i++)
      ASSERT_EQ(y[i], want[i]) << threads << " threads, row " << i / cols << ", " << i % cols;
  }
  nb_threads_use(0);
}

TEST(Ops, RotaryTurnsHalfSplitPairs) {
  const int64_t rows = 11, heads = 3, head_dim = 20, rotary_dim = 12, period = 4, stride = heads * head_dim + 5;
  auto x = RandomFloats(rows * stride, 1), angle = RandomFloats(period * rotary_dim / 2, 2);
  std::vector<float> cos, sin, y = x;
  for (float a : angle) cos.push_back(std::cos(a)), sin.push_back(std::sin(a));
  const nb_rotation rotation = {heads, head_dim, rotary_dim, period, cos.data(), sin.data()};
  nb_rotary(y.data(), stride, rows, &rotation);
  for (int64_t r = 0; r < rows; r++) {
    for (int64_t i = 0; i < stride; i++) {
      int64_t in_head = i % head_dim, half = rotary_dim / 2, at = r % period * half + in_head % half;
      double want = x[r * stride + i];
      if (i < heads * head_dim && in_head < rotary_dim) {
        double other = x[r * stride + (in_head < half ? i + half : i - half)];
        want = want * cos[at] + (in_head < half ? -other : other) * sin[at];
      }
      ASSERT_NEAR(y[r * stride + i], want, 1e-5) << r << ", " << i;
    }
  }
}

struct AttentionCase {
  int64_t sequences, tokens, past, heads, kv_heads, head_dim;
  bool causal;
  float spread;
  int64_t window = 0;
  int64_t keys = 0;  // if not causal
  float bias = 0;    // how far it spreads; 0: none
};

/* out in double arithmetic, softmax written down plainly. */
std::vector<double> PlainAttention(const nb_attention &a) {
  std::vector<double> out(a.sequences * a.tokens * a.heads * a.head_dim);
  for (int64_t s = 0; s < a.sequences; s++) {
    for (int64_t t = 0; t < a.tokens; t++) {
      for (int64_t h = 0; h < a.heads; h++) {
        int64_t keys = a.causal ? a.past + t + 1 : a.keys, kv = h / (a.heads / a.kv_heads);
        int64_t begin = a.causal && a.window ? std::max<int64_t>(0, keys - a.window) : 0;
        const float *q = a.q + (s * a.tokens + t) * a.q_stride + h * a.head_dim;
        std::vector<double> score(keys);
        double max = -INFINITY, sum = 0;
        for (int64_t j = begin; j < keys; j++) {
          const float *k = a.k + s * a.kv_sequence_stride + j * a.kv_token_stride + kv * a.kv_head_stride;
          for (int64_t i = 0; i < a.head_dim; i++) score[j] += double(q[i]) * k[i];
          score[j] *= a.scale;
          if (a.bias) score[j] += a.bias[h * a.bias_stride + j - (a.past + t)];
          max = std::max(max, score[j]);
        }
        for (int64_t j = begin; j < keys; j++) sum += score[j] = std::exp(score[j] - max);
        for (int64_t j = begin; j < keys; j++) {
          const float *v = a.v + s * a.kv_sequence_stride + j * a.kv_token_stride + kv * a.kv_head_stride;
          for (int64_t i = 0; i < a.head_dim; i++) {
            out[((s * a.tokens + t) * a.heads + h) * a.head_dim + i] += score[j] / sum * v[i];
          }
        }
      }
    }
  }
  return out;
}

TEST(Ops, AttentionMatchesPlainSoftmax) {
  const AttentionCase cases[] = {
      {1, 1, 0, 1, 1, 8, true, 1},
      {1, 1, 100, 9, 3, 64, true, 1},
      {2, 33, 0, 6, 2, 64, true, 1},
      {1, 70, 5, 4, 4, 20, true, 1},
      {2, 40, 0, 2, 1, 33, false, 1, 0, 40},
      {1, 130, 64, 2, 1, 128, true, 1},
      {1, 1, 1300, 4, 2, 64, true, 1},
      {1, 3, 700, 4, 1, 80, true, 1},
      {1, 65, 0, 2, 2, 1, true, 1},
      {1, 200, 0, 3, 3, 64, true, 30},
      {3, 2, 17, 8, 2, 256, true, 10},
      {1, 1, 63, 9, 3, 64, true, 1},
      {1, 257, 31, 3, 1, 64, false, 3, 0, 288},
      {1, 150, 0, 4, 2, 64, true, 3, 7},
      {2, 100, 90, 3, 1, 20, true, 1, 64},
      {1, 70, 10, 2, 2, 64, true, 1, 1},
      {1, 1, 300, 4, 2, 64, true, 1, 50},
      {1, 3, 300, 2, 2, 64, true, 1, 100},
      {1, 200, 0, 1, 1, 600, true, 1, 33},
      {1, 64, 0, 2, 1, 64, true, 1, 64},
      // Every token sees the same keys, fewer or more than tokens; a window then is none.
      {2, 37, 0, 6, 2, 64, false, 1, 9, 37},
      {1, 3, 500, 4, 4, 64, false, 1, 0, 91},
      {1, 50, 0, 2, 2, 20, false, 1, 0, 300},
      {1, 1, 7, 3, 3, 80, false, 1, 0, 1},
      {1, 40, 0, 1, 1, 600, false, 1, 0, 33},
      // A bias: T5's, whose scores are not scaled down, for an encoder and a decoder; with a window, one head a key
      // head.
      {2, 40, 0, 6, 6, 64, false, 1, 0, 40, 3},
      {1, 33, 17, 6, 2, 64, true, 1, 0, 0, 5},
      {1, 1, 130, 4, 2, 33, true, 1, 0, 0, 4},
      {1, 70, 10, 2, 2, 20, true, 1, 13, 0, 2},
      {1, 3, 60, 2, 1, 128, false, 1, 0, 63, 9},
      {1, 20, 0, 2, 1, 600, true, 1, 0, 0, 3},
      {3, 9, 100, 8, 4, 16, true, 10, 0, 0, 20},
  };
  for (const AttentionCase &c : cases) {
    int64_t keys = std::max(c.past + c.tokens, c.keys), width = c.heads * c.head_dim;
    auto q = RandomFloats(c.sequences * c.tokens * (width + 3), 1, c.spread);
    auto k = RandomFloats(c.sequences * (keys + 2) * c.kv_heads * c.head_dim, 2);
    auto v = RandomFloats(c.sequences * (keys + 2) * c.kv_heads * c.head_dim, 3);
    auto bias = RandomFloats(c.heads * (2 * keys - 1), 4, c.bias > 0 ? c.bias : 1);
    for (bool head_major : {false, true}) {
      std::vector<float> out(c.sequences * c.tokens * (width + 1));
      nb_attention a = {};
      a.q = q.data(), a.k = k.data(), a.v = v.data(), a.out = out.data();
      a.q_stride = width + 3, a.out_stride = width + 1;
      a.kv_sequence_stride = (keys + 2) * c.kv_heads * c.head_dim;
      a.kv_token_stride = head_major ? c.head_dim : c.kv_heads * c.head_dim;
      a.kv_head_stride = head_major ? (keys + 2) * c.head_dim : c.head_dim;
      a.sequences = c.sequences, a.tokens = c.tokens, a.past = c.past;
      a.heads = c.heads, a.kv_heads = c.kv_heads, a.head_dim = c.head_dim;
      a.scale = 1 / std::sqrt(float(c.head_dim)), a.causal = c.causal, a.window = c.window;
      a.keys = c.keys, a.bias = c.bias > 0 ? bias.data() + keys - 1 : nullptr, a.bias_stride = 2 * keys - 1;
      const auto want = PlainAttention(a);
      ForEachIsa([&] {
        std::fill(out.begin(), out.end(), NAN);
        nb_attention_run(&a);
        for (int64_t row = 0; row < c.sequences * c.tokens; row++) {
          for (int64_t i = 0; i < width; i++) {
            ASSERT_NEAR(out[row * (width + 1) + i], want[row * width + i], 1e-5 * std::max(1.0f, c.spread))
                << "tokens " << c.tokens << " past " << c.past << " head_dim " << c.head_dim << " keys " << c.keys
                << " bias " << c.bias << ": row " << row << ", " << i;
          }
          ASSERT_TRUE(std::isnan(out[row * (width + 1) + width])) << "wrote past the end of row " << row;
        }
      });
      if (HasFatalFailure()) return;
    }
  }
}

TEST(Ops, LogprobMatchesDoubleArithmetic) {
  ForEachIsa([] {
    for (int64_t vocab : {1, 5, 8, 63, 100, 1027, 49152}) {
      const int64_t rows = 5, stride = vocab + 3;
      auto logits = RandomFloats(rows * stride, unsigned(vocab), 8);
      std::vector<int32_t> targets, argmax(rows);
      std::vector<double> got(rows);
      for (int64_t r = 0; r < rows; r++) targets.push_back(int32_t((r * 7919) % vocab));
      const nb_logits all = {logits.data(), stride, rows, vocab};
      nb_logprob(&all, targets.data(), got.data(), argmax.data());
      for (int64_t r = 0; r < rows; r++) {
        const float *row = &logits[r * stride];
        double max = *std::max_element(row, row + vocab), sum = 0;
        for (int64_t i = 0; i < vocab; i++) sum += std::exp(row[i] - max);
        ASSERT_NEAR(got[r], row[targets[r]] - max - std::log(sum), 1e-6) << vocab << ": " << r;
        ASSERT_EQ(argmax[r], std::max_element(row, row + vocab) - row) << vocab << ": " << r;
      }
    }
  });
}

TEST(Ops, LogprobTakesTheFirstOfEqualMaxima) {
  ForEachIsa([] {
    std::vector<float> logits(100, 1.0f);
    logits[37] = logits[53] = logits[90] = 2.0f;
    int32_t target = 0, argmax = -1;
    double logprob;
    const nb_logits row = {logits.data(), 100, 1, 100};
    nb_logprob(&row, &target, &logprob, &argmax);
    EXPECT_EQ(argmax, 37);
  });
}

}  // namespace
