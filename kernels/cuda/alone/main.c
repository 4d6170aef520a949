/* nibble-kernels [check|check-small|bench [FORMAT]|decode|quantize|quantize-small|profile|all]: the CUDA backend
 * checked and measured without the rest of the project. Exit codes: 0 done, 1 a check failed, 2 wrong usage, 4 CUDA
 * failed, 77 skipped because there is no device.
 */
#include <stdio.h>
#include <string.h>

#include "kernels/cpu/isa.h"
#include "kernels/cuda/alone/check.h"
#ifdef NIBBLE_HAS_CUDA
#include "kernels/cuda/alone/bench.h"
#endif

enum { EXIT_SKIPPED = 77 };

static void report(const char *line) { printf("FAILED  %s\n", line); }

static int check(nb_backend *cuda) {
  nb_check c = {.tested = cuda, .report = report};
  nb_isa fastest = nb_isa_current();
  nb_isa_use(NB_ISA_SCALAR); /* the specification */
  nb_check_operations(&c);
  printf("operations: %lld comparisons passed, %lld failed\n", (long long)c.passed, (long long)c.failed);
  nb_check_quantizers(&c);
  printf("quantizers: %lld comparisons passed, %lld failed\n", (long long)c.passed, (long long)c.failed);
  nb_check_recording(&c);
  printf("recordings: %lld comparisons passed, %lld failed\n", (long long)c.passed, (long long)c.failed);
  fflush(stdout);
  nb_isa_use(fastest); /* the project's tests hold it to the scalar one, which would take minutes here */
  nb_check_products(&c);
  printf("all: %lld comparisons passed, %lld failed\n", (long long)c.passed, (long long)c.failed);
  return c.failed ? 1 : 0;
}

/* With small shapes: what compute-sanitizer gets through in minutes. */
static int check_small(nb_backend *cuda) {
  nb_check c = {.tested = cuda, .small = true, .report = report};
  nb_check_operations(&c);
  nb_check_quantizers(&c);
  nb_check_recording(&c);
  nb_check_products(&c);
  printf("small: %lld comparisons passed, %lld failed\n", (long long)c.passed, (long long)c.failed);
  return c.failed ? 1 : 0;
}

typedef enum measurement { PRODUCTS, DECODE, QUANTIZE, QUANTIZE_SMALL, PROFILE } measurement;

static int measure(nb_backend *cuda, measurement what, const char *only) {
  nibble_error err = {0};
#ifdef NIBBLE_HAS_CUDA
  nibble_status status = what == PROFILE    ? nb_profile_gpu(&err)
                         : what == DECODE   ? nb_bench_decode(cuda, &err)
                         : what >= QUANTIZE ? nb_bench_quantize(what == QUANTIZE_SMALL, &err)
                                            : nb_bench_gpu(only, &err);
#else
  (void)cuda, (void)what, (void)only;
  nibble_status status = NIBBLE_SYSTEM; /* not reached: without CUDA there is no device */
#endif
  if (status != NIBBLE_OK) fprintf(stderr, "nibble-kernels: %s\n", err.message);
  return (int)status;
}

int main(int argc, char **argv) {
  static const char *const words[] = {"check",    "check-small",    "bench",   "decode",
                                      "quantize", "quantize-small", "profile", "all"};
  const char *word = argc > 1 ? argv[1] : "all";
  bool known = false;
  for (size_t i = 0; i < sizeof words / sizeof *words; i++) known |= strcmp(words[i], word) == 0;
  if (!known) {
    fputs("usage: nibble-kernels [check|check-small|bench [FORMAT]|decode|quantize|quantize-small|profile|all]\n",
          stderr);
    return 2;
  }
  nibble_error err = {0};
  nb_backend *cuda = nb_backend_cuda(&err);
  if (!cuda) {
    printf("skipped: %s\n", err.message);
    return EXIT_SKIPPED;
  }
  bool all = strcmp(word, "all") == 0;
  int code = 0;
  if (all || strcmp(word, "check") == 0) code = check(cuda);
  if (strcmp(word, "check-small") == 0) code = check_small(cuda);
  if (code == 0 && (all || strcmp(word, "bench") == 0)) code = measure(cuda, PRODUCTS, argc > 2 ? argv[2] : NULL);
  if (code == 0 && (all || strcmp(word, "decode") == 0)) code = measure(cuda, DECODE, NULL);
  if (code == 0 && (all || strcmp(word, "quantize") == 0)) code = measure(cuda, QUANTIZE, NULL);
  if (code == 0 && strcmp(word, "quantize-small") == 0) code = measure(cuda, QUANTIZE_SMALL, NULL);
  if (code == 0 && strcmp(word, "profile") == 0) code = measure(cuda, PROFILE, NULL);
  return code;
}
