// The operations of kernels/backend.h on the CPU, against what their contracts say in double arithmetic.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "tests/random_packed.h"

extern "C" {
#include "kernels/backend.h"
}

namespace {

// Buffers of the CPU's backend, by their floats.
struct Buffer {
  nb_buffer *b = nullptr;
  size_t n;
  explicit Buffer(const std::vector<float> &values) : n(values.size()) {
    nb_backend *cpu = nb_backend_cpu();
    nibble_error err = {};
    EXPECT_EQ(cpu->buffer_create(cpu, n * sizeof(float), &b, &err), NIBBLE_OK) << err.message;
    EXPECT_EQ(cpu->upload(cpu, b, 0, values.data(), n * sizeof(float), &err), NIBBLE_OK) << err.message;
  }
  explicit Buffer(int64_t count) : Buffer(std::vector<float>((size_t)count, NAN)) {}
  Buffer(const Buffer &) = delete;
  ~Buffer() { nb_backend_cpu()->buffer_free(nb_backend_cpu(), b); }
  const float *data() const { return (const float *)nb_backend_cpu()->view(nb_backend_cpu(), b); }
};

double Activated(nb_activation act, double v) {
  switch (act) {
    case NB_ACT_SILU: return v / (1 + std::exp(-v));
    case NB_ACT_GELU: return v * 0.5 * std::erfc(-v * M_SQRT1_2);
    case NB_ACT_GELU_TANH: return 0.5 * v * (1 + std::tanh(std::sqrt(2 / M_PI) * (v + 0.044715 * v * v * v)));
    case NB_ACT_RELU: return v > 0 ? v : 0;
    case NB_ACT_QUICK_GELU: return v / (1 + std::exp(-1.702 * v));
    case NB_ACT_TANH: return std::tanh(v);
    default: return NAN;
  }
}

TEST(Backend, GatesMatchDoubleArithmeticWithAndWithoutUp) {
  nb_backend *cpu = nb_backend_cpu();
  ForEachIsa([&] {
    for (int act = 0; act < NB_ACTIVATIONS; act++) {
      const int64_t n = 16391;  // more than a band
      auto v = RandomFloats(n, 1, 6), up = RandomFloats(n, 2);
      v[0] = -200, v[1] = 200, v[2] = 0, v[3] = -1e30f, v[4] = 1e30f;
      Buffer gated(v), alone(v), times(up);
      cpu->gate(cpu, (nb_activation)act, gated.b, times.b, n);
      cpu->gate(cpu, (nb_activation)act, alone.b, nullptr, n);
      for (int64_t i = 0; i < n; i++) {
        double want = Activated((nb_activation)act, v[i]);
        ASSERT_NEAR(alone.data()[i], want, 1e-6 * std::abs(want) + 1e-6) << "activation " << act << " of " << v[i];
        ASSERT_NEAR(gated.data()[i], want * up[i], 1e-6 * std::abs(want * up[i]) + 1e-6)
            << "activation " << act << " of " << v[i];
      }
    }
  });
}

TEST(Backend, ReluLeavesNanAlone) {
  nb_backend *cpu = nb_backend_cpu();
  Buffer x(std::vector<float>{NAN, -1, 2});
  cpu->gate(cpu, NB_ACT_RELU, x.b, nullptr, 3);
  EXPECT_TRUE(std::isnan(x.data()[0]));
  EXPECT_EQ(x.data()[1], 0);
  EXPECT_EQ(x.data()[2], 2);
}

TEST(Backend, NormsAreCenteredOrNot) {
  nb_backend *cpu = nb_backend_cpu();
  const int64_t rows = 3, width = 70;
  auto x = RandomFloats(rows * width, 1), w = RandomFloats(width, 2), bias = RandomFloats(width, 3);
  Buffer in(x), weight(w), shift(bias), plain(rows * width), centered(rows * width), biased(rows * width);
  nb_norm n = {};
  n.weight = weight.b, n.eps = 1e-3f;
  cpu->norm(cpu, in.b, &n, rows, width, plain.b);
  n.centered = true;
  cpu->norm(cpu, in.b, &n, rows, width, centered.b);
  n.bias = shift.b;
  cpu->norm(cpu, in.b, &n, rows, width, biased.b);
  for (int64_t r = 0; r < rows; r++) {
    double mean = 0, squares = 0, variance = 0;
    for (int64_t i = 0; i < width; i++) mean += double(x[r * width + i]) / width;
    for (int64_t i = 0; i < width; i++) squares += std::pow(x[r * width + i], 2) / width;
    for (int64_t i = 0; i < width; i++) variance += std::pow(x[r * width + i] - mean, 2) / width;
    for (int64_t i = 0; i < width; i++) {
      int64_t at = r * width + i;
      double want = (x[at] - mean) / std::sqrt(variance + 1e-3) * w[i];
      ASSERT_NEAR(plain.data()[at], x[at] / std::sqrt(squares + 1e-3) * w[i], 1e-5) << r << ", " << i;
      ASSERT_NEAR(centered.data()[at], want, 1e-5) << r << ", " << i;
      ASSERT_NEAR(biased.data()[at], want + bias[i], 1e-5) << r << ", " << i;
    }
  }
}

TEST(Backend, SumsColumnsAndRows) {
  nb_backend *cpu = nb_backend_cpu();
  const int64_t rows = 9, width = 37;
  auto x = RandomFloats(rows * width, 1), y = RandomFloats(rows * width, 2);
  Buffer a(x), b(y), scaled(x), columns(rows * 11), one(rows);
  cpu->add(cpu, b.b, a.b, rows * width);
  cpu->scale(cpu, scaled.b, 0.37f, rows * width);
  nb_columns part = {rows, width, 13, 11}, last = {rows, width, width - 1, 1};
  cpu->split(cpu, a.b, &part, columns.b);
  cpu->split(cpu, a.b, &last, one.b);
  for (int64_t i = 0; i < rows * width; i++) {
    ASSERT_EQ(b.data()[i], y[i] + x[i]) << i;
    ASSERT_EQ(scaled.data()[i], x[i] * 0.37f) << i;
  }
  for (int64_t r = 0; r < rows; r++) {
    for (int64_t i = 0; i < 11; i++) ASSERT_EQ(columns.data()[r * 11 + i], x[r * width + 13 + i]) << r << ", " << i;
    ASSERT_EQ(one.data()[r], x[r * width + width - 1]) << r;
  }
  const int32_t to[] = {4, 1, 4};
  const float weights[] = {0.5f, 2, -3};
  nb_scatter scatter = {to, weights, 3, width};
  Buffer sums(y);
  cpu->scatter_add(cpu, a.b, &scatter, sums.b);
  for (int64_t r = 0; r < rows; r++) {
    for (int64_t i = 0; i < width; i++) {
      double want = y[r * width + i];
      for (int j = 0; j < 3; j++) want += to[j] == r ? double(weights[j]) * x[j * width + i] : 0;
      ASSERT_NEAR(sums.data()[r * width + i], want, 1e-6 * (1 + std::abs(want))) << r << ", " << i;
    }
  }
}

// softmax(q k^T * scale + bias) v of one query, over keys [first, end) that lie `stride` apart.
std::vector<double> Attended(const float *q, const float *k, const float *v, int64_t stride, int64_t first, int64_t end,
                             int64_t dim, double scale, const float *bias) {
  std::vector<double> scores, out((size_t)dim);
  double top = -INFINITY, sum = 0;
  for (int64_t j = first; j < end; j++) {
    double score = 0;
    for (int64_t i = 0; i < dim; i++) score += double(q[i]) * k[j * stride + i];
    scores.push_back(score * scale + (bias ? bias[j] : 0));
    top = std::max(top, scores.back());
  }
  for (double &s : scores) sum += s = std::exp(s - top);
  for (int64_t j = first; j < end; j++) {
    for (int64_t i = 0; i < dim; i++) out[(size_t)i] += scores[(size_t)(j - first)] / sum * v[j * stride + i];
  }
  return out;
}

// Two steps of a decoder whose heads turn in part and whose scores have a bias.
TEST(Backend, StoreTurnsTheFirstDimensionsAndAttentionAddsABias) {
  nb_backend *cpu = nb_backend_cpu();
  nibble_error err = {};
  ForEachIsa([&] {
    for (int64_t turned : {0, 6, 20}) {
      const int64_t heads = 4, kv_heads = 2, dim = 20, capacity = 60, total = 51, first = 40, half = turned / 2;
      auto q = RandomFloats(total * heads * dim, 1), k = RandomFloats(total * kv_heads * dim, 2);
      auto v = RandomFloats(total * kv_heads * dim, 3), angle = RandomFloats(capacity * half + 1, 4, 2);
      auto bias = RandomFloats(heads * (2 * capacity - 1), 5, 2);
      std::vector<float> cosines, sines;
      for (float a : angle) cosines.push_back(std::cos(a)), sines.push_back(std::sin(a));
      Buffer cos(cosines), sin(sines), biases(bias);
      nb_rotary_tables tables = {cos.b, sin.b};
      nb_attention_shape shape = {};
      shape.sequences = 1, shape.heads = heads, shape.kv_heads = kv_heads, shape.head_dim = dim;
      shape.capacity = capacity, shape.causal = true, shape.window = 30, shape.rotary_dim = turned, shape.scale = 0.3f;
      nb_kv_cache *cache = nullptr;
      ASSERT_EQ(cpu->kv_create(cpu, &shape, &cache, &err), NIBBLE_OK) << err.message;
      std::vector<float> got;
      for (auto [start, tokens] : {std::pair<int64_t, int64_t>{0, first}, {first, total - first}}) {
        auto part = [&, start = start, tokens = tokens](const std::vector<float> &all, int64_t width) {
          return std::vector<float>(all.begin() + start * width, all.begin() + (start + tokens) * width);
        };
        Buffer qs(part(q, heads * dim)), ks(part(k, kv_heads * dim)), vs(part(v, kv_heads * dim)),
            out(tokens * heads * dim);
        shape.start = start, shape.tokens = tokens;
        ASSERT_EQ(cpu->kv_reserve(cpu, cache, 1, start + tokens, &err), NIBBLE_OK) << err.message;
        const nb_qkv rows = {turned ? qs.b : nullptr, ks.b, vs.b};
        cpu->store(cpu, &shape, turned ? &tables : nullptr, &rows, cache);
        cpu->attention(cpu, &shape, qs.b, cache, biases.b, out.b);
        got.insert(got.end(), out.data(), out.data() + out.n);
      }
      cpu->kv_free(cpu, cache);
      auto turn = [&](std::vector<float> x, int64_t count) {
        for (int64_t t = 0; t < total; t++) {
          for (int64_t h = 0; h < count; h++) {
            for (int64_t i = 0; i < half; i++) {
              float *low = &x[(t * count + h) * dim + i], *high = low + half, a = *low, b = *high;
              float c = cosines[t * half + i], s = sines[t * half + i];
              *low = a * c - b * s, *high = b * c + a * s;
            }
          }
        }
        return x;
      };
      q = turn(q, heads), k = turn(k, kv_heads);
      for (int64_t t = 0; t < total; t++) {
        for (int64_t h = 0; h < heads; h++) {
          int64_t kv = h / 2 * dim, at = (t * heads + h) * dim;
          auto want = Attended(&q[at], &k[kv], &v[kv], kv_heads * dim, std::max<int64_t>(0, t - 29), t + 1, dim, 0.3,
                               &bias[h * (2 * capacity - 1) + capacity - 1 - t]);
          for (int64_t i = 0; i < dim; i++)
            ASSERT_NEAR(got[at + i], want[i], 1e-5) << turned << " turned, token " << t << ", head " << h << ", " << i;
        }
      }
    }
  });
}

// What a decoder's other attention does: queries anywhere, keys of another run.
TEST(Backend, TokensSeeAllKeysOfAnotherRun) {
  nb_backend *cpu = nb_backend_cpu();
  nibble_error err = {};
  const int64_t sequences = 2, heads = 3, dim = 16, keys = 57, tokens = 5;
  auto q = RandomFloats(sequences * tokens * heads * dim, 1), k = RandomFloats(sequences * keys * heads * dim, 2);
  auto v = RandomFloats(sequences * keys * heads * dim, 3);
  ForEachIsa([&] {
    Buffer qs(q), ks(k), vs(v), out(sequences * tokens * heads * dim);
    nb_attention_shape shape = {};
    shape.sequences = sequences, shape.heads = shape.kv_heads = heads, shape.head_dim = dim;
    shape.capacity = 64, shape.keys = keys, shape.window = 3, shape.tokens = keys, shape.scale = 1;
    nb_kv_cache *cache = nullptr;
    ASSERT_EQ(cpu->kv_create(cpu, &shape, &cache, &err), NIBBLE_OK) << err.message;
    const nb_qkv rows = {nullptr, ks.b, vs.b};
    cpu->store(cpu, &shape, nullptr, &rows, cache);
    shape.start = 1000, shape.tokens = tokens;
    cpu->attention(cpu, &shape, qs.b, cache, nullptr, out.b);
    for (int64_t row = 0; row < sequences * tokens; row++) {
      for (int64_t h = 0; h < heads; h++) {
        int64_t kv = row / tokens * keys * heads * dim + h * dim, at = (row * heads + h) * dim;
        auto want = Attended(&q[at], &k[kv], &v[kv], heads * dim, 0, keys, dim, 1, nullptr);
        for (int64_t i = 0; i < dim; i++)
          ASSERT_NEAR(out.data()[at + i], want[i], 2e-5) << row << ", " << h << ", " << i;
      }
    }
    cpu->kv_free(cpu, cache);
  });
}

}  // namespace
