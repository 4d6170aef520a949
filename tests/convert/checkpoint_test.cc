#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "tests/checkpoint_files.h"
#include "tests/open_folder.h"
#include "tests/support.h"

extern "C" {
#include "convert/checkpoint.h"
#include "convert/reader.h"
#include "convert/sinks/safetensors.h"
}

namespace {

// Writes a file into a folder and returns its path.
std::string Put(const TempFolder &dir, const std::string &name, const std::string &bytes) {
  WriteFile(dir / name, bytes);
  return dir / name;
}

struct Checkpoint : nb_checkpoint {
  nibble_error err = {};
  nibble_status status;
  explicit Checkpoint(const std::string &path) { status = nb_checkpoint_open(path.c_str(), this, &err); }
  ~Checkpoint() { nb_checkpoint_close(this); }

  std::vector<float> Floats(const char *name) const {
    const nb_tensor *t = nb_checkpoint_find(this, name);
    if (!t) return {};
    std::vector<float> values((size_t)t->count);
    nibble_error e;
    EXPECT_EQ(nb_tensor_read(this, t, nb_span{0, t->count}, NB_F32, values.data(), &e), NIBBLE_OK) << e.message;
    return values;
  }
};

struct Writer {
  OpenFolder folder;
  int file = -1;
  nb_writer *w = nullptr;
  nibble_error err = {};
  Writer(const std::string &path, uint64_t max_shard_size) : folder(path) {
    EXPECT_EQ(nb_writer_open(folder.get(), max_shard_size, &w, &err), NIBBLE_OK);
  }
  Writer(const std::string &path, const std::string &name) : folder(path) {
    EXPECT_EQ(nb_folder_create(folder.get(), name.c_str(), &file, &err), NIBBLE_OK) << err.message;
    EXPECT_EQ(nb_writer_open_file(file, (path + "/" + name).c_str(), &w, &err), NIBBLE_OK);
  }
  ~Writer() {
    nb_writer_close(w);
    if (file >= 0) close(file);
  }
  nibble_status Declare(const std::string &name, nb_dtype dtype, const std::vector<int64_t> &shape) {
    return nb_writer_declare(w, name.c_str(), dtype, shape.data(), (int)shape.size(), &err);
  }
  void Put(size_t index, int64_t count, const std::string &bytes) {
    ASSERT_EQ(nb_writer_begin(w, index, count, &err), NIBBLE_OK) << err.message;
    ASSERT_EQ(nb_writer_write(w, index, 0, bytes.data(), bytes.size(), &err), NIBBLE_OK) << err.message;
  }
};

TEST(Safetensors, ReadsEveryFloatDtypeAndCopiesTheRest) {
  TempFolder dir;
  std::string header = "{" + Entry("f", "F32", "2", 0, 8) + "," + Entry("h", "F16", "1,2", 8, 12) + "," +
                       Entry("b", "BF16", "2", 12, 16) + "," + Entry("d", "F64", "", 16, 24) + "," +
                       Entry("i", "I64", "1", 24, 32) + "," + Entry("e", "F32", "0,3", 32, 32) + "," +
                       Entry("odd", "U8", "3", 32, 35) + "}";
  std::string data = Bytes<float>({1.5f, -2}) + Bytes<uint16_t>({0x3c00, 0xc000, 0x3f80, 0x4000}) +
                     Bytes<double>({0.25}) + Bytes<int64_t>({-7}) + "abc";
  Checkpoint c(Put(dir, "x.safetensors", Safetensors(header, data)));
  ASSERT_EQ(c.status, NIBBLE_OK) << c.err.message;
  EXPECT_STREQ(c.kind, "safetensors");
  EXPECT_STREQ(c.config.model_type, "");
  EXPECT_EQ(c.Floats("f"), (std::vector<float>{1.5f, -2}));
  EXPECT_EQ(c.Floats("h"), (std::vector<float>{1, -2}));
  EXPECT_EQ(c.Floats("b"), (std::vector<float>{1, 2}));
  EXPECT_EQ(c.Floats("d"), (std::vector<float>{0.25}));
  EXPECT_EQ(nb_checkpoint_find(&c, "e")->count, 0);
  EXPECT_EQ(nb_checkpoint_find(&c, "d")->ndim, 0);
  const nb_tensor *i = nb_checkpoint_find(&c, "i");
  int64_t value = 0;
  nibble_error err;
  ASSERT_EQ(nb_tensor_read(&c, i, nb_span{0, 1}, NB_I64, &value, &err), NIBBLE_OK);
  EXPECT_EQ(value, -7);
  EXPECT_EQ(nb_tensor_read(&c, i, nb_span{0, 1}, NB_F32, &value, &err), NIBBLE_BAD_INPUT);
  EXPECT_EQ(memcmp(nb_tensor_view(&c, nb_checkpoint_find(&c, "odd")), "abc", 3), 0);
  uint16_t half[2];
  ASSERT_EQ(nb_tensor_read(&c, nb_checkpoint_find(&c, "f"), nb_span{1, 1}, NB_BF16, half, &err), NIBBLE_OK);
  EXPECT_EQ(half[0], 0xc000);
  nb_tensor_release(&c, nb_checkpoint_find(&c, "f"), 0, 2);
  EXPECT_EQ(c.Floats("f"), (std::vector<float>{1.5f, -2})); /* given back, and read again */
}

TEST(Safetensors, PutsInterleavedRowsBack) {
  TempFolder dir;
  std::vector<float> stored;
  for (int i = 0; i < 16; i++) stored.push_back((float)i);
  Checkpoint c(Put(dir, "x.safetensors", Safetensors("{" + Entry("q", "F32", "8,2", 0, 64) + "}", Bytes(stored))));
  ASSERT_EQ(c.status, NIBBLE_OK) << c.err.message;
  c.tensors[0].permute_heads = 2; /* rows 0..3 of the file are (i, half) of head 0 */
  EXPECT_EQ(c.Floats("q"), (std::vector<float>{0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15}));
  EXPECT_EQ(nb_tensor_view(&c, &c.tensors[0]), nullptr);
  float part[3];
  nibble_error err;
  ASSERT_EQ(nb_tensor_read(&c, &c.tensors[0], nb_span{3, 3}, NB_F32, part, &err), NIBBLE_OK);
  EXPECT_EQ(std::vector<float>(part, part + 3), (std::vector<float>{5, 2, 3}));
}

TEST(Shards, AreReadThroughTheirIndex) {
  TempFolder dir;
  Put(dir, "a.safetensors", Safetensors("{" + Entry("x", "F32", "1", 0, 4) + "}", Bytes<float>({1})));
  Put(dir, "b.safetensors", Safetensors("{" + Entry("y", "F32", "1", 0, 4) + "}", Bytes<float>({2})));
  Put(dir, "model.safetensors.index.json",
      R"({"metadata": {}, "weight_map": {"y": "b.safetensors", "x": "a.safetensors"}})");
  Checkpoint c(dir.path());
  ASSERT_EQ(c.status, NIBBLE_OK) << c.err.message;
  EXPECT_EQ(c.file_count, 2);
  EXPECT_EQ(c.Floats("x"), (std::vector<float>{1}));
  EXPECT_EQ(c.Floats("y"), (std::vector<float>{2}));
}

TEST(Writer, LaysTensorsOutAsTheSafetensorsLibraryDoes) {
  /* What safetensors 0.8.0 wrote for these tensors, given in the order below. */
  const std::string want =
      R"({"__metadata__":{"format":"pt"},"i":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},)"
      R"("a":{"dtype":"F32","shape":[1,2],"data_offsets":[8,16]},"e":{"dtype":"F32","shape":[0,4],"data_offsets":[16,16]},)"
      R"("z":{"dtype":"BF16","shape":[1],"data_offsets":[16,18]},"é\"\\":{"dtype":"F16","shape":[],"data_offsets":[18,20]},)"
      R"("b":{"dtype":"U8","shape":[3],"data_offsets":[20,23]},"bool":{"dtype":"BOOL","shape":[1],"data_offsets":[23,24]}})";
  TempFolder dir;
  Writer w(dir.path(), 0);
  w.Declare("b", NB_U8, {3});
  w.Declare("a", NB_F32, {1, 2});
  w.Declare("z", NB_BF16, {1});
  w.Declare("i", NB_I64, {1});
  w.Declare("é\"\\", NB_F16, {});
  w.Declare("bool", NB_BOOL, {1});
  w.Declare("e", NB_F32, {0, 4});
  w.Put(0, 3, "BBB");
  w.Put(1, 2, "aaaaAAAA");
  w.Put(2, 1, "zz");
  w.Put(3, 1, "iiiiiiii");
  w.Put(4, 1, "hh");
  w.Put(5, 1, "t");
  w.Put(6, 0, "");
  ASSERT_EQ(nb_writer_finish(w.w, &w.err), NIBBLE_OK) << w.err.message;
  std::string bytes = ReadFile(dir / "model.safetensors");
  std::string padded = want + std::string((8 - want.size() % 8) % 8, ' ');
  EXPECT_EQ(bytes, Safetensors(padded, "iiiiiiiiaaaaAAAAzzhhBBBt"));
  EXPECT_EQ(nb_writer_bytes(w.w), 24u);
  EXPECT_EQ(ListFolder(dir.path()), (std::vector<std::string>{"model.safetensors"}));
}

TEST(Writer, CutsShardsAsTransformersDoes) {
  /* huggingface_hub.split_torch_state_dict_into_shards of sizes 8, 40, 12, 16, 8 bytes with max_shard_size 24: the
   * large one is numbered first, then {a, c}, then {d, e}. */
  TempFolder dir;
  Writer w(dir.path(), 24);
  const std::vector<std::pair<const char *, int64_t>> tensors = {{"a", 2}, {"b", 10}, {"c", 3}, {"d", 4}, {"e", 2}};
  for (auto &t : tensors) ASSERT_EQ(w.Declare(t.first, NB_F32, {t.second}), NIBBLE_OK);
  for (size_t i = 0; i < tensors.size(); i++)
    w.Put(i, tensors[i].second, std::string((size_t)tensors[i].second * 4, (char)('a' + i)));
  ASSERT_EQ(nb_writer_finish(w.w, &w.err), NIBBLE_OK) << w.err.message;
  EXPECT_EQ(ReadFile(dir / "model.safetensors.index.json"), R"({
  "metadata": {
    "total_size": 84
  },
  "weight_map": {
    "a": "model-00002-of-00003.safetensors",
    "b": "model-00001-of-00003.safetensors",
    "c": "model-00002-of-00003.safetensors",
    "d": "model-00003-of-00003.safetensors",
    "e": "model-00003-of-00003.safetensors"
  }
}
)");
  Checkpoint c(dir.path());
  ASSERT_EQ(c.status, NIBBLE_OK) << c.err.message;
  EXPECT_EQ(c.tensor_count, 5u);
  EXPECT_EQ(memcmp(nb_tensor_view(&c, nb_checkpoint_find(&c, "d")), "dddddddddddddddd", 16), 0);
}

TEST(Writer, TakesLengthsThatAreKnownLate) {
  TempFolder dir;
  std::string path = dir / "one.safetensors";
  Writer w(dir.path(), "one.safetensors");
  ASSERT_EQ(nb_writer_declare_upto(w.w, "s1", 1000, &w.err), NIBBLE_OK);
  ASSERT_EQ(w.Declare("w", NB_F32, {1}), NIBBLE_OK);
  ASSERT_EQ(nb_writer_declare_upto(w.w, "s0", 1000, &w.err), NIBBLE_OK);
  w.Put(0, 3, "abc");
  w.Put(1, 1, "wwww");
  w.Put(2, 5, "hello");
  ASSERT_EQ(nb_writer_finish(w.w, &w.err), NIBBLE_OK) << w.err.message;
  Checkpoint c(path);
  ASSERT_EQ(c.status, NIBBLE_OK) << c.err.message;
  EXPECT_EQ(nb_checkpoint_find(&c, "s1")->shape[0], 3);
  EXPECT_EQ(memcmp(nb_tensor_view(&c, nb_checkpoint_find(&c, "s1")), "abc", 3), 0);
  EXPECT_EQ(memcmp(nb_tensor_view(&c, nb_checkpoint_find(&c, "s0")), "hello", 5), 0);
  EXPECT_EQ(memcmp(nb_tensor_view(&c, nb_checkpoint_find(&c, "w")), "wwww", 4), 0);
}

TEST(Writer, RefusesWhatCannotBeAFile) {
  TempFolder dir;
  Writer w(dir.path(), 0);
  ASSERT_EQ(w.Declare("a", NB_F32, {2}), NIBBLE_OK);
  EXPECT_EQ(w.Declare("a", NB_F32, {2}), NIBBLE_BAD_INPUT);
  EXPECT_EQ(w.Declare("", NB_F32, {2}), NIBBLE_BAD_INPUT);
  EXPECT_EQ(w.Declare("x/../y", NB_F32, {2}), NIBBLE_BAD_INPUT);
  EXPECT_EQ(w.Declare("b", NB_F32, {1ll << 40, 1ll << 40}), NIBBLE_BAD_INPUT);
  ASSERT_EQ(nb_writer_begin(w.w, 0, 2, &w.err), NIBBLE_OK) << w.err.message;
  ASSERT_EQ(nb_writer_write(w.w, 0, 0, "1234", 4, &w.err), NIBBLE_OK);
  EXPECT_NE(nb_writer_write(w.w, 0, 6, "1234", 4, &w.err), NIBBLE_OK);
  EXPECT_NE(nb_writer_finish(w.w, &w.err), NIBBLE_OK); /* four bytes are missing */
}

}  // namespace
