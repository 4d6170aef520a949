/* Packed weights of any bytes. What begins with '{' is a quant state's JSON; all else a safetensors file, of which
 * every weight is described, loaded and dequantized at both ends. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/checked.h"
#include "convert/layouts/bnb.h"
#include "convert/source.h"

static void parse_state(const char *text, size_t n) {
  nb_packed m, again;
  nb_dtype dtype;
  nb_buf json = {0};
  if (nb_bnb_state_parse("fuzz", (nb_str){text, n}, NB_FORMAT_NF4, &m, &dtype, NULL) != NIBBLE_OK) return;
  nb_layout_state_json(&m, dtype, &json);
  /* What we write of a state, we read. */
  if (nb_bnb_state_parse("fuzz", (nb_str){json.data, json.length}, NB_FORMAT_NF4, &again, &dtype, NULL) != NIBBLE_OK)
    abort();
  if (again.rows != m.rows || again.cols != m.cols || again.scale.offset != m.scale.offset) abort();
  nb_buf_free(&json);
}

static void read_weight(const nb_checkpoint *c, const nb_tensor *t) {
  nb_source source;
  uint8_t values[64 * sizeof(double)];
  if (nb_source_open(c, t, &source, NULL) == NIBBLE_OK) {
    int64_t n = nb_min_i64(64, source.count);
    nb_source_read(&source, 0, n, values, NULL);
    nb_source_read(&source, source.count - n, n, values, NULL);
  }
  nb_source_close(&source);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size && data[0] == '{') {
    parse_state((const char *)data, size);
    return 0;
  }
  int fd = memfd_create("fuzz", MFD_CLOEXEC);
  if (fd < 0 || write(fd, data, size) != (ssize_t)size) abort();
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  nb_checkpoint c;
  if (nb_checkpoint_open(path, &c, NULL) == NIBBLE_OK) {
    for (size_t i = 0; i < c.tensor_count; i++) {
      if (!c.tensors[i].is_part) read_weight(&c, &c.tensors[i]);
    }
    nb_checkpoint_close(&c);
  }
  close(fd);
  return 0;
}
