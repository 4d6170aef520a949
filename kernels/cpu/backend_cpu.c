#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/parallel.h"
#include "kernels/backend.h"
#include "kernels/gptq.h"
#include "kernels/int8.h"
#include "kernels/matmul.h"
#include "kernels/ops.h"
#include "kernels/q8.h"

struct nb_buffer {
  float *data;
};

struct nb_kv_cache {
  float *k, *v; /* [sequences, kv_heads, capacity, head_dim]; the system gives a page when it is first written */
};

struct nb_matrix {
  nb_packed packed;
  void *repacked; /* what `packed` points to; NULL: the buffers it was created from */
  bool llm_int8, int8_activations;
  float threshold;
};

enum { ROW_BAND = 8, ELEMENT_BAND = 16384, MAX_PRODUCTS = 4 };

/* ---- memory ----------------------------------------------------------------------------------------------------- */

static nibble_status buffer_create(nb_backend *self, uint64_t bytes, nb_buffer **out, nibble_error *err) {
  (void)self;
  nb_buffer *buffer = malloc(sizeof *buffer);
  float *data = nb_alloc_aligned(bytes, 1);
  if (!buffer || !data) {
    free(buffer);
    free(data);
    return nb_fail_memory(err, bytes);
  }
  memset(data, 0, bytes);
  buffer->data = data;
  *out = buffer;
  return NIBBLE_OK;
}

static void buffer_free(nb_backend *self, nb_buffer *buffer) {
  (void)self;
  if (buffer) free(buffer->data);
  free(buffer);
}

static nibble_status upload(nb_backend *self, nb_buffer *buffer, uint64_t offset, const void *src, uint64_t bytes,
                            nibble_error *err) {
  (void)self, (void)err;
  memcpy((char *)buffer->data + offset, src, bytes);
  return NIBBLE_OK;
}

static nibble_status download(nb_backend *self, const nb_buffer *buffer, uint64_t offset, void *dst, uint64_t bytes,
                              nibble_error *err) {
  (void)self, (void)err;
  memcpy(dst, (const char *)buffer->data + offset, bytes);
  return NIBBLE_OK;
}

static const void *view(nb_backend *self, const nb_buffer *buffer) {
  (void)self;
  return buffer->data;
}

static bool rounds(nibble_activations activations, const nb_packed *w) {
  return activations == NIBBLE_ACTIVATIONS_FAST ? nb_q8_pays(w) : activations == NIBBLE_ACTIVATIONS_INT8;
}

static nibble_status matrix_create(nb_backend *self, const nb_packed *packed, const nb_matrix_options *options,
                                   nb_matrix **out, nibble_error *err) {
  (void)self;
  nb_matrix *matrix = malloc(sizeof *matrix);
  if (!matrix) return nb_fail_memory(err, sizeof *matrix);
  *matrix = (nb_matrix){.packed = *packed,
                        .llm_int8 = options->llm_int8 && nb_format_info(packed->format)->llm_int8,
                        .int8_activations = rounds(options->activations, packed),
                        .threshold = options->int8_threshold > 0 ? options->int8_threshold : INFINITY};
  if (!options->as_it_lies && nb_gptq_repackable(packed) &&
      !nb_gptq_repack(packed, &matrix->packed, &matrix->repacked)) {
    free(matrix);
    return nb_fail_memory(err, (uint64_t)nb_packed_bytes(packed));
  }
  *out = matrix;
  return NIBBLE_OK;
}

static void matrix_free(nb_backend *self, nb_matrix *matrix) {
  (void)self;
  if (matrix) free(matrix->repacked);
  free(matrix);
}

static bool matrix_borrows(const nb_matrix *matrix) { return !matrix->repacked; }

static bool matrix_rounds(const nb_matrix *matrix) { return matrix->int8_activations; }

/* ---- arithmetic ------------------------------------------------------------------------------------------------- */

typedef struct embed_job {
  const nb_packed *table;
  const int32_t *ids;
  float *out;
} embed_job;

static void embed_band(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const embed_job *job = ctx;
  const nb_packed *t = job->table;
  nb_dequantize_fn dequantize = nb_format_info(t->format)->dequantize;
  for (int64_t i = begin; i < end; i++) {
    float *out = job->out + i * t->cols;
    if (!t->order) dequantize((nb_tile){t, job->ids[i], 1, 0, t->cols}, out, t->cols);
    for (int64_t c = 0; t->order && c < t->cols; c++)
      dequantize((nb_tile){t, job->ids[i], 1, c, 1}, out + t->order[c], 1);
  }
}

static void embed(nb_backend *self, const nb_matrix *table, const int32_t *ids, int64_t n, nb_buffer *out) {
  (void)self;
  embed_job job = {.table = &table->packed, .ids = ids, .out = out->data};
  nb_parallel(n, ROW_BAND, embed_band, &job);
}

static void norm(nb_backend *self, const nb_buffer *x, const nb_norm *n, int64_t rows, int64_t width, nb_buffer *out) {
  (void)self;
  nb_row_norm norm = {.weight = n->weight->data, .bias = n->bias ? n->bias->data : NULL, .cols = width, .eps = n->eps};
  if (n->centered) {
    nb_layernorm(x->data, &norm, rows, out->data);
  } else {
    nb_rmsnorm(x->data, &norm, rows, out->data);
  }
}

static nb_product product_of(const nb_layer_product *p, const float *x) {
  const nb_packed *w = &p->weight->packed;
  return (nb_product){.w = w,
                      .x = x,
                      .ldx = w->cols,
                      .y = p->y->data,
                      .ldy = w->rows,
                      .bias = p->bias ? p->bias->data : NULL,
                      .accumulate = p->accumulate};
}

/* LLM.int8 looks at one sequence at a time. */
static bool multiply_int8(const nb_layer_product *p, const nb_layer_input *in) {
  nb_product part = product_of(p, in->x->data);
  for (int64_t r = 0; r < in->rows; r += in->group) {
    if (!nb_int8_matmul(&part, nb_min_i64(in->group, in->rows - r), p->weight->threshold)) return false;
    part.x += in->group * part.ldx;
    part.y += in->group * part.ldy;
  }
  return true;
}

/* Products that are multiplied in one way, and go together. */
typedef struct launch {
  nb_product products[MAX_PRODUCTS];
  int count;
  bool int8_activations;
} launch;

static bool flush(launch *l, int64_t rows) {
  int count = l->count;
  l->count = 0;
  if (count == 0) return true;
  if (l->int8_activations) return nb_q8_matmul(l->products, count, rows);
  nb_matmul_many(l->products, count, rows);
  return true;
}

static nibble_status matmul(nb_backend *self, const nb_layer_product *products, int count, const nb_layer_input *in,
                            nibble_error *err) {
  (void)self;
  launch launches[2] = {{.int8_activations = false}, {.int8_activations = true}};
  bool ok = true;
  for (int i = 0; i < count; i++) {
    const nb_layer_product *p = &products[i];
    if (p->weight->llm_int8) {
      if (!multiply_int8(p, in)) return nb_fail_memory(err, (uint64_t)(in->group * p->weight->packed.cols) * 2);
      continue;
    }
    launch *l = &launches[p->weight->int8_activations];
    l->products[l->count++] = product_of(p, in->x->data);
    if (l->count == MAX_PRODUCTS) ok = flush(l, in->rows) && ok;
  }
  for (int i = 0; i < 2; i++) ok = flush(&launches[i], in->rows) && ok;
  return ok ? NIBBLE_OK : nb_fail_memory(err, (uint64_t)(in->rows * products[0].weight->packed.cols) * 2);
}

static void kv_free(nb_backend *self, nb_kv_cache *cache) {
  (void)self;
  if (!cache) return;
  free(cache->k);
  free(cache->v);
  free(cache);
}

static nibble_status kv_create(nb_backend *self, const nb_attention_shape *s, nb_kv_cache **out, nibble_error *err) {
  uint64_t floats = 0;
  nb_kv_cache *cache = nb_alloc(1, sizeof *cache);
  if (!cache) return nb_fail_memory(err, sizeof *cache);
  *cache = (nb_kv_cache){0};
  if (nb_mul_u64((uint64_t)(s->sequences * s->kv_heads), (uint64_t)s->capacity, &floats) &&
      nb_mul_u64(floats, (uint64_t)s->head_dim, &floats)) {
    cache->k = nb_alloc_aligned(floats, sizeof(float));
    cache->v = nb_alloc_aligned(floats, sizeof(float));
  }
  if (!cache->k || !cache->v) {
    kv_free(self, cache);
    return nb_fail_memory(err, floats * 2 * sizeof(float));
  }
  *out = cache;
  return NIBBLE_OK;
}

static nibble_status kv_reserve(nb_backend *self, nb_kv_cache *cache, int64_t sequences, int64_t tokens,
                                nibble_error *err) {
  (void)self, (void)cache, (void)sequences, (void)tokens, (void)err;
  return NIBBLE_OK;
}

typedef struct cache_job {
  const nb_attention_shape *shape;
  const float *k, *v;
  nb_kv_cache *cache;
} cache_job;

static void cache_band(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const cache_job *job = ctx;
  const nb_attention_shape *s = job->shape;
  size_t bytes = (size_t)s->head_dim * sizeof(float);
  for (int64_t r = begin; r < end; r++) {
    int64_t sequence = r / s->tokens, position = s->start + r % s->tokens;
    for (int64_t h = 0; h < s->kv_heads; h++) {
      int64_t from = (r * s->kv_heads + h) * s->head_dim;
      int64_t to = ((sequence * s->kv_heads + h) * s->capacity + position) * s->head_dim;
      memcpy(job->cache->k + to, job->k + from, bytes);
      memcpy(job->cache->v + to, job->v + from, bytes);
    }
  }
}

static void store(nb_backend *self, const nb_attention_shape *s, const nb_rotary_tables *tables, const nb_qkv *qkv,
                  nb_kv_cache *cache) {
  (void)self;
  int64_t rows = s->sequences * s->tokens, dim = s->head_dim, turned = tables ? s->rotary_dim : 0;
  if (turned > 0) {
    int64_t from = s->start * (turned / 2);
    nb_rotation r = {.heads = s->heads, .head_dim = dim, .rotary_dim = turned, .period = s->tokens};
    r.cos = tables->cos->data + from, r.sin = tables->sin->data + from;
    nb_rotary(qkv->q->data, s->heads * dim, rows, &r);
    r.heads = s->kv_heads;
    nb_rotary(qkv->k->data, s->kv_heads * dim, rows, &r);
  }
  cache_job job = {.shape = s, .k = qkv->k->data, .v = qkv->v->data, .cache = cache};
  nb_parallel(rows, ROW_BAND, cache_band, &job);
}

static void attention(nb_backend *self, const nb_attention_shape *s, const nb_buffer *q, const nb_kv_cache *cache,
                      const nb_buffer *bias, nb_buffer *out) {
  (void)self;
  nb_attention a = {.q = q->data,
                    .out = out->data,
                    .q_stride = s->heads * s->head_dim,
                    .out_stride = s->heads * s->head_dim,
                    .k = cache->k,
                    .v = cache->v,
                    .kv_sequence_stride = s->kv_heads * s->capacity * s->head_dim,
                    .kv_token_stride = s->head_dim,
                    .kv_head_stride = s->capacity * s->head_dim,
                    .sequences = s->sequences,
                    .tokens = s->tokens,
                    .past = s->start,
                    .heads = s->heads,
                    .kv_heads = s->kv_heads,
                    .head_dim = s->head_dim,
                    .scale = s->scale,
                    .causal = s->causal,
                    .window = s->window,
                    .keys = s->keys,
                    .bias = bias ? bias->data + s->capacity - 1 : NULL, /* where the key is the query's own */
                    .bias_stride = 2 * s->capacity - 1};
  nb_attention_run(&a);
}

typedef struct gate_job {
  float *gate;
  const float *up;
} gate_job;

static inline float gelu(float v) { return 0.5f * v * (1 + erff(v * (float)M_SQRT1_2)); }
static inline float gelu_tanh(float v) {
  return 0.5f * v * (1 + tanhf((float)(M_2_SQRTPI * M_SQRT1_2) * (v + 0.044715f * v * v * v)));
}
static inline float relu(float v) { return v < 0 ? 0 : v; }
static inline float quick_gelu(float v) { return v / (1 + expf(-1.702f * v)); }

/* Inlined into each band, so that the loops are over one known function. */
static inline void gate_elements(const gate_job *job, int64_t begin, int64_t end, float (*act)(float)) {
  float *gate = job->gate;
  const float *up = job->up;
  for (int64_t i = begin; up && i < end; i++) gate[i] = act(gate[i]) * up[i];
  for (int64_t i = begin; !up && i < end; i++) gate[i] = act(gate[i]);
}

static void gelu_band(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  gate_elements(ctx, begin, end, gelu);
}

static void gelu_tanh_band(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  gate_elements(ctx, begin, end, gelu_tanh);
}

static void relu_band(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  gate_elements(ctx, begin, end, relu);
}

static void quick_gelu_band(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  gate_elements(ctx, begin, end, quick_gelu);
}

static void tanh_band(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  gate_elements(ctx, begin, end, tanhf);
}

static const nb_band_fn gate_bands[NB_ACTIVATIONS] = {
    [NB_ACT_SILU] = NULL, /* nb_silu_mul has vectors for it */
    [NB_ACT_GELU] = gelu_band, [NB_ACT_GELU_TANH] = gelu_tanh_band,
    [NB_ACT_RELU] = relu_band, [NB_ACT_QUICK_GELU] = quick_gelu_band,
    [NB_ACT_TANH] = tanh_band,
};

static void gate(nb_backend *self, nb_activation act, nb_buffer *g, const nb_buffer *up, int64_t count) {
  (void)self;
  gate_job job = {.gate = g->data, .up = up ? up->data : NULL};
  if (act == NB_ACT_SILU) {
    nb_silu_mul(job.gate, job.up, count, job.gate);
  } else {
    nb_parallel(count, ELEMENT_BAND, gate_bands[act], &job);
  }
}

static void add(nb_backend *self, nb_buffer *y, const nb_buffer *x, int64_t count) {
  (void)self;
  nb_add(x->data, count, y->data);
}

static void scale(nb_backend *self, nb_buffer *x, float factor, int64_t count) {
  (void)self;
  nb_scale(factor, count, x->data);
}

typedef struct split_job {
  const nb_columns *columns;
  const float *x;
  float *out;
} split_job;

static void split_band(void *ctx, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const split_job *job = ctx;
  const nb_columns *c = job->columns;
  for (int64_t r = begin; r < end; r++)
    memcpy(job->out + r * c->count, job->x + r * c->width + c->first, (size_t)c->count * sizeof(float));
}

static void split(nb_backend *self, const nb_buffer *x, const nb_columns *columns, nb_buffer *out) {
  (void)self;
  split_job job = {.columns = columns, .x = x->data, .out = out->data};
  nb_parallel(columns->rows, ROW_BAND, split_band, &job);
}

static void gather(nb_backend *self, const nb_buffer *x, const int32_t *rows, int64_t n, int64_t width,
                   nb_buffer *out) {
  (void)self;
  for (int64_t i = 0; i < n; i++)
    memcpy(out->data + i * width, x->data + rows[i] * width, (size_t)width * sizeof(float));
}

static void scatter_add(nb_backend *self, const nb_buffer *x, const nb_scatter *to, nb_buffer *y) {
  (void)self;
  nb_scatter_add(x->data, to->rows, to->weights, to->n, to->width, y->data);
}

static nibble_status log_probs(nb_backend *self, const nb_scored *scored, double *log_prob, int32_t *argmax,
                               nibble_error *err) {
  (void)self, (void)err;
  int64_t vocab = scored->vocab;
  nb_logits logits = {.data = scored->logits->data, .stride = vocab, .rows = scored->n, .vocab = vocab};
  nb_logprob(&logits, scored->targets, log_prob, argmax);
  return NIBBLE_OK;
}

nb_backend *nb_backend_cpu(void) {
  static nb_backend cpu = {
      .name = "cpu",
      .buffer_create = buffer_create,
      .buffer_free = buffer_free,
      .upload = upload,
      .download = download,
      .view = view,
      .matrix_create = matrix_create,
      .matrix_free = matrix_free,
      .matrix_borrows = matrix_borrows,
      .matrix_rounds = matrix_rounds,
      .embed = embed,
      .norm = norm,
      .matmul = matmul,
      .kv_create = kv_create,
      .kv_free = kv_free,
      .kv_reserve = kv_reserve,
      .store = store,
      .attention = attention,
      .gate = gate,
      .add = add,
      .scale = scale,
      .split = split,
      .gather = gather,
      .scatter_add = scatter_add,
      .log_probs = log_probs,
  };
  return &cpu;
}
