// GPTQ's kernels, emulated, and the host's side around stand-ins of cuBLAS and cuSOLVER, against the CPU's solver.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "tests/support.h"

extern "C" {
#include "base/context.h"
#include "base/parallel.h"
#include "quant/gptq.h"
}

namespace {

struct Layer {
  int64_t rows, cols, tokens;
  std::vector<float> w, x;
  mutable nb_dense_layer dense;

  const nb_dense_layer *Dense() const {
    dense = {w.data(), rows, cols};
    return &dense;
  }

  Layer(int64_t rows, int64_t cols, int64_t tokens) : rows(rows), cols(cols), tokens(tokens) {
    std::mt19937 rng((unsigned)(rows * 31 + cols));
    std::normal_distribution<float> normal(0, 1);
    for (int64_t i = 0; i < rows * cols; i++) w.push_back(normal(rng) * 0.05f);
    std::vector<float> scale;
    for (int64_t j = 0; j < cols; j++) scale.push_back(std::exp(normal(rng)));
    scale[(size_t)(cols / 2)] = 0;  // an input that is never other than zero
    for (int64_t t = 0; t < tokens; t++) {
      float shared = normal(rng);
      for (int64_t j = 0; j < cols; j++) x.push_back((normal(rng) + shared) * scale[(size_t)j]);
    }
  }

  nb_hessian Hessian(nibble_device device) const {
    nb_hessian h;
    nibble_error err = {};
    const nibble_context context = {1, device, 0, nullptr, nullptr};
    EXPECT_EQ(nb_hessian_create(&context, cols, &h, &err), NIBBLE_OK) << err.message;
    EXPECT_EQ(h.gpu != nullptr, device != NIBBLE_DEVICE_CPU);
    for (int64_t at = 0; at < tokens; at += 50)
      nb_hessian_add(&h, x.data() + at * cols, std::min<int64_t>(50, tokens - at), cols);
    return h;
  }
};

// The emulated module in the place of libnibble_cuda.so.
class CudaGptq : public ::testing::Test {
 protected:
  void SetUp() override {
    nb_threads_use(1);
    nb_cuda_module_set(nibble_cuda_module(1));
  }
  void TearDown() override {
    nb_cuda_module_set(nullptr);
    nb_threads_use(0);
  }
};

struct Case {
  int64_t rows, cols;
  nb_grid grid;
  nb_column_order order;
};

const Case kCases[] = {
    {1, 32, {4, 32, true, false, false}, NB_ORDER_NATURAL},
    {33, 96, {4, 32, true, false, false}, NB_ORDER_GROUPS},
    {9, 127, {4, 64, false, false, true}, NB_ORDER_ACTIVATION},
    {17, 128, {3, 128, false, true, false}, NB_ORDER_ACTIVATION},
    {8, 101, {2, 0, true, true, true}, NB_ORDER_NATURAL},
    {5, 65, {8, 32, true, false, false}, NB_ORDER_GROUPS},
    {40, 257, {4, 128, true, false, false}, NB_ORDER_GROUPS},
    {13, 320, {4, 64, false, true, false}, NB_ORDER_ACTIVATION},
    {7, 300, {4, 192, true, false, false}, NB_ORDER_ACTIVATION},
    {21, 272, {4, 0, false, false, true}, NB_ORDER_NATURAL},
};

std::string Name(const Case &c) {
  return std::to_string(c.grid.bits) + " bits [" + std::to_string(c.rows) + ", " + std::to_string(c.cols) +
         "] groups of " + std::to_string(c.grid.group_size);
}

TEST_F(CudaGptq, HessianAndFactorAreThoseOfTheCpu) {
  for (int64_t n : {1, 31, 130}) {
    Layer layer(1, n, 120);
    nb_hessian h[2] = {layer.Hessian(NIBBLE_DEVICE_CPU), layer.Hessian(NIBBLE_DEVICE_CUDA)};
    nb_factor f[2];
    nb_factor_options options = {};
    options.order = NB_ORDER_ACTIVATION, options.damp = 0.01;
    for (int i = 0; i < 2; i++) ASSERT_EQ(nb_hessian_factorize(&h[i], &options, &f[i], nullptr), NIBBLE_OK);
    EXPECT_FALSE(f[1].is_indefinite);
    EXPECT_EQ(f[0].damp, f[1].damp);
    double largest = 0;
    for (int64_t i = 0; i < n * n; i++) largest = std::max(largest, (double)std::fabs(h[0].sum[i]));
    for (int64_t i = 0; i < n * n; i++) ASSERT_NEAR(h[0].sum[i], h[1].sum[i], 1e-5 * largest) << n << " " << i;
    for (int64_t i = 0; i < n * n; i++)
      ASSERT_NEAR(f[0].upper[i], f[1].upper[i], 1e-3 * std::fabs(f[0].upper[i / n * n + i / n])) << n << " " << i;
    for (int i = 0; i < 2; i++) nb_factor_free(&f[i]), nb_hessian_free(&h[i]);
  }
}

TEST_F(CudaGptq, DampingGrowsAsOnTheCpuAndWhatIsIndefiniteIsRounded) {
  // Fewer tokens than columns need damping; what is infinite is past it.
  Layer layer(4, 64, 10);
  for (bool is_spoilt : {false, true}) {
    nb_factor f[2];
    nb_hessian h[2] = {layer.Hessian(NIBBLE_DEVICE_CPU), layer.Hessian(NIBBLE_DEVICE_CUDA)};
    nb_factor_options options = {};
    nb_grid grid = {4, 32, true, false, false};
    if (is_spoilt) {
      std::vector<float> big(64, 3e38f);
      for (int i = 0; i < 2; i++) nb_hessian_add(&h[i], big.data(), 1, 64);
    }
    nb_rounded rounded[2];
    for (int i = 0; i < 2; i++) {
      ASSERT_EQ(nb_hessian_factorize(&h[i], &options, &f[i], nullptr), NIBBLE_OK);
      ASSERT_EQ(nb_gptq_solve(layer.Dense(), &grid, &h[i], &f[i], &rounded[i], nullptr), NIBBLE_OK);
      EXPECT_EQ(rounded[i].is_fallback, is_spoilt);
    }
    EXPECT_EQ(f[0].damp, f[1].damp);
    EXPECT_EQ(f[0].is_indefinite, f[1].is_indefinite);
    for (int i = 0; i < 2; i++) nb_rounded_free(&rounded[i]), nb_factor_free(&f[i]), nb_hessian_free(&h[i]);
  }
}

// With the CPU's factor. As long as all columns are in one block nothing is added in another order, and the bits are
// the same; between blocks the libraries' sums round differently, and few codes change.
TEST_F(CudaGptq, SolvesAsTheCpuDoesOnRaggedShapes) {
  for (const Case &c : kCases) {
    Layer layer(c.rows, c.cols, 2 * c.cols);
    nb_hessian h = layer.Hessian(NIBBLE_DEVICE_CPU), on_gpu = layer.Hessian(NIBBLE_DEVICE_CUDA);
    nb_factor f;
    nb_factor_options options = {};
    options.group_size = c.grid.group_size, options.order = c.order, options.damp = 0.02;
    ASSERT_EQ(nb_hessian_factorize(&h, &options, &f, nullptr), NIBBLE_OK);
    nb_rounded cpu, gpu;
    nibble_error err = {};
    ASSERT_EQ(nb_gptq_solve(layer.Dense(), &c.grid, &h, &f, &cpu, &err), NIBBLE_OK) << err.message;
    ASSERT_EQ(nb_gptq_solve(layer.Dense(), &c.grid, &on_gpu, &f, &gpu, &err), NIBBLE_OK) << err.message;
    int64_t other = 0, count = c.rows * c.cols, scales = 0;
    for (int64_t i = 0; i < count; i++) other += cpu.codes[i] != gpu.codes[i];
    for (int64_t i = 0; i < cpu.groups * c.rows; i++)
      scales += cpu.scales[i] != gpu.scales[i] || cpu.zeros[i] != gpu.zeros[i];
    EXPECT_LE(other, c.cols <= 128 ? 0 : count / 100) << Name(c);
    EXPECT_LE(scales, c.cols <= 128 ? 0 : cpu.groups * c.rows / 20) << Name(c);
    EXPECT_NEAR(cpu.error / gpu.error, 1, c.cols <= 128 ? 1e-5 : 1e-2) << Name(c);
    EXPECT_NEAR(cpu.rtn_error / gpu.rtn_error, 1, 1e-5) << Name(c);
    EXPECT_NEAR(cpu.weight_squares / gpu.weight_squares, 1, 1e-9) << Name(c);
    EXPECT_NEAR(cpu.weight_error / gpu.weight_error, 1, c.cols <= 128 ? 1e-9 : 1e-2) << Name(c);
    EXPECT_EQ(cpu.mended, gpu.mended) << Name(c);
    EXPECT_EQ(std::vector<int32_t>(cpu.g_idx, cpu.g_idx + c.cols), std::vector<int32_t>(gpu.g_idx, gpu.g_idx + c.cols));
    nb_rounded_free(&cpu), nb_rounded_free(&gpu), nb_factor_free(&f), nb_hessian_free(&h), nb_hessian_free(&on_gpu);
  }
}

// What one Hessian makes of a layer: its factor, and the codes that the layer is rounded to.
struct Solved {
  std::vector<float> sum, upper;
  std::vector<uint8_t> codes;
  std::vector<uint16_t> scales;

  bool operator==(const Solved &o) const {
    return sum == o.sum && upper == o.upper && codes == o.codes && scales == o.scales;
  }
};

Solved Solve(const Layer &layer, nb_hessian *h) {
  Solved out;
  nb_factor f = {};
  nb_factor_options options = {};
  nb_grid grid = {4, 32, true, false, false};
  nb_rounded rounded = {};
  nibble_error err = {};
  options.group_size = grid.group_size, options.damp = 0.02;
  EXPECT_EQ(nb_hessian_factorize(h, &options, &f, &err), NIBBLE_OK) << err.message;
  EXPECT_EQ(nb_gptq_solve(layer.Dense(), &grid, h, &f, &rounded, &err), NIBBLE_OK) << err.message;
  out.sum.assign(h->sum, h->sum + layer.cols * layer.cols);
  out.upper.assign(f.upper, f.upper + layer.cols * layer.cols);
  out.codes.assign(rounded.codes, rounded.codes + layer.rows * layer.cols);
  out.scales.assign(rounded.scales, rounded.scales + layer.rows * rounded.groups);
  nb_rounded_free(&rounded), nb_factor_free(&f);
  return out;
}

TEST_F(CudaGptq, HessiansThatAreGatheredByTurnsKeepApart) {
  // Of two widths, and two of one width; the sums on the device would mix if any of it were shared.
  const Layer layers[] = {Layer(9, 64, 150), Layer(5, 96, 150), Layer(12, 64, 150)};
  Solved alone[3], together[3];
  for (int i = 0; i < 3; i++) {
    nb_hessian h = layers[i].Hessian(NIBBLE_DEVICE_CUDA);
    alone[i] = Solve(layers[i], &h);
    nb_hessian_free(&h);
  }
  nb_hessian h[3];
  nibble_error err = {};
  const nibble_context context = {1, NIBBLE_DEVICE_CUDA, 0, nullptr, nullptr};
  for (int i = 0; i < 3; i++)
    ASSERT_EQ(nb_hessian_create(&context, layers[i].cols, &h[i], &err), NIBBLE_OK) << err.message;
  for (int64_t at = 0; at < 150; at += 50) {
    for (int i = 0; i < 3; i++) nb_hessian_add(&h[i], layers[i].x.data() + at * layers[i].cols, 50, layers[i].cols);
  }
  // One goes before the others are solved, the last of them first.
  together[1] = Solve(layers[1], &h[1]);
  nb_hessian_free(&h[1]);
  for (int i : {2, 0}) {
    together[i] = Solve(layers[i], &h[i]);
    nb_hessian_free(&h[i]);
  }
  for (int i = 0; i < 3; i++) EXPECT_TRUE(alone[i] == together[i]) << "layer " << i;
}

}  // namespace
