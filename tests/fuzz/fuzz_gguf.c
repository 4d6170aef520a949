/* A GGUF file of any bytes: opened, every tensor read and loaded as a weight, its tokenizer made. The reader maps
 * files, so the bytes go through one in memory. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "convert/gguf.h"
#include "convert/layouts.h"

static void read_tensors(const nb_checkpoint *c) {
  float values[512];
  for (size_t i = 0; i < c->tensor_count; i++) {
    const nb_tensor *t = &c->tensors[i];
    int64_t n = t->count < 512 ? t->count : 512;
    nb_weight weight;
    if (!nb_dtype_is_float(t->dtype)) continue;
    nb_tensor_read(c, t, 0, n, NB_F32, values, NULL);
    nb_tensor_read(c, t, t->count - n, n, NB_F32, values, NULL);
    if (t->ndim == 2 && nb_weight_load(c, t->name, t->shape[0], t->shape[1], &weight, NULL) == NIBBLE_OK)
      nb_weight_free(&weight);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  int fd = memfd_create("fuzz", MFD_CLOEXEC);
  if (fd < 0 || write(fd, data, size) != (ssize_t)size) abort();
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  nb_checkpoint c;
  nibble_error err;
  if (nb_checkpoint_open(path, &c, &err) == NIBBLE_OK) {
    if (c.gguf) {
      nb_buf text = {0};
      read_tensors(&c);
      nb_gguf_tokenizer_json(&c, &text, &err);
      nb_buf_free(&text);
    }
    nb_checkpoint_close(&c);
  }
  close(fd);
  return 0;
}
