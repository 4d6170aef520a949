// A packed matrix of random codes and scales that owns its buffers, for kernel tests and benchmarks.
#ifndef NB_TESTS_RANDOM_PACKED_H
#define NB_TESTS_RANDOM_PACKED_H

#include <cmath>
#include <random>
#include <string>
#include <vector>

extern "C" {
#include "kernels/cpu/isa.h"
#include "kernels/formats.h"
}

struct RandomPacked {
  nb_packed m = {};
  std::vector<uint8_t> codes, absmax_codes;
  std::vector<float> absmax, nested_map, nested_absmax;

  RandomPacked(nb_format format, int64_t rows, int64_t cols, int64_t block_size = 64, bool double_quant = false,
               unsigned seed = 1) {
    std::mt19937 rng(seed + unsigned(rows * 131 + cols));
    std::normal_distribution<float> normal(0, 1);
    std::uniform_real_distribution<float> positive(0.01f, 1);
    m = nb_packed_usual(format, rows, cols, block_size, double_quant);
    int64_t count = rows * cols;
    if (nb_format_info(format)->scheme == NB_SCHEME_PLAIN) {
      nb_dtype dtype = nb_format_info(format)->plain;
      std::vector<float> values(count);
      for (float &v : values) v = normal(rng);
      codes.resize(count * nb_dtype_size(dtype));
      nb_from_f32(dtype, values.data(), count, codes.data());
    } else if (format == NB_FORMAT_INT8) {
      codes.resize(count);
      for (uint8_t &c : codes) c = uint8_t(rng());
      for (int64_t r = 0; r < rows; r++) absmax.push_back(positive(rng));
    } else {
      codes.resize((count + 1) / 2);
      for (uint8_t &c : codes) c = uint8_t(rng());
      int64_t blocks = (count + block_size - 1) / block_size;
      if (double_quant) {
        m.scale.offset = 0.3f;
        for (int64_t b = 0; b < blocks; b++) absmax_codes.push_back(uint8_t(rng()));
        for (int i = 0; i < 256; i++) nested_map.push_back(float(i - 127) / 128);
        for (int64_t b = 0; b < (blocks + 255) / 256; b++) nested_absmax.push_back(positive(rng) / 4);
        m.scale.data = absmax_codes.data();
        m.scale.codebook = nested_map.data();
        m.second.data = nested_absmax.data();
      } else {
        for (int64_t b = 0; b < blocks; b++) absmax.push_back(positive(rng));
      }
    }
    m.codes = codes.data();
    if (!absmax.empty()) m.scale.data = absmax.data();
  }
  RandomPacked(const RandomPacked &) = delete;
};

inline std::vector<float> RandomFloats(size_t n, unsigned seed, float spread = 1) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> v(n);
  for (float &x : v) x = normal(rng);
  return v;
}

// Runs `fn` once for every instruction set of this machine.
template <typename Fn>
void ForEachIsa(Fn fn) {
  nb_isa before = nb_isa_current();
  for (int i = 0; i < NB_ISA_COUNT; i++) {
    if (!nb_isa_use(static_cast<nb_isa>(i))) continue;
    SCOPED_TRACE(nb_isa_name(static_cast<nb_isa>(i)));
    fn();
  }
  nb_isa_use(before);
}

#endif
