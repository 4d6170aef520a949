// What the tests of the CUDA kernels share: random weights as the backend would upload them, and a workspace. For the
// emulator (cuda_emulator.h), where the device's memory is the host's.
#ifndef NB_TESTS_CUDA_ON_DEVICE_H
#define NB_TESTS_CUDA_ON_DEVICE_H

#include <gtest/gtest.h>

#include <random>

#include "tests/kernels/cuda/cuda_emulator.h"
#include "tests/random_packed.h"
#include "tests/support.h"

extern "C" {
#include "base/checked.h"
#include "base/dtype.h"
#include "kernels/gptq.h"
}
#include "kernels/cuda/product.h"

// GPTQ's packed integers, owned.
struct RandomGptq {
  nb_packed m = {};
  std::vector<uint8_t> codes, zeros;
  std::vector<uint32_t> words;
  std::vector<uint16_t> scales;
  std::vector<int32_t> g_idx;

  RandomGptq(int bits, int64_t rows, int64_t cols, int64_t group_size, bool act_order, bool bf16, unsigned seed = 1) {
    std::mt19937 rng(seed + unsigned(rows * 31 + cols));
    std::uniform_real_distribution<float> positive(0.01f, 1);
    nb_gptq_format(bits, &m.format);
    m.rows = rows, m.cols = cols, m.scale.block_cols = group_size, m.groups = nb_ceil_div(cols, group_size);
    codes.resize((size_t)(rows * cols));
    for (uint8_t &c : codes) c = uint8_t(rng() & ((1u << bits) - 1));
    words.resize((size_t)(nb_gptq_words(cols, bits) * rows));
    const nb_gptq_codes unpacked = {codes.data(), rows, cols, bits};
    nb_gptq_pack(&unpacked, words.data(), rows);
    zeros.resize((size_t)(m.groups * rows));
    for (uint8_t &z : zeros) z = uint8_t(rng() & ((1u << bits) - 1));
    scales.resize(zeros.size());
    for (uint16_t &s : scales) s = bf16 ? nb_f32_to_bf16(positive(rng)) : nb_f32_to_f16(positive(rng));
    if (act_order) {
      for (int64_t c = 0; c < cols; c++) g_idx.push_back((int32_t)(c / group_size));
      std::shuffle(g_idx.begin(), g_idx.end(), rng);
      m.g_idx = g_idx.data();
    }
    m.codes = words.data(), m.zeros = zeros.data(), m.scale.data = scales.data();
    m.scale.dtype = bf16 ? NB_BF16 : NB_F16, m.scale.block_rows = 1;
  }
  RandomGptq(const RandomGptq &) = delete;
};

// A matrix as the backend would upload it.
struct OnDevice {
  nb_device_matrix w = {};
  std::vector<uint32_t> codes;
  std::vector<uint8_t> scales;
  std::vector<int32_t> order;

  explicit OnDevice(const nb_packed &m) {
    EXPECT_TRUE(nb_tiles_plan(&m, &w.tiles));
    const nb_tiles &t = w.tiles;
    codes.assign((size_t)(t.row_tiles * nb_tiles_code_bytes(&t) / 4), 0xffffffff);
    scales.assign((size_t)(t.row_tiles * nb_tiles_scale_bytes(&t)) + 16, 0xff);
    order.resize((size_t)(t.col_tiles * NB_TILE_COLS));
    nb_tiles_order(&m, &t, order.data());
    const nb_tiling tiling = {&m, &t, order.data()};
    nb_tiles_pack(&tiling, 0, t.row_tiles, codes.data(), scales.data());
    w.codes = codes.data(), w.scales = scales.data();
    if (t.reordered) w.order = order.data();
    w.packed = m;
    w.quant_map = m.codebook, w.nested_map = m.scale.codebook, w.nested_absmax = (const float *)m.second.data;
    w.nested_offset = m.scale.offset;
    if (m.codebook) nb_from_f32(NB_F16, m.codebook, 16, w.values);
  }
  OnDevice(const OnDevice &) = delete;
};

struct Workspace {
  std::vector<float> partial = std::vector<float>(3 << 20, NAN);
  std::vector<uint16_t> narrow = std::vector<uint16_t>(1 << 20, 0x7fff);
  std::vector<unsigned> arrived = std::vector<unsigned>(4096, 0);
  nb_workspace ws = {};
  explicit Workspace(int processors = 3, int64_t shared_limit = 227 << 10) {
    ws.partial = partial.data(), ws.partial_floats = (int64_t)partial.size();
    ws.arrived = arrived.data(), ws.arrived_count = (int64_t)arrived.size();
    ws.narrow = narrow.data(), ws.narrow_elements = (int64_t)narrow.size();
    ws.processors = processors;
    ws.shared_limit = shared_limit;
  }
  ~Workspace() { cudaStreamSynchronize(nullptr); } /* its memory is then anyone's */
};

inline float Bf16(float v) { return nb_bf16_to_f32(nb_f32_to_bf16(v)); }
inline float F16(float v) { return nb_f16_to_f32(nb_f32_to_f16(v)); }

inline void ExpectClose(const std::vector<float> &got, const std::vector<double> &want, const std::vector<double> &size,
                        double tolerance, const std::string &what) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); i++) {
    ASSERT_LE(std::fabs(got[i] - want[i]), tolerance * size[i] + 1e-30)
        << what << ": element " << i << " is " << got[i] << ", should be " << want[i];
  }
}

#endif
