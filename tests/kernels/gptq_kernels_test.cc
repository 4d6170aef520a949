// The vector kernels of GPTQ's formats against the plain ones.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <set>

#include "tests/random_packed.h"

extern "C" {
#include "kernels/cpu/isa.h"
#include "kernels/cpu/kernels.h"
#include "kernels/gptq.h"
#include "kernels/matmul.h"
#include "kernels/q8.h"
#include "tests/kernels/exact.h"
}

namespace {

enum Columns { kInOrder, kShuffled, kUneven };  // groups: runs of columns, any columns, and any number of them

struct RandomGptq {
  nb_packed m = {};
  std::vector<uint32_t> words;
  std::vector<uint8_t> scales, zeros;
  std::vector<int32_t> g_idx;

  RandomGptq(int bits, int64_t rows, int64_t cols, int64_t group_size, Columns columns, nb_dtype scale_dtype) {
    std::mt19937 rng(unsigned(bits * 1000 + rows * 7 + cols));
    nb_gptq_format(bits, &m.format);
    m.rows = rows, m.cols = cols, m.scale.block_cols = group_size, m.groups = (cols + group_size - 1) / group_size;
    words.resize(nb_gptq_words(cols, bits) * rows);
    for (uint32_t &w : words) w = rng();
    std::vector<float> values(m.groups * rows);
    for (float &v : values) v = 0.01f + float(rng() % 1000) / 1000;
    scales.resize(values.size() * nb_dtype_size(scale_dtype));
    nb_from_f32(scale_dtype, values.data(), values.size(), scales.data());
    for (size_t i = 0; i < values.size(); i++) zeros.push_back(uint8_t(rng() % (1u << bits)));
    for (int64_t c = 0; c < cols; c++) g_idx.push_back(int32_t(columns == kUneven ? rng() % m.groups : c / group_size));
    if (columns == kShuffled) std::shuffle(g_idx.begin(), g_idx.end(), rng);
    m.codes = words.data(), m.scale.data = scales.data(), m.zeros = zeros.data(), m.scale.dtype = scale_dtype;
    m.scale.block_rows = 1;
    if (columns != kInOrder) m.g_idx = g_idx.data();
  }
  RandomGptq(const RandomGptq &) = delete;
};

struct Shape {
  int64_t rows, cols, group_size;
};
const Shape kShapes[] = {{32, 64, 32}, {48, 96, 64},  {64, 576, 64},  {33, 65, 32},  {16, 127, 128}, {7, 257, 48},
                         {1, 3, 32},   {96, 640, 16}, {50, 128, 128}, {80, 192, 64}, {192, 128, 32}};

template <typename F>
void OnEveryIsa(F body) {
  nb_isa before = nb_isa_current();
  for (int isa = 0; isa < NB_ISA_COUNT; isa++) {
    if (!nb_isa_use((nb_isa)isa)) continue;
    SCOPED_TRACE(nb_isa_name((nb_isa)isa));
    for (int bits : {2, 3, 4, 8}) {
      for (const Shape &s : kShapes) {
        for (Columns columns : {kInOrder, kShuffled, kUneven}) {
          nb_dtype dtype = bits == 4 ? NB_F16 : bits == 3 ? NB_BF16 : NB_F32;
          RandomGptq w(bits, s.rows, s.cols, s.group_size, columns, dtype);
          SCOPED_TRACE(testing::Message() << bits << " bits [" << s.rows << ", " << s.cols << "] groups of "
                                          << s.group_size << ", columns " << columns);
          body(w.m);
        }
      }
    }
  }
  nb_isa_use(before);
}

// A copy of m in bands, or m itself where it is not to be had.
struct Repacked {
  nb_packed m;
  void *memory = nullptr;
  explicit Repacked(const nb_packed &from) : m(from) {
    if (nb_gptq_repackable(&from)) nb_gptq_repack(&from, &m, &memory);
  }
  ~Repacked() { free(memory); }
};

TEST(GptqKernels, RepackingMovesWeightsAndChangesNone) {
  OnEveryIsa([](const nb_packed &m) {
    Repacked r(m);
    ASSERT_EQ(r.memory != nullptr, nb_gptq_repackable(&m));
    if (!r.memory) return;
    std::vector<float> want(m.rows * m.cols), got(want.size());
    nb_gptq_dequantize(nb_whole(&m), want.data(), m.cols);
    nb_gptq_dequantize({&r.m, 0, m.rows, 0, m.cols}, got.data(), m.cols);
    for (int64_t row = 0; row < m.rows; row++) {
      for (int64_t c = 0; c < m.cols; c++) {
        int64_t from = r.m.order ? r.m.order[c] : c;
        ASSERT_EQ(got[row * m.cols + c], want[row * m.cols + from]) << "row " << row << " column " << c;
      }
    }
    for (int64_t c = 0; r.m.order && c < m.cols; c++) ASSERT_EQ(m.g_idx[r.m.order[c]], c / r.m.scale.block_cols);
  });
}

TEST(GptqKernels, ShuffledGroupsOfFullSizeAreSorted) {
  RandomGptq shuffled(4, 64, 576, 64, kShuffled, NB_F16), uneven(4, 64, 576, 64, kUneven, NB_F16);
  Repacked sorted(shuffled.m), kept(uneven.m);
  EXPECT_TRUE(sorted.m.order && !sorted.m.g_idx);
  // A reader cannot tell the size of shuffled groups from their number where the last is short.
  RandomGptq unsized(4, 64, 576, 128, kShuffled, NB_F16);
  unsized.m.scale.block_cols = 116;
  Repacked sized(unsized.m);
  EXPECT_TRUE(sized.m.order && sized.m.scale.block_cols == 128);
  EXPECT_TRUE(kept.m.band && !kept.m.order && kept.m.g_idx);
}

TEST(GptqKernels, UnpackAnyTileAsThePlainOneDoes) {
  OnEveryIsa([](const nb_packed &given) {
    for (bool repack : {false, true}) {
      Repacked repacked(given);
      const nb_packed &m = repack ? repacked.m : given;
      const int64_t tiles[][2] = {{0, 0}, {1, 5}, {0, 32}, {16, 31}, {3, 33}};
      for (auto [row, col] : tiles) {
        if (row >= m.rows || col >= m.cols) continue;
        int64_t rows = m.rows - row, cols = m.cols - col, stride = cols + 3;
        std::vector<float> got(rows * stride, -7), want = got;
        nb_gptq_dequantize({&m, row, rows, col, cols}, want.data(), stride);
        nb_dequantizer(m.format)({&m, row, rows, col, cols}, got.data(), stride);
        for (size_t i = 0; i < got.size(); i++) {
          ASSERT_EQ(got[i], want[i]) << "tile at " << row << ", " << col << ", row " << i / stride << " column "
                                     << i % stride;
        }
      }
    }
  });
}

TEST(GptqKernels, MultiplyAsTheUnpackedWeightsDo) {
  OnEveryIsa([](const nb_packed &m) {
    std::vector<float> w(m.rows * m.cols);
    nb_gptq_dequantize(nb_whole(&m), w.data(), m.cols);
    Repacked repacked(m);
    for (bool repack : {false, true})
      for (int64_t n : {1, 2, 3, 5, 40}) {
        std::mt19937 rng(5);
        std::normal_distribution<float> normal(0, 1);
        std::vector<float> x(n * m.cols), y(n * m.rows);
        for (float &v : x) v = normal(rng);
        nb_matmul(repack ? &repacked.m : &m, x.data(), m.cols, n, y.data(), m.rows);
        for (int64_t i = 0; i < n; i++) {
          for (int64_t r = 0; r < m.rows; r++) {
            auto [sum, size] = nb_exact_dot(&x[i * m.cols], &w[r * m.cols], m.cols);
            ASSERT_NEAR(y[i * m.rows + r], sum, 1e-5 * size) << "n " << n << " row " << i << " feature " << r;
          }
        }
      }
  });
}

// A model is loaded once; another instruction set's bands are as wide as its own vectors like them.
TEST(GptqKernels, BandsThatWereMadeForOtherVectorsGiveTheSameProducts) {
  RandomGptq w(4, 160, 128, 32, kInOrder, NB_F16);
  const int64_t rows = w.m.rows, cols = w.m.cols, n = 3;
  std::vector<float> x = RandomFloats(n * cols, 7), weights(rows * cols);
  nb_gptq_dequantize(nb_whole(&w.m), weights.data(), cols);
  std::set<int> bands;
  ForEachIsa([&] {
    Repacked repacked(w.m);
    bands.insert(repacked.m.band);
    ForEachIsa([&] {
      for (bool in_integers : {false, true}) {
        std::vector<float> y(n * rows);
        nb_product p = {};
        p.w = &repacked.m, p.x = x.data(), p.ldx = cols, p.y = y.data(), p.ldy = rows;
        if (in_integers) {
          ASSERT_TRUE(nb_q8_matmul(&p, 1, n));
        } else {
          nb_matmul_many(&p, 1, n);
        }
        for (int64_t i = 0; i < n * rows; i++) {
          double sum = 0, size = 0;
          for (int64_t c = 0; c < cols; c++) {
            double term = (double)x[i / rows * cols + c] * weights[i % rows * cols + c];
            sum += term, size += std::abs(term);
          }
          // Rounding x to eight bits moves each term by half a step of 127 to the largest x at most.
          ASSERT_NEAR(y[i], sum, (in_integers ? 2e-2 : 1e-5) * size) << i;
        }
      }
    });
  });
  EXPECT_TRUE(bands.count(16)) << "of the scalar kernels";
  EXPECT_GT(bands.size(), nb_isa_available(NB_ISA_AVX2) ? 1u : 0u);
}

}  // namespace
