/* Any float tensor of a checkpoint as float32, exactly as a forward pass would see it: packed weights dequantized, GGUF
 * blocks too, nothing rounded on the way. What compares two checkpoints reads both through this. */
#ifndef NB_VALIDATE_VALUES_H
#define NB_VALIDATE_VALUES_H

#include "convert/source.h"

typedef struct nb_values {
  nb_source source;
  nb_packed plain;             /* if it is not packed: the tensor, or GGUF's blocks, as a format, where they lie so */
  nb_dequantize_fn dequantize; /* NULL: read it by nb_tensor_read */
  int64_t rows, cols;          /* a tensor of one dimension is one row */
} nb_values;

/* The tensor must be no part of another's weight, and of a float dtype or packed. Close with nb_values_close, on
 * failure too. */
nibble_status nb_values_open(const nb_checkpoint *checkpoint, const nb_tensor *tensor, nb_values *out,
                             nibble_error *err);
void nb_values_close(nb_values *values);

/* Gives the pages of values [first, first + count) back; of packed weights, whose parts lie elsewhere, on closing. */
void nb_values_release(const nb_values *values, int64_t first, int64_t count);

/* Values [first, first + count) of the flattened tensor. Any thread. */
nibble_status nb_values_read(const nb_values *values, int64_t first, int64_t count, float *out, nibble_error *err);

/* The same of a descriptor. */
void nb_packed_read(nb_dequantize_fn dequantize, const nb_packed *m, int64_t first, int64_t count, float *out);

#endif
