#include <gtest/gtest.h>

#include <string>

extern "C" {
#include "kernels/cpu/isa.h"
}

namespace {

TEST(Isa, CanBeSwitchedToEveryAvailableOne) {
  nb_isa before = nb_isa_current();
  EXPECT_TRUE(nb_isa_available(before));
  EXPECT_TRUE(nb_isa_available(NB_ISA_SCALAR));
  for (int i = 0; i < NB_ISA_COUNT; i++) {
    nb_isa isa = static_cast<nb_isa>(i), was = nb_isa_current();
    EXPECT_EQ(nb_isa_use(isa), nb_isa_available(isa)) << nb_isa_name(isa);
    EXPECT_EQ(nb_isa_current(), nb_isa_available(isa) ? isa : was) << nb_isa_name(isa);
  }
  nb_isa_use(before);
}

TEST(Isa, EveryFallbackEndsAtScalar) {
  for (int i = 0; i < NB_ISA_COUNT; i++) {
    nb_isa isa = static_cast<nb_isa>(i);
    for (int step = 0; step < NB_ISA_COUNT; step++) isa = nb_isa_fallback(isa);
    EXPECT_EQ(isa, NB_ISA_SCALAR);
    EXPECT_FALSE(std::string(nb_isa_name(static_cast<nb_isa>(i))).empty());
  }
}

}  // namespace
