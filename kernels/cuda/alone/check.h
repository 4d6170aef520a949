/* A backend held against the scalar CPU one: every operation of kernels/backend.h on ragged shapes and random data,
 * each output poisoned first. Plain C and no test library, so that it runs on a bare GPU machine (nibble-kernels) and,
 * on the emulated GPU, in the test program. */
#ifndef NB_KERNELS_CUDA_ALONE_CHECK_H
#define NB_KERNELS_CUDA_ALONE_CHECK_H

#include "kernels/backend.h"

typedef struct nb_check {
  nb_backend *tested;
  bool small;     /* shapes for an emulator */
  bool tiny;      /* and few of them, for an emulator under sanitizers */
  int64_t passed; /* comparisons */
  int64_t failed;
  void (*report)(const char *line); /* of what failed */
} nb_check;

void nb_check_products(nb_check *check);
void nb_check_operations(nb_check *check);
void nb_check_recording(nb_check *check);
void nb_check_quantizers(nb_check *check); /* against kernels/quantize.h, to the bit */

#endif
