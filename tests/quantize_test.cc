// The quantizers against bitsandbytes 0.50.2 (golden files) and the vector versions against the scalar one.
#include <gtest/gtest.h>
#include <zlib.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "tests/golden_weights.h"

extern "C" {
#include "kernels/cpu/isa.h"
#include "kernels/quantize.h"
}

namespace {

struct Case {
  std::string name, kind;
  int64_t rows, cols, block;
  nb_dtype dtype;
  std::string source;
};

int64_t Int(const cJSON *json, const char *key) { return (int64_t)cJSON_GetObjectItem(json, key)->valuedouble; }

std::vector<Case> Cases(const GoldenFile &file) {
  std::vector<Case> out;
  cJSON *rows = cJSON_Parse(file.metadata.at("cases").c_str());
  const cJSON *r;
  cJSON_ArrayForEach(r, rows) {
    Case c = {cJSON_GetObjectItem(r, "name")->valuestring,
              cJSON_GetObjectItem(r, "kind")->valuestring,
              Int(r, "rows"),
              Int(r, "cols"),
              Int(r, "block_size"),
              NB_F32,
              ""};
    nb_dtype_parse(cJSON_GetObjectItem(r, "dtype")->valuestring, &c.dtype);
    c.source = ToBytes(MakeWeights(c.kind, (uint64_t)Int(r, "seed"), c.rows * c.cols, c.block), c.dtype);
    uLong crc = crc32(0, (const Bytef *)c.source.data(), (uInt)c.source.size());
    EXPECT_EQ((int64_t)crc, Int(r, "crc32")) << c.name << ": the weights are not those of make_bnb.py";
    out.push_back(c);
  }
  cJSON_Delete(rows);
  return out;
}

struct Packed {
  std::string codes;
  std::vector<float> scales;
  std::vector<nb_block_sums> sums;
  int64_t bad;
};

Packed Quantize(nb_format format, const Case &c, bool nested = false) {
  int64_t n = c.rows * c.cols, blocks = (n + c.block - 1) / c.block;
  bool int8 = format == NB_FORMAT_INT8;
  Packed p = {std::string((size_t)(int8 ? n : (n + 1) / 2), 'x'), std::vector<float>((size_t)(int8 ? c.rows : blocks)),
              std::vector<nb_block_sums>((size_t)(int8 ? c.rows : blocks)), 0};
  if (int8) {
    p.bad = nb_quantize_int8(c.dtype, c.source.data(), c.rows, c.cols, (int8_t *)&p.codes[0], p.scales.data(),
                             p.sums.data());
  } else {
    p.bad = nb_quantize_4bit(format, c.dtype, c.source.data(), n, c.block, nested, (uint8_t *)&p.codes[0],
                             p.scales.data(), p.sums.data());
  }
  return p;
}

template <typename T>
std::string Bytes(const std::vector<T> &v) {
  return std::string((const char *)v.data(), v.size() * sizeof(T));
}

// Names the first byte that differs.
void ExpectSame(const std::string &got, const std::string &want, const std::string &what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (size_t i = 0; i < got.size(); i++)
    ASSERT_EQ((int)(uint8_t)got[i], (int)(uint8_t)want[i]) << what << ", byte " << i;
}

std::string GoldenPath(const std::string &method) { return Golden("bnb-0.50.2/" + method + ".safetensors"); }

// Runs `test` with every instruction set of this machine.
template <typename F>
void ForEachIsa(F test) {
  nb_isa before = nb_isa_current();
  for (int i = 0; i < NB_ISA_COUNT; i++) {
    if (!nb_isa_use((nb_isa)i)) continue;
    SCOPED_TRACE(nb_isa_name((nb_isa)i));
    test();
  }
  nb_isa_use(before);
}

void ExpectGolden4bit(nb_format format, const std::string &method) {
  GoldenFile file = ReadSafetensors(GoldenPath(method));
  std::vector<Case> cases = Cases(file);
  ASSERT_GE(cases.size(), 12u);
  for (const Case &c : cases) {
    SCOPED_TRACE(c.name + " " + c.kind + " " + nb_dtype_name(c.dtype));
    Packed p = Quantize(format, c);
    ASSERT_EQ(p.bad, -1);
    ExpectSame(p.codes, file.tensors.at(c.name + ".weight").bytes, "codes");
    ExpectSame(Bytes(p.scales), file.tensors.at(c.name + ".weight.absmax").bytes, "absmax");
    const float *map = format == NB_FORMAT_NF4 ? nb_nf4_map : nb_fp4_map;
    ExpectSame(std::string((const char *)map, 64), file.tensors.at(c.name + ".weight.quant_map").bytes, "quant_map");
  }
}

TEST(Nf4, MatchesBitsandbytes) {
  ForEachIsa([] { ExpectGolden4bit(NB_FORMAT_NF4, "nf4"); });
}

TEST(Fp4, MatchesBitsandbytes) {
  ForEachIsa([] { ExpectGolden4bit(NB_FORMAT_FP4, "fp4"); });
}

TEST(Int8, MatchesBitsandbytes) {
  ForEachIsa([] {
    GoldenFile file = ReadSafetensors(GoldenPath("int8"));
    std::vector<Case> cases = Cases(file);
    ASSERT_GE(cases.size(), 12u);
    for (const Case &c : cases) {
      SCOPED_TRACE(c.name + " " + c.kind + " " + nb_dtype_name(c.dtype));
      Packed p = Quantize(NB_FORMAT_INT8, c);
      ASSERT_EQ(p.bad, -1);
      ExpectSame(Bytes(p.scales), file.tensors.at(c.name + ".SCB").bytes, "SCB");
      ExpectSame(p.codes, file.tensors.at(c.name + ".weight").bytes, "codes");
    }
  });
}

void ExpectGoldenDouble(nb_format format, const std::string &method) {
  GoldenFile file = ReadSafetensors(GoldenPath(method));
  std::vector<Case> cases = Cases(file);
  ASSERT_GE(cases.size(), 12u);
  float map[256];
  nb_dynamic_map(map);
  for (const Case &c : cases) {
    SCOPED_TRACE(c.name + " " + c.kind + " " + nb_dtype_name(c.dtype));
    Packed p = Quantize(format, c, true);
    ASSERT_EQ(p.bad, -1);
    ExpectSame(p.codes, file.tensors.at(c.name + ".weight").bytes, "codes");
    float offset = nb_mean(p.scales.data(), (int64_t)p.scales.size());
    std::string codes(p.scales.size(), 'x');
    std::vector<float> absmax((p.scales.size() + 255) / 256);
    nb_quantize_dynamic(p.scales.data(), (int64_t)p.scales.size(), offset, map, (uint8_t *)&codes[0], absmax.data());
    ExpectSame(Bytes(absmax), file.tensors.at(c.name + ".weight.nested_absmax").bytes, "nested_absmax");
    ExpectSame(codes, file.tensors.at(c.name + ".weight.absmax").bytes, "absmax");
    ExpectSame(std::string((const char *)map, sizeof map), file.tensors.at(c.name + ".weight.nested_quant_map").bytes,
               "nested_quant_map");
  }
}

TEST(Nf4, MatchesBitsandbytesWithDoubleQuantization) { ExpectGoldenDouble(NB_FORMAT_NF4, "nf4-double"); }
TEST(Fp4, MatchesBitsandbytesWithDoubleQuantization) { ExpectGoldenDouble(NB_FORMAT_FP4, "fp4-double"); }

// Blocks of v whose absmax is 1 and whose values stand on and beside every threshold.
std::vector<float> Adversarial(nb_format format, int64_t n, int64_t block, uint32_t seed) {
  std::mt19937 random(seed);
  const float *map = format == NB_FORMAT_NF4 ? nb_nf4_map : nb_fp4_map;
  std::vector<float> sorted(map, map + 16), edges = {0.0f, -0.0f, 1.0f, -1.0f, 1e-38f, 1e-45f, -1e-45f, 0x1p-126f};
  std::sort(sorted.begin(), sorted.end());
  for (int i = 0; i < 15; i++) {
    float t = (sorted[(size_t)i] + sorted[(size_t)i + 1]) / 2;
    for (float e : {t, std::nextafter(t, 2.0f), std::nextafter(t, -2.0f)}) edges.push_back(e);
  }
  std::vector<float> out((size_t)n);
  for (int64_t i = 0; i < n; i++) {
    float scale = std::ldexp(1.0f, (int)(i / block % 5) * 20 - 60); /* powers of two keep the ties exact */
    out[(size_t)i] = edges[random() % edges.size()] * scale;
    if (i % block == 3) out[(size_t)i] = i / block % 2 ? -scale : scale;
  }
  return out;
}

void ExpectSimdEqualsScalar(nb_format format, const Case &c) {
  for (bool nested : {false, true}) {
    ASSERT_TRUE(nb_isa_use(NB_ISA_SCALAR));
    Packed want = Quantize(format, c, nested);
    for (nb_isa isa : {NB_ISA_AVX2, NB_ISA_AVX512, NB_ISA_NEON}) {
      if (!nb_isa_use(isa)) continue;
      SCOPED_TRACE(std::string(nb_isa_name(isa)) + " " + nb_format_info(format)->name + " " + nb_dtype_name(c.dtype) +
                   " [" + std::to_string(c.rows) + ", " + std::to_string(c.cols) + "] blocks of " +
                   std::to_string(c.block));
      Packed got = Quantize(format, c, nested);
      ASSERT_EQ(got.bad, want.bad);
      if (got.bad >= 0) continue;
      ExpectSame(got.codes, want.codes, "codes");
      ExpectSame(Bytes(got.scales), Bytes(want.scales), "scales");
      ExpectSame(Bytes(got.sums), Bytes(want.sums), "sums");
    }
  }
}

TEST(QuantizeSimd, EqualsScalarBitForBit) {
  nb_isa before = nb_isa_current();
  const int64_t sizes[] = {1, 3, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 257, 1000, 4095, 4096, 4097, 9001};
  std::mt19937 random(1);
  for (nb_dtype dtype : {NB_F32, NB_F16, NB_BF16}) {
    for (int64_t n : sizes) {
      for (int64_t block : {32, 64, 256, 4096}) {
        for (nb_format format : {NB_FORMAT_NF4, NB_FORMAT_FP4, NB_FORMAT_INT8}) {
          Case c = {"", "", 1, n, block, dtype, ""};
          if (format == NB_FORMAT_INT8) c.rows = 3, c.cols = (n + 2) / 3;
          int64_t count = c.rows * c.cols;
          c.source =
              ToBytes(Adversarial(format == NB_FORMAT_FP4 ? format : NB_FORMAT_NF4, count, block, random()), dtype);
          ExpectSimdEqualsScalar(format, c);
          for (char &byte : c.source) byte = (char)random(); /* every bit pattern, NaN and infinity too */
          ExpectSimdEqualsScalar(format, c);
          std::vector<float> halves((size_t)count); /* ties of int8's rounding */
          for (float &h : halves) h = (float)((int)(random() % 509) - 254) / 2;
          halves[0] = 127;
          c.source = ToBytes(halves, dtype);
          ExpectSimdEqualsScalar(format, c);
        }
      }
      if (HasFailure()) break;
    }
  }
  nb_isa_use(before);
}

TEST(Quantize, ReadsUnalignedSources) {
  std::vector<float> x = MakeWeights("normal", 7, 1000, 64);
  ForEachIsa([&] {
    for (nb_dtype dtype : {NB_F32, NB_F16, NB_BF16}) {
      Case c = {"", "", 10, 100, 64, dtype, ToBytes(x, dtype)};
      Packed want = Quantize(NB_FORMAT_NF4, c);
      std::string shifted = "x" + c.source;
      std::vector<uint8_t> codes(500);
      std::vector<float> absmax(16);
      std::vector<nb_block_sums> sums(16);
      ASSERT_EQ(nb_quantize_4bit(NB_FORMAT_NF4, dtype, shifted.data() + 1, 1000, 64, false, codes.data(), absmax.data(),
                                 sums.data()),
                -1);
      ExpectSame(Bytes(codes), want.codes, "codes");
    }
  });
}

TEST(Quantize, NamesTheFirstValueThatIsNotFinite) {
  ForEachIsa([] {
    for (nb_dtype dtype : {NB_F32, NB_F16, NB_BF16}) {
      for (int64_t at : {0, 63, 64, 500, 959, 960, 999}) {
        for (float bad : {NAN, INFINITY, -INFINITY}) {
          std::vector<float> x = MakeWeights("normal", 7, 1000, 64);
          x[(size_t)at] = bad;
          x[999] = at == 999 ? bad : NAN;
          Case c = {"", "", 10, 100, 64, dtype, ToBytes(x, dtype)};
          EXPECT_EQ(Quantize(NB_FORMAT_NF4, c).bad, at);
          EXPECT_EQ(Quantize(NB_FORMAT_INT8, c).bad, at);
        }
      }
    }
    std::vector<float> x(100, 1.0f);
    x[42] = 65520; /* the least that float16 rounds to infinity */
    EXPECT_EQ(Quantize(NB_FORMAT_INT8, {"", "", 10, 10, 64, NB_F32, ToBytes(x, NB_F32)}).bad, 42);
    x[42] = 65519.996f;
    EXPECT_EQ(Quantize(NB_FORMAT_INT8, {"", "", 10, 10, 64, NB_F32, ToBytes(x, NB_F32)}).bad, -1);
  });
}

// The sums give the error that dequantizing and comparing would give.
TEST(Quantize, TellsItsError) {
  for (bool nested : {false, true}) {
    Case c = {"", "", 33, 127, 64, NB_BF16, ""};
    std::vector<float> x = MakeWeights("normal", 11, 33 * 127, 64);
    c.source = ToBytes(x, c.dtype);
    nb_to_f32(c.dtype, c.source.data(), x.size(), x.data());
    Packed p = Quantize(NB_FORMAT_NF4, c, nested);
    double error = 0, squares = 0, want_error = 0, want_squares = 0;
    for (size_t b = 0; b < p.scales.size(); b++) {
      float scale = nested ? p.scales[b] * 1.01f : p.scales[b];
      double e, s;
      nb_block_error(&p.sums[b], p.scales[b], scale, &e, &s);
      error += e;
      squares += s;
      for (size_t i = b * 64; i < std::min(x.size(), (b + 1) * 64); i++) {
        int code = i % 2 ? p.codes[i / 2] & 15 : (uint8_t)p.codes[i / 2] >> 4;
        double miss = (double)x[i] - (double)scale * nb_nf4_map[code];
        want_error += miss * miss;
        want_squares += (double)x[i] * x[i];
      }
    }
    EXPECT_NEAR(error / want_error, 1, 1e-5) << nested;
    EXPECT_NEAR(squares / want_squares, 1, 1e-5) << nested;
  }
}

}  // namespace
