/* GPTQ over a whole model: one transformer block at a time, over all samples. Inside a block layers are solved in the
 * order in which the family's operations meet them (model/ops.h), each on the inputs that it gets from the layers
 * solved before it, and each block on the outputs of the finished ones: all samples go to a stop before some layers
 * (stops.h), rest there until those are solved, and go on. In memory at any time are one block, one Hessian, and the
 * activations that rest (boundary.h). Finished layers lie in a work folder, from where the output is written; layers
 * found there are not solved again. */
#ifndef NB_QUANT_CALIBRATE_H
#define NB_QUANT_CALIBRATE_H

#include "convert/layouts.h"
#include "quant/gptq.h"
#include "quant/windows.h"
#include "quant/workdir.h"

typedef struct nb_calibration {
  const nibble_context *context;
  const nb_checkpoint *checkpoint;
  const nb_windows *windows;
  const nb_workdir *workdir;
  nb_grid grid;
  nb_column_order order;
  double damp;
  uint64_t max_memory;                               /* bytes of activations to hold in memory */
  bool (*wants)(void *ctx, const nb_tensor *weight); /* whether this linear layer's weight is quantized */
  void *ctx;
  const nibble_progress *progress;
} nb_calibration;

/* Solves every wanted layer and leaves it in the work folder under its weight's name. NIBBLE_BAD_INPUT if the runner
 * cannot compute the model, or a weight is not finite. */
nibble_status nb_calibrate(const nb_calibration *calibration, nibble_error *err);

#endif
