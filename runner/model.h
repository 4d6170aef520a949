/* A model ready to run: the checkpoint's config, and every weight the config promises, loaded onto a backend. On the
 * CPU weights stay where they lie in the mapped file, packed as they are, but for GPTQ's, which are laid out anew and
 * their pages given back; norms and biases, which are small, are widened to float32. Each block carries its own
 * backend, so a model can be spread over several, and can be loaded by itself, so that work on a model larger than
 * memory can take one block at a time. */
#ifndef NB_RUNNER_MODEL_H
#define NB_RUNNER_MODEL_H

#include "convert/checkpoint.h"
#include "convert/layouts.h"
#include "kernels/backend.h"
#include "model/archs.h"

typedef enum nb_linear_slot {
  NB_Q_PROJ,
  NB_K_PROJ,
  NB_V_PROJ,
  NB_O_PROJ,
  NB_GATE_PROJ,
  NB_UP_PROJ,
  NB_DOWN_PROJ,
  NB_LINEARS
} nb_linear_slot;

typedef enum nb_norm_slot { NB_INPUT_NORM, NB_POST_ATTENTION_NORM, NB_Q_NORM, NB_K_NORM, NB_NORMS } nb_norm_slot;

/* "self_attn.q_proj", "mlp.down_proj", ...: what stands in a tensor's name between the layer's number and ".weight". */
extern const char *const nb_linear_names[NB_LINEARS];
extern const char *const nb_norm_names[NB_NORMS];

/* One linear layer, [out, in]. */
typedef struct nb_linear {
  nb_weight source;  /* in the mapped file */
  nb_matrix *matrix; /* NULL: the model has no such layer */
  nb_buffer *bias;   /* [out], or NULL */
  int64_t out, in;
} nb_linear;

typedef struct nb_block {
  nb_backend *backend;
  nb_linear linear[NB_LINEARS];
  nb_buffer *norm[NB_NORMS]; /* NULL where the family has none */
  int64_t window;            /* of sliding-window attention; 0: none */
  uint64_t weight_bytes;
} nb_block;

typedef struct nb_model_options {
  nb_backend *backend;                                       /* NULL: where nibble_set_device says, each layer */
  nb_backend *(*backend_of_layer)(void *ctx, int64_t layer); /* NULL: `backend` for all */
  void *ctx;
  bool llm_int8;         /* int8 weights are multiplied as LLM.int8 does, not as float32 */
  bool int8_activations; /* packed weights are multiplied as q8.h does */
} nb_model_options;

typedef struct nb_model {
  nb_checkpoint checkpoint;
  nb_backend *backend;       /* of the embedding, the last norm and the head */
  nb_linear embedding, head; /* the head borrows the embedding's matrix where they are tied */
  nb_buffer *final_norm;
  nb_block *blocks; /* [num_hidden_layers] */
  nb_matrix_options matrix_options;
  nb_activation activation;
  uint64_t weight_bytes; /* packed weights, scales, norms and biases as they are stored */
} nb_model;

/* Opens a MODEL and loads all of it. NIBBLE_BAD_INPUT names the file and the tensor that is missing or has another
 * shape than the config says, or the family or setting that the runner does not compute. Free with nb_model_free, which
 * is harmless on a zeroed struct. */
nibble_status nb_model_load(const char *path, const nb_model_options *options, nb_model *out, nibble_error *err);
void nb_model_free(nb_model *model);

/* NIBBLE_BAD_INPUT, with the reason, if the runner cannot compute this checkpoint's family or settings; *activation is
 * set otherwise. */
nibble_status nb_model_check_runnable(const nb_checkpoint *checkpoint, nb_activation *activation, nibble_error *err);

/* Loads block `layer` of a checkpoint; `tensors` is the config's list. Free with nb_block_free. */
nibble_status nb_block_load(const nb_checkpoint *checkpoint, const nb_model_tensors *tensors, int64_t layer,
                            nb_backend *backend, const nb_matrix_options *options, nb_block *out, nibble_error *err);
void nb_block_free(nb_block *block);

/* The inverse frequencies of the rotary embedding, float32 [head_dim / 2], with the config's scaling applied. */
void nb_rope_frequencies(const nb_rope *rope, int64_t head_dim, float *out);

#endif
