/* The activations between two transformer blocks, or two parts of one, for all calibration samples: the one thing whose
 * size grows with the number of samples. It is held in memory, or above a limit in a file without a name, which is gone
 * with the process.
 */
#ifndef NB_QUANT_BOUNDARY_H
#define NB_QUANT_BOUNDARY_H

#include "base/status.h"

typedef struct nb_boundary {
  int64_t samples;
  uint64_t sample_bytes;
  char *memory; /* [samples, sample_bytes], or NULL */
  int fd;       /* if not in memory */
  const char *folder;
} nb_boundary;

/* Holds `samples` of `sample_bytes` each, in memory if all of it is at most `max_memory` bytes, else in a file in
 * `folder`. Free with nb_boundary_free. */
nibble_status nb_boundary_create(nb_boundary *out, int64_t samples, uint64_t sample_bytes, uint64_t max_memory,
                                 const char *folder, nibble_error *err);
void nb_boundary_free(nb_boundary *boundary);

/* A sample that is held in memory, else NULL. */
void *nb_boundary_view(const nb_boundary *boundary, int64_t sample);

/* The first `count` bytes of a sample that is not. */
nibble_status nb_boundary_put(nb_boundary *boundary, int64_t sample, const void *bytes, uint64_t count,
                              nibble_error *err);
nibble_status nb_boundary_get(const nb_boundary *boundary, int64_t sample, void *bytes, uint64_t count,
                              nibble_error *err);

#endif
