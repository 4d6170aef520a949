// One matrix for the quantizers, what they make of it, and a comparison byte by byte.
#ifndef NB_TESTS_QUANTIZE_CASE_H
#define NB_TESTS_QUANTIZE_CASE_H

#include <gtest/gtest.h>

#include <string>
#include <vector>

extern "C" {
#include "kernels/quantize.h"
}

struct Case {
  std::string name, kind;
  int64_t rows, cols, block;
  nb_dtype dtype;
  std::string source;
};

struct Packed {
  std::string codes;
  std::vector<float> scales;
  std::vector<nb_block_sums> sums;
  int64_t bad;
};

inline Packed Quantize(nb_format format, const Case &c, bool nested = false) {
  int64_t n = c.rows * c.cols, blocks = (n + c.block - 1) / c.block;
  bool int8 = format == NB_FORMAT_INT8;
  Packed p = {std::string((size_t)(int8 ? n : (n + 1) / 2), 'x'), std::vector<float>((size_t)(int8 ? c.rows : blocks)),
              std::vector<nb_block_sums>((size_t)(int8 ? c.rows : blocks)), 0};
  nb_packed m = nb_packed_usual(format, c.rows, c.cols, c.block, nested);
  nb_quantize_run run = {c.dtype, c.source.data(), n, nested, &p.codes[0], p.scales.data(), p.sums.data()};
  p.bad = nb_quantize(&m, &run);
  return p;
}

template <typename T>
inline std::string Bytes(const std::vector<T> &v) {
  return std::string((const char *)v.data(), v.size() * sizeof(T));
}

// Names the first byte that differs.
inline void ExpectSame(const std::string &got, const std::string &want, const std::string &what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (size_t i = 0; i < got.size(); i++)
    ASSERT_EQ((int)(uint8_t)got[i], (int)(uint8_t)want[i]) << what << ", byte " << i;
}

#endif
