/* Working memory of the kernels, kept from call to call, so that a product of a few microseconds does not wait for
 * malloc. Each thread has its own; it is freed when the thread ends. */
#ifndef NB_KERNELS_CPU_SCRATCH_H
#define NB_KERNELS_CPU_SCRATCH_H

#include <stdint.h>

/* At least `floats` floats on a 64-byte boundary, of unknown content, valid until this thread's next call; NULL if
 * there is no memory. */
float *nb_scratch(int64_t floats);

#endif
