#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <string>

extern "C" {
#include "base/buf.h"
#include "base/checked.h"
#include "base/dtype.h"
#include "base/parallel.h"
#include "base/str.h"
#include "base/strmap.h"
}

namespace {

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

}  // namespace
