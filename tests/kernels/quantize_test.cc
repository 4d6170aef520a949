// The quantizers against bitsandbytes 0.50.2 (golden files).
#include <gtest/gtest.h>
#include <zlib.h>

#include <string>
#include <vector>

#include "tests/golden_weights.h"
#include "tests/quantize_case.h"
#include "tests/random_packed.h"

namespace {

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

std::string GoldenPath(const std::string &method) { return Golden("bnb-0.50.2/" + method + ".safetensors"); }

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

}  // namespace
