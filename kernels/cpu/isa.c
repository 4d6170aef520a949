#include "kernels/cpu/isa.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

static const struct {
  const char *name;
  nb_isa fallback;
  int floats;
} isas[NB_ISA_COUNT] = {
    [NB_ISA_SCALAR] = {"scalar", NB_ISA_SCALAR, 4}, [NB_ISA_AVX2] = {"avx2", NB_ISA_SCALAR, 8},
    [NB_ISA_AVXVNNI] = {"avxvnni", NB_ISA_AVX2, 8}, [NB_ISA_AVX512] = {"avx512", NB_ISA_AVX2, 16},
    [NB_ISA_NEON] = {"neon", NB_ISA_SCALAR, 4},     [NB_ISA_DOTPROD] = {"dotprod", NB_ISA_NEON, 4},
    [NB_ISA_I8MM] = {"i8mm", NB_ISA_DOTPROD, 4},
};

/* One more than the instruction set in use; 0 while nobody has asked. */
static atomic_int in_use;

#if defined(__x86_64__)
/* __builtin_cpu_supports also asks whether the system saves the wide registers; it does not know F16C everywhere. */
static bool has_f16c(void) {
  unsigned a, b, c, d;
  return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

static bool has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c(); }

/* Compilers name it too late for __builtin_cpu_supports: bit 4 of EAX in leaf 7.1. */
static bool has_avxvnni(void) {
  unsigned a, b, c, d;
  return has_avx2() && __get_cpuid_count(7, 0, &a, &b, &c, &d) && a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) &&
         (a & 1u << 4);
}

static bool has_avx512(void) {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vnni");
}
#elif defined(__aarch64__)
static bool has_dotprod(void) { return getauxval(AT_HWCAP) & HWCAP_ASIMDDP; }
#endif

bool nb_isa_available(nb_isa isa) {
#if defined(__x86_64__)
  if (isa == NB_ISA_AVX2) return has_avx2();
  if (isa == NB_ISA_AVXVNNI) return has_avxvnni();
  if (isa == NB_ISA_AVX512) return has_avx512();
#elif defined(__aarch64__)
  if (isa == NB_ISA_NEON) return true;
  if (isa == NB_ISA_DOTPROD) return has_dotprod();
  if (isa == NB_ISA_I8MM) return has_dotprod() && (getauxval(AT_HWCAP2) & HWCAP2_I8MM);
#endif
  return isa == NB_ISA_SCALAR;
}

/* The instruction set of that name; NB_ISA_COUNT if there is none. */
static nb_isa named(const char *name) {
  int i = 0;
  while (i < NB_ISA_COUNT && strcmp(name, isas[i].name) != 0) i++;
  return (nb_isa)i;
}

/* NIBBLE_ISA if it names one that is here, else the best. */
static nb_isa choose(void) {
  const char *wish = getenv("NIBBLE_ISA");
  nb_isa wished = wish ? named(wish) : NB_ISA_COUNT;
  if (wished != NB_ISA_COUNT && nb_isa_available(wished)) return wished;
  for (int i = NB_ISA_COUNT - 1; i > 0; i--) {
    if (nb_isa_available((nb_isa)i)) return (nb_isa)i;
  }
  return NB_ISA_SCALAR;
}

nb_isa nb_isa_current(void) {
  int isa = atomic_load_explicit(&in_use, memory_order_relaxed);
  if (isa) return (nb_isa)(isa - 1);
  nb_isa chosen = choose();
  atomic_store_explicit(&in_use, (int)chosen + 1, memory_order_relaxed);
  return chosen;
}

bool nb_isa_use(nb_isa isa) {
  if (!nb_isa_available(isa)) return false;
  atomic_store_explicit(&in_use, (int)isa + 1, memory_order_relaxed);
  return true;
}

nb_isa nb_isa_fallback(nb_isa isa) { return isas[isa].fallback; }

const char *nb_isa_name(nb_isa isa) { return isas[isa].name; }

nibble_status nibble_isa_check(nibble_error *err) {
  const char *wish = getenv("NIBBLE_ISA");
  if (!wish || !*wish) return NIBBLE_OK;
  nb_isa wished = named(wish);
  if (wished == NB_ISA_COUNT) return nb_fail(err, NIBBLE_USAGE, "NIBBLE_ISA: no instruction set is named '%s'", wish);
  if (nb_isa_available(wished)) return NIBBLE_OK;
  return nb_fail(err, NIBBLE_USAGE, "NIBBLE_ISA: this processor or its system has no %s", wish);
}

int nb_isa_floats(nb_isa isa) { return isas[isa].floats; }
