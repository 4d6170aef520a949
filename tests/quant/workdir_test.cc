// The files of finished layers in a calibration's work folder: what a later run takes, and what it makes again.
#include <gtest/gtest.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <cmath>
#include <cstring>
#include <functional>

#include "tests/support.h"

extern "C" {
#include "quant/workdir.h"
}

namespace {

constexpr int64_t kRows = 3, kCols = 8, kGroups = 2;
constexpr char kLayer[] = "model.layers.0.mlp.up_proj.weight";

// Where things lie in the file, as quant/workdir.c writes it.
enum {
  kHash = 8,
  kHashed = 16,
  kRowsAt = 16,
  kColsAt = 24,
  kGroupsAt = 32,
  kMended = 40,
  kError = 48,
  kRtnError = 56,
  kWeightError = 64,
  kWeightSquares = 72,
  kDamp = 80,
  kFallback = 88,
  kScaleDtype = 96,
  kCodes = 104,
  kScales = kCodes + kRows * kCols,
  kZeros = kScales + 2 * kRows * kGroups,
  kGIdx = kZeros + kRows * kGroups,
  kEnd = kGIdx + 4 * kCols
};

template <typename T>
void Put(std::string *file, size_t at, T value) {
  memcpy(&(*file)[at], &value, sizeof value);
}

// Gives a file the hash of what is in it, as anyone can.
void Rehash(std::string *file) {
  Put<uint64_t>(file, kHash, XXH3_64bits(file->data() + kHashed, file->size() - kHashed));
}

class Workdir : public testing::Test {
 protected:
  void SetUp() override {
    settings_ = cJSON_CreateObject();
    cJSON_AddNumberToObject(settings_, "bits", 4);
    Open(false);
    for (size_t i = 0; i < sizeof codes_; i++) codes_[i] = i * 5 % 16;
    nb_rounded r = {};
    r.rows = kRows, r.cols = kCols, r.groups = kGroups;
    r.codes = codes_, r.scales = scales_, r.zeros = zeros_, r.g_idx = g_idx_;
    r.scale_dtype = NB_F16;
    r.error = 0.25, r.rtn_error = 0.5, r.weight_error = 0.1, r.weight_squares = 3, r.damp = 0.05, r.mended = 1;
    ASSERT_EQ(nb_workdir_save(&workdir_, kLayer, &r, &err_), NIBBLE_OK) << err_.message;
    file_ = ReadFile(Path());
    ASSERT_EQ(file_.size(), size_t(kEnd));
  }
  void TearDown() override {
    nb_workdir_close(&workdir_, true);
    cJSON_Delete(settings_);
  }
  nibble_status Open(bool resume) {
    nb_workdir_rule rule = {.resume = resume, .force = false, .progress = nullptr};
    nibble_status status = nb_workdir_open((folder_ / "work").c_str(), &rule, &workdir_, &err_);
    return status == NIBBLE_OK ? nb_workdir_begin(&workdir_, settings_, &err_) : status;
  }
  std::string Path() const { return folder_ / "work/" + kLayer + ".layer"; }
  // Whether the file's bytes are taken for a layer; it must be loaded whole or not at all.
  bool Loads(const std::string &bytes) {
    WriteFile(Path(), bytes);
    nb_layer_shape shape = {.rows = kRows, .cols = kCols, .grid = &grid_};
    nb_rounded r;
    bool found = true;
    EXPECT_EQ(nb_workdir_load(&workdir_, kLayer, &shape, &r, &found, &err_), NIBBLE_OK) << err_.message;
    EXPECT_EQ(r.codes != nullptr, found);
    if (found) {
      EXPECT_EQ(memcmp(r.codes, bytes.data() + kCodes, kRows * kCols), 0);
      EXPECT_EQ(memcmp(r.g_idx, bytes.data() + kGIdx, 4 * kCols), 0);
    }
    nb_rounded_free(&r);
    return found;
  }

  TempFolder folder_;
  nb_workdir workdir_ = {};
  nibble_error err_ = {};
  cJSON *settings_ = nullptr;
  nb_grid grid_ = {.bits = 4, .group_size = 4, .sym = false, .mse = true, .bf16_scales = false};
  uint8_t codes_[kRows * kCols], zeros_[kRows * kGroups] = {8, 7, 8, 8, 0, 15};
  uint16_t scales_[kRows * kGroups] = {0x2e66, 0x2e66, 0x0400, 0x7bff, 0x3c00, 0x2e66};
  int32_t g_idx_[kCols] = {0, 1, 0, 0, 1, 1, 0, 1};
  std::string file_;
};

TEST_F(Workdir, LoadsWhatItSaved) { EXPECT_TRUE(Loads(file_)); }

TEST_F(Workdir, ALayerOfAnotherGridIsNotThere) {
  grid_.group_size = 2;
  EXPECT_FALSE(Loads(file_));
  grid_.group_size = 0;
  EXPECT_FALSE(Loads(file_));
  grid_.group_size = 4;
  grid_.bits = 3;
  EXPECT_FALSE(Loads(file_));
  grid_.bits = 4;
  grid_.bf16_scales = true;
  EXPECT_FALSE(Loads(file_));
}

// Each of these has the hash that its bytes ask for.
TEST_F(Workdir, AForgedLayerIsNotThere) {
  struct {
    const char *what;
    std::function<void(std::string *)> forge;
  } cases[] = {
      {"g_idx 1000000", [](std::string *f) { Put<int32_t>(f, kGIdx, 1000000); }},
      {"g_idx -1000000", [](std::string *f) { Put<int32_t>(f, kGIdx + 4, -1000000); }},
      {"g_idx 2^31-1", [](std::string *f) { Put<int32_t>(f, kGIdx, INT32_MAX); }},
      {"g_idx one past the last group", [](std::string *f) { Put<int32_t>(f, kEnd - 4, kGroups); }},
      {"g_idx -1", [](std::string *f) { Put<int32_t>(f, kEnd - 4, -1); }},
      {"a group fewer",
       [](std::string *f) {
         Put<int64_t>(f, kGroupsAt, 1);
         f->erase(kZeros, kRows).erase(kScales, 2 * kRows);
         memset(&(*f)[f->size() - 4 * kCols], 0, 4 * kCols);
       }},
      {"no groups",
       [](std::string *f) {
         Put<int64_t>(f, kGroupsAt, 0);
         f->erase(kScales, 3 * kRows * kGroups);
       }},
      {"rows 2^62, cols 4",
       [](std::string *f) {
         Put<int64_t>(f, kRowsAt, int64_t(1) << 62);
         Put<int64_t>(f, kColsAt, 4);
       }},
      {"groups 2^62", [](std::string *f) { Put<int64_t>(f, kGroupsAt, int64_t(1) << 62); }},
      {"rows and cols negative",
       [](std::string *f) {
         Put<int64_t>(f, kRowsAt, -kRows);
         Put<int64_t>(f, kColsAt, -kCols);
       }},
      {"rows and groups negative",
       [](std::string *f) {
         Put<int64_t>(f, kRowsAt, -kRows);
         Put<int64_t>(f, kGroupsAt, -kGroups);
       }},
      {"rows and cols swapped",
       [](std::string *f) {
         Put<int64_t>(f, kRowsAt, kCols);
         Put<int64_t>(f, kColsAt, kRows);
       }},
      {"a code of 5 bits", [](std::string *f) { Put<uint8_t>(f, kCodes + 7, 16); }},
      {"a zero of 5 bits", [](std::string *f) { Put<uint8_t>(f, kZeros + 5, 16); }},
      {"an infinite scale", [](std::string *f) { Put<uint16_t>(f, kScales, 0x7c00); }},
      {"a scale that is no number", [](std::string *f) { Put<uint16_t>(f, kScales + 2, 0x7e00); }},
      {"a scale of 0", [](std::string *f) { Put<uint16_t>(f, kScales, 0); }},
      {"a negative scale", [](std::string *f) { Put<uint16_t>(f, kScales, 0xae66); }},
      {"a scale below float16's normal numbers", [](std::string *f) { Put<uint16_t>(f, kScales, 0x03ff); }},
      {"scales of another dtype", [](std::string *f) { Put<int64_t>(f, kScaleDtype, NB_BF16); }},
      {"scales of no dtype", [](std::string *f) { Put<int64_t>(f, kScaleDtype, int64_t(1) << 40 | NB_F16); }},
      {"an error that is no number", [](std::string *f) { Put<double>(f, kError, NAN); }},
      {"an infinite error", [](std::string *f) { Put<double>(f, kRtnError, INFINITY); }},
      {"a negative error", [](std::string *f) { Put<double>(f, kError, -1); }},
      {"a weight error that is no number", [](std::string *f) { Put<double>(f, kWeightError, NAN); }},
      {"infinite squares", [](std::string *f) { Put<double>(f, kWeightSquares, INFINITY); }},
      {"a negative damp", [](std::string *f) { Put<double>(f, kDamp, -0.1); }},
      {"more mended groups than groups", [](std::string *f) { Put<int64_t>(f, kMended, kRows * kGroups + 1); }},
      {"mended groups negative", [](std::string *f) { Put<int64_t>(f, kMended, -1); }},
      {"a fallback of 2", [](std::string *f) { Put<int64_t>(f, kFallback, 2); }},
      {"a byte more", [](std::string *f) { f->push_back(0); }},
      {"a byte fewer", [](std::string *f) { f->pop_back(); }},
      {"no arrays", [](std::string *f) { f->resize(kCodes); }},
  };
  for (const auto &c : cases) {
    std::string forged = file_;
    c.forge(&forged);
    Rehash(&forged);
    EXPECT_FALSE(Loads(forged)) << c.what;
  }
  std::string same = file_;
  Rehash(&same);
  EXPECT_TRUE(Loads(same)) << "the hash of these tests is not the file's";
}

TEST_F(Workdir, ADamagedLayerIsNotThere) {
  for (size_t at = 0; at < file_.size(); at++) {
    std::string damaged = file_;
    damaged[at] ^= 4;
    EXPECT_FALSE(Loads(damaged)) << "byte " << at;
  }
  for (size_t n = 0; n < file_.size(); n++) EXPECT_FALSE(Loads(file_.substr(0, n))) << n << " bytes";
}

// Where the Hessian overflows there is no error to tell, and the layer is a layer all the same.
TEST_F(Workdir, ALayerRoundedToTheNearestMayHaveNoErrorOnTheText) {
  Put<int64_t>(&file_, kFallback, 1);
  Put<double>(&file_, kError, NAN);
  Put<double>(&file_, kRtnError, INFINITY);
  Rehash(&file_);
  EXPECT_TRUE(Loads(file_));
}

TEST_F(Workdir, SettingsThatAreNotTheseAreRefusedByName) {
  struct {
    const char *text, *message;
  } cases[] = {{R"({"bits": 3})", "--resume with another bits: 4 now, 3 then"},
               {R"({"bits": "4"})", "--resume with another bits: 4 now, \"4\" then"},
               {R"({})", "--resume with another bits: 4 now, none then"},
               {R"({"bits": 4, "damp": 1})", "--resume with another damp: none now, 1 then"},
               {R"([4])", "settings.json: not a JSON object"},
               {R"("bits")", "settings.json: not a JSON object"},
               {R"({"bits": 4)", "settings.json: "},
               {"", "settings.json: "}};
  for (const auto &c : cases) {
    nb_workdir_close(&workdir_, false);
    WriteFile(folder_ / "work/settings.json", c.text);
    EXPECT_EQ(Open(true), NIBBLE_BAD_INPUT) << c.text;
    EXPECT_NE(std::string(err_.message).find(c.message), std::string::npos) << c.text << "\n" << err_.message;
    EXPECT_TRUE(Exists(Path())) << c.text;
  }
}

}  // namespace
