/* Where calibration stops in a block: before each group of linear layers that share an input, and before the experts.
 * A stop has two places: its layers' step, and before it the step where the samples rest, which is where the fewest
 * registers hold anything that later steps read. From there to the layers little is computed, and it is computed again
 * when the samples go on. Found from the block's program alone; what the block does is nowhere else. */
#ifndef NB_QUANT_STOPS_H
#define NB_QUANT_STOPS_H

#include "quant/boundary.h"
#include "quant/hessian.h"
#include "runner/program.h"

enum { NB_STOP_SLOTS = 4 }; /* registers beside X that may be held at once, and at the stop before */

/* A register whose value a sample has while it rests. */
typedef struct nb_held {
  nb_reg reg;
  int slot;    /* which of the boundaries has it; not read for X */
  bool is_new; /* since the stop before */
} nb_held;

/* Layers that are solved on one Hessian. */
typedef struct nb_batch {
  nb_module *layers[NB_MAX_GROUP];
  int count;
  int expert;    /* -1: of a group of linear layers */
  bool is_inner; /* of an expert: its second matrix, behind the gate */
} nb_batch;

typedef struct nb_stop {
  int rest, pc; /* steps of the program; both its end for the last stop, which has no layers */
  nb_held held[NB_STOP_SLOTS + 1];
  int held_count;
  nb_batch *batches; /* [batch_count], owned, in the order of solving */
  int batch_count;
  nb_module **layers; /* [layer_count], owned: of all batches */
  int layer_count;
} nb_stop;

typedef struct nb_stops {
  nb_stop *items; /* [count], owned */
  int count;
} nb_stops;

/* The stops of a block, the first at its start and the last at its end. NIBBLE_SYSTEM without memory; NIBBLE_BAD_INPUT
 * if more would have to be held than there is room for. Free with nb_stops_free, on failure too. */
nibble_status nb_stops_find(const nb_block *block, int64_t num_experts, nb_stops *out, nibble_error *err);
void nb_stops_free(nb_stops *stops);

/* The widest register that boundary `slot` holds at any of the stops; 0: none. */
int64_t nb_stops_width(const nb_stops *stops, const nb_config *config, int slot);

/* Adds what a batch's layers get of the sample whose run stands before the stop's step. */
nibble_status nb_batch_input(const nb_run *run, const nb_stop *stop, const nb_batch *batch, nb_hessian *hessian,
                             nibble_error *err);

#endif
