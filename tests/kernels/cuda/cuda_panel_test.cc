// Products of many rows on the emulator: panels, narrow activations, and how a weight is cut.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/kernels/cuda/cuda_on_device.h"

#include "kernels/cuda/gemm.h"
#include "kernels/cuda/panel.h"

namespace {

// The weight as cuBLAS sees it: rounded once to the panels' type.
std::vector<float> PanelWeights(const nb_packed &m, nb_x_dtype dtype) {
  std::vector<float> out((size_t)(m.rows * m.cols));
  nb_format_info(m.format)->dequantize(nb_whole(&m), out.data(), m.cols);
  for (float &v : out) v = dtype == NB_X_BF16 ? Bf16(v) : F16(v);
  return out;
}

// Every weight to the bit, and nothing written beyond the panel.
void CheckPanels(const nb_packed &m, const nb_workspace &ws) {
  OnDevice device(m);
  const nb_tiles &t = device.w.tiles;
  int64_t width = t.col_tiles * NB_TILE_COLS;
  for (nb_x_dtype dtype : {NB_X_F16, NB_X_BF16}) {
    std::vector<float> want = PanelWeights(m, dtype);
    for (int64_t first = 0; first < m.rows; first += 64) {
      int64_t rows = std::min<int64_t>(64, m.rows - first);
      std::vector<uint16_t> panel((size_t)((rows + 1) * width), 0x7e7e);
      nb_dequantize_panel(&ws, &device.w, dtype, first, rows, panel.data());
      for (int64_t i = 0; i < rows * width; i++) {
        int64_t row = first + i / width, col = device.order[(size_t)(i % width)];
        float got = dtype == NB_X_BF16 ? nb_bf16_to_f32(panel[(size_t)i]) : nb_f16_to_f32(panel[(size_t)i]);
        if (col < 0) continue;
        ASSERT_EQ(got, want[(size_t)(row * m.cols + col)])
            << nb_format_info(m.format)->name << (dtype == NB_X_BF16 ? " bfloat16 " : " float16 ") << row << " " << col;
      }
      for (int64_t i = rows * width; i < (rows + 1) * width; i++) ASSERT_EQ(panel[(size_t)i], 0x7e7e);
    }
  }
}

TEST(CudaPanel, HoldsEveryWeightRoundedOnce) {
  RandomPacked nf4(NB_FORMAT_NF4, 100, 2176), twice(NB_FORMAT_FP4, 65, 320, 64, true), int8(NB_FORMAT_INT8, 67, 130);
  RandomPacked f16(NB_FORMAT_F16, 33, 192), bf16(NB_FORMAT_BF16, 96, 67);
  RandomGptq gptq4(4, 70, 640, 128, true, false), gptq8(8, 33, 320, 64, false, true),
      uneven(4, 40, 200, 128, false, false);
  Workspace work;
  for (const nb_packed *m : {&nf4.m, &twice.m, &int8.m, &f16.m, &bf16.m, &gptq4.m, &gptq8.m, &uneven.m})
    CheckPanels(*m, work.ws);
}

// On one multiprocessor that is so short of shared memory that it takes one block: each warp has many tiles.
TEST(CudaPanel, AWarpGoesOverManyTiles) {
  RandomPacked nf4(NB_FORMAT_NF4, 64, 2624), twice(NB_FORMAT_NF4, 50, 2624, 64, true), int8(NB_FORMAT_INT8, 64, 1600);
  RandomPacked f16(NB_FORMAT_F16, 64, 1088);
  RandomGptq gptq4(4, 64, 2624, 64, true, false), gptq8(8, 64, 1600, 64, false, true);
  Workspace work(1, 99 << 10);
  for (const nb_packed *m : {&nf4.m, &twice.m, &int8.m, &f16.m, &gptq4.m, &gptq8.m}) CheckPanels(*m, work.ws);
}

// Elements of any type that float16 holds, at places that are aligned or not.
void CheckNarrow(const nb_packed &m, nb_x_dtype dtype, int64_t ldx, size_t offset) {
  const int64_t n = 3;
  OnDevice device(m);
  int64_t width = device.w.tiles.col_tiles * NB_TILE_COLS;
  size_t size = dtype == NB_X_F32 ? 4 : 2;
  std::vector<float> x = RandomFloats((size_t)(n * ldx), 7);
  std::vector<unsigned char> bytes(x.size() * size + 64, 0xff);
  x[0] = 1e6f;  // cut off, but for float16
  for (size_t i = 0; i < x.size(); i++) {
    x[i] = i == 0 && dtype == NB_X_F16 ? 65504 : Bf16(x[i]);
    uint16_t half = dtype == NB_X_F16 ? nb_f32_to_f16(x[i]) : nb_f32_to_bf16(x[i]);
    memcpy(&bytes[(i + offset) * size], dtype == NB_X_F32 ? (const void *)&x[i] : &half, size);
  }
  std::vector<uint16_t> out((size_t)(n * width), 0x7e7e);
  nb_narrow(nullptr, &device.w, {&bytes[offset * size], dtype, ldx, n}, false, out.data());
  for (int64_t i = 0; i < n * width; i++) {
    int64_t col = device.order[(size_t)(i % width)];
    float v = col < 0 ? 0 : x[(size_t)(i / width * ldx + col)] * (dtype == NB_X_F16 ? 1 : NB_X_SCALE);
    ASSERT_EQ(nb_f16_to_f32(out[(size_t)i]), std::min(F16(v), 65504.0f)) << i << " of type " << dtype;
  }
}

TEST(CudaPanel, NarrowActivationsLieAsTheWeightIsTiled) {
  RandomPacked whole(NB_FORMAT_INT8, 2, 1088), padded(NB_FORMAT_INT8, 2, 4168), odd(NB_FORMAT_INT8, 2, 131);
  RandomGptq ordered(4, 32, 640, 128, true, true);
  for (nb_x_dtype dtype : {NB_X_F32, NB_X_F16, NB_X_BF16}) {
    CheckNarrow(whole.m, dtype, 1088, 0);
    CheckNarrow(whole.m, dtype, 1096, 0);
    CheckNarrow(whole.m, dtype, 1088, 1);
    CheckNarrow(padded.m, dtype, 4168, 0);
    CheckNarrow(odd.m, dtype, 135, 0);
    CheckNarrow(ordered.m, dtype, 640, 0);
  }
}

// What a product with panels is to give, of which type they are, and how the activations are passed.
struct PanelCase {
  const nb_packed *m;
  nb_x_dtype dtype, panels;
  int64_t panel_rows;  // room for so many; 0: for the whole weight
  bool bias, accumulate, captured;
};

void CheckPanelProduct(const PanelCase &c) {
  const nb_packed &m = *c.m;
  const int n = 5;
  OnDevice device(m);
  Workspace work;
  int64_t width = device.w.tiles.col_tiles * NB_TILE_COLS, rows = c.panel_rows ? c.panel_rows : m.rows + 32;
  std::vector<float> x = RandomFloats((size_t)(n * m.cols), 7), bias = RandomFloats((size_t)m.rows, 8);
  std::vector<float> y = RandomFloats((size_t)(n * m.rows), 9), weights = PanelWeights(m, c.panels);
  std::vector<double> want, size;
  std::vector<uint16_t> half(x.size()), narrow((size_t)(n * width)), panel((size_t)(rows * width), 0x7fff);
  for (size_t i = 0; i < x.size(); i++) {
    x[i] = Bf16(x[i]);
    half[i] = c.dtype == NB_X_F16 ? nb_f32_to_f16(x[i]) : nb_f32_to_bf16(x[i]);
    if (c.dtype == NB_X_F16) x[i] = F16(x[i]);
  }
  for (int64_t i = 0; i < n * m.rows; i++) {
    double sum = 0, absolute = 0;
    if (c.bias) sum += bias[(size_t)(i % m.rows)];
    if (c.accumulate) sum += y[(size_t)i];
    for (int64_t l = 0; l < m.cols; l++) {
      double product = (double)x[(size_t)(i / m.rows * m.cols + l)] * weights[(size_t)(i % m.rows * m.cols + l)];
      sum += product, absolute += std::fabs(product);
    }
    want.push_back(sum), size.push_back(absolute + std::fabs(sum));
  }
  nb_device_layer layer = {};
  layer.w = device.w, layer.y = y.data(), layer.accumulate = c.accumulate, layer.bias = c.bias ? bias.data() : nullptr;
  nb_gemm *gemm = nb_gemm_create(nullptr);
  cudaGraph_t graph = nullptr;
  if (c.captured) cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeRelaxed);
  const nb_device_rows at = {c.dtype == NB_X_F32 ? (const void *)x.data() : half.data(), c.dtype, m.cols, n};
  const nb_gemm_room room = {narrow.data(), panel.data(), rows * width};
  EXPECT_TRUE(nb_product_gemm(gemm, &work.ws, &layer, at, &room));
  if (c.captured) {
    cudaStreamEndCapture(nullptr, &graph);
    cudaGraphLaunch(graph, nullptr);
    cudaGraphDestroy(graph);
  }
  nb_gemm_free(gemm);
  ExpectClose(y, want, size, 2e-6,
              std::string(nb_format_info(m.format)->name) + " in panels of " + std::to_string(rows));
}

TEST(CudaPanel, ProductsAreThoseOfTheRoundedWeights) {
  RandomPacked nf4(NB_FORMAT_NF4, 150, 320), int8(NB_FORMAT_INT8, 161, 131), twice(NB_FORMAT_NF4, 97, 128, 64, true);
  RandomGptq ordered(4, 100, 384, 128, true, false);
  for (bool captured : {false, true}) {
    for (int64_t panel_rows : {0, 32, 64}) {
      for (int more = 0; more < 4; more++) {
        if (Sanitized() && (panel_rows == 64 || (captured ? more != 0 : more != 3))) continue;
        bool bias = more & 1, accumulate = more & 2;
        CheckPanelProduct({&nf4.m, NB_X_BF16, NB_X_BF16, panel_rows, bias, accumulate, captured});
        CheckPanelProduct({&nf4.m, NB_X_F16, NB_X_F16, panel_rows, bias, accumulate, captured});
        CheckPanelProduct({&twice.m, NB_X_F32, NB_X_F16, panel_rows, bias, accumulate, captured});
        CheckPanelProduct({&int8.m, NB_X_BF16, NB_X_F16, panel_rows, bias, accumulate, captured});
        CheckPanelProduct({&ordered.m, NB_X_BF16, NB_X_F16, panel_rows, bias, accumulate, captured});
      }
    }
  }
}

nb_device_matrix Shape(int64_t rows, int64_t cols) {
  nb_device_matrix w = {};
  nb_packed m = {};
  m.format = NB_FORMAT_INT8, m.rows = rows, m.cols = cols;
  EXPECT_TRUE(nb_tiles_plan(&m, &w.tiles));
  return w;
}

// Of what a product is given it takes no more than it asked for, and whatever that is, it is cut the same way.
TEST(CudaPanel, RoomIsNoMoreThanWanted) {
  for (auto [rows, cols] : {std::pair<int64_t, int64_t>{4096, 14336}, {14336, 4096}, {8192, 28672}, {33, 64}}) {
    nb_device_matrix w = Shape(rows, cols);
    for (int64_t most : {int64_t(1), int64_t(100) * cols, int64_t(64) << 20, int64_t(128) << 20}) {
      int64_t wanted = nb_gemm_panel_elements(&w, most);
      EXPECT_LE(wanted, std::max(most, 32 * cols)) << rows << " " << cols;
      EXPECT_GE(wanted, std::min<int64_t>(32, rows) * cols);
      EXPECT_EQ(nb_gemm_panel_elements(&w, wanted), wanted) << rows << " " << cols;
    }
  }
}

TEST(CudaPanel, AWeightIsCutInEqualPartsOnlyWhereItMustBe) {
  const int64_t room = 128 << 20;
  nb_device_matrix whole = Shape(4096, 14336), halves = Shape(8192, 28672), head = Shape(128256, 4096),
                   small = Shape(96, 64);
  EXPECT_EQ(nb_gemm_panel_elements(&whole, room), 4096 * 14336);
  EXPECT_EQ(nb_gemm_panel_elements(&halves, room), 4096 * 28672);
  EXPECT_EQ(nb_gemm_panel_elements(&head, room), 32256 * 4096);  // 126 times 256: 4 parts
  EXPECT_EQ(nb_gemm_panel_elements(&small, 95 * 64), 64 * 64);
}

}  // namespace
