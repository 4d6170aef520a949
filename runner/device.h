/* Where a model is computed, as a context says (NULL: on the CPU): every layer on the CPU, every layer on the GPU, or
 * as many on the GPU as its memory holds, from the first on, and the rest on the CPU (what transformers'
 * device_map="auto" does). The embedding, the last norm and the head stay together and come before the layers. */
#ifndef NB_RUNNER_DEVICE_H
#define NB_RUNNER_DEVICE_H

#include "base/context.h"
#include "kernels/cuda/module.h"
#include "runner/model.h"

typedef struct nb_placement {
  nb_backend *outer; /* of the embedding, the last norm and the head */
  nb_backend *gpu;   /* of layers [0, gpu_layers); the others are the CPU's */
  int64_t gpu_layers;
} nb_placement;

/* Places a checkpoint. `cpu_only`: its options ask for products that only the CPU has. NIBBLE_SYSTEM if the GPU was
 * asked for and there is none. */
nibble_status nb_device_place(const nibble_context *context, const nb_checkpoint *checkpoint, bool cpu_only,
                              nb_placement *out, nibble_error *err);

/* The CUDA part, where the context asks for it and there is a device; *out is NULL where the CPU computes.
 * NIBBLE_SYSTEM if the GPU was asked for and there is none. */
nibble_status nb_device_module(const nibble_context *context, const nb_cuda_module **out, nibble_error *err);

/* NIBBLE_USAGE where the GPU alone will do and `what` computes on the CPU only. */
nibble_status nb_device_allow_cpu(const nibble_context *context, const char *what, nibble_error *err);

/* How many of the first layers fit into `budget` bytes beside the outer tensors, if those fit; else *outer_fits is
 * false and the layers have it for themselves. */
int64_t nb_place_layers(uint64_t budget, uint64_t outer_bytes, const uint64_t *layer_bytes, int64_t layers,
                        bool *outer_fits);

#endif
