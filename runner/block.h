/* One transformer block, by parts. Between them stand the inputs of its linear layers, which is where calibration stops
 * and looks; the forward pass (forward.h) runs one after the other. What a block works on, the residual stream x among
 * it, lies in a scratch that all blocks of a backend share:
 *
 *   nb_block_attend    attended = attention(q, k, v of norm(x)), keys and values into the cache
 *   nb_block_project   x += o_proj(attended)
 *   nb_block_gate      gate = act(gate_proj(norm(x))) * up_proj(norm(x))
 *   nb_block_down      x += down_proj(gate) */
#ifndef NB_RUNNER_BLOCK_H
#define NB_RUNNER_BLOCK_H

#include "runner/model.h"

/* Sees activations on their way. They are named by the layer they enter, without the prefix of the tensor's name:
 * "layers.3.mlp.down_proj.input" is x [rows, cols], float32 in host memory, rows of one sequence adjacent. Besides the
 * input of every linear layer ("lm_head.input" too, after nb_session_logits asked for it) there are "layers.N.input",
 * the residual stream before block N, and "norm.input", after the last one. */
typedef struct nb_hook {
  bool (*wants)(void *ctx, const char *name); /* NULL: all */
  nibble_status (*see)(void *ctx, const char *name, const float *x, int64_t rows, int64_t cols, nibble_error *err);
  void *ctx;
} nb_hook;

/* Activations of at most `rows` tokens on one backend. */
typedef struct nb_block_scratch {
  nb_backend *backend;
  nb_buffer *x;            /* residual stream [rows, hidden] */
  nb_buffer *normed;       /* [rows, hidden] */
  nb_buffer *q, *attended; /* [rows, heads * head_dim] */
  nb_buffer *k, *v;        /* [rows, kv_heads * head_dim] */
  nb_buffer *gate, *up;    /* [rows, intermediate] */
  nb_buffer *cos, *sin;    /* [capacity, head_dim / 2] */
} nb_block_scratch;

/* For sequences of at most `capacity` tokens. Free with nb_block_scratch_free, also after a failure. */
nibble_status nb_block_scratch_create(const nb_config *config, nb_backend *backend, int64_t rows, int64_t capacity,
                                      nb_block_scratch *out, nibble_error *err);
void nb_block_scratch_free(nb_block_scratch *scratch);

/* A block's keys and values; free with the backend's kv_free. Reserve before a step what that will have written. */
nibble_status nb_block_cache_create(const nb_config *config, nb_backend *backend, int64_t sequences, int64_t capacity,
                                    nb_kv_cache **out, nibble_error *err);

/* One step of one block: `tokens` new tokens for each of `sequences`, which have `start` tokens in the cache. */
typedef struct nb_block_run {
  const nb_config *config;
  const nb_block *block;
  nb_activation activation;
  const nb_hook *hook; /* NULL: none. A status other than NIBBLE_OK from it ends the part before the layers are run */
  nb_block_scratch *scratch;
  nb_kv_cache *cache;
  int64_t layer, sequences, tokens, start, capacity;
} nb_block_run;

nibble_status nb_block_attend(const nb_block_run *run, nibble_error *err);
nibble_status nb_block_project(const nb_block_run *run, nibble_error *err);
nibble_status nb_block_gate(const nb_block_run *run, nibble_error *err);
nibble_status nb_block_down(const nb_block_run *run, nibble_error *err);

/* Float32 [rows, width] on a backend; NIBBLE_SYSTEM if there is no memory. */
nibble_status nb_make_buffer(nb_backend *backend, int64_t rows, int64_t width, nb_buffer **out, nibble_error *err);

/* Shows `x` to the hook under the name "layers.LAYER.WHAT" (or WHAT alone if layer is negative). */
nibble_status nb_show(const nb_hook *hook, nb_backend *backend, int64_t layer, const char *what, const nb_buffer *x,
                      int64_t rows, int64_t cols, nibble_error *err);

#endif
