// GGUF: block formats and the reader, against files and values that the gguf package made.
#include <gtest/gtest.h>

#include <openssl/sha.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "tests/gguf_files.h"
#include "tests/random_packed.h"
#include "tests/support.h"

extern "C" {
#include "convert/checkpoint.h"
#include "convert/gguf.h"
#include "convert/layouts.h"
#include "kernels/cpu/kernels.h"
#include "kernels/matmul.h"
#include "model/json.h"
}

namespace {

struct Checkpoint {
  nb_checkpoint c{};
  nibble_error err{};
  nibble_status status;
  explicit Checkpoint(const std::string &path) { status = nb_checkpoint_open(path.c_str(), &c, &err); }
  ~Checkpoint() { nb_checkpoint_close(&c); }
};

std::vector<float> ReadAll(const nb_checkpoint &c, const nb_tensor &t) {
  std::vector<float> values((size_t)t.count);
  nibble_error err;
  EXPECT_EQ(nb_tensor_read(&c, &t, nb_span{0, t.count}, NB_F32, values.data(), &err), NIBBLE_OK) << err.message;
  return values;
}

void ExpectSameBits(const float *got, const float *expected, size_t n, const std::string &what) {
  for (size_t i = 0; i < n; i++) {
    if (memcmp(&got[i], &expected[i], 4) == 0) continue;
    ADD_FAILURE() << what << "[" << i << "] is " << got[i] << ", expected " << expected[i];
    return;
  }
}

TEST(Gguf, ReadsEveryTypeAsTheGgufPackageDoes) {
  Checkpoint tiny(Golden("gguf/tiny.gguf")), expected(Golden("gguf/expected.safetensors"));
  ASSERT_EQ(tiny.status, NIBBLE_OK) << tiny.err.message;
  ASSERT_EQ(expected.status, NIBBLE_OK) << expected.err.message;
  ASSERT_EQ(tiny.c.tensor_count, expected.c.tensor_count);
  int block_formats = 0;
  for (size_t i = 0; i < tiny.c.tensor_count; i++) {
    const nb_tensor &t = tiny.c.tensors[i];
    const nb_tensor *e = nb_checkpoint_find(&expected.c, t.name);
    ASSERT_NE(e, nullptr) << t.name;
    ASSERT_EQ(t.ndim, e->ndim) << t.name;
    for (int d = 0; d < t.ndim; d++) ASSERT_EQ(t.shape[d], e->shape[d]) << t.name;
    ExpectSameBits(ReadAll(tiny.c, t).data(), ReadAll(expected.c, *e).data(), (size_t)t.count, t.name);
    block_formats |= t.is_blocks ? 1 << t.format : 0;
  }
  for (int f = NB_FORMAT_Q4_0; f <= NB_FORMAT_Q6_K; f++) EXPECT_TRUE(block_formats & 1 << f) << f;
}

// For every weight that lies in blocks: the matrix as a runner loads it, and all its values in order.
template <typename Fn>
void ForEachBlockWeight(Fn fn) {
  Checkpoint tiny(Golden("gguf/tiny.gguf"));
  ASSERT_EQ(tiny.status, NIBBLE_OK) << tiny.err.message;
  for (size_t i = 0; i < tiny.c.tensor_count; i++) {
    const nb_tensor &t = tiny.c.tensors[i];
    if (!t.is_blocks) continue;
    nb_weight weight;
    ASSERT_EQ(nb_weight_load(&tiny.c, t.name, t.shape[0], t.shape[1], &weight, &tiny.err), NIBBLE_OK)
        << tiny.err.message;
    EXPECT_EQ((uint64_t)nb_packed_bytes(&weight.packed), t.bytes) << t.name;
    fn(weight.packed, ReadAll(tiny.c, t), std::string(t.name));
    nb_weight_free(&weight);
  }
}

TEST(Gguf, DequantizesAnyTileOnEveryProcessor) {
  ForEachIsa([] {
    ForEachBlockWeight([](const nb_packed &m, const std::vector<float> &whole, const std::string &name) {
      for (int64_t col : {0, 1, 31, 32, 33, 100, 255}) {
        for (int64_t cols : {1, 3, 31, 32, 65, 127, 256}) {
          if (col + cols > m.cols) continue;
          float tile[2 * 300];
          nb_dequantizer(m.format)({&m, 1, 2, col, cols}, tile, 300);
          for (int64_t r = 0; r < 2; r++)
            ExpectSameBits(tile + r * 300, &whole[(size_t)((r + 1) * m.cols + col)], (size_t)cols,
                           name + " from column " + std::to_string(col));
        }
      }
    });
  });
}

TEST(Gguf, MultipliesBlocksAsTheyLie) {
  ForEachIsa([] {
    ForEachBlockWeight([](const nb_packed &m, const std::vector<float> &w, const std::string &name) {
      for (int64_t n : {1, 3, 17}) {
        std::vector<float> x = RandomFloats((size_t)(n * m.cols), (unsigned)n), y((size_t)(n * m.rows));
        nb_matmul(&m, x.data(), m.cols, n, y.data(), m.rows);
        for (int64_t i = 0; i < n; i++) {
          for (int64_t r = 0; r < m.rows; r++) {
            double want = 0, size = 1e-30;
            for (int64_t c = 0; c < m.cols; c++) {
              double term = (double)x[(size_t)(i * m.cols + c)] * (double)w[(size_t)(r * m.cols + c)];
              want += term, size += std::abs(term);
            }
            ASSERT_NEAR(y[(size_t)(i * m.rows + r)], want, 1e-6 * size) << name << " " << i << ", " << r;
          }
        }
      }
    });
  });
}

TEST(Gguf, ConvertsToAFolder) {
  TempFolder dir;
  CommandResult r = Nibble("convert " + Golden("gguf/tiny.gguf") + " " + (dir / "out") + " --to hf --dtype float32");
  ASSERT_EQ(r.code, 0) << r.err;
  Checkpoint made(dir / "out"), expected(Golden("gguf/expected.safetensors"));
  ASSERT_EQ(made.status, NIBBLE_OK) << made.err.message;
  ASSERT_EQ(made.c.tensor_count, expected.c.tensor_count);
  for (size_t i = 0; i < made.c.tensor_count; i++) {
    const nb_tensor &t = made.c.tensors[i];
    const nb_tensor *e = nb_checkpoint_find(&expected.c, t.name);
    ASSERT_NE(e, nullptr) << t.name;
    ExpectSameBits(ReadAll(made.c, t).data(), ReadAll(expected.c, *e).data(), (size_t)t.count, t.name);
  }
  EXPECT_EQ(made.c.config.num_key_value_heads, 1);
  EXPECT_EQ(made.c.config.head_dim, 4);
  EXPECT_FALSE(made.c.config.tie_word_embeddings);
  EXPECT_EQ(made.c.config.dtype, NB_F32);
  EXPECT_TRUE(Exists(dir / "out/tokenizer.json"));
}

TEST(Gguf, ADamagedFileConvertsToNothing) {
  TempFolder dir;
  std::string bytes = ReadFile(Golden("gguf/tiny.gguf"));
  WriteFile(dir / "m.gguf", bytes.substr(0, bytes.size() - 1000));
  CommandResult r = Nibble("convert " + (dir / "m.gguf") + " " + (dir / "out"));
  EXPECT_EQ(r.code, 3);
  EXPECT_NE(r.err.find("past the end of the file"), std::string::npos) << r.err;
  EXPECT_EQ(ListFolder(dir.path()), (std::vector<std::string>{"m.gguf"}));
}

std::string Sha256(const void *bytes, size_t n) {
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256((const unsigned char *)bytes, n, digest);
  std::string hex;
  for (unsigned char b : digest) hex += "0123456789abcdef"[b >> 4], hex += "0123456789abcdef"[b & 15];
  return hex;
}

TEST(Gguf, RealModelHasTheReferencesTensors) {
  std::string model = RealModel(), reference = Shared("data/smollm2-135m/reference.json");
  if (model.empty()) GTEST_SKIP() << "skipped: SmolLM2-135M-Instruct.Q4_1.gguf is not in the cache; see quickstart";
  if (reference.empty()) GTEST_SKIP() << "skipped: no shared data beside the repository";
  Checkpoint m(model);
  ASSERT_EQ(m.status, NIBBLE_OK) << m.err.message;
  cJSON *json = nullptr;
  ASSERT_EQ(nb_json_load(reference.c_str(), &json, &m.err), NIBBLE_OK) << m.err.message;
  const cJSON *tensors = nb_json_object(json, "tensors");
  EXPECT_EQ((int)m.c.tensor_count, cJSON_GetArraySize(tensors));
  for (const cJSON *want = tensors->child; want; want = want->next) {
    const nb_tensor *t = nb_checkpoint_find(&m.c, want->string);
    ASSERT_NE(t, nullptr) << want->string;
    std::vector<uint16_t> values((size_t)t->count);
    ASSERT_EQ(nb_tensor_read(&m.c, t, nb_span{0, t->count}, NB_BF16, values.data(), &m.err), NIBBLE_OK)
        << m.err.message;
    EXPECT_EQ(Sha256(values.data(), values.size() * 2), cJSON_GetObjectItem(want, "sha256")->valuestring)
        << want->string;
  }
  cJSON_Delete(json);
}

TEST(Gguf, RealModelsTokenizerIsTheReferencesByteForByte) {
  std::string model = RealModel(), reference = Shared("data/smollm2-135m/tokenizer.json");
  if (model.empty()) GTEST_SKIP() << "skipped: SmolLM2-135M-Instruct.Q4_1.gguf is not in the cache; see quickstart";
  if (reference.empty()) GTEST_SKIP() << "skipped: no shared data beside the repository";
  Checkpoint m(model);
  ASSERT_EQ(m.status, NIBBLE_OK) << m.err.message;
  nb_buf text = {};
  ASSERT_EQ(nb_gguf_tokenizer_json(&m.c, &text, &m.err), NIBBLE_OK) << m.err.message;
  EXPECT_TRUE(std::string(text.data, text.length) == ReadFile(reference));
  nb_buf_free(&text);
}

// Llama 3's scaling is in the file only as what each frequency is divided by.
GgufFile WithRopeFactors(const std::vector<float> &factors) {
  GgufFile f = TinyLlama();
  f.Set("llama.rope.freq_base", F32Value(500000.0f));
  f.tensors.push_back({"rope_freqs.weight", {factors.size()}, 0, std::string(), -1});
  f.tensors.back().data.assign((const char *)factors.data(), factors.size() * sizeof(float));
  return f;
}

TEST(Gguf, FindsLlama3sRopeScalingInItsFactors) {
  TempFolder dir;
  auto open = [&dir](const std::vector<float> &factors) {
    WriteFile(dir / "m.gguf", WithRopeFactors(factors).Build());
    return std::make_unique<Checkpoint>(dir / "m.gguf");
  };
  // As llama.cpp's converter computes them for heads of 16.
  std::vector<float> factors = {1, 1, 1, 1, 2.6945297f, 8, 8, 8}, wrong = {1, 1, 1, 1, 2.8f, 8, 8, 8};
  auto ones = open(std::vector<float>(8, 1.0f)), llama3 = open(factors), other = open(wrong);
  ASSERT_EQ(ones->status, NIBBLE_OK) << ones->err.message;
  EXPECT_EQ(ones->c.config.rope.type, NB_ROPE_DEFAULT);
  EXPECT_EQ(ones->c.config.rope.theta, 500000);
  ASSERT_EQ(llama3->status, NIBBLE_OK) << llama3->err.message;
  EXPECT_EQ(llama3->c.config.rope.type, NB_ROPE_LLAMA3);
  EXPECT_EQ(llama3->c.config.rope.factor, 8);
  EXPECT_EQ(llama3->c.config.rope.original_max_position_embeddings, 8192);
  EXPECT_EQ(nb_checkpoint_find(&llama3->c, "rope_freqs.weight"), nullptr);
  EXPECT_EQ(other->status, NIBBLE_BAD_INPUT);
  EXPECT_NE(std::string(other->err.message).find("rope_freqs.weight"), std::string::npos) << other->err.message;
}

}  // namespace
