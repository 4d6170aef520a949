/* What the targets share. Each is one function of any bytes, LLVMFuzzerTestOneInput: libFuzzer calls it with what it
 * makes up (CMakeLists.txt, scripts/fuzz), replay.c with the files of corpus/NAME, as one of the tests. */
#ifndef NB_TESTS_FUZZ_H
#define NB_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>

#include "convert/checkpoint.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Readers map files, so the bytes go through one in memory: opened, and where that succeeds `look` is called. */
void nb_fuzz_open(const uint8_t *data, size_t size, void (*look)(const nb_checkpoint *checkpoint));

/* Reads the ends of every tensor, as it is stored and as float32, and loads each matrix as a weight. */
void nb_fuzz_read_tensors(const nb_checkpoint *checkpoint);

#endif
