/* A safetensors file of any bytes. */
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  nb_fuzz_open(data, size, nb_fuzz_read_tensors);
  return 0;
}
