// That the program at hand has AVX-VNNI's kernels and believes in its processor; q8_test.cc, int8_test.cc and
// gptq_kernels_test.cc, which it has too, then hold them to what they have to compute.
#include <gtest/gtest.h>

#include "tests/kernels/avxvnni_emulated.h"
#undef __get_cpuid_count

extern "C" {
#include "kernels/cpu/int8_cpu.h"
#include "kernels/cpu/isa.h"
}

namespace {

TEST(Emulated, IsTakenByItself) {
  if (!nb_isa_available(NB_ISA_AVX2)) GTEST_SKIP() << "skipped: this processor has no AVX2";
  EXPECT_TRUE(nb_isa_available(NB_ISA_AVXVNNI));
  EXPECT_EQ(nb_isa_current(), nb_isa_available(NB_ISA_AVX512) ? NB_ISA_AVX512 : NB_ISA_AVXVNNI);
  EXPECT_EQ(nb_cpu_int8_for(NB_ISA_AVXVNNI), &nb_cpu_int8_avxvnni);
}

__attribute__((target("avx2"))) void Dpbusd(int32_t sum, uint8_t w, int8_t x, int32_t out[8]) {
  __m256i v = emulated_dpbusd(_mm256_set1_epi32(sum), _mm256_set1_epi8(int8_t(w)), _mm256_set1_epi8(x));
  _mm256_storeu_si256(reinterpret_cast<__m256i *>(out), v);
}

// As the manual has it: the largest sums do not saturate, unlike vpmaddubsw's.
TEST(Emulated, AddsUpIn32Bits) {
  if (!nb_isa_available(NB_ISA_AVX2)) GTEST_SKIP() << "skipped: this processor has no AVX2";
  int32_t out[8];
  Dpbusd(7, 255, 127, out);
  for (int32_t v : out) EXPECT_EQ(v, 7 + 4 * 255 * 127);
  Dpbusd(-7, 255, -128, out);
  for (int32_t v : out) EXPECT_EQ(v, -7 - 4 * 255 * 128);
  Dpbusd(INT32_MAX, 1, 1, out);
  for (int32_t v : out) EXPECT_EQ(v, INT32_MIN + 3);
}

}  // namespace
