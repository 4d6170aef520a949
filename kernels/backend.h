/* What a model is computed on. A backend is one table of coarse operations over opaque buffers of float32; the CPU's is
 * in kernels/cpu/backend_cpu.c, and the runner, which is written against this table, does not know which one it holds.
 * Operations are queued in order on the backend's one stream; what goes wrong on a device surfaces in the next call
 * that returns a status. Activations are row-major [rows, width], a row a token; where several sequences run at once,
 * all have the same number of tokens and the rows of one are adjacent.
 *
 *   embed -> (norm, matmul q k v, rotary, attention, matmul o, norm, matmul gate up, gate, matmul down) a layer
 *   -> gather the rows wanted -> norm -> matmul with the head -> download, or log_probs */
#ifndef NB_KERNELS_BACKEND_H
#define NB_KERNELS_BACKEND_H

#include "base/status.h"
#include "kernels/formats.h"

typedef struct nb_backend nb_backend;
typedef struct nb_buffer nb_buffer;       /* bytes on the device */
typedef struct nb_matrix nb_matrix;       /* a weight on the device, perhaps repacked */
typedef struct nb_kv_cache nb_kv_cache;   /* keys and values of a batch of sequences in one block */
typedef struct nb_recording nb_recording; /* operations that can be queued again */

typedef enum nb_activation {
  NB_ACT_SILU,
  NB_ACT_GELU,      /* exact, by erf */
  NB_ACT_GELU_TANH, /* the tanh approximation */
} nb_activation;

/* One call of attention, or of the rotation before it. Rows are [sequences * tokens]; token t of every sequence stands
 * at position start + t. */
typedef struct nb_attention_shape {
  int64_t sequences, tokens, start;
  int64_t heads, kv_heads, head_dim;
  int64_t capacity; /* tokens that a sequence may grow to */
  int64_t window;   /* a token sees itself and window - 1 before it; 0: all */
  float scale;      /* on the scores */
} nb_attention_shape;

typedef struct nb_matrix_options {
  bool llm_int8;         /* an int8 weight is multiplied as LLM.int8 does (int8.h) */
  bool as_it_lies;       /* a weight is not laid out anew, because others go on reading its buffers */
  bool int8_activations; /* activations are rounded to eight bits for packed weights (q8.h) */
  float int8_threshold;  /* activations from here on are outliers; 0: none are */
} nb_matrix_options;

/* One linear layer's part of a matmul: y [rows, out] = x W^T + bias, plus what y held before if `accumulate`. */
typedef struct nb_layer_product {
  const nb_matrix *weight;
  const nb_buffer *bias; /* NULL: none */
  nb_buffer *y;
  bool accumulate; /* a residual connection */
} nb_layer_product;

struct nb_backend {
  const char *name;

  /* Zeroed memory; NIBBLE_SYSTEM if there is none. */
  nibble_status (*buffer_create)(nb_backend *self, uint64_t bytes, nb_buffer **out, nibble_error *err);
  void (*buffer_free)(nb_backend *self, nb_buffer *buffer); /* NULL is fine */
  nibble_status (*upload)(nb_backend *self, nb_buffer *buffer, uint64_t offset, const void *src, uint64_t bytes,
                          nibble_error *err);
  /* Waits for all queued work. */
  nibble_status (*download)(nb_backend *self, const nb_buffer *buffer, uint64_t offset, void *dst, uint64_t bytes,
                            nibble_error *err);
  /* The bytes of a buffer that is in host memory anyway, so that nobody need copy them. NULL on a device. */
  const void *(*view)(nb_backend *self, const nb_buffer *buffer);

  /* Takes a weight in. Its buffers must outlive the matrix if it borrows them. */
  nibble_status (*matrix_create)(nb_backend *self, const nb_packed *packed, const nb_matrix_options *options,
                                 nb_matrix **out, nibble_error *err);
  void (*matrix_free)(nb_backend *self, nb_matrix *matrix); /* NULL is fine */
  bool (*matrix_borrows)(const nb_matrix *matrix);          /* NULL: none does */

  /* out[i] = row ids[i] of the table [vocab, width]. */
  void (*embed)(nb_backend *self, const nb_matrix *table, const int32_t *ids, int64_t n, nb_buffer *out);

  /* out = x / rms(x) * weight over rows of `width`; out may be x. Zhang and Sennrich 2019, arXiv:1910.07467. */
  void (*norm)(nb_backend *self, const nb_buffer *x, const nb_buffer *weight, int64_t rows, int64_t width, float eps,
               nb_buffer *out);

  /* `count` layers on one input x [rows, in]. `group` rows belong to one sequence: LLM.int8 looks for outlier columns
   * over them. NIBBLE_SYSTEM if there is no memory for its scratch. */
  nibble_status (*matmul)(nb_backend *self, const nb_layer_product *products, int count, const nb_buffer *x,
                          int64_t rows, int64_t group, nibble_error *err);

  /* An empty cache for the shape's sequences, kv_heads, head_dim and capacity; it may take its memory as it grows. */
  nibble_status (*kv_create)(nb_backend *self, const nb_attention_shape *shape, nb_kv_cache **out, nibble_error *err);
  void (*kv_free)(nb_backend *self, nb_kv_cache *cache); /* NULL is fine */
  /* Makes room for `tokens` <= capacity tokens of each of the first `sequences`, which rotary then may write; what is
   * there stays. NIBBLE_SYSTEM if there is no memory: the cache is then as it was. Not between record_begin and
   * record_end, but a recording sees it. */
  nibble_status (*kv_reserve)(nb_backend *self, nb_kv_cache *cache, int64_t sequences, int64_t tokens,
                              nibble_error *err);

  /* Rotates q [rows, heads * head_dim] and k [rows, kv_heads * head_dim] in place, then writes k and v into the cache.
   * cos and sin are [capacity, head_dim / 2]; the halves of a head are rotated against each other. */
  void (*rotary)(nb_backend *self, const nb_attention_shape *shape, const nb_buffer *cos, const nb_buffer *sin,
                 nb_buffer *q, nb_buffer *k, const nb_buffer *v, nb_kv_cache *cache);

  /* out [rows, heads * head_dim] = softmax(q K^T * scale) V over what the cache holds up to each token; causal. */
  void (*attention)(nb_backend *self, const nb_attention_shape *shape, const nb_buffer *q, const nb_kv_cache *cache,
                    nb_buffer *out);

  /* gate = act(gate) * up over `count` floats. */
  void (*gate)(nb_backend *self, nb_activation act, nb_buffer *gate, const nb_buffer *up, int64_t count);

  /* out[i] = row rows[i] of x, rows of `width`. */
  void (*gather)(nb_backend *self, const nb_buffer *x, const int32_t *rows, int64_t n, int64_t width, nb_buffer *out);

  /* log_prob[i] = log softmax(logits[i])[targets[i]] over rows of `vocab`; argmax[i] is where the largest is (NULL: not
   * wanted). Waits for all queued work. */
  nibble_status (*log_probs)(nb_backend *self, const nb_buffer *logits, const int32_t *targets, int64_t n,
                             int64_t vocab, double *log_prob, int32_t *argmax, nibble_error *err);

  /* Recording, for steps that repeat; NULL where a backend gains nothing by it. Operations between record_begin and
   * record_end are kept instead of run; only those that return nothing and matmul may stand there, on shapes that have
   * been run before. replay queues them again, with `start` in place of that of every rotary and attention among them;
   * the buffers and matrices they name must still be there. */
  nibble_status (*record_begin)(nb_backend *self, nibble_error *err);
  nibble_status (*record_end)(nb_backend *self, nb_recording **out, nibble_error *err);
  nibble_status (*replay)(nb_backend *self, nb_recording *recording, int64_t start, nibble_error *err);
  void (*recording_free)(nb_backend *self, nb_recording *recording); /* NULL is fine */
};

/* The one CPU backend of the process; never freed. */
nb_backend *nb_backend_cpu(void);

/* The one CUDA backend of the process, on the first device; never freed. NULL, with the reason in *err
 * (NIBBLE_SYSTEM), if there is no device that it can run on, or the build left it out. */
nb_backend *nb_backend_cuda(nibble_error *err);

/* Bytes of the device's memory that are free. */
uint64_t nb_backend_cuda_free_bytes(void);

#endif
