// That the emulator tells of accesses that nothing orders, and of no others.
#include "tests/kernels/cuda/cuda_races.h"

#include <gtest/gtest.h>

#include "tests/kernels/cuda/cuda_racy.h"

namespace {

TEST(CudaRaces, EveryKindIsFoundAndNoneWhereThereIsNone) {
  if (!races::IsOn()) GTEST_SKIP() << "skipped: the address sanitizer excludes the compiler's calls for accesses";
  const char *const race = "a write and a read in no order: ";
  const char *const expected[kRacyCount] = {
      race,
      race,
      race,
      race,
      race,
      "a copy is still under way: shared",
      race,
      race,
      race,
      "a plain load of what another block wrote: global",
      "a read of what a kernel wrote before that was waited for: global",
      "a write before the previous kernel was waited for: global",
      "a plain load from a line that was read before the previous kernel was waited for: global"};
  for (int i = 0; i < kRacyCount; i++) {
    // A launch runs its threads and blocks forwards, the next one backwards.
    for (int turn = 0; turn < 2; turn++) {
      races::Expect();
      RunRacy((Racy)i, true);
      EXPECT_EQ(races::Found(), "") << RacyName((Racy)i);
      if (turn == 1) RunRacy((Racy)i, true);  // or both turns would go the same way
      races::Expect();
      RunRacy((Racy)i, false);
      EXPECT_PRED_FORMAT2(testing::IsSubstring, expected[i], races::Found()) << RacyName((Racy)i);
    }
  }
}

}  // namespace
