/* The pickle of a pytorch_model.bin, of any bytes. It is put into an archive whose CRCs are right, with three storages,
 * so that the fuzzer gets past them to the tensors. */
#include <string.h>
#include <zlib.h>

#include "base/buf.h"
#include "tests/fuzz/fuzz.h"

enum { MAX_MEMBERS = 4 };

static void put(nb_buf *buf, uint64_t v, int bytes) {
  for (int i = 0; i < bytes; i++) nb_buf_append(buf, &(char){(char)(v >> 8 * i & 0xff)}, 1);
}

static void add(nb_buf *out, nb_buf *directory, const char *name, const void *data, size_t size) {
  uint64_t crc = crc32_z(0, data, size), at = out->length;
  put(out, 0x04034b50, 4);
  put(out, 20, 2);
  put(out, 0, 8);
  put(out, crc, 4);
  put(out, size, 4);
  put(out, size, 4);
  put(out, strlen(name), 2);
  put(out, 0, 2);
  nb_buf_puts(out, name);
  nb_buf_append(out, data, size);
  put(directory, 0x02014b50, 4);
  put(directory, 20, 2);
  put(directory, 20, 2);
  put(directory, 0, 8);
  put(directory, crc, 4);
  put(directory, size, 4);
  put(directory, size, 4);
  put(directory, strlen(name), 2);
  put(directory, 0, 8);
  put(directory, 0, 4);
  put(directory, at, 4);
  nb_buf_puts(directory, name);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const uint8_t storage[256];
  nb_buf out = {0}, directory = {0};
  add(&out, &directory, "m/data.pkl", data, size);
  add(&out, &directory, "m/data/0", storage, 16);
  add(&out, &directory, "m/data/1", storage, 256);
  add(&out, &directory, "m/data/2", storage, 0);
  uint64_t at = out.length;
  nb_buf_append(&out, directory.data, directory.length);
  put(&out, 0x06054b50, 4);
  put(&out, 0, 4);
  put(&out, MAX_MEMBERS, 2);
  put(&out, MAX_MEMBERS, 2);
  put(&out, directory.length, 4);
  put(&out, at, 4);
  put(&out, 0, 2);
  nb_fuzz_open((const uint8_t *)out.data, out.length, nb_fuzz_read_tensors);
  nb_buf_free(&out);
  nb_buf_free(&directory);
  return 0;
}
