/* The loop over operations: what a model computes, from its lists (model/ops.h), one step after the other. What the
 * steps work on lies in a frame, a set of registers on one backend that all blocks there share.
 *
 * Whoever wants to look on the way gives a hook; whoever wants to stop and go on (calibration) runs steps [from, to).
 */
#ifndef NB_RUNNER_PROGRAM_H
#define NB_RUNNER_PROGRAM_H

#include "runner/model.h"

/* A place where activations can be seen: the input of the module with that role, or the residual stream before a block
 * (NB_ROLE_OTHER), or before the last norm (NB_FINAL_NORM, layer -1). */
typedef struct nb_point {
  int stack, layer, expert; /* -1: none */
  nb_role role;
} nb_point;

/* Sees activations on their way: x [rows, cols], float32 in host memory, rows of one sequence adjacent. */
typedef struct nb_hook {
  bool (*wants)(void *ctx, const nb_point *point); /* NULL: all */
  nibble_status (*see)(void *ctx, const nb_point *point, const float *x, int64_t rows, int64_t cols, nibble_error *err);
  void *ctx;
} nb_hook;

/* Registers for at most `rows` tokens, and what attention needs for sequences of at most `capacity`. */
typedef struct nb_frame {
  nb_backend *backend;
  nb_buffer *reg[NB_REGS]; /* NULL: no program here uses it */
  nb_buffer *cos, *sin;    /* [capacity, head_dim / 2]; NULL: nothing turns */
  nb_buffer *bias;         /* [heads, 2 * capacity - 1] by distance; NULL: none */
} nb_frame;

/* The registers that a program uses, a bit each. */
unsigned nb_program_registers(const nb_program *program);

/* What of one row the register holds: its width in a model of this config. */
int64_t nb_register_width(const nb_config *config, nb_reg reg);

/* Makes the registers in `registers` that the frame does not have yet. */
nibble_status nb_frame_grow(nb_frame *frame, const nb_config *config, unsigned registers, int64_t rows,
                            nibble_error *err);

/* Makes what attention of `stack` needs. */
nibble_status nb_frame_positions(nb_frame *frame, const nb_config *config, const nb_model_stack *stack,
                                 int64_t capacity, nibble_error *err);
void nb_frame_free(nb_frame *frame); /* harmless on a zeroed struct */

/* One step of one program: `tokens` new tokens for each of `sequences`, which have `start` tokens in the cache. */
typedef struct nb_run {
  const nb_config *config;
  const nb_block *block; /* whose program it is, for its window and scale; NULL: an embedding, end or head */
  nb_activation activation;
  const nb_hook *hook; /* NULL: none */
  nb_frame *frame;
  nb_kv_cache *cache;               /* of a block */
  nb_kv_cache *cross;               /* of a block that attends to the encoder's output */
  const int32_t *ids;               /* of an embedding: [sequences * tokens] */
  const int32_t *positions, *types; /* the same */
  int stack, layer;
  int64_t sequences, tokens, start, capacity;
  int64_t encoder_tokens, encoder_capacity; /* of each sequence, in register E and in `cross` */
  bool causal, is_new;                      /* is_new: the encoder's output has changed since the last run */
} nb_run;

/* Runs steps [from, to). */
nibble_status nb_run_steps(const nb_run *run, const nb_program *program, int from, int to, nibble_error *err);
nibble_status nb_run_all(const nb_run *run, const nb_program *program, nibble_error *err);

/* Which experts each row has chosen, and with what weights. */
typedef struct nb_routes {
  int64_t rows_count, per_row;
  int32_t *experts;   /* [rows_count, per_row] */
  float *weights;     /* the same */
  int32_t *rows;      /* nb_routes_of: rows of one expert, ascending, */
  float *row_weights; /* and its weight on each */
} nb_routes;

/* The largest num_experts_per_tok of softmax(scores), scores [rows, num_experts], as the config says; scores are used
 * up. */
void nb_route(const nb_config *config, float *scores, int64_t rows, int32_t *experts, float *weights);

/* Routes of all rows by register R. Free with nb_routes_free, on failure too. */
nibble_status nb_routes_create(const nb_run *run, nb_routes *out, nibble_error *err);
void nb_routes_free(nb_routes *routes);

/* How many rows have chosen the expert; they are in routes->rows. */
int64_t nb_routes_of(nb_routes *routes, int expert);

/* What one expert gets: into T, the rows of register `in` that nb_routes_of gave. */
void nb_run_expert_input(const nb_run *run, nb_reg in, const nb_routes *routes, int64_t rows);

/* And what its down projection makes of that: into G, [rows, moe_intermediate_size]. */
nibble_status nb_run_expert_inner(const nb_run *run, int expert, int64_t rows, nibble_error *err);

/* The experts' operation: out += sum over the chosen experts of weight * expert(in). */
nibble_status nb_run_experts(const nb_run *run, const nb_instruction *step, nibble_error *err);

/* An activation x [rows, cols] on a backend. */
typedef struct nb_shown {
  nb_backend *backend;
  const nb_buffer *x;
  int64_t rows, cols;
} nb_shown;

/* Shows it to the hook if there is one that wants it. */
nibble_status nb_show(const nb_hook *hook, const nb_point *point, const nb_shown *shown, nibble_error *err);

#endif
