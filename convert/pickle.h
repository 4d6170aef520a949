/* Reads the pickle of a state dict without ever calling anything: a stack machine for the opcodes that torch.save
 * writes, whose only callables are the few that rebuild a tensor, and those are understood here instead of run.
 * Whatever else a pickle names is refused by that name.
 * Opcodes: https://docs.python.org/3/library/pickletools.html; what torch writes: torch/serialization.py, _utils.py. */
#ifndef NB_CONVERT_PICKLE_H
#define NB_CONVERT_PICKLE_H

#include "convert/checkpoint.h"

/* A tensor of the dict: a view into one storage, which is a member of the archive. Strides and offset in elements. */
typedef struct nb_pickle_tensor {
  char *name;
  nb_dtype dtype;
  char *storage;          /* the member's name below data/ */
  int64_t storage_bytes;  /* as the pickle has it */
  int64_t storage_offset; /* >= 0 */
  int ndim;
  int64_t shape[NB_MAX_DIMS], stride[NB_MAX_DIMS]; /* >= 0 */
} nb_pickle_tensor;

typedef struct nb_pickle {
  nb_pickle_tensor *tensors; /* as the dict has them */
  size_t count;
  size_t skipped; /* entries of the dict that are no tensors */
} nb_pickle;

/* Free with nb_pickle_free. `where` names the file. */
nibble_status nb_pickle_read(const char *where, const uint8_t *bytes, size_t n, nb_pickle *out, nibble_error *err);
void nb_pickle_free(nb_pickle *pickle);

#endif
