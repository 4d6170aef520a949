#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "tests/checkpoint_files.h"
#include "tests/support.h"

extern "C" {
#include <cjson/cJSON.h>

#include "convert/checkpoint.h"
#include "convert/layouts.h"
}

namespace {

std::vector<float> Floats(const nb_checkpoint &c, const std::string &name) {
  const nb_tensor *t = nb_checkpoint_find(&c, name.c_str());
  std::vector<float> out(t ? (size_t)t->count : 0);
  nibble_error err;
  if (t) {
    EXPECT_EQ(nb_tensor_read(&c, t, nb_span{0, t->count}, NB_F32, out.data(), &err), NIBBLE_OK) << err.message;
  }
  return out;
}

struct Open : nb_checkpoint {
  explicit Open(const std::string &path) {
    nibble_error err;
    EXPECT_EQ(nb_checkpoint_open(path.c_str(), this, &err), NIBBLE_OK) << err.message;
  }
  ~Open() { nb_checkpoint_close(this); }
};

int ConvertTo(const std::string &args, std::string *err = nullptr) {
  CommandResult r = Nibble("convert " + args);
  if (err) *err = r.err;
  return r.code;
}

TEST(Convert, KeepsEveryTensorOfTorchShards) {
  TempFolder dir;
  std::string src = Golden("checkpoints/sharded_bin"), dst = dir / "out";
  ASSERT_EQ(ConvertTo(src + " " + dst), 0);
  EXPECT_EQ(ListFolder(dst), (std::vector<std::string>{"config.json", "model.safetensors", "nibble.json"}));
  Open a(src), b(dst), reference(Golden("checkpoints/sharded"));
  EXPECT_EQ(a.tensor_count, b.tensor_count);
  for (size_t i = 0; i < reference.tensor_count; i++) {
    const nb_tensor *want = &reference.tensors[i], *got = nb_checkpoint_find(&b, want->name);
    ASSERT_NE(got, nullptr) << want->name;
    EXPECT_EQ(got->dtype, want->dtype);
    ASSERT_EQ(got->bytes, want->bytes) << want->name;
    EXPECT_EQ(memcmp(nb_tensor_view(&b, got), nb_tensor_view(&reference, want), got->bytes), 0) << want->name;
  }
}

TEST(Convert, CutsShardsAndIsReadBack) {
  TempFolder dir;
  std::string dst = dir / "out";
  ASSERT_EQ(ConvertTo("--max-shard-size 3KB " + Golden("checkpoints/sharded") + " " + dst), 0);
  EXPECT_TRUE(Exists(dst + "/model.safetensors.index.json"));
  EXPECT_TRUE(Exists(dst + "/model-00001-of-00004.safetensors"));
  Open a(Golden("checkpoints/sharded")), b(dst);
  EXPECT_EQ(b.file_count, 4);
  for (size_t i = 0; i < a.tensor_count; i++) EXPECT_EQ(Floats(a, a.tensors[i].name), Floats(b, a.tensors[i].name));
}

TEST(Convert, RoundsOnceToTheDtypeItIsGivenAndSaysSo) {
  TempFolder dir;
  std::string dst = dir / "out", err;
  std::vector<float> values = {1.00390625f, 1.01171875f, -0.0f, 65519, 65520, -1e6f, INFINITY};
  std::string header = "{" + Entry("w", "F32", "7", 0, 28) + "," + Entry("ids", "I64", "1", 28, 36) + "}";
  WriteFile(dir / "model.safetensors", Safetensors(header, Bytes(values) + Bytes<int64_t>({9})));
  WriteFile(dir / "config.json", R"({"model_type": "x", "torch_dtype": "float32"})");

  ASSERT_EQ(ConvertTo("--dtype bf16 " + dir.path() + " " + dst, &err), 0);
  EXPECT_EQ(err, "");
  {
    Open c(dst);
    EXPECT_EQ(c.config.dtype, NB_BF16);
    EXPECT_EQ(Floats(c, "w"), (std::vector<float>{1, 1.015625f, -0.0f, 65536, 65536, -999424, INFINITY}));
    EXPECT_EQ(nb_checkpoint_find(&c, "ids")->dtype, NB_I64);
    EXPECT_NE(ReadFile(dst + "/config.json").find("\"torch_dtype\": \"bfloat16\""), std::string::npos);
  }
  ASSERT_EQ(ConvertTo("--force --dtype float16 " + dir.path() + " " + dst, &err), 0);
  EXPECT_NE(err.find("tensor 'w': 2 values are too large for float16"), std::string::npos) << err;
  Open c(dst);
  EXPECT_EQ(Floats(c, "w")[3], 65504);
  EXPECT_EQ(Floats(c, "w")[4], INFINITY);
  EXPECT_EQ(Floats(c, "w")[5], -INFINITY);
}

TEST(Convert, GivesTheSameBytesWhateverTheThreads) {
  TempFolder dir;
  std::vector<float> values(3000001);
  for (size_t i = 0; i < values.size(); i++) values[i] = std::sin((float)i);
  uint64_t bytes = values.size() * 4;
  WriteFile(dir / "x.safetensors",
            Safetensors("{" + Entry("w", "F32", std::to_string(values.size()), 0, bytes) + "}", Bytes(values)));
  for (const char *threads : {"1", "2", "7"})
    ASSERT_EQ(ConvertTo(std::string("--dtype f16 --no-sync --threads ") + threads + " " + (dir / "x.safetensors") +
                        " " + (dir / threads)),
              0);
  std::string one = ReadFile(dir / "1/model.safetensors");
  EXPECT_TRUE(one == ReadFile(dir / "2/model.safetensors"));
  EXPECT_TRUE(one == ReadFile(dir / "7/model.safetensors"));
  EXPECT_EQ(ReadFile(dir / "1/nibble.json"), ReadFile(dir / "7/nibble.json"));
}

TEST(Convert, DequantizesPackedWeights) {
  TempFolder dir;
  WriteFile(
      dir / "config.json",
      R"({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 96,
                "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 50, "dtype": "bfloat16"})");
  ASSERT_EQ(Nibble("init " + (dir / "config.json") + " " + (dir / "plain")).code, 0);
  for (const char *method : {"nf4", "nf4 --double-quant", "int8"}) {
    CommandResult r =
        Nibble(std::string("quantize --force --method ") + method + " " + (dir / "plain") + " " + (dir / "packed"));
    ASSERT_EQ(r.code, 0) << r.err;
    std::string err;
    ASSERT_EQ(ConvertTo("--force --dequantize --dtype f32 " + (dir / "packed") + " " + (dir / "float"), &err), 0)
        << err;
    Open packed(dir / "packed"), floats(dir / "float"), plain(dir / "plain");
    EXPECT_FALSE(floats.config.quant.present);
    EXPECT_EQ(floats.config.dtype, NB_F32);
    EXPECT_EQ(floats.tensor_count, plain.tensor_count);
    const char *name = "model.layers.0.mlp.up_proj.weight";
    nb_weight w;
    nibble_error e;
    ASSERT_EQ(nb_weight_load(&packed, name, 96, 64, &w, &e), NIBBLE_OK) << e.message;
    std::vector<float> want(96 * 64), original = Floats(plain, name);
    nb_format_info(w.packed.format)->dequantize({&w.packed, 0, 96, 0, 64}, want.data(), 64);
    nb_weight_free(&w);
    EXPECT_EQ(Floats(floats, name), want) << method;
    double error = 0, norm = 0;
    for (size_t i = 0; i < want.size(); i++) {
      error += std::pow(want[i] - original[i], 2);
      norm += std::pow(original[i], 2);
    }
    EXPECT_LT(error, 0.02 * norm) << method;
    EXPECT_EQ(Floats(floats, "model.norm.weight"), Floats(plain, "model.norm.weight"));
  }
}

TEST(Convert, ReplacesNothingUnasked) {
  TempFolder dir;
  std::string src = Golden("checkpoints/sharded"), dst = dir / "out", err;
  std::filesystem::create_directory(dst);
  WriteFile(dst + "/mine", "x");
  EXPECT_EQ(ConvertTo(src + " " + dst), 2);
  EXPECT_EQ(ListFolder(dst), (std::vector<std::string>{"mine"}));
  EXPECT_EQ(ConvertTo("--force " + src + " " + dst), 2); /* it is no model */
  EXPECT_EQ(ListFolder(dst), (std::vector<std::string>{"mine"}));
  std::filesystem::remove(dst + "/mine");
  EXPECT_EQ(ConvertTo(src + " " + dst), 0);
  EXPECT_EQ(ConvertTo(src + " " + dst), 2);
  EXPECT_EQ(ConvertTo("--force " + src + " " + dst), 0);
  EXPECT_EQ(ConvertTo("--force " + dst + " " + dst, &err), 2); /* it would remove what it reads */
  EXPECT_NE(err.find("would replace the source"), std::string::npos) << err;
  EXPECT_EQ(ConvertTo("--force " + dst + "/model.safetensors " + dir.path()), 2);
  EXPECT_EQ(ConvertTo("--dtype int4 " + src + " " + (dir / "b")), 2);
  EXPECT_EQ(ListFolder(dir.path()), (std::vector<std::string>{"out"}));
}

TEST(Convert, ReportsAFullDiskAndLeavesNothing) {
  TempFolder dir;
  std::filesystem::create_directory(dir / "small");
  std::string data(3 << 20, 1);
  WriteFile(dir / "x.safetensors",
            Safetensors("{" + Entry("w", "U8", std::to_string(data.size()), 0, data.size()) + "}", data));
  if (system("unshare -m true 2>/dev/null") != 0) GTEST_SKIP() << "skipped: mounting a small file system needs root";
  std::string script = "mount -t tmpfs -o size=1m none " + (dir / "small") + " && { " + kBinary + " convert " +
                       (dir / "x.safetensors") + " " + (dir / "small/out") + " 2>" + (dir / "err") + "; echo $? >" +
                       (dir / "code") + "; ls -A " + (dir / "small") + " >" + (dir / "left") + "; }";
  if (system(("unshare -m sh -c '" + script + "'").c_str()) != 0) GTEST_SKIP() << "skipped: tmpfs cannot be mounted";
  EXPECT_EQ(ReadFile(dir / "code"), "4\n");
  EXPECT_NE(ReadFile(dir / "err").find("No space left on device"), std::string::npos) << ReadFile(dir / "err");
  EXPECT_EQ(ReadFile(dir / "left"), "");
}

TEST(Convert, KilledAtAnyMomentLeavesTheOldOutputOrTheNew) {
  TempFolder dir;
  std::string src = dir / "x.safetensors", dst = dir / "out", data(24 << 20, 1),
              old = ReadFile(Golden("checkpoints/module.bin"));
  WriteFile(src, Safetensors("{" + Entry("w", "F32", std::to_string(data.size() / 4), 0, data.size()) + "}", data));
  ASSERT_EQ(ConvertTo(Golden("checkpoints/module.bin") + " " + dst), 0);
  for (int i = 0; i < 12; i++) {
    std::string delay = std::to_string(0.002 * i);
    (void)!system(("timeout -s KILL " + delay + " " + kBinary + " convert --force --no-sync --quiet --dtype bf16 " +
                   src + " " + dst + " >/dev/null 2>&1; true")
                      .c_str());
    Open c(dst);
    bool is_new = nb_checkpoint_find(&c, "w") != nullptr;
    EXPECT_EQ(c.tensor_count, is_new ? 1u : 5u);
    if (is_new) {
      EXPECT_EQ(Floats(c, "w").back(), Floats(c, "w").front());
    }
  }
  EXPECT_EQ(ConvertTo("--force --no-sync --dtype bf16 " + src + " " + dst), 0); /* and the next run clears up */
  EXPECT_EQ(ListFolder(dir.path()), (std::vector<std::string>{"out", "x.safetensors"}));
}

}  // namespace
