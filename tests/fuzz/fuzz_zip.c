/* A zip archive of any bytes: its directory, its members' CRCs, and what torch would make of it. */
#include "convert/zip.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  nb_mapfile map = {.data = data, .size = size};
  nb_zip zip;
  nibble_error err;
  if (nb_zip_open("fuzz", &map, &zip, &err) == NIBBLE_OK) {
    uint64_t sum = 0; /* of all members' bytes: each lies inside the file */
    for (size_t i = 0; i < zip.count; i++) {
      for (uint64_t k = 0; k < zip.members[i].size; k++) sum += data[zip.members[i].offset + k];
    }
    volatile uint64_t sink = sum;
    (void)sink;
    nb_zip_close(&zip);
  }
  nb_fuzz_open(data, size, nb_fuzz_read_tensors);
  return 0;
}
