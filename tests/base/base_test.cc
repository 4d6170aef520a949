#include <gtest/gtest.h>

#include <sys/stat.h>
#include <unistd.h>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <string>

extern "C" {
#include "base/buf.h"
#include "base/checked.h"
#include "base/dtype.h"
#include "base/parallel.h"
#include "base/stage.h"
#include "base/str.h"
#include "base/strmap.h"
}

namespace {

std::string TempDir() {
  char path[] = "/tmp/nibble-test-XXXXXX";
  return mkdtemp(path);
}

bool Exists(const std::string &path) { return access(path.c_str(), F_OK) == 0; }

TEST(Checked, RefusesOverflow) {
  uint64_t u = 7;
  EXPECT_FALSE(nb_mul_u64(1ull << 33, 1ull << 33, &u));
  EXPECT_FALSE(nb_add_u64(UINT64_MAX, 1, &u));
  EXPECT_EQ(u, 7u);
  int64_t count, big[] = {1ll << 40, 1ll << 40}, negative[] = {3, -1}, fine[] = {3, 5};
  EXPECT_FALSE(nb_shape_count(big, 2, &count));
  EXPECT_FALSE(nb_shape_count(negative, 2, &count));
  ASSERT_TRUE(nb_shape_count(fine, 2, &count));
  EXPECT_EQ(count, 15);
  EXPECT_FALSE(nb_range_inside(UINT64_MAX, 2, 100));
  EXPECT_TRUE(nb_range_inside(100, 0, 100));
}

TEST(Str, EndsWithItselfAndTheEmptyStringAndNothingLonger) {
  EXPECT_TRUE(nb_ends_with("layer.weight", ".weight"));
  EXPECT_TRUE(nb_ends_with(".weight", ".weight"));
  EXPECT_TRUE(nb_ends_with("", ""));
  EXPECT_FALSE(nb_ends_with("weight", ".weight"));
  EXPECT_FALSE(nb_ends_with("layer.weights", ".weight"));
}

TEST(Dtype, EveryHalfSurvivesTheWayThroughFloat) {
  for (uint32_t h = 0; h < 0x10000; h++) {
    float f = nb_f16_to_f32((uint16_t)h), b = nb_bf16_to_f32((uint16_t)h);
    if (std::isnan(f))
      EXPECT_TRUE(std::isnan(nb_f16_to_f32(nb_f32_to_f16(f)))) << h;
    else
      EXPECT_EQ(nb_f32_to_f16(f), h);
    if (std::isnan(b))
      EXPECT_TRUE(std::isnan(nb_bf16_to_f32(nb_f32_to_bf16(b)))) << h;
    else
      EXPECT_EQ(nb_f32_to_bf16(b), h);
  }
}

#if defined(__aarch64__)
typedef __fp16 Half;  // g++ 12 knows _Float16 on x86 alone
#else
typedef _Float16 Half;
#endif

TEST(Dtype, RoundsToNearestEvenAsTheCompilerDoes) {
  uint32_t state = 1;
  for (int i = 0; i < 2000000; i++) {
    state = state * 1664525u + 1013904223u;
    float f = nb_bits_to_f32(state);
    if (std::isnan(f)) continue;
    Half want = (Half)f;
    uint16_t bits;
    memcpy(&bits, &want, 2);
    ASSERT_EQ(nb_f32_to_f16(f), bits) << f;
  }
}

TEST(Parallel, VisitsEveryItemOnceWhateverTheThreads) {
  for (int threads : {1, 2, 5}) {
    nb_threads_use(threads);
    std::string seen(1003, 0);
    nb_parallel(
        1003, 10,
        [](void *ctx, int64_t b, int64_t e, int) {
          for (int64_t i = b; i < e; i++) (*(std::string *)ctx)[(size_t)i]++;
        },
        &seen);
    EXPECT_EQ(seen, std::string(1003, 1));
  }
  nb_threads_use(0);
}

TEST(Strmap, FindsWhatWasAddedAndRefusesTwice) {
  nb_strmap map = {};
  std::string keys[1000];
  for (int i = 0; i < 1000; i++) {
    keys[i] = "layer." + std::to_string(i);
    EXPECT_EQ(nb_strmap_add(&map, keys[i].data(), keys[i].size(), i), NB_STRMAP_ADDED);
  }
  EXPECT_EQ(nb_strmap_add(&map, "layer.7", 7, 0), NB_STRMAP_EXISTS);
  int64_t value;
  for (int i = 0; i < 1000; i++) {
    ASSERT_TRUE(nb_strmap_find(&map, keys[i].data(), keys[i].size(), &value));
    EXPECT_EQ(value, i);
  }
  EXPECT_FALSE(nb_strmap_find(&map, "layer", 5, &value));
  nb_strmap_free(&map);
}

TEST(Stage, AppearsWholeOrNotAtAll) {
  std::string dir = TempDir(), dst = dir + "/out";
  nibble_error err;
  nb_stage stage;
  ASSERT_EQ(nb_stage_begin(&stage, (dst + "/").c_str(), false, &err), NIBBLE_OK) << err.message;
  std::string partial = stage.path;
  ASSERT_EQ(nb_write_file((partial + "/a").c_str(), "one", 3, &err), NIBBLE_OK);
  EXPECT_FALSE(Exists(dst));
  nb_stage second;
  EXPECT_EQ(nb_stage_begin(&second, dst.c_str(), false, &err), NIBBLE_SYSTEM); /* locked */
  ASSERT_EQ(nb_stage_commit(&stage, true, &err), NIBBLE_OK) << err.message;
  EXPECT_TRUE(Exists(dst + "/a"));
  EXPECT_FALSE(Exists(partial));

  EXPECT_EQ(nb_stage_begin(&stage, dst.c_str(), false, &err), NIBBLE_USAGE);
  ASSERT_EQ(nb_stage_begin(&stage, dst.c_str(), true, &err), NIBBLE_OK);
  ASSERT_EQ(nb_write_file((partial + "/b").c_str(), "two", 3, &err), NIBBLE_OK);
  EXPECT_TRUE(Exists(dst + "/a"));
  ASSERT_EQ(nb_stage_commit(&stage, false, &err), NIBBLE_OK) << err.message;
  EXPECT_TRUE(Exists(dst + "/b"));
  EXPECT_FALSE(Exists(dst + "/a"));
  EXPECT_FALSE(Exists(partial));
}

TEST(Stage, AFolderThatIsMissingEndsItAtOnce) {
  std::string dst = TempDir() + "/none/out";
  nibble_error err;
  nb_stage stage;
  EXPECT_EQ(nb_stage_begin(&stage, dst.c_str(), false, &err), NIBBLE_SYSTEM);
  EXPECT_EQ(nb_stage_begin_file(&stage, dst.c_str(), true, &err), NIBBLE_SYSTEM);
  EXPECT_NE(std::string(err.message).find(dst + ".partial: No such file"), std::string::npos) << err.message;
}

TEST(Stage, RemovesWhatAKilledRunLeft) {
  std::string dir = TempDir(), dst = dir + "/out";
  mkdir((dst + ".partial").c_str(), 0777);
  nibble_error err;
  ASSERT_EQ(nb_write_file((dst + ".partial/stale").c_str(), "x", 1, &err), NIBBLE_OK);
  nb_stage stage;
  ASSERT_EQ(nb_stage_begin(&stage, dst.c_str(), false, &err), NIBBLE_OK) << err.message;
  EXPECT_FALSE(Exists(dst + ".partial/stale"));
  nb_stage_abort(&stage);
  EXPECT_FALSE(Exists(dst + ".partial"));
  ASSERT_EQ(nb_stage_begin_file(&stage, dst.c_str(), false, &err), NIBBLE_OK) << err.message;
  ASSERT_EQ(nb_write_file(stage.path, "x", 1, &err), NIBBLE_OK);
  ASSERT_EQ(nb_stage_commit(&stage, true, &err), NIBBLE_OK) << err.message;
  EXPECT_TRUE(Exists(dst));
}

}  // namespace
