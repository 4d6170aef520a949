// The CUDA kernels of kernels/cuda, run on the CPU by tests/cuda_emulator.h, against plain sums of dequantized weights.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <random>

#include "tests/golden_weights.h"
#include "tests/kernels/cuda/cuda_emulator.h"
#include "tests/kernels/cuda/cuda_on_device.h"
#include "tests/random_packed.h"
#include "tests/support.h"

extern "C" {
#include "base/checked.h"
#include "base/context.h"
#include "base/dtype.h"
#include "kernels/backend.h"
#include "kernels/cuda/alone/check.h"
#include "kernels/gptq.h"
#include "kernels/int8.h"
#include "kernels/ops.h"
#include "kernels/quantize.h"
#include "runner/device.h"
#include "runner/session.h"
}
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/matrix.h"
#include "kernels/cuda/memory.h"
#include "kernels/cuda/module.h"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/quantize.h"

namespace {

// The weight as the tensor cores see it: values of nf4 and fp4 are rounded before they are scaled.
std::vector<float> Weights(nb_packed m) {
  float rounded[16];
  if (m.codebook) {
    for (int i = 0; i < 16; i++) rounded[i] = F16(m.codebook[i]);
    m.codebook = rounded;
  }
  std::vector<float> out((size_t)(m.rows * m.cols));
  nb_format_info(m.format)->dequantize(nb_whole(&m), out.data(), m.cols);
  return out;
}

// y [n, rows] = x W^T in double, and the size of each sum.
void Reference(const nb_packed &m, const std::vector<float> &x, int n, std::vector<double> *y,
               std::vector<double> *size) {
  std::vector<float> w = Weights(m);
  y->assign((size_t)(n * m.rows), 0), size->assign((size_t)(n * m.rows), 0);
  for (int i = 0; i < n; i++) {
    const float *row_x = &x[(size_t)(i * m.cols)];
    for (int64_t r = 0; r < m.rows; r++) {
      const float *row_w = &w[(size_t)(r * m.cols)];
      double sum = 0, sum_of_sizes = 0;
      for (int64_t c = 0; c < m.cols; c++) {
        double product = (double)row_x[c] * row_w[c];
        sum += product;
        sum_of_sizes += std::fabs(product);
      }
      (*y)[(size_t)(i * m.rows + r)] = sum;
      (*size)[(size_t)(i * m.rows + r)] = sum_of_sizes;
    }
  }
}

// One layer, activations already exact in 16 bits, so that only the order of additions differs.
void CheckProduct(const nb_packed &m, int n, nb_x_dtype dtype, int processors, int64_t shared_limit = 227 << 10) {
  OnDevice device(m);
  Workspace work(processors, shared_limit);
  std::vector<float> x = RandomFloats((size_t)(n * m.cols), 7);
  std::vector<uint16_t> narrow(x.size());
  for (size_t i = 0; i < x.size(); i++) {
    narrow[i] = dtype == NB_X_F16 ? nb_f32_to_f16(Bf16(x[i])) : nb_f32_to_bf16(x[i]);
    x[i] = Bf16(x[i]);
  }
  std::vector<double> want, size;
  Reference(m, x, n, &want, &size);
  std::vector<float> y((size_t)(n * m.rows), NAN);
  nb_device_layer layer = {};
  layer.w = device.w;
  layer.y = y.data();
  const void *at = dtype == NB_X_F32 ? (const void *)x.data() : narrow.data();
  ASSERT_TRUE(nb_product_small(&work.ws, &layer, 1, {at, dtype, m.cols, n}));
  ExpectClose(y, want, size, 2e-6,
              std::string(nb_format_info(m.format)->name) + " [" + std::to_string(m.rows) + ", " +
                  std::to_string(m.cols) + "] with " + std::to_string(n));
  for (unsigned a : work.arrived) ASSERT_EQ(a, 0u);
}

const int64_t kShapes[][2] = {{1, 64}, {33, 64}, {32, 640}, {65, 1088}, {257, 320}};

TEST(CudaProduct, NfFpMatchesPlainSumsOnRaggedShapes) {
  for (auto [rows, cols] : kShapes) {
    for (int n : {1, 3, 8, 9, 17, 64}) {
      if (Sanitized() && n != 9) continue;
      RandomPacked nf4(NB_FORMAT_NF4, rows, cols), fp4(NB_FORMAT_FP4, rows, cols, 64, true);
      CheckProduct(nf4.m, n, NB_X_BF16, 3);
      CheckProduct(fp4.m, n, NB_X_F32, 3);
    }
  }
  RandomPacked wide(NB_FORMAT_NF4, 40, 1024, 256, true);
  CheckProduct(wide.m, 2, NB_X_F32, 40);
}

TEST(CudaProduct, Int8MatchesPlainSumsOnRaggedShapes) {
  for (auto [rows, cols] : kShapes) {
    for (int n : {1, 5, 16, 33}) {
      RandomPacked m(NB_FORMAT_INT8, rows, cols);
      CheckProduct(m.m, n, n == 5 ? NB_X_F32 : NB_X_BF16, 3);
    }
  }
  RandomPacked odd(NB_FORMAT_INT8, 35, 131);
  CheckProduct(odd.m, 2, NB_X_F32, 3);
}

TEST(CudaProduct, SixteenBitWeightsMatchPlainSumsOnRaggedShapes) {
  for (auto [rows, cols] : kShapes) {
    for (int n : {1, 4, 12, 40}) {
      RandomPacked f16(NB_FORMAT_F16, rows, cols), bf16(NB_FORMAT_BF16, rows, cols + 3);
      CheckProduct(f16.m, n, n == 4 ? NB_X_F16 : NB_X_F32, 3);
      CheckProduct(bf16.m, n, n == 4 ? NB_X_BF16 : NB_X_F32, 3);
    }
  }
}

TEST(CudaProduct, GptqMatchesPlainSumsOnRaggedShapes) {
  struct {
    int bits;
    int64_t rows, cols, group;
    bool act_order, bf16;
  } cases[] = {{4, 33, 256, 128, false, false}, {4, 64, 640, 128, true, true},    {4, 40, 200, 128, false, false},
               {4, 32, 320, 64, true, false},   {8, 65, 384, 128, false, true},   {8, 32, 512, 128, true, false},
               {4, 32, 96, 96, false, false},   {8, 33, 1100, 1100, false, false}};
  for (auto &c : cases) {
    RandomGptq m(c.bits, c.rows, c.cols, c.group, c.act_order, c.bf16);
    for (int n : {1, 7, 20}) CheckProduct(m.m, n, n == 7 ? NB_X_BF16 : NB_X_F32, 3);
  }
}

TEST(CudaProduct, SplitsOfTheColumnsAddUp) {
  RandomPacked nf4(NB_FORMAT_NF4, 64, 6400), int8(NB_FORMAT_INT8, 96, 4224);
  for (int n : {1, 4, 8, 16, 64}) {
    CheckProduct(nf4.m, n, NB_X_BF16, 132);
    CheckProduct(nf4.m, n, NB_X_F32, 40);
    CheckProduct(int8.m, n, n == 8 ? NB_X_F16 : NB_X_F32, 132);
  }
}

// 99 KiB is what smaller chips give a block: activations come in chunks then.
TEST(CudaProduct, ActivationsThatDoNotFitComeInChunks) {
  RandomPacked nf4(NB_FORMAT_NF4, 100, 3200), twice(NB_FORMAT_FP4, 70, 3136, 64, true), int8(NB_FORMAT_INT8, 65, 3300);
  for (int n : {8, 16, 33, 64}) {
    if (Sanitized() && n != 33) continue;
    for (int processors : {1, 5}) {
      CheckProduct(nf4.m, n, NB_X_BF16, processors, 99 << 10);
      CheckProduct(twice.m, n, NB_X_F32, processors, 99 << 10);
      CheckProduct(int8.m, n, NB_X_F32, processors, 99 << 10);
    }
  }
}

// 163 KiB, which an A100 gives a block, leave room for chunks of fewer units than a warp has tiles in flight.
TEST(CudaProduct, ChunksMayBeShorterThanWhatIsInFlight) {
  RandomPacked nf4(NB_FORMAT_NF4, 100, 3200), twice(NB_FORMAT_FP4, 70, 3136, 64, true);
  for (int processors : {1, 5}) {
    CheckProduct(nf4.m, 16, NB_X_BF16, processors, 163 << 10);
    CheckProduct(twice.m, 8, NB_X_F16, processors, 163 << 10);
  }
}

TEST(CudaProduct, ABlockGoesThroughManyNarrowSets) {
  RandomPacked nf4(NB_FORMAT_NF4, 1000, 64), int8(NB_FORMAT_INT8, 1000, 130);
  for (int processors : {1, 2, 7}) {
    CheckProduct(nf4.m, 1, NB_X_F32, processors);
    CheckProduct(int8.m, 9, NB_X_BF16, processors);
    CheckProduct(int8.m, 40, NB_X_BF16, processors);
  }
}

TEST(CudaProduct, PlanGivesEveryUnitToOneBlockAndKeepsAllBusy) {
  for (int64_t sets : {1, 2, 7, 64, 112, 128, 256, 2004}) {
    for (int64_t col_tiles : {1, 5, 64, 172, 448}) {
      for (int columns : {1, 2, 8, 16, 32}) {
        nb_product_plan p;
        int stages = nb_product_stages(NB_TILED_LUT4, nb_product_n_tiles(columns));
        const nb_product_shape shape = {NB_TILED_LUT4, sets, col_tiles, columns};
        ASSERT_TRUE(nb_product_plan_make(&shape, true, stages, 132, 227 << 10, &p) ||
                    nb_product_plan_make(&shape, false, stages, 132, 227 << 10, &p));
        ASSERT_EQ(p.units, p.set_units * sets);
        ASSERT_EQ(nb_first_unit(&p, 0), 0u);
        ASSERT_EQ(nb_first_unit(&p, p.blocks), p.units);
        ASSERT_LE(p.shared_bytes, 227 << 10);
        for (uint32_t b = 0; b < p.blocks; b++) {
          uint32_t begin = nb_first_unit(&p, b), end = nb_first_unit(&p, b + 1);
          ASSERT_LE(end - begin, p.run_units ? p.units / 122 : p.units / p.blocks + 1);
          ASSERT_LT(begin, end);
          for (uint32_t u = begin; u < end; u++) ASSERT_EQ(nb_block_of_unit(&p, u), b);
        }
      }
    }
  }
}

TEST(CudaProduct, FewRowsOfFloatsKeepSixteenBits) {
  RandomPacked m(NB_FORMAT_INT8, 40, 512);
  OnDevice device(m.m);
  Workspace work;
  for (int n = 1; n <= 4; n++) {
    std::vector<float> x = RandomFloats((size_t)(n * 512), 3), y((size_t)(n * 40));
    std::vector<double> want, size;
    Reference(m.m, x, n, &want, &size);
    nb_device_layer layer = {};
    layer.w = device.w, layer.y = y.data();
    ASSERT_TRUE(nb_product_small(&work.ws, &layer, 1, {x.data(), NB_X_F32, 512, n}));
    ExpectClose(y, want, size, 1e-5, "int8");
  }
}

TEST(CudaProduct, LayersOfOneLaunchAreTheSameAsAlone) {
  const int64_t cols = 512;
  RandomPacked q(NB_FORMAT_NF4, 160, cols), k(NB_FORMAT_NF4, 33, cols), v(NB_FORMAT_NF4, 64, cols);
  OnDevice dq(q.m), dk(k.m), dv(v.m);
  for (int n : {1, 20, 64}) {
    Workspace work;
    std::vector<float> x = RandomFloats((size_t)(n * cols), 3), bias = RandomFloats(160, 4);
    std::vector<float> before = RandomFloats((size_t)(n * 160), 5);
    std::vector<std::vector<float>> together = {before, before, before}, alone = together;
    nb_device_layer layers[3] = {};
    const OnDevice *matrices[3] = {&dq, &dk, &dv};
    for (int i = 0; i < 3; i++) {
      layers[i].w = matrices[i]->w;
      layers[i].bias = i == 1 ? NULL : bias.data();
      layers[i].accumulate = i == 2;
      layers[i].y = alone[(size_t)i].data();
      ASSERT_TRUE(nb_product_small(&work.ws, &layers[i], 1, {x.data(), NB_X_F32, cols, n}));
      layers[i].y = together[(size_t)i].data();
    }
    ASSERT_TRUE(nb_product_small(&work.ws, layers, 3, {x.data(), NB_X_F32, cols, n}));
    for (size_t i = 0; i < 3; i++) {
      for (size_t e = 0; e < before.size(); e++) ASSERT_NEAR(together[i][e], alone[i][e], 1e-3) << i << " " << e;
    }
  }
}

TEST(CudaProduct, WithoutRoomForItsSumsSaysSo) {
  RandomPacked m(NB_FORMAT_NF4, 64, 6400);
  OnDevice device(m.m);
  Workspace work(132);
  work.ws.partial_floats = 10;
  std::vector<float> x(6400, 1.0f), y(64);
  nb_device_layer layer = {};
  layer.w = device.w, layer.y = y.data();
  EXPECT_FALSE(nb_product_small(&work.ws, &layer, 1, {x.data(), NB_X_F32, 6400, 1}));
}

// ---- the backend ---------------------------------------------------------------------------------------------------

nb_check CheckOf(bool small = true) {
  nibble_error err = {};
  nb_check check = {};
  check.tested = nb_backend_cuda(&err);
  check.small = small;
  check.tiny = Sanitized();  // each instruction of a fiber costs fifty times as much there
  check.report = [](const char *line) { ADD_FAILURE() << line; };
  return check;
}

// Each block is written whole, so that none lies in another. The first sizes are those of a layer of 7B parameters in
// nf4 and its caches, where three in a hundred may be lost.
TEST(CudaMemory, BlocksLieApartAndLittleIsWasted) {
  const uint64_t q = 2097152, q_scales = 262144, gate = 5767168, gate_scales = 720896, pairs = 1024, norm = 8192;
  const uint64_t cache = 2097152;
  uint64_t before = nb_device_taken();
  for (auto sizes : {std::vector<uint64_t>{q, q_scales, q, q_scales, q, q_scales, q, q_scales, pairs, gate, gate_scales,
                                           gate, gate_scales, gate, gate_scales, cache, cache, norm},
                     {1, 300, 2097153, 5000000, 70000}}) {
    std::vector<std::pair<char *, uint64_t>> blocks;
    uint64_t wanted = 0;
    for (int layer = 0; layer < 22; layer++) {
      for (uint64_t size : sizes) {
        char *at = (char *)nb_device_alloc(size);
        ASSERT_NE(at, nullptr);
        blocks.push_back({at, size});
        wanted += size;
      }
    }
    for (size_t i = 0; i < blocks.size(); i++) memset(blocks[i].first, (int)i, blocks[i].second);
    for (size_t i = 0; i < blocks.size(); i++) {
      ASSERT_EQ(blocks[i].first[0], (char)i);
      ASSERT_EQ(blocks[i].first[blocks[i].second - 1], (char)i);
    }
    double allowed = sizes[0] == q ? 1.03 : INFINITY;
    EXPECT_LT((double)(nb_device_taken() - before), allowed * (double)wanted);
    for (auto &b : blocks) nb_device_free(b.first);
    EXPECT_EQ(nb_device_taken(), before);
  }
}

TEST(CudaBackend, ProductsOfEveryFormatAreThoseOfTheCpu) {
  nb_check check = CheckOf();
  nb_check_products(&check);
  EXPECT_GT(check.passed, Sanitized() ? 50 : 300);
  EXPECT_EQ(check.failed, 0);
}

TEST(CudaBackend, OperationsAreThoseOfTheCpu) {
  nb_check check = CheckOf();
  nb_check_operations(&check);
  EXPECT_GT(check.passed, 40);
  EXPECT_EQ(check.failed, 0);
}

TEST(CudaBackend, ARecordedStepIsTheSameAtEveryPosition) {
  nb_check check = CheckOf();
  nb_check_recording(&check);
  EXPECT_EQ(check.passed, 26);
  EXPECT_EQ(check.failed, 0);
}

// Blocks of 32 codes of 8 bits and a float16 scale.
TEST(CudaBackend, GgufBlocksBecomeFloat16) {
  const int64_t rows = 35, cols = 96;
  std::mt19937 rng(1);
  std::vector<uint8_t> blocks;
  for (int64_t b = 0; b < rows * cols / 32; b++) {
    uint16_t scale = nb_f32_to_f16(0.01f + 0.001f * float(rng() % 16));
    blocks.push_back(uint8_t(scale)), blocks.push_back(uint8_t(scale >> 8));
    for (int i = 0; i < 32; i++) blocks.push_back(uint8_t(rng()));
  }
  nb_packed m = {};
  m.format = NB_FORMAT_Q8_0, m.rows = rows, m.cols = cols, m.codes = blocks.data();
  nb_matrix *matrix = nullptr;
  nibble_error err = {};
  ASSERT_EQ(nb_matrix_upload(&m, nullptr, &matrix, &err), NIBBLE_OK) << err.message;
  EXPECT_EQ(matrix->w.tiles.kind, NB_TILED_F16);
  std::vector<int32_t> ids;
  for (int32_t r = 0; r < rows; r++) ids.push_back(r);
  std::vector<float> got((size_t)(rows * cols), NAN), want(got.size());
  Workspace work;
  nb_rows_of(&work.ws, &matrix->w, ids.data(), rows, got.data());
  nb_format_info(m.format)->dequantize({&m, 0, rows, 0, cols}, want.data(), cols);
  for (size_t i = 0; i < want.size(); i++) ASSERT_NEAR(got[i], want[i], 1e-3 * std::fabs(want[i])) << i;
  nb_matrix_free(matrix);
}

nb_check Checked(void (*part)(nb_check *)) {
  nb_check check = CheckOf();
  part(&check);
  return check;
}

TEST(CudaQuantize, GivesTheBitsOfTheCpu) {
  nb_check check = Checked(nb_check_quantizers);
  EXPECT_GT(check.passed, 40);
  EXPECT_EQ(check.failed, 0);
}

// The command's own function, the module replaced by the emulated one.
TEST(CudaQuantize, WholeArtifactsAreThoseOfTheCpu) {
  TempFolder folder;
  WriteFile(
      folder / "config.json",
      R"({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 66, "intermediate_size": 131,
                "num_hidden_layers": 1, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 22,
                "vocab_size": 301, "tie_word_embeddings": false})");
  for (std::string dtype : {"float32", "bfloat16"})
    ASSERT_EQ(Nibble("init " + folder.path() + " " + (folder / dtype) + " --quiet --dtype " + dtype).code, 0);
  struct {
    const char *method;
    bool nested;
    int64_t block_size;
    const char *dtype;
  } cases[] = {{"nf4", false, 0, "bfloat16"}, {"nf4", true, 128, "float32"},  {"fp4", true, 0, "bfloat16"},
               {"fp4", false, 32, "float32"}, {"int8", false, 0, "bfloat16"}, {"int8", false, 0, "float32"}};
  nb_cuda_module_set(nibble_cuda_module(1));
  for (auto &c : cases) {
    std::string src = folder / c.dtype, files[2], manifests[2];
    for (int on_gpu = 0; on_gpu < 2; on_gpu++) {
      std::string dst = folder / (on_gpu ? "gpu" : "cpu");
      const nibble_context context = {1 /* fibers live on one thread */,
                                      on_gpu ? NIBBLE_DEVICE_CUDA : NIBBLE_DEVICE_CPU, 0, nullptr, nullptr};
      nibble_quantize_options o = {};
      o.size = sizeof o, o.context = &context;
      o.src = src.c_str(), o.dst = dst.c_str(), o.method = c.method, o.double_quant = c.nested;
      o.block_size = c.block_size, o.force = true, o.no_sync = true;
      nibble_quantize_result result = {};
      result.size = sizeof result;
      nibble_error err = {};
      EXPECT_EQ(nibble_quantize(&o, &result, &err), NIBBLE_OK) << err.message;
      files[on_gpu] = ReadFile(dst + "/model.safetensors");
      manifests[on_gpu] = ReadFile(dst + "/nibble.json");
    }
    EXPECT_GT(files[0].size(), 1000u);
    EXPECT_EQ(files[0], files[1]) << c.method << " of " << c.dtype;
    EXPECT_EQ(manifests[0], manifests[1]) << c.method << " of " << c.dtype;
  }
  nb_cuda_module_set(nullptr);
}

TEST(Device, RtnOnTheGpuIsAWrongUsage) {
  TempFolder folder;
  CommandResult r =
      Nibble("quantize " + Golden("tiny/llama-f32") + " " + (folder / "x") + " --method rtn --device cuda");
  EXPECT_EQ(r.code, 2);
  EXPECT_EQ(r.err, "nibble: --device cuda: rtn computes on the cpu only\n");
}

// A cache is the sum of what its tokens wrote, wherever its pages came to lie and however few were there at first.
TEST(CudaAttention, ACacheTakesAPageOnlyWhenATokenNeedsIt) {
  nibble_error err = {};
  nb_backend *b = nb_backend_cuda(&err);
  ASSERT_NE(b, nullptr) << err.message;
  nb_attention_shape shape = {};
  shape.sequences = 3, shape.kv_heads = 32, shape.head_dim = 128, shape.capacity = 100 * NB_KV_PAGE;
  const uint64_t page = 2 * 32 * 128 * NB_KV_PAGE * sizeof(float), before = nb_device_taken();
  nb_kv_cache *cache = nullptr;
  ASSERT_EQ(b->kv_create(b, &shape, &cache, &err), NIBBLE_OK) << err.message;
  const uint64_t empty = nb_device_taken();
  EXPECT_LE(empty - before, 2u << 20);  // its table
  auto pages = [&] { return (nb_device_taken() - empty) / page; };
  for (auto [sequences, tokens, want] : {std::array<int64_t, 3>{3, 1, 3},
                                         {3, NB_KV_PAGE, 3},
                                         {1, NB_KV_PAGE + 1, 4},
                                         {1, 3, 4},
                                         {2, 3 * NB_KV_PAGE, 7},
                                         {3, 4 * NB_KV_PAGE, 12}}) {
    ASSERT_EQ(b->kv_reserve(b, cache, sequences, tokens, &err), NIBBLE_OK) << err.message;
    EXPECT_EQ(pages(), (uint64_t)want) << sequences << " sequences of " << tokens;
  }
  b->kv_free(b, cache);
  EXPECT_EQ(nb_device_taken(), before);
}

// The second of two pages cannot be had; later it can, and the cache has lost nothing.
TEST(CudaAttention, ACacheThatFoundNoMemoryGoesOnWhenThereIsSome) {
  const int64_t heads = 32, dim = 128, first = 60, tokens = 10;  // pages of 2 MiB, which share none of what CUDA gives
  nibble_error err = {};
  nb_backend *b = nb_backend_cuda(&err), *cpu = nb_backend_cpu();
  std::vector<float> out[2];
  for (int side = 0; side < 2; side++) {
    nb_backend *self = side ? b : cpu;
    nb_attention_shape shape = {};
    shape.sequences = 1, shape.heads = shape.kv_heads = heads, shape.head_dim = dim, shape.capacity = 128;
    shape.scale = 0.2f, shape.causal = true, shape.rotary_dim = dim;
    nb_kv_cache *cache = nullptr;
    nb_buffer *f[6] = {};  // q, k, v, cos, sin, out
    for (int i = 0; i < 6; i++) {
      std::vector<float> values = RandomFloats((size_t)(128 * heads * dim), (unsigned)i);
      ASSERT_EQ(self->buffer_create(self, values.size() * 4, &f[i], &err), NIBBLE_OK);
      ASSERT_EQ(self->upload(self, f[i], 0, values.data(), values.size() * 4, &err), NIBBLE_OK);
    }
    ASSERT_EQ(self->kv_create(self, &shape, &cache, &err), NIBBLE_OK) << err.message;
    for (auto [start, count] : {std::pair<int64_t, int64_t>{0, first}, {first, tokens}}) {
      shape.start = start, shape.tokens = count;
      if (side && start > 0) {
        emulator::is_memory_full = true;
        EXPECT_EQ(self->kv_reserve(self, cache, 1, start + count, &err), NIBBLE_SYSTEM);
        EXPECT_STREQ(err.message, "CUDA: no device memory for the keys and values of 70 tokens");
        emulator::is_memory_full = false;
      }
      ASSERT_EQ(self->kv_reserve(self, cache, 1, start + count, &err), NIBBLE_OK) << err.message;
      nb_rotary_tables tables = {f[3], f[4]};
      const nb_qkv rows = {f[0], f[1], f[2]};
      self->store(self, &shape, &tables, &rows, cache);
      self->attention(self, &shape, f[0], cache, nullptr, f[5]);
    }
    out[side].resize((size_t)(tokens * heads * dim));
    EXPECT_EQ(self->download(self, f[5], 0, out[side].data(), out[side].size() * 4, &err), NIBBLE_OK);
    for (nb_buffer *buffer : f) self->buffer_free(self, buffer);
    self->kv_free(self, cache);
  }
  for (size_t i = 0; i < out[0].size(); i++) ASSERT_NEAR(out[1][i], out[0][i], 1e-5) << i;
}

// As many blocks as a large GPU has, more than are put together at once and more than there are keys for.
TEST(CudaAttention, SharesOfTheKeysComeToWhatOneBlockMakesOfThem) {
  const int64_t dim = 64, capacity = 1600, start = 1300, page = 2 * NB_KV_PAGE * dim;
  std::vector<float> memory = RandomFloats((size_t)(capacity / NB_KV_PAGE * page), 1), q = RandomFloats(2 * dim, 2);
  std::vector<float *> table;
  for (int64_t i = 0; i < capacity / NB_KV_PAGE; i++) table.push_back(memory.data() + i * page);
  for (int64_t window : {0, 700, 65}) {
    std::vector<float> out[2];
    for (int shared = 0; shared < 2; shared++) {
      nb_attention_args a = {};
      a.shape.sequences = a.shape.heads = a.shape.kv_heads = 1, a.shape.tokens = 2, a.shape.head_dim = dim;
      a.shape.start = start, a.shape.capacity = capacity, a.shape.window = window, a.shape.scale = 0.5f;
      a.shape.causal = true;
      a.pages = {table.data(), capacity / NB_KV_PAGE, page / 2};
      int64_t floats = nb_cuda_attention_plan(&a, capacity, shared ? 132 : 1);
      EXPECT_EQ(a.splits, shared ? capacity / NB_KV_PAGE : 1);
      std::vector<float> partial((size_t)floats, NAN);
      std::vector<unsigned> arrived(2, 0);
      out[shared].assign(2 * dim, NAN);
      a.q = q.data(), a.out = out[shared].data(), a.partial = partial.data(), a.arrived = arrived.data();
      nb_cuda_attention(nullptr, &a);
      EXPECT_EQ(arrived, std::vector<unsigned>(2, 0));
    }
    for (size_t i = 0; i < out[0].size(); i++) ASSERT_NEAR(out[1][i], out[0][i], 1e-5) << window << " at " << i;
  }
}

TEST(CudaNorm, LayerNormIsThatOfTheCpu) {
  std::vector<float> x = RandomFloats(3 * 577, 1), weight = RandomFloats(577, 2), bias = RandomFloats(577, 3);
  std::vector<float> got(x.size(), NAN), want(x.size());
  const nb_norm_args args = {x.data(), weight.data(), bias.data(), got.data(), 577, 1e-5f};
  nb_cuda_layernorm(nullptr, &args, 3);
  const nb_row_norm norm = {weight.data(), bias.data(), 577, 1e-5f};
  nb_layernorm(x.data(), &norm, 3, want.data());
  for (size_t i = 0; i < x.size(); i++) ASSERT_NEAR(got[i], want[i], 1e-5) << i;
}

// ---- whole models --------------------------------------------------------------------------------------------------

template <typename T>
std::vector<T> Values(const GoldenTensor &t) {
  std::vector<T> out(t.bytes.size() / sizeof(T));
  memcpy(out.data(), t.bytes.data(), t.bytes.size());
  return out;
}

// Logits [tokens, vocab] of one sequence, fed `step` tokens at a time after the first `begin`.
std::vector<float> Logits(const std::string &name, const nb_model_options &options, const std::vector<int32_t> &ids,
                          int64_t step, size_t begin = 0) {
  nibble_error err = {};
  nb_model model = {};
  nb_session *session = nullptr;
  std::vector<float> out;
  EXPECT_EQ(nb_model_load(Golden("tiny/" + name).c_str(), &options, &model, &err), NIBBLE_OK) << err.message;
  nb_session_options room = {};
  room.capacity = (int64_t)ids.size(), room.step_tokens = std::max(step, (int64_t)begin);
  EXPECT_EQ(nb_session_create(&model, &room, &session, &err), NIBBLE_OK) << err.message;
  size_t vocab = (size_t)model.checkpoint.config.vocab_size;
  for (size_t at = 0, n; session && at < ids.size(); at += n) {
    n = at < begin ? begin : std::min((size_t)step, ids.size() - at);
    std::vector<int32_t> rows;
    for (size_t t = 0; t < n; t++) rows.push_back((int32_t)t);
    out.resize((at + n) * vocab);
    EXPECT_EQ(nb_session_step(session, &ids[at], (int64_t)n, &err), NIBBLE_OK) << err.message;
    EXPECT_EQ(nb_session_logits(session, rows.data(), (int64_t)n, &out[at * vocab], &err), NIBBLE_OK) << err.message;
  }
  nb_session_free(session);
  nb_model_free(&model);
  return out;
}

double LargestDifference(const std::vector<float> &got, const std::vector<float> &want) {
  double difference = 0, largest = 0;
  if (got.size() != want.size()) return INFINITY;
  for (size_t i = 0; i < want.size(); i++) {
    difference = std::max(difference, std::isnan(got[i]) ? INFINITY : std::fabs((double)got[i] - want[i]));
    largest = std::max(largest, std::fabs((double)want[i]));
  }
  return difference / largest;
}

nb_backend *Emulated(void *, int64_t) {
  nibble_error err = {};
  return nb_backend_cuda(&err);
}

// Tokens that come one by one after the others: the emulator takes a second for a few of them.
enum { kSingly = 8 };

TEST(CudaModel, LogitsOfEveryFormatAreThoseOfTransformersToOnePercent) {
  for (const char *name :
       {"llama-f32", "llama-tied-biases-f16", "llama-head-dim-llama3-bf16", "llama-mha-gelu-f16", "mistral-window-bf16",
        "qwen2-bf16", "qwen3-bf16", "llama-nf4", "llama-nf4-double", "llama-fp4", "llama-int8"}) {
    if (Sanitized() && std::string(name) != "llama-nf4-double") continue;
    GoldenFile golden = ReadSafetensors(Golden("tiny/" + std::string(name) + ".safetensors"));
    std::vector<int32_t> ids = Values<int32_t>(golden.tensors["ids"]);
    std::vector<float> want = Values<float>(golden.tensors["logits"]);
    nb_model_options options = {};
    options.backend = Emulated(nullptr, 0);
    std::vector<float> whole = Logits(name, options, ids, (int64_t)ids.size());
    EXPECT_LT(LargestDifference(whole, want), 0.01) << name;
    EXPECT_LT(LargestDifference(Logits(name, options, ids, 1, ids.size() - kSingly), want), 0.01)
        << name << ", the last ones token by token";
  }
}

// One golden model of each kind of block that is no Llama's, in one step; the last tokens of decoders one by one, too.
TEST(CudaModel, OtherFamiliesGiveTheOutputsOfTransformers) {
  for (const char *name :
       {"gpt2-f32", "bert-mlm-f32", "bert-classify-bf16", "t5-f32", "mixtral-f32", "qwen3-moe-bf16"}) {
    GoldenFile golden = ReadSafetensors(Golden(std::string("tiny/") + name + ".safetensors"));
    std::vector<int32_t> ids = Values<int32_t>(golden.tensors["ids"]), decoder;
    if (golden.tensors.count("decoder_ids")) decoder = Values<int32_t>(golden.tensors["decoder_ids"]);
    std::vector<float> want = Values<float>(golden.tensors["logits"]);
    nb_model_options options = {};
    options.backend = Emulated(nullptr, 0);
    nb_model model = {};
    nibble_error err = {};
    ASSERT_EQ(nb_model_load(Golden(std::string("tiny/") + name).c_str(), &options, &model, &err), NIBBLE_OK)
        << err.message;
    const std::vector<int32_t> &run = decoder.empty() ? ids : decoder;
    int64_t n = (int64_t)run.size(), width = model.output_width, wanted = (int64_t)want.size() / width;
    nb_session_options room = {};
    room.capacity = n;
    room.encoder_capacity = (int64_t)ids.size();
    nb_session *session = nullptr;
    ASSERT_EQ(nb_session_create(&model, &room, &session, &err), NIBBLE_OK) << err.message;
    for (int64_t step : nb_model_last(&model)->causal ? std::vector<int64_t>{n, 1} : std::vector<int64_t>{n}) {
      std::vector<float> got(want.size());
      nb_session_truncate(session, 0);
      if (!decoder.empty()) {
        ASSERT_EQ(nb_session_encode(session, ids.data(), (int64_t)ids.size(), &err), NIBBLE_OK) << err.message;
      }
      for (int64_t at = 0, count; at < n; at += count) {
        count = at == 0 && n > kSingly ? std::max<int64_t>(step, n - kSingly) : step;
        ASSERT_EQ(nb_session_step(session, &run[(size_t)at], count, &err), NIBBLE_OK) << err.message;
        std::vector<int32_t> rows;
        for (int64_t t = 0; t < std::min(count, wanted); t++) rows.push_back((int32_t)t);
        ASSERT_EQ(nb_session_logits(session, rows.data(), (int64_t)rows.size(), &got[(size_t)(at * width)], &err),
                  NIBBLE_OK);
      }
      EXPECT_LT(LargestDifference(got, want), 0.01) << name << ", " << step << " at a time";
    }
    nb_session_free(session);
    nb_model_free(&model);
  }
}

TEST(CudaModel, LayersOnTheCpuAndOnTheGpuGiveTheSameLogits) {
  GoldenFile golden = ReadSafetensors(Golden("tiny/llama-nf4.safetensors"));
  std::vector<int32_t> ids = Values<int32_t>(golden.tensors["ids"]);
  std::vector<float> want = Values<float>(golden.tensors["logits"]);
  nb_model_options options = {};
  options.backend_of_layer = [](void *, int64_t layer) {
    return layer % 2 ? nb_backend_cpu() : Emulated(nullptr, layer);
  };
  options.backend = nb_backend_cpu();
  EXPECT_LT(LargestDifference(Logits("llama-nf4", options, ids, 5), want), 0.01);
  EXPECT_LT(LargestDifference(Logits("llama-nf4", options, ids, 1), want), 0.01);
}

TEST(CudaModel, ReplayedStepsAreTheStepsThemselves) {
  GoldenFile golden = ReadSafetensors(Golden("tiny/llama-int8.safetensors"));
  std::vector<int32_t> ids = Values<int32_t>(golden.tensors["ids"]);
  nb_model_options recorded = {}, stepped = {};
  recorded.backend = Emulated(nullptr, 0);
  nb_backend *b = recorded.backend;
  auto begin = b->record_begin;
  std::vector<float> with = Logits("llama-int8", recorded, ids, 1);
  b->record_begin = nullptr;
  stepped.backend = b;
  std::vector<float> without = Logits("llama-int8", stepped, ids, 1);
  b->record_begin = begin;
  EXPECT_EQ(with, without);
}

TEST(Device, PlacesTheFirstLayersThatFit) {
  const uint64_t layers[4] = {10, 10, 30, 10};
  bool outer;
  EXPECT_EQ(nb_place_layers(100, 20, layers, 4, &outer), 4);
  EXPECT_TRUE(outer);
  EXPECT_EQ(nb_place_layers(60, 20, layers, 4, &outer), 2);
  EXPECT_TRUE(outer);
  EXPECT_EQ(nb_place_layers(45, 50, layers, 4, &outer), 2);
  EXPECT_FALSE(outer);
  EXPECT_EQ(nb_place_layers(0, 0, layers, 4, &outer), 0);
}

// The logits of a golden model by the command line on a device; none where there is no GPU.
std::vector<float> LogitsByCommand(const std::string &model, const std::string &device, std::string *why) {
  TempFolder folder;
  std::string ids, out = folder / "logits.safetensors";
  for (int32_t id : Values<int32_t>(ReadSafetensors(Golden(model + ".safetensors")).tensors["ids"]))
    ids += (ids.empty() ? "" : ",") + std::to_string(id);
  CommandResult r =
      Nibble("logits " + Golden(model) + " --ids " + ids + " --quiet --device " + device + " --out " + out);
  *why = r.err;
  return r.code == 0 ? Values<float>(ReadSafetensors(out).tensors["logits"]) : std::vector<float>();
}

TEST(Device, GoldenModelsOnARealGpuAreThoseOnTheCpuToOnePercent) {
  for (const char *name :
       {"tiny/llama-f32", "tiny/llama-tied-biases-f16", "tiny/llama-head-dim-llama3-bf16", "tiny/llama-mha-gelu-f16",
        "tiny/mistral-window-bf16", "tiny/qwen2-bf16", "tiny/qwen3-bf16", "tiny/llama-nf4", "tiny/llama-nf4-double",
        "tiny/llama-fp4", "tiny/llama-int8", "tiny/gpt2-f32", "tiny/bert-mlm-f32", "tiny/mixtral-f32",
        "tiny/qwen3-moe-bf16", "gptqmodel-7.7.0/llama-3bit-sym-v2", "gptqmodel-7.7.0/llama-4bit-asym-act"}) {
    std::string why;
    std::vector<float> cuda = LogitsByCommand(name, "cuda", &why);
    if (why.find("no CUDA device") != std::string::npos) GTEST_SKIP() << "skipped: " << why;
    ASSERT_FALSE(cuda.empty()) << name << ": " << why;
    EXPECT_LT(LargestDifference(cuda, LogitsByCommand(name, "cpu", &why)), 0.01) << name;
  }
}

TEST(Device, CudaWithoutADeviceExitsWith4AndAutoComputesOnTheCpu) {
  std::string model = Golden("tiny/llama-f32");
  CommandResult cuda = Nibble("logits " + model + " --ids 1,2,3 --out /tmp/nibble-no-such-folder/x --device cuda");
  if (cuda.err.find("no CUDA device") == std::string::npos) GTEST_SKIP() << "skipped: there is a CUDA device";
  EXPECT_EQ(cuda.code, 4);
  EXPECT_EQ(std::count(cuda.err.begin(), cuda.err.end(), '\n'), 1) << cuda.err;
  TempFolder folder;
  const std::string command = "logits " + model + " --ids 1,2,3 --device auto --out ";
  CommandResult any = Nibble(command + (folder / "x.safetensors"));
  EXPECT_EQ(any.code, 0) << any.err;
  EXPECT_EQ(any.err.find("nibble: computing on the cpu: no CUDA device"), 0u) << any.err;
  EXPECT_EQ(std::count(any.err.begin(), any.err.end(), '\n'), 1) << any.err;
  EXPECT_EQ(Nibble(command + (folder / "y.safetensors") + " --quiet").err, "");
}

TEST(Device, AModuleThatIsMissingOrOfAnotherBuildIsToldInOneLine) {
  TempFolder folder;
  std::string program = folder / "nibble", module = folder / "libnibble_cuda.so";
  std::filesystem::copy_file(kBinary, program);
#ifdef __SANITIZE_ADDRESS__  // it opens libraries in the program's stead, and has another runpath
  program = "LD_LIBRARY_PATH=" + (folder / ".") + " " + program;
#endif
  const std::string command = program + " logits " + Golden("tiny/llama-f32") + " --ids 1 --device cuda --out " +
                              (folder / "x") + " 2>" + (folder / "err");
  const auto replace = std::filesystem::copy_options::overwrite_existing;
  for (const char *is_there : {(const char *)nullptr, kOtherModule, kOlderModule}) {
    if (is_there) std::filesystem::copy_file(is_there, module, replace);
    int status = system(command.c_str());
    std::string err = ReadFile(folder / "err");
    EXPECT_EQ(WEXITSTATUS(status), 4) << err;
    EXPECT_EQ(err.find("nibble: no CUDA device: libnibble_cuda.so"), 0u) << err;
    EXPECT_NE(err.find(is_there ? "of another build" : "No such file"), std::string::npos) << err;
    EXPECT_EQ(std::count(err.begin(), err.end(), '\n'), 1) << err;
  }
}

// Loaded into a process as nibble loads it, the module as built answers; without it, or a driver, one line says so.
TEST(Device, TheBuiltModuleIsOfThisBuild) {
  CommandResult r = Nibble("logits " + Golden("tiny/llama-f32") + " --ids 1 --device cuda --out /tmp/nibble-none/x");
#ifdef NIBBLE_HAS_CUDA
  EXPECT_EQ(r.err.find("libnibble_cuda.so"), std::string::npos) << r.err;
#else
  EXPECT_NE(r.err.find("libnibble_cuda.so"), std::string::npos) << r.err;
#endif
}

}  // namespace
