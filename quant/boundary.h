/* The activations between two transformer blocks, or two parts of one, for all calibration samples: the one thing whose
 * size grows with the number of samples. It is held in memory, or above a limit in a file without a name, which is gone
 * with the process.
 */
#ifndef NB_QUANT_BOUNDARY_H
#define NB_QUANT_BOUNDARY_H

#include "kernels/backend.h"

typedef struct nb_boundary {
  nb_backend *backend;
  int64_t samples;
  uint64_t sample_bytes;
  nb_buffer **buffers; /* [samples]; or one, for one sample after the other */
  bool is_spilled;
  char *host; /* a sample on its way to or from the file */
  int fd;
  const char *folder;
} nb_boundary;

/* Holds backend, samples, sample_bytes and folder as they are in *boundary, the rest of which is zero: in memory if all
 * of it is at most `max_memory` bytes, else in a file in the folder. Free with nb_boundary_free, also after a failure.
 */
nibble_status nb_boundary_create(nb_boundary *boundary, uint64_t max_memory, nibble_error *err);
void nb_boundary_free(nb_boundary *boundary);

/* The sample's buffer, to read, fill or change in place. Owned by the boundary; where there is one buffer for all
 * samples, valid until another sample is asked for. */
nb_buffer *nb_boundary_buffer(const nb_boundary *boundary, int64_t sample);

/* Brings the first `count` bytes of the sample into its buffer, or puts them away: nothing to do unless spilled. */
nibble_status nb_boundary_load(const nb_boundary *boundary, int64_t sample, uint64_t count, nibble_error *err);
nibble_status nb_boundary_save(const nb_boundary *boundary, int64_t sample, uint64_t count, nibble_error *err);

#endif
