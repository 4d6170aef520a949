/* What a model is computed on. A backend is one table of coarse operations over opaque buffers of float32; the CPU's is
 * in kernels/cpu/backend_cpu.c, and the runner, which is written against this table, does not know which one it holds.
 * Operations are queued in order on the backend's one stream; what goes wrong on a device surfaces in the next call
 * that returns a status. Activations are row-major [rows, width], a row a token; where several sequences run at once,
 * all have the same number of tokens and the rows of one are adjacent.
 *
 *   a decoder    embed -> (norm, matmul q k v, store, attention, matmul o, norm, matmul gate up, gate, matmul down)
 *                a layer -> gather the rows wanted -> norm -> matmul with the head -> download, or log_probs
 *   an encoder   the same with an attention that is not causal, centered norms, a gate without up
 *   both         the decoder's other attention reads a cache that the encoder's output was stored into once
 *   experts      matmul with the router -> download; for each expert gather its rows -> ... -> scatter_add them back */
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
  NB_ACT_GELU,       /* exact, by erf */
  NB_ACT_GELU_TANH,  /* the tanh approximation */
  NB_ACT_RELU,       /* NaN stays NaN */
  NB_ACT_QUICK_GELU, /* x * sigmoid(1.702 x) */
  NB_ACT_TANH,
  NB_ACTIVATIONS, /* how many there are */
} nb_activation;

/* What a norm does to a row. centered: (x - mean) / sqrt(var + eps) * weight + bias (Ba et al. 2016, arXiv:1607.06450),
 * with bias NULL for none; else x / sqrt(mean(x^2) + eps) * weight (Zhang and Sennrich 2019, arXiv:1910.07467), with
 * bias NULL. */
typedef struct nb_norm {
  const nb_buffer *weight, *bias;
  float eps;
  bool centered;
} nb_norm;

/* One call of attention, or of the store before it. Rows are [sequences * tokens]; token t of every sequence stands at
 * position start + t, which is less than capacity where it is stored, or a bias is looked up by it. */
typedef struct nb_attention_shape {
  int64_t sequences, tokens, start;
  int64_t heads, kv_heads, head_dim;
  int64_t capacity;   /* tokens that a sequence may grow to */
  bool causal;        /* a token sees the keys up to its own */
  int64_t window;     /* if causal: a token sees itself and window - 1 before it; 0: all */
  int64_t keys;       /* if not causal: every token sees keys [0, keys), 1 <= keys <= capacity */
  int64_t rotary_dim; /* dimensions of a head that turn, even, from the first on; 0: none */
  float scale;        /* on the scores */
} nb_attention_shape;

/* Cosines and sines of the angles of every position, [capacity, rotary_dim / 2] each. */
typedef struct nb_rotary_tables {
  const nb_buffer *cos, *sin;
} nb_rotary_tables;

/* Columns [first, first + count) of a matrix [rows, width]. */
typedef struct nb_columns {
  int64_t rows, width;
  int64_t first, count;
} nb_columns;

/* n rows of `width` on their way into a larger matrix: row i goes, times weights[i], to row rows[i]. */
typedef struct nb_scatter {
  const int32_t *rows;  /* [n], in host memory */
  const float *weights; /* [n], in host memory */
  int64_t n, width;
} nb_scatter;

typedef struct nb_matrix_options {
  bool llm_int8;                  /* an int8 weight is multiplied as LLM.int8 does (int8.h) */
  bool as_it_lies;                /* a weight is not laid out anew, because others go on reading its buffers */
  nibble_activations activations; /* with which packed weights are multiplied (q8.h) */
  float int8_threshold;           /* activations from here on are outliers; 0: none are */
} nb_matrix_options;

/* One linear layer's part of a matmul: y [rows, out] = x W^T + bias, plus what y held before if `accumulate`. */
typedef struct nb_layer_product {
  const nb_matrix *weight;
  const nb_buffer *bias; /* NULL: none */
  nb_buffer *y;
  bool accumulate; /* a residual connection */
} nb_layer_product;

/* What the layers of a matmul multiply. */
typedef struct nb_layer_input {
  const nb_buffer *x; /* [rows, in] */
  int64_t rows;
  int64_t group; /* rows that belong to one sequence: LLM.int8 looks for outlier columns over them */
} nb_layer_input;

/* Queries, keys and values of new tokens. */
typedef struct nb_qkv {
  nb_buffer *q;       /* [rows, heads * head_dim] */
  nb_buffer *k;       /* [rows, kv_heads * head_dim] */
  const nb_buffer *v; /* as k */
} nb_qkv;

/* Tokens whose probabilities are asked for. */
typedef struct nb_scored {
  const nb_buffer *logits; /* [n, vocab] */
  const int32_t *targets;  /* [n], in host memory */
  int64_t n, vocab;
} nb_scored;

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
  bool (*matrix_rounds)(const nb_matrix *matrix);           /* the activations that it is multiplied with; NULL: none */

  /* out[i] = row ids[i] of the table [vocab, width]. */
  void (*embed)(nb_backend *self, const nb_matrix *table, const int32_t *ids, int64_t n, nb_buffer *out);

  /* Rows of `width` of x, each by itself; out may be x. */
  void (*norm)(nb_backend *self, const nb_buffer *x, const nb_norm *n, int64_t rows, int64_t width, nb_buffer *out);

  /* `count` layers on one input. NIBBLE_SYSTEM if there is no memory for its scratch. */
  nibble_status (*matmul)(nb_backend *self, const nb_layer_product *products, int count, const nb_layer_input *in,
                          nibble_error *err);

  /* An empty cache for the shape's sequences, kv_heads, head_dim and capacity; it may take its memory as it grows. */
  nibble_status (*kv_create)(nb_backend *self, const nb_attention_shape *shape, nb_kv_cache **out, nibble_error *err);
  void (*kv_free)(nb_backend *self, nb_kv_cache *cache); /* NULL is fine */
  /* Makes room for `tokens` <= capacity tokens of each of the first `sequences`, which store then may write; what is
   * there stays. NIBBLE_SYSTEM if there is no memory: the cache is then as it was. Not between record_begin and
   * record_end, but a recording sees it. */
  nibble_status (*kv_reserve)(nb_backend *self, nb_kv_cache *cache, int64_t sequences, int64_t tokens,
                              nibble_error *err);

  /* Turns the first rotary_dim dimensions of each head of q and of k in place, their halves against each other, then
   * writes k and v into the cache. tables NULL: nothing turns, and q may be NULL. */
  void (*store)(nb_backend *self, const nb_attention_shape *shape, const nb_rotary_tables *tables, const nb_qkv *rows,
                nb_kv_cache *cache);

  /* out [rows, heads * head_dim] = softmax(q K^T * scale + bias) V over the keys of the cache that each token sees.
   * bias [heads, 2 * capacity - 1], or NULL: that of a head depends on how far the key is from the query, and stands at
   * [head][key - query + capacity - 1]. It is uploaded; a device may read it before earlier operations are done. */
  void (*attention)(nb_backend *self, const nb_attention_shape *shape, const nb_buffer *q, const nb_kv_cache *cache,
                    const nb_buffer *bias, nb_buffer *out);

  /* gate = act(gate) * up over `count` floats; up NULL: act(gate). */
  void (*gate)(nb_backend *self, nb_activation act, nb_buffer *gate, const nb_buffer *up, int64_t count);

  /* y += x, and x *= factor, over `count` floats. */
  void (*add)(nb_backend *self, nb_buffer *y, const nb_buffer *x, int64_t count);
  void (*scale)(nb_backend *self, nb_buffer *x, float factor, int64_t count);

  /* out [rows, count] = the columns of x. */
  void (*split)(nb_backend *self, const nb_buffer *x, const nb_columns *columns, nb_buffer *out);

  /* out[i] = row rows[i] of x, rows of `width`. */
  void (*gather)(nb_backend *self, const nb_buffer *x, const int32_t *rows, int64_t n, int64_t width, nb_buffer *out);

  /* y[rows[i]] += weights[i] * row i of x, for one i after the other, so that a row that comes twice has one sum. A
   * device adds all at once where the rows ascend, and only then. */
  void (*scatter_add)(nb_backend *self, const nb_buffer *x, const nb_scatter *to, nb_buffer *y);

  /* log_prob[i] = log softmax(logits[i])[targets[i]] over rows of `vocab`; argmax[i] is where the largest is (NULL: not
   * wanted). Waits for all queued work. */
  nibble_status (*log_probs)(nb_backend *self, const nb_scored *scored, double *log_prob, int32_t *argmax,
                             nibble_error *err);

  /* Recording, for steps that repeat; NULL where a backend gains nothing by it. Operations between record_begin and
   * record_end are kept instead of run; only matmul and those may stand there that return nothing and bring no numbers
   * from the host (embed, gather and scatter_add do), on shapes that have been run before. replay queues them again,
   * with `start` in place of that of every store and attention among them, and `keys` as they were; the buffers and
   * matrices they name must still be there. */
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
