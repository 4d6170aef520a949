// Weights made from integers exactly as scripts/golden/make_bnb.py makes them.
#ifndef NB_TESTS_MADE_WEIGHTS_H
#define NB_TESTS_MADE_WEIGHTS_H

#include <cmath>
#include <string>
#include <vector>

extern "C" {
#include "base/dtype.h"
}

struct SplitMix64 {
  uint64_t state;
  uint64_t operator()() {
    uint64_t z = state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
};

// See weights() of make_bnb.py for the kinds.
inline std::vector<float> MakeWeights(const std::string &kind, uint64_t seed, int64_t n, int64_t block) {
  std::vector<float> out((size_t)n);
  SplitMix64 next{seed};
  for (int64_t i = 0; i < n; i++) {
    uint64_t z = next();
    int a = (int)(z & 0xffff), b = (int)(z >> 16 & 0xffff), c = (int)(z >> 32 & 0xffff), d = (int)(z >> 48);
    int64_t at = i / block;
    double bell = a + b + c + d - 131070, v = 0;
    if (kind == "normal") v = std::ldexp(bell, -19);
    if (kind == "zeros") v = at % 3 == 0 ? (at % 2 ? -0.0 : 0.0) : std::ldexp(bell, -19);
    if (kind == "tiny") v = std::ldexp(bell, -146 + (int)(at % 5) * 3);
    if (kind == "huge") v = std::ldexp(bell, at % 2 ? 109 : 104);
    if (kind == "half") v = i % block == 7 ? 1.0 : (a % 65 - 32) / 32.0;
    if (kind == "wide") v = std::ldexp((b % 8 + 8) / 8.0 * (c & 1 ? -1 : 1), a % 33 - 24);
    out[(size_t)i] = (float)v;
  }
  return out;
}

inline std::string ToBytes(const std::vector<float> &x, nb_dtype dtype) {
  std::string bytes(x.size() * nb_dtype_size(dtype), '\0');
  nb_from_f32(dtype, x.data(), x.size(), &bytes[0]);
  return bytes;
}

#endif
