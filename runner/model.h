/* A model ready to run: the checkpoint's config, and every weight the config promises, loaded onto a backend, in the
 * order in which its family's operations (model/ops.h) use them. On the CPU weights stay where they lie in the mapped
 * file, packed as they are, but for GPTQ's, which are laid out anew and their pages given back; norms and biases, which
 * are small, are widened to float32. Each block carries its own backend, so a model can be spread over several, and can
 * be loaded by itself, so that work on a model larger than memory can take one block at a time. */
#ifndef NB_RUNNER_MODEL_H
#define NB_RUNNER_MODEL_H

#include "convert/checkpoint.h"
#include "convert/layouts.h"
#include "kernels/backend.h"
#include "model/heads.h"

/* The weights of one role. */
typedef struct nb_module {
  nb_role role;
  int stack, layer, expert; /* -1: none */
  const nb_tensor *tensor;
  nb_weight source;  /* of a matrix: in the mapped file */
  nb_matrix *matrix; /* [out, in]; NULL: it has a vector */
  nb_buffer *vector; /* [out] */
  nb_buffer *bias;   /* [out], or NULL */
  int64_t out, in;
  bool is_borrowed; /* the matrix is another module's */
} nb_module;

/* One operation with its weights. Those without any, or whose input nothing has written, are not among a program's
 * steps. */
typedef struct nb_instruction {
  nb_op op;                /* with NB_NO_REG in `with` where nothing has written that */
  const nb_module *module; /* NULL: it has no weights */
  int group;               /* LINEAR: this one and those after it that share its input, one launch; of a later one 0 */
  float factor;            /* SCALE */
} nb_instruction;

typedef struct nb_program {
  nb_instruction *steps; /* [count], owned */
  int count;
} nb_program;

typedef struct nb_modules {
  nb_module *items; /* [count], owned */
  int count;
} nb_modules;

typedef struct nb_block {
  nb_backend *backend;
  nb_modules modules;
  nb_program program;
  int64_t window; /* of sliding-window attention; 0: none */
  float scale;    /* on attention's scores */
  uint64_t weight_bytes;
} nb_block;

/* One of the family's stacks. */
typedef struct nb_model_stack {
  const nb_stack *family; /* its description; NULL: there is no such stack */
  nb_program embed, end;
  nb_block *blocks; /* [layers] */
  int64_t layers;
  bool causal;
  float *position_bias; /* [relative_attention_num_buckets, num_attention_heads], or NULL */
} nb_model_stack;

typedef struct nb_model_options {
  const nibble_context *context;                             /* read while the model is loaded; NULL: the CPU */
  nb_backend *backend;                                       /* NULL: where the context says, each layer */
  nb_backend *(*backend_of_layer)(void *ctx, int64_t layer); /* NULL: `backend` for all */
  void *ctx;
  const nibble_progress *progress; /* is told what is odd about the checkpoint; NULL: nobody is */
  bool llm_int8;                   /* int8 weights are multiplied as LLM.int8 does, not as float32 */
  nibble_activations activations;  /* with which packed weights are multiplied (q8.h) */
  nibble_head head;
} nb_model_options;

typedef struct nb_model {
  nb_checkpoint checkpoint;
  nb_backend *backend; /* of whatever is outside of blocks */
  nb_modules outer;    /* embeddings, last norms, head */
  nb_model_stack stacks[NB_MAX_STACKS];
  int stack_count; /* the last is the one with the head */
  nb_program head; /* from the rows asked for, in X, to `output`: the end of the last stack, then the head */
  nb_reg output;   /* NB_L, or NB_X of a base class */
  int64_t output_width;
  bool has_experts;
  nb_matrix_options matrix_options;
  nibble_activations activations; /* INT8 if the products of any block round theirs, else EXACT */
  nb_activation activation;
  uint64_t weight_bytes; /* packed weights, scales, norms and biases as they are stored */
} nb_model;

/* Opens a MODEL and loads all of it. NIBBLE_BAD_INPUT names the file and the tensor that is missing or has another
 * shape than the config says, or the family or setting that the runner does not compute. Free with nb_model_free, which
 * is harmless on a zeroed struct. */
nibble_status nb_model_load(const char *path, const nb_model_options *options, nb_model *out, nibble_error *err);
void nb_model_free(nb_model *model);

/* How matrices outside of blocks are multiplied. FAST is exact there: what the head's product is off by, the logits
 * are, and no layer after it evens that out. */
nb_matrix_options nb_outer_options(const nb_model *model);

/* The activation of that name in transformers, which has several names for some; false if it is not known here. */
bool nb_activation_named(const char *name, nb_activation *out);

/* NIBBLE_BAD_INPUT, with the reason, if the runner cannot compute this checkpoint's family or settings; *activation is
 * set otherwise. */
nibble_status nb_model_check_runnable(const nb_checkpoint *checkpoint, nb_activation *activation, nibble_error *err);

/* NIBBLE_BAD_INPUT if the model does not score next tokens one after the other: what generates, and what measures
 * perplexity, needs that. */
nibble_status nb_model_need_decoder(const nb_model *model, nibble_error *err);

/* The stack with the head. */
static inline const nb_model_stack *nb_model_last(const nb_model *model) {
  return &model->stacks[model->stack_count - 1];
}

/* Where weights come from, and where they go. */
typedef struct nb_loader {
  const nb_checkpoint *checkpoint;
  nb_backend *backend;
  const nb_matrix_options *options;
} nb_loader;

/* Loads block `layer` of a stack. Free with nb_block_free. */
nibble_status nb_block_load(const nb_loader *loader, int stack, int64_t layer, nb_block *out, nibble_error *err);
void nb_block_free(nb_block *block);

/* The same for what comes before a stack's first block. */
nibble_status nb_embedding_load(const nb_loader *loader, int stack, nb_block *out, nibble_error *err);

/* The module of that role and expert (-1: none), of `stack` if that has one; NULL if there is none. */
nb_module *nb_module_find(const nb_modules *modules, int stack, nb_role role, int expert);

enum { NB_MAX_GROUP = 4 }; /* layers in one launch */

typedef struct nb_program_source {
  const nb_config *config;
  const nb_op *ops;
  const nb_modules *modules; /* must outlive the program */
  int stack;
} nb_program_source;

/* The operations of a list that there are weights for, in order. `given`: registers that hold something before the
 * first, a bit each. Free with nb_program_free. */
nibble_status nb_program_resolve(const nb_program_source *source, unsigned given, nb_program *out, nibble_error *err);
void nb_program_free(nb_program *program);

#endif
