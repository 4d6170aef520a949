#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/checked.h"
#include "convert/layouts.h"
#include "tests/fuzz/fuzz.h"

enum { PART = 512 }; /* elements */

void nb_fuzz_open(const uint8_t *data, size_t size, void (*look)(const nb_checkpoint *checkpoint)) {
  int fd = memfd_create("fuzz", MFD_CLOEXEC);
  if (fd < 0 || write(fd, data, size) != (ssize_t)size) abort();
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  nb_checkpoint checkpoint;
  nibble_error err;
  if (nb_checkpoint_open(path, &checkpoint, &err) == NIBBLE_OK) {
    look(&checkpoint);
    nb_checkpoint_close(&checkpoint);
  }
  close(fd);
}

void nb_fuzz_read_tensors(const nb_checkpoint *c) {
  double values[PART]; /* room for any dtype */
  for (size_t i = 0; i < c->tensor_count; i++) {
    const nb_tensor *t = &c->tensors[i];
    int64_t n = nb_min_i64(t->count, PART);
    nb_dtype dtypes[] = {t->dtype, NB_F32};
    for (int d = 0; d < (nb_dtype_is_float(t->dtype) ? 2 : 1); d++) {
      nb_tensor_read(c, t, (nb_span){0, n}, dtypes[d], values, NULL);
      nb_tensor_read(c, t, (nb_span){t->count - n, n}, dtypes[d], values, NULL);
    }
    nb_tensor_release(c, t, 0, n);
    nb_weight weight;
    if (t->ndim == 2 && nb_weight_load(c, t->name, t->shape[0], t->shape[1], &weight, NULL) == NIBBLE_OK)
      nb_weight_free(&weight);
  }
}
